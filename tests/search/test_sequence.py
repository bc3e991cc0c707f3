"""One thing, then another: in that order, in one video, soon enough."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.search.pipeline import Ranking, Scored
from rushes.search.sequence import OVERLAP, follow
from rushes.types import Segment


def scored(name: str, start: float, end: float, score: float, evidence: list[float] | None = None) -> Scored:
    """A segment of one frame a second, whose evidence is even unless told."""
    count = round(end - start)
    spans = np.array([[start + n, start + n + 1] for n in range(count)], np.float64)
    values = np.array(evidence or [score] * count)
    segment = Segment(f"{name}:{start:05.1f}", name, start, end)
    return Scored(segment, score, values, spans, np.ones(count, bool), np.array([score]))


def ranking(*rows: Scored) -> Ranking:
    return Ranking(sorted(rows, key=lambda one: (-one.score, one.segment.id)), 0.1)


def test_only_what_comes_after_counts():
    first = ranking(scored("a", 0, 4, 1.0), scored("b", 8, 12, 2.0))
    second = ranking(scored("a", 8, 12, 1.5), scored("b", 0, 4, 3.0))
    (pair,) = follow(first, second, within=30)
    assert pair.first.segment.id == "a:000.0"
    assert (pair.then.start, pair.then.end, pair.score) == (8.0, 12.0, 2.5)


@pytest.mark.parametrize(("start", "found"), [(4.0, True), (10.0, True), (10.5, False), (3.6, True), (3.0, False)])
def test_within_is_from_the_end_to_the_beginning(start, found):
    second = ranking(scored("a", start, start + 2, 1.0))
    assert bool(follow(ranking(scored("a", 0, 4, 1.0)), second, within=6)) == found
    assert OVERLAP == 0.5


def test_the_best_that_follows_is_taken_then_the_soonest():
    second = ranking(scored("a", 4, 6, 1.0), scored("a", 20, 22, 2.0), scored("a", 24, 26, 2.0))
    (pair,) = follow(ranking(scored("a", 0, 4, 1.0)), second, within=30)
    assert pair.then.start == 20.0


def test_both_may_lie_in_one_segment():
    first = ranking(scored("a", 0, 8, 1.0, [1.0, 1.0, 0, 0, 0, 0, 0, 0]))
    second = ranking(scored("a", 0, 8, 1.0, [0, 0, 0, 0, 0, 1.0, 1.0, 0]))
    (pair,) = follow(first, second, within=5)
    assert (pair.moment.end, pair.then.start) == (2.0, 5.0)
    assert follow(second, first, within=5) == []
    even = ranking(scored("a", 0, 8, 1.0))
    assert follow(even, even, within=100) == []


def test_pairs_are_ordered_by_their_sum_then_by_id():
    first = ranking(scored("a", 0, 2, 1.0), scored("b", 0, 2, 1.0), scored("c", 0, 2, 3.0))
    second = ranking(scored("a", 4, 6, 1.0), scored("b", 4, 6, 1.0), scored("c", 4, 6, -0.5))
    assert [pair.first.segment.video for pair in follow(first, second, within=9)] == ["c", "a", "b"]
    assert follow(ranking(), second, within=9) == follow(first, ranking(), within=9) == []
