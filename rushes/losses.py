"""Losses for retrieval: pure functions of score matrices."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from rushes.similarity import INFINITY, fp32, unit


def scale_of(log_scale: nn.Parameter, most: float = 100.0) -> Float[Tensor, ""]:
    """The learnt inverse temperature k = exp(log_scale), at most `most`.

    The parameter itself is set back to ln `most` when a step took it beyond, as CLIP and its descendants do: it is the
    one argument of this module that a function changes. Clamping the value instead would stop its gradient, and for
    ever: ln 100 in fp32 gives 100.00001, so a start at 100 would never move.

    >>> parameter = nn.Parameter(torch.tensor(9.0))
    >>> round(scale_of(parameter).item(), 3), round(parameter.item(), 3)
    (100.0, 4.605)
    """
    bound = torch.tensor(math.log(most), dtype=torch.float32).item()  # a float64 copy of an fp32 model keeps its value
    with torch.no_grad():
        log_scale.clamp_(max=bound)
    return log_scale.exp()


def info_nce(
    scores: Float[Tensor, "text video"],
    positives: Bool[Tensor, "text video"] | None = None,
    scale: float | Float[Tensor, ""] = 1.0,
    *,
    several: Literal["joint", "uniform", "each"] = "joint",
    positives_of_video: Bool[Tensor, "text video"] | None = None,
    excluded: tuple[Bool[Tensor, "text video"], Bool[Tensor, "text video"]] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss in which a row may have several positives, and some negatives may be left out.

        L = 1/2 [ mean_t -log( sum_{v in P(t)} e^{k s_tv} / sum_{v not in X(t)} e^{k s_tv} )  +  the same over columns ]

    With one positive each (the diagonal, the default) and nothing left out this is the usual InfoNCE (van den Oord et
    al. 2018). Rows and columns without a positive are left out of their mean; a matrix without any is an error.

    several   what a row does with several positives: they share one numerator, as above ("joint"); the mean of each
              one's -log softmax, all of them in the denominator ("uniform": cross-entropy with equal targets); the same
              with the other positives left out of the denominator ("each").
    positives_of_video    those of the columns, where they are not the same relation
    excluded  what is in no denominator, of texts and of videos: probable false negatives. A positive stays.

    >>> info_nce(torch.zeros(4, 4))  # no preference: log 4
    tensor(1.3863)
    >>> info_nce(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))  # everything is right
    tensor(0.)
    >>> out = torch.ones(4, 4, dtype=torch.bool)
    >>> info_nce(torch.zeros(4, 4), excluded=(out, out))  # nothing to tell it from
    tensor(0.)
    """
    logits = fp32(scores) * scale
    positives = _known(logits, positives)
    back = positives if positives_of_video is None else _known(logits, positives_of_video)
    of_text, of_video = (None, None) if excluded is None else (excluded[0], excluded[1].T)
    return (one_way(logits, positives, several, of_text) + one_way(logits.T, back.T, several, of_video)) / 2


def _known(logits: Float[Tensor, "text video"], positives: Tensor | None) -> Bool[Tensor, "text video"]:
    if positives is None:
        if logits.shape[0] != logits.shape[1]:
            raise ValueError(f"{tuple(logits.shape)} scores have no diagonal of positives; pass `positives`")
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if not bool(positives.any()):
        raise ValueError(f"no positive among {tuple(logits.shape)} pairs; the loss would be infinite")
    return positives


def one_way(
    logits: Float[Tensor, "row column"],
    positives: Bool[Tensor, "row column"],
    several: Literal["joint", "uniform", "each"] = "joint",
    excluded: Bool[Tensor, "row column"] | None = None,
    extra: Float[Tensor, "row further"] | None = None,
) -> Float[Tensor, ""]:
    """The half of `info_nce` that rows have, on logits that are scaled already; `extra` holds logits of more negatives.

    >>> one_way(torch.zeros(2, 2), torch.eye(2).bool(), extra=torch.tensor([[0.0, -math.inf], [0.0, 0.0]]))  # of 3, 4
    tensor(1.2425)
    """
    rows = positives.any(dim=1)
    logits, positives = logits[rows], positives[rows]
    negatives = logits.masked_fill(positives if excluded is None else positives | excluded[rows], -INFINITY)
    if extra is not None:
        negatives = torch.cat([negatives, extra[rows]], dim=1)
    right = logits.masked_fill(~positives, -INFINITY)
    if several == "joint":
        return (torch.cat([negatives, right], dim=1).logsumexp(dim=1) - right.logsumexp(dim=1)).mean()
    if several == "uniform":
        against = torch.cat([negatives, right], dim=1).logsumexp(dim=1, keepdim=True)
        worth = against - logits
    else:
        alone = (negatives == -INFINITY).all(dim=1, keepdim=True)  # log 0, whose gradient must not be asked for
        against = negatives.masked_fill(alone, 0).logsumexp(dim=1, keepdim=True)
        worth = softplus(against - logits).masked_fill(alone, 0)
    return (worth.masked_fill(~positives, 0).sum(dim=1) / positives.sum(dim=1)).mean()


