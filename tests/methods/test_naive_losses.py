"""Losses equal plain loops over pairs, and their gradients are those of finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rushes.losses import (
    connectivity,
    hardest_negative_triplet,
    influential,
    info_nce,
    neg_nce,
    one_way,
    partial_order,
    potential_positives,
)
from tests.methods import naive

SEEDS = st.integers(0, 10**6)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))
SEVERAL = ["joint", "uniform", "each"]


class Drawn:
    """Scores of unequal numbers of texts and videos, with relations between them; some rows have no positive."""

    def __init__(self, seed: int, shape: tuple[int, int] = (5, 4)):
        self.draw, self.shape = torch.Generator().manual_seed(seed), shape
        self.scores = torch.randn(*shape, generator=self.draw, dtype=torch.float64)
        self.positives, self.back = self.relation(0.3), self.relation(0.3)
        for relation in (self.positives, self.back):
            relation[seed % shape[0], seed % shape[1]] = True

    def relation(self, share: float) -> Tensor:
        return torch.rand(*self.shape, generator=self.draw) < share


def same(found: Tensor, wanted: float, within: float = 1e-8) -> None:
    assert found.shape == ()
    assert math.isclose(float(found), wanted, rel_tol=0, abs_tol=within)


@given(SEEDS, SHAPES, st.sampled_from(SEVERAL), st.sampled_from([0.5, 1.0, 7.0]), *[st.booleans()] * 2)
@settings(max_examples=100, deadline=None)
def test_info_nce(seed, shape, several, scale, other_columns, leave_out):
    drawn = Drawn(seed, shape)
    back = drawn.back if other_columns else None
    excluded = (drawn.relation(0.4), drawn.relation(0.4)) if leave_out else None
    found = info_nce(drawn.scores, drawn.positives, scale, several=several, positives_of_video=back, excluded=excluded)
    of_columns = None if back is None else back.numpy()
    left_out = excluded and tuple(mask.numpy() for mask in excluded)
    same(found, naive.info_nce(drawn.scores.numpy(), drawn.positives.numpy(), scale, several, of_columns, left_out))


@given(SEEDS, SHAPES, st.sampled_from(SEVERAL), st.booleans())
@settings(max_examples=60, deadline=None)
def test_one_way_with_more_negatives(seed, shape, several, leave_out):
    """Of which any may be -inf."""
    drawn = Drawn(seed, shape)
    extra = torch.randn(shape[0], 3, generator=drawn.draw, dtype=torch.float64)
    extra[torch.rand(extra.shape, generator=drawn.draw) < 0.5] = -math.inf
    excluded = drawn.relation(0.4) if leave_out else None
    found = one_way(drawn.scores, drawn.positives, several, excluded, extra)
    left_out = None if excluded is None else excluded.numpy()
    same(found, naive.row_loss(drawn.scores.numpy(), drawn.positives.numpy(), several, left_out, extra.numpy()))


@given(SEEDS, SHAPES, st.sampled_from([1.0, 5.0]), st.sampled_from([0.0, 0.3]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_neg_nce(seed, shape, scale, margin, clamped):
    drawn = Drawn(seed, (shape[0] + 1, shape[1] + 1))
    arguments = {"scale": scale, "weight": 0.7, "margin": margin, "clamped": clamped}
    found = neg_nce(drawn.scores, drawn.positives, **arguments)
    same(found, naive.neg_nce(drawn.scores.numpy(), drawn.positives.numpy(), **arguments), within=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neg_nce_pushes_the_hardest_negative_as_the_formula_says(dtype):
    """A negative that is 0.5 above at k = 100: -log(1 - P) is 50 and has a gradient; the authors' clamp ends at 14."""
    scores = torch.tensor([[0.0, 0.5], [-0.5, 0.0]], dtype=dtype, requires_grad=True)
    found = neg_nce(scores, scale=100.0, weight=0.5)
    found.backward()
    assert found.item() == pytest.approx(50 / 2 + 50 / 2)  # the mean of two rows, one at 0; half of the one violator
    assert scores.grad is not None
    assert scores.grad[0, 1].item() == pytest.approx(100 / 2 + 100 / 2)
    clamped = neg_nce(scores.detach(), scale=100.0, weight=0.5, clamped=True)
    assert clamped.item() == pytest.approx((math.log(1e6) - math.log1p(-1e-6)) / 2 + math.log(1e6) / 2, rel=1e-2)


