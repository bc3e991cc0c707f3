"""From a query to hits: candidates by vectors, re-ranking by the method, moments by evidence."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from rushes.index.base import Index
from rushes.methods.base import Method
from rushes.search.moments import moments
from rushes.search.parts import Scorer, Sought, finest
from rushes.search.query import CANDIDATES, DEPTH, Candidates, Group
from rushes.types import Hit, Moment, Segment, Tokens

SHOWN = 3  # segments whose moments a video is shown with


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A segment with its score and what its moments are read from, once it is known to be a hit: rows of a batch.

    vectors  its tokens; None after a search of everything, whose batches are too large to be held for a few hits
    """

    segment: Segment
    score: float
    evidence: Float[np.ndarray, "token"]
    spans: Float64[np.ndarray, "token 2"] | None
    finest: Bool[np.ndarray, "token"]
    raw: Float[np.ndarray, "part"]
    vectors: Float32[np.ndarray, "token dim"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The best segments, best first; `spread` is how far the query's evidence varies over all that was scored.

    full   there may be more: as many were asked for as there are here
    """

    scored: list[Scored]
    spread: float
    full: bool = False

    def hits(self, k: int | None = None, group: Group = "segment") -> list[Hit]:
        """The `k` best segments as hits, or the `k` best videos, each shown by its best segment."""
        if group == "video":
            return by_video(self.scored, k, self.spread)
        return [self.hit(one) for one in self.scored[:k]]

    def hit(self, one: Scored) -> Hit:
        """A segment with its moments."""
        return _hit(one, self.spread)

    def run(self, best: Scored, segments: Sequence[Scored]) -> Hit:
        """Several segments of one video as one hit: the best one, with the moments of all."""
        if len(segments) == 1:
            return self.hit(best)
        known = [one.spans[one.finest] for one in segments if one.spans is not None]
        hit = self.hit(best)
        if len(known) < len(segments):
            return replace(hit, merged=len(segments))
        spans = np.concatenate(known)
        order = spans[:, 0].argsort(kind="stable")  # those of overlapping segments interlock
        evidence = np.concatenate([one.evidence[one.finest] for one in segments])[order]
        both = [(start, end) for start, end in spans[order].tolist()]
        return replace(hit, moments=moments(evidence.tolist(), both, self.spread), merged=len(segments))


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
    scorer = Scorer.of(method, [Sought(text)])
    ranked = rank(
        scorer, index, k=k, exact=exact, depth=depth, by=by, group=group, videos=videos, on_progress=on_progress
    )
    return ranked.hits(k, group)


@torch.inference_mode()
def rank(
    scorer: Scorer,
    index: Index,
    *,
    k: int,
    exact: bool = False,
    depth: int = DEPTH,
    by: Candidates = CANDIDATES,
    group: Group = "segment",
    videos: Sequence[str] | None = None,
    sample: Tokens | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """The `max(depth, k)` best segments, of candidates or of all; of `k` videos at least, if they are grouped.

    Candidates are the `depth` nearest to each of the scorer's vectors, joined; where videos are grouped, also the
    nearest three of each of the `k` nearest videos, so that a few long videos cannot crowd out the others. `sample`
    sets the scales of several parts in this first stage.
    """
    most = max(depth, k)
    if exact:
        return _all(scorer, index, most, group, videos, on_progress)
    ids = candidates(scorer.vectors(by, sample), index, depth=most, videos=videos, k=k if group == "video" else None)
    scored, spread = _scored(scorer, index, ids)
    if group == "video":
        return Ranking(scored, spread)
    return Ranking(scored[:most], spread, full=len(ids) >= most)


def candidates(
    vectors: Sequence[tuple[Float[Tensor, "dim"], Candidates]],
    index: Index,
    *,
    depth: int,
    videos: Sequence[str] | None = None,
    k: int | None = None,
) -> list[str]:
    """Ids of the segments nearest to any of the vectors: the first stage. `k`: of at least so many videos."""
    ids: dict[str, None] = {}
    for vector, by in vectors:
        ids.update(dict.fromkeys(name for name, _ in index.nearest(vector, depth, by=by, videos=videos)))
        if k is not None:
            near = index.nearest(vector, SHOWN * k, by=by, videos=videos, each=SHOWN)
            ids.update(dict.fromkeys(name for name, _ in near))
    return list(ids)


@torch.inference_mode()
def _scored(scorer: Scorer, index: Index, ids: Sequence[str]) -> tuple[list[Scored], float]:
    if not ids:
        return [], 0.0
    segments, tokens = index.fetch(ids, skip=True)
    if not segments:
        return [], 0.0
    spread = _Spread()
    return sorted(_score(scorer, segments, tokens, spread), key=_order), spread.deviation()


def of_segments(scorer: Scorer, index: Index, ids: Sequence[str], at_once: int = 1024) -> Ranking:
    """These segments, best first, whatever their score."""
    spread, scored = _Spread(), []
    with torch.inference_mode():
        for start in range(0, len(ids), at_once):
            segments, tokens = index.fetch(ids[start : start + at_once])
            scored += _score(scorer, segments, tokens, spread)
    return Ranking(sorted(scored, key=_order), spread.deviation())


def _all(
    scorer: Scorer,
    index: Index,
    most: int,
    group: Group,
    videos: Sequence[str] | None,
    on_progress: Callable[[int, int], None] | None,
) -> Ranking:
    """Every segment scored, in batches; only what can still be among the answers is held."""
    spread = _Spread()
    seen = 0

    def stream() -> Iterator[Scored]:
        nonlocal seen
        total = index.count(videos) if on_progress else 0
        for segments, tokens in index.batches(videos=videos):
            seen += len(segments)
            if on_progress:
                on_progress(seen, total)
            yield from _score(scorer, segments, tokens, spread, hold=False)

    if group == "segment":
        kept = heapq.nsmallest(most, stream(), key=_order)
    else:
        videos_best: dict[str, list[Scored]] = {}
        for one in stream():  # moments of a video come from its three best segments, so no more are held
            rows = videos_best.setdefault(one.segment.video, [])
            rows.append(one)
            rows.sort(key=_order)
            del rows[SHOWN:]
        kept = sorted((one for rows in videos_best.values() for one in rows), key=_order)
    return Ranking(kept, spread.deviation(), full=group == "segment" and seen > most)


def by_video(best: list[Scored], k: int | None, spread: float) -> list[Hit]:
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
    scorer: Scorer, segments: Sequence[Segment], tokens: Tokens, spread: _Spread, hold: bool = True
) -> Iterator[Scored]:
    scores, evidence, raw = scorer(tokens)
    known = finest(tokens)
    spread.add(evidence[known])
    nothing = [None] * len(segments)
    spans = nothing if tokens.spans is None else tokens.spans.numpy()
    vectors = tokens.vectors.numpy() if hold else nothing
    columns = (evidence.numpy(), spans, known.numpy(), raw.numpy(), vectors)
    for row in zip(segments, scores.tolist(), *columns, strict=True):  # rows of numpy: a tenth of the time of torch's
        yield Scored(*row)


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