def neg_nce(
    scores: Float[Tensor, "text video"],
    positives: Bool[Tensor, "text video"] | None = None,
    scale: float | Float[Tensor, ""] = 100.0,
    *,
    weight: float = 0.5,
    margin: float = 0.0,
    clamped: bool = False,
) -> Float[Tensor, ""]:
    """InfoNCE with a second term for the negatives that score above a positive of their row or column.

        P = row softmax of k S       H = { negative (i, j) : margin + s_ij > s_ip or > s_pj for a positive p }
        l(S) = mean_i -log sum_{p in P(i)} P_ip  +  weight * mean_{(i,j) in H} -log(1 - P_ij)
        L    = 1/2 [ l(S) + l(S^T) ]

    DMAE (Jiang et al. 2023, arXiv 2309.11082), NegNCE, as the authors' code has it: H is the same in both directions,
    is found anew at every step, and weighs as much with one pair as with many. Computed from log-probabilities; the
    authors clamp P to [1e-6, 1 - 1e-6] (`clamped`), which takes the gradient from every positive that trails by more
    than ln(1e6) / k, 0.138 at k = 100: the hardest ones. A row of one column has nothing to tell it from, and no
    second term.

    >>> neg_nce(torch.eye(4), scale=1.0).isclose(info_nce(torch.eye(4)))  # nothing scores above a positive
    tensor(True)
    >>> neg_nce(torch.tensor([[0.0, 1.0], [0.0, 2.0]]), scale=math.log(3))  # H = (0, 1): 3/4 of a row, 1/4 of a column
    tensor(1.0366)
    """
    logits = fp32(scores) * scale
    positives = _known(logits, positives)
    # a row without a positive has nothing to be above
    least_of_row = scores.masked_fill(~positives, INFINITY).amin(dim=1, keepdim=True)
    least_of_column = scores.masked_fill(~positives, INFINITY).amin(dim=0, keepdim=True)
    above = ((margin + scores > least_of_row) | (margin + scores > least_of_column)) & ~positives
    by_text = _with_violators(logits, positives, above, weight, clamped)
    return (by_text + _with_violators(logits.T, positives.T, above.T, weight, clamped)) / 2


def _with_violators(
    logits: Float[Tensor, "row column"],
    positives: Bool[Tensor, "row column"],
    above: Bool[Tensor, "row column"],
    weight: float,
    clamped: bool,
) -> Float[Tensor, ""]:
    if clamped:
        share = logits.softmax(dim=1)
        rows = positives.any(dim=1)
        right = (share * positives).sum(dim=1)[rows].clamp(1e-6, 1 - 1e-6)
        attract = -right.log().mean()
        wrong = share[above].clamp(1e-6, 1 - 1e-6)
        repel = -torch.log(1 - wrong)
    elif logits.shape[1] == 1:  # nothing to tell the only one from
        return one_way(logits, positives)
    else:
        attract = one_way(logits, positives)
        # -log(1 - P): the largest P of a row may round to 1, so it takes 1 - P from the others; the rest are below 1/2
        first = torch.zeros_like(positives).scatter(1, logits.argmax(dim=1, keepdim=True), True)
        others = logits.masked_fill(first, -INFINITY).logsumexp(dim=1, keepdim=True)
        share = logits.log_softmax(dim=1).masked_fill(first, -INFINITY).exp()
        repel = torch.where(first, softplus(logits - others), -torch.log1p(-share))[above]
    return attract + weight * repel.mean() if len(repel) else attract


def hardest_negative_triplet(
    scores: Float[Tensor, "text video"],
    positives: Bool[Tensor, "text video"] | None = None,
    margin: float = 0.1,
    ignored: Bool[Tensor, "text video"] | None = None,
) -> Float[Tensor, ""]:
    """Every positive beats the hardest negative of its row, and of its column, by a margin.

        L = 1/2 mean over positives (t, v) of
            [ max(0, max_{v' not in P(t)} s_tv' - s_tv + margin) + max(0, max_{t' not in P(v)} s_t'v - s_tv + margin) ]

    HCMI (Jiang et al. 2022, arXiv 2204.03382), marginal sample enhancement, at the level of video and sentence. What is
    `ignored`, probable positives, is never taken for a negative; where no negative is left the term is 0.

    >>> hardest_negative_triplet(torch.tensor([[0.5, 0.45], [0.1, 0.5]]))  # one pair is short of it, by 0.05, both ways
    tensor(0.0250)
    """
    scores = fp32(scores)
    positives = _known(scores, positives)
    taken = positives if ignored is None else positives | ignored
    negatives = scores.masked_fill(taken, -INFINITY)
    of_text = (negatives.amax(dim=1, keepdim=True) - scores + margin).clamp_min(0)
    of_video = (negatives.amax(dim=0, keepdim=True) - scores + margin).clamp_min(0)
    return ((of_text + of_video) / 2)[positives].mean()


