"""Parts add up on one scale; what is avoided pushes down and never up."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from rushes.backbones.base import Frames
from rushes.index.exact import ExactIndex
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.search.parts import Mix, Scale, Scorer, Sought, likeness
from rushes.search.pipeline import rank
from rushes.types import Segment, Tokens

DIM = 16


def text(vector: torch.Tensor) -> Tokens:
    return Tokens(normalize(vector, dim=-1)[None, None], torch.ones(1, 1).bool(), weights=torch.ones(1, 1))


@pytest.fixture(params=[WTI, MeanPool], ids=["wti", "meanpool"])
def world(request):
    draw = torch.Generator().manual_seed(3)
    method = request.param(DIM).eval()
    vectors = [torch.randn(1 + number % 4, DIM, generator=draw) for number in range(80)]
    spans = [torch.stack([torch.arange(len(v)), torch.arange(len(v)) + 1], dim=1).double() for v in vectors]
    with torch.no_grad():
        tokens = method.encode_video(Frames.pack(vectors, spans))
        index = ExactIndex(DIM)
        segments = [Segment(f"s{n:02d}", f"v{n // 8}", 10.0 * (n % 8), 10.0 * (n % 8) + 4) for n in range(80)]
        index.add(segments, method.summary(tokens), tokens)
    asked = [text(torch.randn(DIM, generator=draw)) for _ in range(3)]
    return method, index, tokens, asked


def scores(method, parts, tokens, **others) -> torch.Tensor:
    with torch.no_grad():
        return Scorer.of(method, parts, tokens, **others)(tokens)[0]


def test_a_single_part_is_the_methods_own_score(world):
    method, _, tokens, (one, *_) = world
    for weight in (1.0, 0.3, 7.0):
        with torch.no_grad():
            assert torch.equal(scores(method, [Sought(one, weight=weight)], tokens), method.score(one, tokens)[0])


def test_weight_zero_is_absence(world):
    method, _, tokens, (one, two, three) = world
    nothing = Sought(three, weight=0.0)
    assert torch.equal(scores(method, [Sought(one), nothing], tokens), scores(method, [Sought(one)], tokens))
    both = [Sought(one), Sought(two, weight=-0.5)]
    assert torch.equal(scores(method, [*both, nothing], tokens), scores(method, both, tokens))
    with pytest.raises(ValueError, match="give one a weight above 0"):
        Scorer.of(method, [nothing])


def test_a_part_said_twice_is_one_of_twice_the_weight(world):
    method, _, tokens, (one, two, _) = world
    twice = scores(method, [Sought(one), Sought(one), Sought(two)], tokens)
    assert torch.allclose(twice, scores(method, [Sought(one, weight=2.0), Sought(two)], tokens))


def test_scales_of_parts_do_not_matter():
    """A method that scored one text ten times as high as another would rank alike: that is what the scales are for."""
    numbers = [torch.tensor([0.1, 0.3, 0.2, 0.9]), torch.tensor([0.5, 0.1, 0.4, 0.2])]
    stretched = [10 * numbers[0] + 3, numbers[1]]
    for weights in ((1.0, 1.0), (0.5, 2.0), (1.0, -1.0)):
        plain = Mix.of(weights, numbers)(numbers)
        assert torch.allclose(plain, Mix.of(weights, stretched)(stretched), atol=1e-6)


def test_a_mix_by_hand():
    # mean 2, deviation 1: z = -1, 1; the other part the same the other way round
    wanted, other = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])
    assert Mix.of([1.0, 0.5], [wanted, other])([wanted, other]).tolist() == [-0.5, 0.5]
    # avoided: cov(z, W) = -1, so b = 0; it takes off max(0, z) = 1, 0
    assert Mix.of([1.0, -1.0], [wanted, other])([wanted, other]).tolist() == [-2.0, 1.0]
    # avoided is what is wanted: b = 2 / 52, the rest of 1 is taken off
    assert Mix.of([1.0, -1.0], [wanted, wanted])([wanted, wanted]).tolist() == pytest.approx([-1.0, 2 / 52])
    # in a large sample b = 5000 / 5050: what one must expect is not held against anybody
    many = wanted.repeat(2500)
    assert Mix.of([1.0, -1.0], [many, many])([wanted, wanted]).tolist() == pytest.approx([-1.0, 5000 / 5050])


def test_what_is_avoided_never_lifts(world):
    method, _, tokens, (one, two, _) = world
    alone = scores(method, [Sought(one)], tokens, alone=True)
    for weight in (-0.5, -1.0, -3.0):
        less = scores(method, [Sought(one), Sought(two, weight=weight)], tokens)
        assert (less <= alone + 1e-9).all()
        assert (less < alone - 1e-3).any()


def test_more_avoidance_means_less_of_it(world):
    method, index, tokens, (one, two, _) = world
    with torch.no_grad():
        there = dict(zip([s.id for s in index.segments()], method.score(two, tokens)[0].tolist(), strict=True))

    def met(weight: float) -> float:
        with torch.no_grad():
            scorer = Scorer.of(method, [Sought(one), Sought(two, weight=weight)], tokens)
        best = rank(scorer, index, k=20, exact=True, depth=20).hits(20)
        return sum(there[hit.segment.id] for hit in best) / 20

    assert met(0.0) > met(-1.0) > met(-4.0)


def test_the_sample_alone_sets_the_scales(world):
    """A segment's score does not depend on what else is scored with it."""
    method, _, tokens, (one, two, three) = world
    with torch.no_grad():
        scorer = Scorer.of(method, [Sought(one), Sought(two, weight=0.5), Sought(three, weight=-1.0)], tokens)
        whole = scorer(tokens)[0]
        assert torch.allclose(whole[10:30], scorer(tokens[10:30])[0], atol=1e-6)


