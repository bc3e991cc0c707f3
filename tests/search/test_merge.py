"""Merging loses no video and no segment; what it joins is one still picture to a reader."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.index.exact import ExactIndex
from rushes.search.merge import ALIKE, merged
from rushes.search.parts import likeness
from rushes.search.pipeline import Ranking, Scored
from rushes.types import Segment, Tokens

DIM = 4


def turned(degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    return torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0), torch.tensor(0.0)])


def world(rows: list[tuple[str, float, float, float, float]]) -> tuple[list[Scored], ExactIndex]:
    """Segments as (video, start, end, degrees, score), each of one frame; best first, and the index that has them."""
    index = ExactIndex(DIM)
    segments = [Segment(f"{v}:{n:02d}", v, start, end) for n, (v, start, end, _, _) in enumerate(rows)]
    vectors = torch.stack([turned(row[3]) for row in rows])
    spans = torch.tensor([[[row[1], row[2]]] for row in rows], dtype=torch.float64)
    mask = torch.ones(len(rows), 1).bool()
    index.add(segments, vectors, Tokens(vectors[:, None], mask, spans))
    scored = [
        Scored(segment, row[4], np.array([row[4]]), spans[n].numpy(), mask[n].numpy(), np.array([row[4]]))
        for n, (segment, row) in enumerate(zip(segments, rows, strict=True))
    ]
    return sorted(scored, key=lambda one: (-one.score, one.segment.id)), index


def names(runs) -> list[tuple[str, list[str]]]:
    return [(run.best.segment.id, [one.segment.id for one in run.segments]) for run in runs]


def test_a_still_stretch_is_one_hit():
    scored, index = world([("a", 10.0 * n, 10.0 * n + 10, 0.0, 0.5 + 0.01 * (n == 3)) for n in range(25)])
    (run,) = merged(scored, index)
    assert run.best.segment.id == "a:03"
    hit = Ranking(scored, 0.1).run(run.best, run.segments)
    assert (hit.merged, hit.segment.id) == (25, "a:03")
    assert [(moment.start, moment.end) for moment in hit.moments] == [(0.0, 250.0)]


def test_tokens_that_are_held_are_not_fetched_again():
    scored, index = world([("a", 5.0 * n, 5.0 * n + 5, 60.0 * (n == 2), 0.5) for n in range(4)])
    segments, tokens = index.fetch([one.segment.id for one in scored])
    assert [segment.id for segment in segments] == [one.segment.id for one in scored]
    held = [replace(one, vectors=tokens.vectors[row].numpy()) for row, one in enumerate(scored)]
    assert (
        names(merged(held, ExactIndex(DIM))) == names(merged(scored, index)) != names(merged(scored, ExactIndex(DIM)))
    )


def test_neither_other_pictures_nor_gaps_nor_other_videos_are_joined():
    scored, index = world(
        [
            ("a", 0, 5, 0, 0.9),
            ("a", 5, 10, 60, 0.8),  # another picture
            ("a", 12, 15, 60, 0.7),  # the same picture, two seconds later
            ("b", 15, 20, 60, 0.6),  # the same picture, another video
        ]
    )
    assert [len(run.segments) for run in merged(scored, index)] == [1, 1, 1, 1]


def test_overlapping_windows_are_joined():
    scored, index = world([("a", 5.0 * n, 5.0 * n + 10, 0, 0.5 - n / 100) for n in range(4)])
    assert names(merged(scored, index)) == [("a:00", ["a:00", "a:01", "a:02", "a:03"])]


def test_a_slow_pan_is_not_one_hit():
    """Each is like its neighbour, but the last is nothing like the first."""
    scored, index = world([("a", n, n + 1.0, 10.0 * n, 1 - n / 100) for n in range(10)])
    for run in merged(scored, index):
        degrees = [10.0 * int(one.segment.id[-2:]) for one in run.segments]
        best = 10.0 * int(run.best.segment.id[-2:])
        assert all(torch.cos(torch.deg2rad(torch.tensor(d - best))) >= ALIKE for d in degrees)
    assert len(merged(scored, index)) == 5  # 18 degrees are the cosine 0.95, so two steps are one too many


def test_a_segment_that_another_process_has_dropped_stays_alone():
    scored, index = world([("a", 0, 5, 0, 0.9), ("a", 5, 10, 0, 0.8)])
    index.remove(["a"])
    assert [len(run.segments) for run in merged(scored, index)] == [1, 1]


def test_alike_is_the_lower_likeness_of_two():
    """Segments of several frames and levels: they merge exactly up to that cosine."""
    draw = torch.Generator().manual_seed(5)
    index = ExactIndex(DIM)
    base = torch.randn(1, 3, DIM, generator=draw)
    vectors = torch.cat([base, base + 0.4 * torch.randn(1, 3, DIM, generator=draw)])
    tokens = Tokens(
        vectors, torch.tensor([[True] * 3, [True, True, False]]), level=torch.tensor([[0, 2, 2], [0, 2, 2]])
    )
    segments = [Segment("a:0", "a", 0, 5), Segment("a:1", "a", 5, 10)]
    index.add(segments, vectors[:, 0], tokens)
    _, stored = index.fetch(["a:0", "a:1"])
    lower = min(float(likeness(stored[:1], stored[1:])), float(likeness(stored[1:], stored[:1])))
    none = torch.zeros(3)
    scored = [Scored(segment, 1.0, none, None, none.bool(), none) for segment in segments]
    assert 0 < lower < 1
    assert [len(run.segments) for run in merged(scored, index, alike=lower - 1e-5)] == [2]
    assert [len(run.segments) for run in merged(scored, index, alike=lower + 1e-5)] == [1, 1]


rows = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(0, 20), st.integers(1, 6), st.sampled_from([0, 5, 90]), st.integers(0, 5)
    ),
    min_size=1,
    max_size=25,
)


@given(rows)
@settings(deadline=None)
def test_nothing_is_lost_and_nothing_twice(drawn):
    scored, index = world([(v, float(s), float(s + n), float(d), float(score)) for v, s, n, d, score in drawn])
    runs = merged(scored, index)
    every = [one.segment.id for run in runs for one in run.segments]
    assert sorted(every) == sorted(one.segment.id for one in scored)
    assert {run.best.segment.video for run in runs} == {one.segment.video for one in scored}
    place = {one.segment.id: row for row, one in enumerate(scored)}
    bests = [place[run.best.segment.id] for run in runs]
    assert bests == sorted(bests)
    for run in runs:
        assert place[run.best.segment.id] == min(place[one.segment.id] for one in run.segments)
        assert len({one.segment.video for one in run.segments}) == 1
    assert len(merged(scored, index, alike=1.1)) == len(scored)