def partial_order(whole: Float[Tensor, "pair"], part: Float[Tensor, "pair"], margin: float = 0.1) -> Float[Tensor, ""]:
    """A whole matches better than what is left of it: mean over matched pairs of max(0, margin - (whole - part)).

    DMAE (Jiang et al. 2023, arXiv 2309.11082), triplet partial margin, one of its triplets.

    >>> partial_order(torch.tensor([0.5, 0.5]), torch.tensor([0.3, 0.45]), margin=0.1)  # kept, and 0.05 short
    tensor(0.0250)
    """
    return (margin - (fp32(whole) - fp32(part))).clamp_min(0).mean()


@torch.no_grad()
def connectivity(
    vectors: Float[Tensor, "item dim"], *, softmax: bool = False, itself: bool = False
) -> Float[Tensor, "item"]:
    """How alike an item of a batch is to the others: c_i = mean over j != i of cos(x_i, x_j).

    CrossCLR (Zolfaghari et al. 2021, arXiv 2109.14910): what is close to many is probably no negative of some of them.
    `softmax` weighs the others by the softmax of their cosines, w_ij, then c_i = 1/n sum_j w_ij cos(x_i, x_j);
    `itself` counts j = i too, as X-MLNet's code does in both. An item alone in its batch has connectivity 0.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> connectivity(x), connectivity(x, itself=True)
    (tensor([0.5000, 0.5000, 0.0000]), tensor([0.6667, 0.6667, 0.3333]))
    """
    x = unit(fp32(vectors))
    alike = x @ x.T
    count = len(x)
    others = (
        torch.ones_like(alike, dtype=torch.bool) if itself else ~torch.eye(count, dtype=torch.bool, device=x.device)
    )
    share = alike.masked_fill(~others, -INFINITY).softmax(dim=1) if softmax else torch.ones_like(alike)
    return (alike * share).masked_fill(~others, 0).sum(dim=1) / max(1, count if itself else count - 1)


@torch.no_grad()
def influential(
    connectivity: Float[Tensor, "item"],
    *,
    ratio: float | None = None,
    share: float | None = None,
    most: float = 1.0,
) -> Bool[Tensor, "item"]:
    """Items so connected that they are probable false negatives of others; the most connected first.

    ratio  those with c_i >= ratio * max_j c_j, as in X-MLNet's code: the most connected item is always one, unless
           nobody is connected (no c above 0)
    share  this share of the items, rounded down; give one of the two
    most   never more than this share of them: with features that point alike `ratio` would take all

    >>> c = torch.tensor([0.5, 0.1, 0.4, 0.2])
    >>> influential(c, ratio=0.7).tolist(), influential(c, share=0.25).tolist()
    ([True, False, True, False], [True, False, False, False])
    >>> influential(c, ratio=0.1, most=0.5).tolist()
    [True, False, True, False]
    """
    if (ratio is None) == (share is None):
        raise ValueError(f"give either ratio or share, not ratio={ratio} and share={share}")
    count = len(connectivity)
    if ratio is not None:
        top = connectivity.max()
        wanted = int(((connectivity / top >= ratio) & (top > 0)).sum())
    else:
        wanted = int(count * share + 1e-9)  # type: ignore[operator]  # one of the two is given
    wanted = min(wanted, int(count * most + 1e-9))
    chosen = torch.zeros_like(connectivity, dtype=torch.bool)
    chosen[connectivity.argsort(descending=True, stable=True)[:wanted]] = True
    return chosen


@torch.no_grad()
def potential_positives(
    first: Float[Tensor, "video dim"], second: Float[Tensor, "video dim"]
) -> Bool[Tensor, "video video"]:
    """Pairs of different videos that are as alike as two random views of one of them.

        (i, j), i != j:      1/4 sum_{k, l in {1, 2}} cos(v_i^k, v_j^l)  >=  cos(v_i^1, v_i^2)

    HCMI (Jiang et al. 2022, arXiv 2204.03382), adaptive label denoising: the threshold is row i's own, so the relation
    is not symmetric. Equal cosines may differ by fp32 rounding, so 1e-6 less than the threshold is enough.

    >>> one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> potential_positives(one, one).tolist()  # equal views: exact duplicates alone
    [[False, True, False], [True, False, False], [False, False, False]]
    """
    a, b = unit(fp32(first)), unit(fp32(second))
    with torch.autocast(a.device.type, enabled=False):  # bf16 cosines near 1 are 0.004 apart: thresholds are closer
        alike = (a @ a.T + a @ b.T + b @ a.T + b @ b.T) / 4
        threshold = (a @ b.T).diagonal()[:, None]
    itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
    return (alike >= threshold - 1e-6) & ~itself
