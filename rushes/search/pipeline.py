"""From the tokens of one text to hits: candidates by a vector, re-ranking by the method, moments by evidence."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushes.index.base import Index
from rushes.methods.base import Method
from rushes.search.moments import moments
from rushes.types import Hit, Moment, Segment, Tokens

Candidates = Literal["summary", "frame"]
Group = Literal["segment", "video"]

DEPTH = 500  # candidates, of the cheap kind: 998 of 1,000 of the true ten best at every size tried, see docs/search.md
CANDIDATES: Candidates = "summary"
SHOWN = 3  # segments whose moments a video is shown with


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A segment with its score and what its moments are read from, once it is known to be a hit: rows of a batch."""

    segment: Segment
    score: float
    evidence: Float[Tensor, "token"]
    spans: Float[Tensor, "token 2"] | None
    finest: Bool[Tensor, "token"]


@torch.inference_mode()
def search(
    method: Method,
    index: Index,
    text: Tokens,
    *,
    k: int = 10,
    exact: bool = False,
    depth: int = DEPTH,
    by: Candidates = CANDIDATES,
    group: Group = "segment",
    videos: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Hit]:
    """The `k` best segments (or videos, each shown by its best segment) for one text, best first.

    Two stages: the `depth` segments nearest to the text's summary, by their own summary or by their best single
    token; these are scored by the method from stored tokens. `exact` scores every segment instead, and tells
    `on_progress` how many of how many are done. Equal scores are ordered by segment id, so that an answer never depends
    on the order of indexing.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least one hit")
    if len(text) != 1:
        raise ValueError(f"one search is one text, got {len(text)}")
    if exact:
        scored, spread = _all(method, index, text, k, group, videos, on_progress)
    else:
        scored, spread = _two_stages(method, index, text, max(depth, k), by, videos)
        if group == "video" and len({one.segment.video for one in scored}) < k and len(scored) == max(depth, k):
            # a few long videos fill the candidates: look deeper until k videos, or all segments, are seen
            return search(method, index, text, k=k, depth=4 * max(depth, k), by=by, group=group, videos=videos)
    best = sorted(scored, key=_order)
    if group == "video":
        return _by_video(best, k, spread)
    return [_hit(one, spread) for one in best[:k]]


def _two_stages(
    method: Method, index: Index, text: Tokens, depth: int, by: Candidates, videos: Sequence[str] | None
) -> tuple[list[Scored], float]:
    near = index.nearest(method.summary(text)[0], depth, by=by, videos=videos)
    if not near:
        return [], 0.0
    segments, tokens = index.fetch([identity for identity, _ in near])
    spread = _Spread()
    return list(_score(method, text, segments, tokens, spread)), spread.deviation()


def _all(
    method: Method,
    index: Index,
    text: Tokens,
    k: int,
    group: Group,
    videos: Sequence[str] | None,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[list[Scored], float]:
    """Every segment scored, in batches; only what can still be among the answers is held."""
    spread = _Spread()
    wanted = None if videos is None else set(videos)

    def stream() -> Iterator[Scored]:
        done, total = 0, index.count() if on_progress else 0
        for segments, tokens in index.batches():
            done += len(segments)
            if on_progress:
                on_progress(done, total)
            if wanted is not None:
                rows = [row for row, segment in enumerate(segments) if segment.video in wanted]
                segments, tokens = [segments[row] for row in rows], tokens[rows]
            if segments:
                yield from _score(method, text, segments, tokens, spread)

    if group == "segment":
        kept = heapq.nsmallest(k, stream(), key=_order)
    else:
        videos_best: dict[str, list[Scored]] = {}
        for one in stream():  # moments of a video come from its three best segments, so no more are held
            rows = videos_best.setdefault(one.segment.video, [])
            rows.append(one)
            rows.sort(key=_order)
            del rows[SHOWN:]
        kept = [one for rows in videos_best.values() for one in rows]
    return kept, spread.deviation()


def _by_video(best: list[Scored], k: int, spread: float) -> list[Hit]:
    """One hit a video: its best segment and score, with the moments of its best segments."""
    rows: dict[str, list[Scored]] = {}
    for one in best:
        rows.setdefault(one.segment.video, []).append(one)
    hits = []
    for group in list(rows.values())[:k]:
        found = [moment for one in group[:SHOWN] for moment in _hit(one, spread).moments]
        found.sort(key=lambda moment: (-moment.score, moment.start))
        hits.append(Hit(group[0].segment, group[0].score, tuple(found)))
    return hits


def _score(
    method: Method, text: Tokens, segments: Sequence[Segment], tokens: Tokens, spread: _Spread
) -> Iterator[Scored]:
    scores = method.score(text, tokens)[0]
    evidence = method.evidence(text, tokens)
    finest = _finest(tokens)
    spread.add(evidence[finest])
    spans = [None] * len(segments) if tokens.spans is None else tokens.spans
    for row in zip(segments, scores.tolist(), evidence, spans, finest, strict=True):
        yield Scored(*row)


def _finest(tokens: Tokens) -> Bool[Tensor, "batch token"]:
    """The tokens that saw the least time each: those of the highest level, a segment by itself."""
    if tokens.level is None:
        return tokens.mask
    level = tokens.level.masked_fill(~tokens.mask, -1)
    return tokens.mask & (level == level.amax(dim=1, keepdim=True))


def _hit(one: Scored, spread: float) -> Hit:
    if one.spans is None:
        return Hit(one.segment, one.score, (Moment(one.segment.start, one.segment.end, one.score),))
    spans = [(start, end) for start, end in one.spans[one.finest].tolist()]
    return Hit(one.segment, one.score, moments(one.evidence[one.finest].tolist(), spans, spread))


def _order(one: Scored) -> tuple[float, str]:
    return (-one.score, one.segment.id)


class _Spread:
    """Standard deviation of a stream of numbers, kept as three sums."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, values: Float[Tensor, "value"]) -> None:
        self.count += values.numel()
        self.total += float(values.double().sum())
        self.squares += float(values.double().square().sum())

    def deviation(self) -> float:
        if self.count == 0:
            return 0.0
        mean = self.total / self.count
        return max(0.0, self.squares / self.count - mean * mean) ** 0.5
