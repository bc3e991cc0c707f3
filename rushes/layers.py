"""The few modules that several methods share."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

from rushes.similarity import INFINITY, fp32, unit


def heads_of(dim: int, width: int = 64) -> int:
    """As many attention heads as divide `dim` into at least `width` numbers each, one at least.

    >>> heads_of(512), heads_of(256), heads_of(24), heads_of(200)
    (8, 4, 1, 2)
    """
    return max(heads for heads in range(1, max(1, dim // width) + 1) if dim % heads == 0)


class TokenWeights(nn.Module):
    """How much each token matters: softmax over the real tokens of a small head on the features it is given.

        w_i = exp h(x_i) / sum_{j real} exp h(x_j)          Wang et al. 2022 (arXiv 2203.07111)

    hidden 0 is one linear layer, 1 puts a ReLU layer of the same width before it (the authors' second architecture).

    >>> import torch
    >>> head = TokenWeights(4)
    >>> weights = head(torch.zeros(1, 3, 4), torch.tensor([[True, True, False]]))
    >>> weights.tolist()
    [[0.5, 0.5, 0.0]]
    """

    def __init__(self, dim: int, hidden: int = 0):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += [nn.Linear(dim, dim), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(dim, 1, bias=False))  # softmax forgets a bias

    def forward(
        self, features: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token"]:
        logits = fp32(self.head(features)[..., 0]).masked_fill(~mask, -INFINITY)
        return logits.softmax(dim=1).masked_fill(~mask, 0)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the activation of OpenAI's CLIP."""

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return x * (1.702 * x).sigmoid()


class AttentionBlock(nn.Module):
    """One pre-norm residual block: tokens attend to real tokens of their row, then pass a feed-forward layer.

    The last layer of either half starts at zero, so that a new block changes nothing until it has learnt something.
    """

    def __init__(self, dim: int, eps: float = 1e-12, expansion: int = 4):
        super().__init__()
        self.heads = heads_of(dim)
        self.norm_attention = nn.LayerNorm(dim, eps=eps)
        self.inputs = nn.Linear(dim, 3 * dim)  # queries, keys, values
        self.attended = nn.Linear(dim, dim)
        self.norm_forward = nn.LayerNorm(dim, eps=eps)
        self.wide = nn.Linear(dim, expansion * dim)
        self.activation = QuickGELU()
        self.narrow = nn.Linear(expansion * dim, dim)
        nn.init.normal_(self.inputs.weight, std=dim**-0.5)
        nn.init.normal_(self.wide.weight, std=(2 * dim) ** -0.5)
        for last in (self.attended, self.narrow):
            nn.init.zeros_(last.weight)
        for layer in (self.inputs, self.attended, self.wide, self.narrow):
            nn.init.zeros_(layer.bias)

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token dim"]:
        batch, token, dim = tokens.shape
        parts = self.inputs(self.norm_attention(tokens)).reshape(batch, token, 3, self.heads, dim // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None, :])
        tokens = tokens + self.attended(found.transpose(1, 2).reshape(batch, token, dim))
        return tokens + self.narrow(self.activation(self.wide(self.norm_forward(tokens))))


class TemporalTransformer(nn.Module):
    """Frames that have seen each other and know their place.

        Z = X + p,    Z <- block(Z), `layers` times,    out = X + Z

    p: a learnt vector for each place, of which there are `positions`. Luo et al. 2021 (arXiv 2104.08860), seqTransf, in
    which blocks and places start as those of CLIP's text tower (`Backbone.text_blocks`); without them the blocks start
    as the identity. Padding is attended by nobody and comes out as zeros.

    >>> import torch
    >>> new = TemporalTransformer(8, layers=2)
    >>> _ = nn.init.zeros_(new.positions)
    >>> new(torch.ones(1, 2, 8), torch.tensor([[True, False]]))[0, :, 0].tolist()  # x + x, and padding
    [2.0, 0.0]
    """

    def __init__(self, dim: int, layers: int = 4, positions: int = 77):
        super().__init__()
        self.positions = nn.Parameter(0.01 * torch.randn(positions, dim))
        self.blocks = nn.ModuleList(AttentionBlock(dim) for _ in range(layers))

    def take(self, weights: dict[str, Tensor] | None) -> None:
        """Start from these weights, of blocks and places; longer tables of places are cut. None changes nothing."""
        if weights is None:
            return
        weights = weights | {"positions": weights["positions"][: len(self.positions)]}
        if len(weights["positions"]) < len(self.positions):
            raise ValueError(
                f"{len(self.positions)} places wanted, the backbone has {len(weights['positions'])}: "
                "configure the method with no more positions"
            )
        self.load_state_dict(weights)

    def forward(
        self, frames: Float[Tensor, "video frame dim"], mask: Bool[Tensor, "video frame"]
    ) -> Float[Tensor, "video frame dim"]:
        count = frames.shape[1]
        if count > len(self.positions):
            raise ValueError(f"{count} frames, but there are {len(self.positions)} places: sample fewer frames")
        frames = frames.masked_fill(~mask[..., None], 0)  # padding may hold anything, also what is no number
        seen = frames + self.positions[:count]
        for block in self.blocks:
            seen = block(seen, mask)
        return (frames + seen).masked_fill(~mask[..., None], 0)


class SlotAggregation(nn.Module):
    """Tokens become `slots` fewer ones: each token chooses its slot softly, each slot is a mean of what chose it.

        Z = block(X)      U_nm = softmax over slots m of (LN(Z) W)_nm      A_nm = U_nm / sum_n' U_n'm      Y = A^T Z

    With one slot, which every token would choose wholly, attention chooses: A_n = softmax over n of <w, LN(Z_n)>.
    HCMI (Jiang et al. 2022, arXiv 2204.03382) says that self-attention merges tokens of close meaning and that a
    feed-forward layer follows; this operator is our reading, no public text states theirs. W starts small and w at
    zero: new slots are nearly, or exactly, the mean of their tokens.

    >>> import torch
    >>> mean = SlotAggregation(8, slots=1)
    >>> found, shares = mean(torch.tensor([[[1.0] * 8, [3.0] * 8, [9.0] * 8]]), torch.tensor([[True, True, False]]))
    >>> found[0, 0, 0].item(), shares[0, :, 0].tolist()
    (2.0, [0.5, 0.5, 0.0])
    """

    def __init__(self, dim: int, slots: int, expansion: int = 4):
        super().__init__()
        self.block = AttentionBlock(dim, eps=1e-5, expansion=expansion)
        self.norm = nn.LayerNorm(dim)
        self.choice = nn.Linear(dim, slots, bias=False)
        if slots > 1:
            nn.init.normal_(self.choice.weight, std=0.02)
        else:
            nn.init.zeros_(self.choice.weight)

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> tuple[Float[Tensor, "batch slot dim"], Float[Tensor, "batch token slot"]]:
        """The slots' vectors, and the share that each token has in each: columns sum to one, padding has none."""
        seen = self.block(tokens.masked_fill(~mask[..., None], 0), mask)
        logits = self.choice(self.norm(seen))
        if logits.shape[2] > 1:
            logits = logits.log_softmax(dim=2)  # ln U: its softmax over tokens is U / sum U, but never 0 / 0
        shares = logits.masked_fill(~mask[..., None], -INFINITY).softmax(dim=1)
        return torch.einsum("bts,btd->bsd", shares, seen), shares


class CrossAttentionPool(nn.Module):
    """Every query pools every set of tokens; a score is the cosine of what it pooled with a target.

        q = LN1(Q)   x = LN1(X)   a_l = softmax over l of <K x_l, q'> / sqrt(d), a head each, q' = W_q q
        o = W_o concat_h( sum_l a_l (W_v x_l) )      r = LN2(o)      O = LN3( r + Dropout(W_l r) )

    Gorti et al. 2022 (arXiv 2203.15086), X-Pool, section 3; one head there, dim / 64 in X-MLNet's code. All linear maps
    have biases and start as the identity. There is no residual from Q.

    `forward` computes O of each pair, dim x dim maps included. `cosines` needs no such map: until LN3's end O is linear
    in the attention weights, except for the layer norms' deviations, which are quadratic forms in them. So a set of
    tokens is put through the maps once, and a pair costs its attention, one dot product a token, and quadratic forms
    in the Gram matrices of the set. With one head and 12 tokens that is 40 times less than mapping every pair.

    >>> import torch
    >>> pool = CrossAttentionPool(4).eval()
    >>> queries, sets, mask = torch.randn(3, 4), torch.randn(2, 5, 4), torch.ones(2, 5).bool()
    >>> direct = torch.einsum("qd,sqd->qs", unit(queries), unit(pool(queries, sets, mask)))
    >>> torch.allclose(pool.cosines(queries, sets, mask), direct, atol=1e-5)
    True
    """

    def __init__(self, dim: int, heads: int = 1, dropout: float = 0.3):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} numbers")
        self.heads, self.dropout = heads, dropout
        self.norm_input, self.norm_pooled, self.norm_output = (nn.LayerNorm(dim) for _ in range(3))
        self.query, self.key, self.value, self.pooled, self.forth = (nn.Linear(dim, dim) for _ in range(5))
        for layer in (self.query, self.key, self.value, self.pooled, self.forth):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        queries: Float[Tensor, "query dim"],
        sets: Float[Tensor, "set token dim"],
        mask: Bool[Tensor, "set token"],
    ) -> Float[Tensor, "set query dim"]:
        tokens = self.norm_input(sets.masked_fill(~mask[..., None], 0))
        shares = self._shares(self.query(self.norm_input(queries)), self.key(tokens), mask)
        return self._mapped(shares, self.value(tokens).unflatten(2, (self.heads, -1)))

    def cosines(
        self,
        queries: Float[Tensor, "query dim"],
        sets: Float[Tensor, "set token dim"],
        mask: Bool[Tensor, "set token"],
        targets: Float[Tensor, "query dim"] | None = None,
        budget_bytes: int = 32 << 20,
    ) -> Float[Tensor, "query set"]:
        """cos(target_q, O_qs) of every query with every set, in fp32; a query is its own target unless one is given.

        Sets are prepared once each, as many at a time as with their pairs hold some `budget_bytes`.
        """
        queries = fp32(queries)
        targets = unit(queries if targets is None else fp32(targets))
        most = max(1, budget_bytes // (6 * queries.shape[1] * queries.element_size()))  # queries made ready at once
        if queries.device.type == "cpu":
            budget_bytes = min(budget_bytes, 32 << 20)  # more misses the caches: 256 MB took twice as long
        parts = zip(queries.split(most), targets.split(most), strict=True)
        return torch.cat([self._cosines(*part, sets, mask, budget_bytes // 2) for part in parts])

    def _cosines(
        self,
        queries: Float[Tensor, "query dim"],
        targets: Float[Tensor, "query dim"],
        sets: Float[Tensor, "set token dim"],
        mask: Bool[Tensor, "set token"],
        budget_bytes: int,
    ) -> Float[Tensor, "query set"]:
        token, dim = sets.shape[1:]
        terms = token * self.heads + 3  # and the constants of `_ways`
        # dropout draws anew for each pair; and with very many tokens quadratic forms cost more than maps
        mapped = (self.training and self.dropout > 0) or 3 * terms**2 > 2 * dim**2
        item = queries.element_size()
        of_set = item * (4 * token * dim if mapped else 2 * token * dim + 5 * terms**2)
        of_pair = item * 6 * (dim if mapped else terms)
        block = max(1, min(len(queries), budget_bytes // 2 // of_pair))
        some = max(1, budget_bytes // (of_set + block * of_pair))
        asked = self.query(self.norm_input(queries))
        ways = None if mapped else self._ways()
        aims = None if ways is None else ways[-1].aims(targets)
        columns = [queries.new_empty(len(queries), 0)]
        for part, real in zip(sets.split(some), mask.split(some), strict=True):
            tokens = self.norm_input(fp32(part).masked_fill(~real[..., None], 0))
            keys, values = self.key(tokens), self.value(tokens).unflatten(2, (self.heads, -1))
            forms = None if ways is None else [way(values) for way in ways]
            rows = [queries.new_empty(0, len(part))]
            for first in range(0, len(queries), block):
                these = slice(first, first + block)
                shares = self._shares(asked[these], keys, real)
                if ways is None or aims is None or forms is None:
                    rows.append(self._through_maps(shares, values, targets[these]))
                    continue
                found, sure = self._by_forms(shares, ways[-1].products(values, aims[:, these]), *forms)
                for place in (~sure.all(dim=0)).nonzero().flatten().tolist():  # rare: what was pooled cancels out
                    one = slice(place, place + 1)
                    exact = self._through_maps(shares[one], values[one], targets[these])
                    repaired = torch.where(sure[:, one], found[:, one], exact)
                    found = torch.cat([found[:, :place], repaired, found[:, place + 1 :]], dim=1)
                rows.append(found)
            columns.append(torch.cat(rows))
        return torch.cat(columns, dim=1)

    def _shares(
        self, asked: Float[Tensor, "query dim"], keys: Float[Tensor, "set token dim"], mask: Bool[Tensor, "set token"]
    ) -> Float[Tensor, "set head token query"]:
        by_head = asked.unflatten(1, (self.heads, -1)).permute(1, 2, 0)
        logits = (
            keys.unflatten(2, (self.heads, -1)).permute(2, 0, 1, 3).flatten(1, 2) @ by_head / by_head.shape[1] ** 0.5
        )
        logits = logits.unflatten(1, mask.shape).transpose(0, 1)
        return logits.masked_fill(~mask[:, None, :, None], -INFINITY).softmax(dim=2)

    def _mapped(
        self, shares: Float[Tensor, "set head token query"], values: Float[Tensor, "set token head width"]
    ) -> Float[Tensor, "set query dim"]:
        """O of each pair, as the formula says it."""
        found = torch.einsum("shlq,slhe->sqhe", shares, values).flatten(2)
        pooled = self.norm_pooled(self.pooled(found))
        return self.norm_output(pooled + drop(self.forth(pooled), self.dropout, self.training))

    def _through_maps(self, shares: Tensor, values: Tensor, targets: Tensor) -> Float[Tensor, "query set"]:
        return torch.einsum("qd,sqd->qs", targets, unit(self._mapped(shares, values)))

    def _ways(self) -> tuple[_Way, _Way, _Way]:
        """From attended values to what the three lengths and the scores are of, D-dimensional each.

        With C the removal of the mean, g and b a norm's weight and bias, s2 and s3 the deviations in LN2 and LN3, and
        u_i the value of token l in head h, attended with weight a_i:

            C o      = sum_i a_i C W_o,h u_i + C b_o                                              s2^2 = |C o|^2 / D
            s2 C y   = C (1 + W_l) g2 (C o) + s2 c,    c = C ((1 + W_l) b2 + b_l)                  s3^2 = |C y|^2 / D
            s2 s3 O  = g3 (s2 C y) + s2 s3 b3

        Each is a linear map of the u_i, and constants that come with the weights 1, s2 and s2 s3.
        """
        first, last = self.norm_pooled, self.norm_output
        outward, start = _centred(self.pooled.weight, dim=0), _centred(self.pooled.bias, dim=0)
        onward, further = first.weight[:, None] * outward, first.weight * start
        onward = _centred(onward + self.forth.weight @ onward, dim=0)
        further = _centred(further + self.forth.weight @ further, dim=0)
        constant = _centred(first.bias + self.forth.weight @ first.bias + self.forth.bias, dim=0)
        return (
            _Way(outward, start[None], self.heads),
            _Way(onward, torch.stack([further, constant]), self.heads),
            _Way(
                last.weight[:, None] * onward,
                torch.stack([last.weight * further, last.weight * constant, last.bias]),
                self.heads,
            ),
        )

    def _by_forms(
        self,
        shares: Float[Tensor, "set head token query"],
        toward: Float[Tensor, "set term query"],
        pooled: Float[Tensor, "set p p"],
        mapped: Float[Tensor, "set m m"],
        output: Float[Tensor, "set term term"],
    ) -> tuple[Float[Tensor, "query set"], Bool[Tensor, "query set"]]:
        """The cosine, from Gram matrices and products with the targets: weights a, 1, s2, s2 s3. And is it sure?"""
        dim = self.query.in_features
        weights = shares.flatten(1, 2)
        weights = torch.cat([weights, torch.ones_like(weights[:, :1])], dim=1)
        square, sure = _quadratic(pooled, weights)
        deviation = (square / dim + self.norm_pooled.eps).sqrt()
        weights = torch.cat([weights, deviation], dim=1)
        square, sure_too = _quadratic(mapped, weights)
        deviation = (square / dim + self.norm_output.eps * deviation**2).sqrt()
        weights = torch.cat([weights, deviation], dim=1)
        square, sure_at_last = _quadratic(output, weights)
        length = square[:, 0].clamp_min(1e-24).sqrt()
        return ((toward * weights).sum(dim=1) / length).T, (sure & sure_too & sure_at_last)[:, 0].T


class _Way:
    """A linear map of a set's values, head by head, with constants beside them; seen through inner products alone.

    So nothing of D numbers is made for any token in any head: the map's own Gram matrix stands between two values.
    """

    def __init__(self, weight: Float[Tensor, "dim dim"], constants: Float[Tensor, "constant dim"], heads: int):
        self.weight, self.constants, self.heads = weight, constants, heads
        self.between = (weight.T @ weight).unflatten(0, (heads, -1))  # head width dim
        self.beside = (weight.T @ constants.T).unflatten(0, (heads, -1))  # head width constant
        self.among = constants @ constants.T

    def __call__(self, values: Float[Tensor, "set token head width"]) -> Float[Tensor, "set term term"]:
        """Gram matrices: tokens of head 0, tokens of head 1, ..., constants."""
        sets, token = values.shape[:2]
        by_head = values.permute(2, 0, 1, 3)  # head set token width
        seen = (by_head.flatten(1, 2) @ self.between).unflatten(1, (sets, token)).unflatten(3, (self.heads, -1))
        seen = seen.permute(1, 3, 0, 2, 4).flatten(2, 3)  # set head' (head token) width
        tokens = (seen @ values.permute(0, 2, 3, 1)).transpose(1, 2).flatten(2, 3)  # set (head token) (head' token')
        cross = torch.einsum("hstw,hwc->shtc", by_head, self.beside).flatten(1, 2)
        corner = self.among.expand(sets, -1, -1)
        return torch.cat([torch.cat([tokens, cross], dim=2), torch.cat([cross.mT, corner], dim=2)], dim=1)

    def aims(self, targets: Float[Tensor, "query dim"]) -> Float[Tensor, "further query"]:
        """Targets as `products` takes them: against values, then against the constants."""
        return torch.cat([self.weight.T, self.constants]) @ targets.T

    def products(
        self, values: Float[Tensor, "set token head width"], aims: Float[Tensor, "further query"]
    ) -> Float[Tensor, "set term query"]:
        """What is mapped, against targets; in the order of the Gram matrices."""
        dim = len(self.weight)
        by_head = values.permute(2, 0, 1, 3).flatten(1, 2)
        found = (by_head @ aims[:dim].unflatten(0, (self.heads, -1))).unflatten(1, values.shape[:2])
        return torch.cat([found.transpose(0, 1).flatten(1, 2), aims[dim:].expand(len(values), -1, -1)], dim=1)


def _centred(tensor: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape"]:
    return tensor - tensor.mean(dim=dim, keepdim=True)


def _quadratic(
    form: Float[Tensor, "set term term"], weights: Float[Tensor, "set term query"]
) -> tuple[Float[Tensor, "set 1 query"], Bool[Tensor, "set 1 query"]]:
    """w^T F w for each query, of a Gram matrix and weights that are not negative; and whether digits enough are left.

    The vectors that F is of may cancel out. Below a thousandth of what they would be side by side, rounding is felt in
    the fourth digit; n vectors at right angles and of equal weight are at 1/n.
    """
    square = ((form @ weights) * weights).sum(dim=1, keepdim=True).clamp_min(0)
    lengths = form.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()[:, None]
    return square, square > 1e-3 * (lengths @ weights).square()
