"""Cross-attention pooling equals plain loops, and its short way to a cosine equals the long one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rushes.layers import CrossAttentionPool
from rushes.similarity import unit
from tests.methods import naive
from tests.methods.test_naive import Drawn, arrays, same, shaken, state

SEEDS = st.integers(0, 10**6)
BUDGETS = st.sampled_from([1, 3000, 20_000, 100_000, 1 << 30])


def pool(dim: int, heads: int, seed: int = 0, by: float = 0.3) -> CrossAttentionPool:
    """Maps, biases and norms all moved away from the identity, in float64."""
    torch.manual_seed(seed)
    return shaken(CrossAttentionPool(dim, heads), by)  # type: ignore[return-value]


def long_way(layer: CrossAttentionPool, queries: Tensor, sets: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
    return torch.einsum("qd,sqd->qs", unit(targets), unit(layer(queries, sets, mask)))


@pytest.fixture
def ways(monkeypatch) -> list[str]:
    """Which of the two ways `cosines` went, each time."""
    went = []
    for name in ("_mapped", "_by_forms"):
        original = getattr(CrossAttentionPool, name)

        def spied(self, *given_, name=name, original=original):
            went.append(name)
            return original(self, *given_)

        monkeypatch.setattr(CrossAttentionPool, name, spied)
    return went


@given(SEEDS, st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_pooled_vectors(seed, sizes, heads):
    queries, sets, tokens = sizes
    drawn, layer = Drawn(seed, (sets, tokens, 1, 1), dim=8), pool(8, heads, seed)
    asking = drawn.normal(queries, 8)
    wanted = naive.cross_attention_pool(*arrays(asking, drawn.text, drawn.word_mask), state(layer), heads)
    same(layer(asking, drawn.text, drawn.word_mask), wanted, within=1e-9)


def test_pooled_vectors_ignore_even_nan_in_padding():
    drawn, layer = Drawn(0, dim=8), pool(8, 2)
    asking, mask = drawn.normal(3, 8), drawn.frame_mask
    nothing = drawn.video.masked_fill(~mask[..., None], float("nan"))
    assert torch.equal(layer(asking, nothing, mask), layer(asking, drawn.video, mask))
    assert torch.equal(layer.cosines(asking, nothing, mask), layer.cosines(asking, drawn.video, mask))


@given(SEEDS, st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([1, 2, 4]), BUDGETS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_cosines_are_the_long_way(seed, sizes, heads, budget, own_targets):
    queries, sets, tokens = sizes
    drawn, layer = Drawn(seed, (sets, tokens, 1, 1), dim=32), pool(32, heads, seed, by=0.2)
    asking, targets = drawn.normal(queries, 32), drawn.normal(queries, 32)
    found = layer.cosines(asking, drawn.text, drawn.word_mask, None if own_targets else targets, budget)
    wanted = long_way(layer, asking, drawn.text, drawn.word_mask, asking if own_targets else targets)
    same(found, wanted.detach(), within=1e-9)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("budget", [1, 20_000, 1 << 30])
@pytest.mark.parametrize(("dim", "tokens", "way"), [(64, 6, "_by_forms"), (8, 6, "_mapped")])
def test_both_ways_are_the_long_one(ways, heads, budget, dim, tokens, way):
    """The quadratic forms where they are small; the maps where a set has more terms than a vector has numbers."""
    if heads == 1 and way == "_mapped":
        tokens = 9
    drawn, layer = Drawn(heads, (5, tokens, 1, 1), dim=dim), pool(dim, heads, by=0.2)
    asking, targets = drawn.normal(7, dim), drawn.normal(7, dim)
    found = layer.cosines(asking, drawn.text, drawn.word_mask, targets, budget)
    assert set(ways) == {way}
    assert len(ways) == {1: 35, 20_000: len(ways), 1 << 30: 1}[budget]  # a pair at a time, some, all at once
    same(found, long_way(layer, asking, drawn.text, drawn.word_mask, targets).detach(), within=1e-9)


def test_dropout_is_that_of_the_maps(ways):
    """In training every pair draws its own; at rate zero there is nothing to draw, and forms serve."""
    drawn, layer = Drawn(1, dim=64), pool(64, 2, by=0.2).train()
    asking = drawn.normal(5, 64)
    torch.manual_seed(7)
    found = layer.cosines(asking, drawn.video, drawn.frame_mask, budget_bytes=1 << 30)
    assert ways == ["_mapped"]
    torch.manual_seed(7)
    wanted = long_way(layer, asking, drawn.video, drawn.frame_mask, asking)
    same(found, wanted.detach(), within=1e-9)
    assert (layer.eval().cosines(asking, drawn.video, drawn.frame_mask) - wanted).abs().max() > 1e-3
    ways.clear()
    layer.train().dropout = 0.0
    layer.cosines(asking, drawn.video, drawn.frame_mask)
    assert ways == ["_by_forms"]


@pytest.mark.parametrize(("dim", "way"), [(12, "_by_forms"), (4, "_mapped")])
@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_of_cosines_are_those_of_the_numbers(ways, dim, way, heads):
    """By queries, sets, targets and every weight, in blocks of a few pairs."""
    drawn, layer = Drawn(2, (2, 3, 1, 1), dim=dim), pool(dim, heads, by=0.2)
    drawn.text[~drawn.word_mask] = 2.0
    if way == "_mapped":
        drawn.text = drawn.text.repeat(1, 3, 1)
        drawn.word_mask = drawn.word_mask.repeat(1, 3)
    names = [name for name, _ in layer.named_parameters()]

    def cosines(queries, sets, targets, *weights):
        given_ = (queries, sets, drawn.word_mask, targets, 500)
        return torch.func.functional_call(
            _Cosines(layer), {f"layer.{n}": w for n, w in zip(names, weights, strict=True)}, given_
        )

    leaves = [drawn.normal(3, dim), drawn.text, drawn.normal(3, dim), *layer.parameters()]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(cosines, leaves, fast_mode=True)
    assert set(ways) == {way}


class _Cosines(torch.nn.Module):
    """`cosines` in the place of `forward`, so that it can be called with other weights."""

    def __init__(self, layer: CrossAttentionPool):
        super().__init__()
        self.layer = layer

    def forward(self, *given_):
        return self.layer.cosines(*given_)


@pytest.mark.parametrize("heads", [1, 4])
def test_gradients_through_blocks_are_those_of_the_long_way(heads):
    drawn, layer = Drawn(3, dim=64), pool(64, heads, by=0.2)
    asking, share = drawn.normal(4, 64), drawn.normal(4, 3)
    gradients = []
    for budget in (None, 1, 20_000, 1 << 30):
        layer.zero_grad()
        leaves = [asking.clone().requires_grad_(), drawn.video.clone().requires_grad_()]
        if budget is None:
            scores = long_way(layer, *leaves, drawn.frame_mask, leaves[0])
        else:
            scores = layer.cosines(*leaves, drawn.frame_mask, budget_bytes=budget)
        (scores * share).sum().backward()
        gradients.append([leaf.grad for leaf in (*leaves, *layer.parameters())])
        assert not bool(leaves[1].grad[~drawn.frame_mask].any())
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=0, atol=1e-9)


# --- fp32: what the quadratic forms lose -----------------------------------------------------------------------------

DIM = 128


def attending_equally(layer: CrossAttentionPool) -> None:
    with torch.no_grad():
        layer.query.weight.zero_()
        layer.query.bias.zero_()


def lost(layer: CrossAttentionPool, queries: Tensor, sets: Tensor, mask: Tensor) -> tuple[float, float]:
    """How far fp32 is from float64 by the short way, and by the long way."""
    single = CrossAttentionPool(DIM, layer.heads).eval()
    single.load_state_dict(layer.state_dict())
    layer.load_state_dict(single.state_dict())  # rounded
    queries, sets = queries.float(), sets.float()
    with torch.no_grad():
        wanted = long_way(layer, queries.double(), sets.double(), mask, queries.double())
        short, long = single.cosines(queries, sets, mask), long_way(single, queries, sets, mask, queries)
    assert short.dtype == torch.float32
    return float((short - wanted).abs().max()), float((long - wanted).abs().max())


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("by", [0.0, 0.05, 0.3])
@pytest.mark.parametrize(
    "tokens", ["random", "nearly identical", "one", "identical", "with a common direction", "zero"]
)
def test_single_precision_is_enough(heads, by, tokens):
    drawn, layer = Drawn(heads, (6, 8, 1, 1), dim=DIM), pool(DIM, heads, by=by)
    sets, mask, queries = drawn.normal(6, 8, DIM), drawn.word_mask, drawn.normal(9, DIM)
    if tokens == "nearly identical":
        sets = sets[:, :1] + 1e-4 * sets
    elif tokens == "identical":
        sets = sets[:, :1].expand(-1, 8, -1)
    elif tokens == "one":
        mask = torch.arange(8) == torch.arange(6)[:, None]
    elif tokens == "with a common direction":
        sets, queries = sets + 5 * drawn.normal(DIM), queries + 5 * drawn.normal(DIM)
    elif tokens == "zero":
        sets = torch.zeros_like(sets)
    assert max(lost(layer, queries, sets, mask)) < 1e-5


@pytest.mark.parametrize("scale", [30.0, 1000.0])
@pytest.mark.parametrize("name", ["value", "pooled", "forth"])
def test_single_precision_is_enough_for_large_weights(name, scale):
    drawn, layer = Drawn(0, (6, 8, 1, 1), dim=DIM), pool(DIM, 2, by=0.05)
    with torch.no_grad():
        getattr(layer, name).weight.mul_(scale)
    assert max(lost(layer, drawn.normal(9, DIM), drawn.normal(6, 8, DIM), drawn.word_mask)) < 1e-5


def opposed(rest: float) -> tuple[float, float]:
    """Tokens that come in opposed pairs, equally attended, so that of their sum only `rest` of a token is left."""
    drawn, layer = Drawn(0, dim=DIM), pool(DIM, 1, by=0.0)
    attending_equally(layer)
    sets = drawn.normal(20, 8, DIM)
    sets[:, 1::2] = -sets[:, ::2]
    sets = sets + rest * drawn.normal(20, 8, DIM)
    return lost(layer, drawn.normal(9, DIM), sets, torch.ones(20, 8, dtype=torch.bool))


@pytest.mark.parametrize("rest", [0.1, 0.01, 1e-3, 1e-4, 0.0])
def test_what_cancels_in_attention_goes_through_the_maps(rest):
    """A pooled vector thousands of times shorter than its parts: squares would lose all digits, the long way some."""
    short, long = opposed(rest)
    assert short < max(1e-4, 1.1 * long)