def test_candidates_of_several_parts_hold_the_best_of_their_sum(world):
    method, index, tokens, (one, two, three) = world
    parts = [Sought(one), Sought(two, weight=0.7), Sought(three, weight=-1.0)]
    with torch.no_grad():
        scorer = Scorer.of(method, parts, tokens)
    exact = rank(scorer, index, k=5, depth=5, exact=True).hits(5)
    near = rank(scorer, index, k=5, depth=30, sample=tokens).hits(5)
    assert [hit.segment.id for hit in near] == [hit.segment.id for hit in exact]
    assert [hit.score for hit in near] == pytest.approx([hit.score for hit in exact], abs=1e-5)
    every = rank(scorer, index, k=80, depth=80, sample=tokens)
    assert [(h.segment, h.moments) for h in every.hits()] == [
        (h.segment, h.moments) for h in rank(scorer, index, k=80, depth=80, exact=True).hits()
    ]


def test_likeness_is_the_cosine_of_the_best_frame():
    draw = torch.Generator().manual_seed(0)
    one = Tokens(torch.randn(1, 1, 4, generator=draw), torch.ones(1, 1).bool())
    others = Tokens(torch.randn(5, 3, 4, generator=draw), torch.tensor([[True, True, False]] * 5))
    want = torch.nn.functional.cosine_similarity(one.vectors[0, 0], others.vectors[:, :2], dim=-1).amax(dim=1)
    assert torch.allclose(likeness(one, others), want)
    louder = Tokens(7 * others.vectors, others.mask)
    assert torch.allclose(likeness(one, others), likeness(one, louder))
    assert likeness(others[1:2], others)[1].item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="got 5"):
        likeness(others, one)


def test_likeness_looks_at_the_finest_level_only():
    whole_and_frame = Tokens(
        torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2).bool(), level=torch.tensor([[0, 2]])
    )
    one = Tokens(torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1).bool())
    assert likeness(one, whole_and_frame).tolist() == [0.0]


def test_a_scale_of_nothing_changes_nothing():
    assert Scale.of(torch.zeros(0)) == Scale(0.0, 1.0)
    assert Mix.of([1.0, -1.0], [torch.zeros(0), torch.zeros(0)])([torch.ones(1), torch.ones(1)]).tolist() == [0.0]