def test_neg_nce_has_nothing_to_tell_the_only_video_from():
    """Two texts and one video, of the first: row 1 is one number, whose share is 1 whatever it is."""
    scores, positives = torch.tensor([[0.0], [1.0]]), torch.tensor([[True], [False]])
    column = math.log(1 + math.e)  # -log of the positive's share, and -log(1 - P) of the other's
    assert neg_nce(scores, positives, 1.0, weight=0.5).item() == pytest.approx((column + 0.5 * column) / 2)


@given(SEEDS, SHAPES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_hardest_negative_triplet(seed, shape, ignore):
    drawn = Drawn(seed, shape)
    ignored = drawn.relation(0.5) if ignore else None
    found = hardest_negative_triplet(drawn.scores, drawn.positives, 0.4, ignored)
    left_out = None if ignored is None else ignored.numpy()
    same(found, naive.triplet(drawn.scores.numpy(), drawn.positives.numpy(), 0.4, left_out))


@given(SEEDS, st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_partial_order(seed, pairs):
    whole, part = Drawn(seed, (2, pairs)).scores
    paid = [max(0.0, 0.3 - (float(w) - float(p))) for w, p in zip(whole, part, strict=True)]
    same(partial_order(whole, part, 0.3), sum(paid) / pairs)


@given(SEEDS, st.integers(1, 7), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_connectivity(seed, items, softmax, itself):
    vectors = Drawn(seed, (items, 3)).scores
    found = connectivity(vectors, softmax=softmax, itself=itself)
    wanted = torch.tensor(naive.connectivity(vectors.numpy(), softmax, itself), dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@given(
    SEEDS,
    st.integers(1, 12),
    st.sampled_from([{"ratio": 0.5}, {"ratio": 1.0}, {"share": 0.3}, {"share": 1 / 3}, {"share": 0.0}]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=80, deadline=None)
def test_influential(seed, items, rule, most):
    found = Drawn(seed, (1, items)).scores[0]  # some draws have nobody above 0
    assert influential(found, **rule, most=most).tolist() == naive.influential(found.tolist(), **rule, most=most)


def test_influential_takes_one_rule():
    with pytest.raises(ValueError, match="either ratio or share"):
        influential(torch.ones(3))
    with pytest.raises(ValueError, match="either ratio or share"):
        influential(torch.ones(3), ratio=0.5, share=0.5)


@given(SEEDS, st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_potential_positives(seed, items):
    drawn = Drawn(seed, (2 * items, 3))
    first, second = drawn.scores[:items], drawn.scores[items:]
    assert potential_positives(first, second).tolist() == naive.potential_positives(first.numpy(), second.numpy())


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("several", SEVERAL)
def test_gradients_of_info_nce(seed, several):
    drawn = Drawn(seed)
    excluded = (drawn.relation(0.4), torch.ones_like(drawn.positives))  # columns have nothing to be told from
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def loss(scores, scale):
        return info_nce(
            scores, drawn.positives, scale, several=several, positives_of_video=drawn.back, excluded=excluded
        )

    assert torch.autograd.gradcheck(loss, (drawn.scores.requires_grad_(), scale))


@pytest.mark.parametrize("several", SEVERAL)
def test_gradients_with_more_negatives(several):
    drawn = Drawn(3)
    extra = torch.randn(5, 2, generator=drawn.draw, dtype=torch.float64, requires_grad=True)
    never = torch.tensor([False, True])

    def loss(scores, extra):
        return one_way(scores, drawn.positives, several, None, extra.masked_fill(never, -math.inf))

    assert torch.autograd.gradcheck(loss, (drawn.scores.requires_grad_(), extra))


@pytest.mark.parametrize("clamped", [False, True])
def test_gradients_of_neg_nce(clamped):
    drawn = Drawn(5)
    arguments = {"scale": 3.0, "weight": 0.5, "margin": 0.05, "clamped": clamped}
    assert torch.autograd.gradcheck(
        lambda scores: neg_nce(scores, drawn.positives, **arguments), drawn.scores.requires_grad_()
    )


def test_gradients_of_the_triplets():
    drawn = Drawn(6)
    ignored = drawn.relation(0.3)
    ignored[0] = True  # a row without a negative
    drawn.positives[0, 0] = True
    assert torch.autograd.gradcheck(
        lambda scores: hardest_negative_triplet(scores, drawn.positives, 0.4, ignored), drawn.scores.requires_grad_()
    )
    assert torch.autograd.gradcheck(lambda scores: partial_order(*scores[:2], 0.3), drawn.scores)


@pytest.mark.parametrize("several", SEVERAL)
def test_no_positive_of_any_video_is_an_error_too(several):
    drawn = Drawn(0)
    with pytest.raises(ValueError, match="no positive"):
        info_nce(drawn.scores, drawn.positives, several=several, positives_of_video=torch.zeros_like(drawn.positives))
