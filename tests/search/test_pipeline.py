"""A search finds what scoring everything finds, in an order that depends on scores and names alone."""

from __future__ import annotations

import pytest
import torch

from rushes.backbones.base import Frames, Words
from rushes.index.exact import ExactIndex
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.search.pipeline import search
from rushes.types import Segment

DIM = 16


def frames(vectors: list[torch.Tensor]) -> Frames:
    spans = [torch.stack([torch.arange(len(v)), torch.arange(1, len(v) + 1)], 1).double() for v in vectors]
    return Frames.pack(vectors, spans)


def words(vector: torch.Tensor) -> Words:
    return Words(vector[None, None], torch.ones(1, 1, dtype=torch.bool), vector[None])


@pytest.fixture(params=[MeanPool, WTI])
def world(request):
    """60 segments of 12 videos, and the method they are indexed with."""
    draw = torch.Generator().manual_seed(1)
    method = request.param(DIM).eval()
    vectors = [torch.randn(1 + number % 5, DIM, generator=draw) for number in range(60)]
    segments = [Segment(f"s{n:02d}", f"v{n // 5}", 10.0 * (n % 5), 10.0 * (n % 5) + len(vectors[n])) for n in range(60)]
    index = ExactIndex(DIM)
    with torch.no_grad():
        tokens = method.encode_video(frames(vectors))
        index.add(segments, method.summary(tokens), tokens)
        text = method.encode_text(words(torch.randn(DIM, generator=draw)))
    return method, index, text, vectors


@pytest.mark.parametrize("by", ["summary", "frame"])
def test_two_stages_equal_exact_when_all_are_candidates(world, by):
    method, index, text, _ = world
    assert search(method, index, text, k=60, depth=60, by=by) == search(method, index, text, k=60, exact=True)


def test_exact_is_the_methods_own_order(world):
    method, index, text, vectors = world
    with torch.no_grad():
        scores = method.score(text, method.encode_video(frames(vectors)))[0]
    hits = search(method, index, text, k=5, exact=True)
    assert [hit.segment.id for hit in hits] == [f"s{n:02d}" for n in scores.topk(5).indices.tolist()]
    assert [hit.score for hit in hits] == pytest.approx(scores.topk(5).values.tolist(), abs=1e-3)


def test_only_the_videos_asked_for_are_searched(world):
    method, index, text, _ = world
    for exact in (True, False):
        hits = search(method, index, text, k=60, exact=exact, videos=["v3", "v7"])
        assert {hit.segment.video for hit in hits} == {"v3", "v7"}
        assert len(hits) == 10
    assert search(method, index, text, videos=[]) == []


def test_a_video_is_one_hit_with_moments_of_its_best_segments(world):
    method, index, text, _ = world
    alone = search(method, index, text, k=60, exact=True)
    for exact in (True, False):
        hits = search(method, index, text, k=4, exact=exact, group="video", depth=4)
        assert len({hit.segment.video for hit in hits}) == 4
        best = {}
        for hit in alone:
            best.setdefault(hit.segment.video, hit)
        if exact:
            assert [hit.segment for hit in hits] == [hit.segment for hit in list(best.values())[:4]]
        for hit in hits:
            assert len(hit.moments) >= 1
            assert list(hit.moments) == sorted(hit.moments, key=lambda moment: -moment.score)


def test_equal_scores_are_ordered_by_id():
    method, index = MeanPool(2).eval(), ExactIndex(2)
    same = torch.tensor([[1.0, 0.0]])
    tokens = method.encode_video(frames([same] * 5))
    order = ["d", "b", "e", "a", "c"]
    index.add([Segment(name, "v", 0.0, 1.0) for name in order], method.summary(tokens), tokens)
    text = method.encode_text(words(torch.tensor([0.6, 0.8])))
    for exact in (True, False):
        assert [hit.segment.id for hit in search(method, index, text, exact=exact)] == ["a", "b", "c", "d", "e"]


def test_progress_of_an_exact_search_ends_at_all(world):
    method, index, text, _ = world
    said: list[tuple[int, int]] = []
    search(method, index, text, exact=True, on_progress=lambda done, total: said.append((done, total)))
    assert said[-1] == (60, 60)


def test_wrong_questions_are_refused(world):
    method, index, text, _ = world
    with pytest.raises(ValueError, match="k is 0"):
        search(method, index, text, k=0)
    with pytest.raises(ValueError, match="one search is one text, got 2"):
        search(method, index, text[[0, 0]])


def test_an_empty_index_has_no_hits():
    method = MeanPool(DIM).eval()
    text = method.encode_text(words(torch.ones(DIM)))
    assert search(method, ExactIndex(DIM), text) == search(method, ExactIndex(DIM), text, exact=True) == []
