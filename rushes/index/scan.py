"""The best rows of a half-precision matrix: found fast, then ranked exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float16, Float64, Int64, UInt64

# A half's rounding, twice: of the query and of the product (sums are fp32). Four times that bound, for kernels of other
# machines; a larger value only makes more rows be ranked exactly.
SLACK = 4 * 2 * 2.0**-11
HALF_MAX = 65504.0


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """Segments in memory, each with one or more vectors to be found by."""

    row_ids: UInt64[np.ndarray, "segment"]  # the store's own number of each row, by which a shelf is brought up to date
    ids: pa.Array
    videos: pa.Array
    counts: Int64[np.ndarray, "segment"]
    vectors: Float16[np.ndarray, "vector dim"]
    reach: float  # the longest vector's length

    def __len__(self) -> int:
        return len(self.counts)

    def keep(self, segments: np.ndarray) -> Shelf:
        """Only the segments that are True."""
        vectors = self.vectors[np.repeat(segments, self.counts)]
        mask = pa.array(segments)
        return Shelf(
            self.row_ids[segments],
            self.ids.filter(mask),
            self.videos.filter(mask),
            self.counts[segments],
            vectors,
            self.reach,
        )


def shelve(
    row_ids: np.ndarray, ids: pa.Array, videos: pa.Array, counts: np.ndarray, vectors: Float16[np.ndarray, "vector dim"]
) -> Shelf:
    """A shelf of these segments."""
    vectors = vectors if vectors.flags.writeable else vectors.copy()  # torch warns of memory it must not write to
    reach = float(torch.from_numpy(vectors).float().norm(dim=1).max()) if len(vectors) else 0.0
    return Shelf(row_ids, ids, videos, counts, vectors, reach)


def join(shelves: Sequence[Shelf]) -> Shelf:
    """Shelves one after another."""
    if len(shelves) == 1:
        return shelves[0]
    return Shelf(
        np.concatenate([shelf.row_ids for shelf in shelves]),
        pa.concat_arrays([shelf.ids for shelf in shelves]),
        pa.concat_arrays([shelf.videos for shelf in shelves]),
        np.concatenate([shelf.counts for shelf in shelves]),
        np.concatenate([shelf.vectors for shelf in shelves]),
        max(shelf.reach for shelf in shelves),
    )


class Found(NamedTuple):
    """A segment's id, its score, and its video."""

    id: str
    score: float
    video: str


def best(
    shelf: Shelf,
    query: Float64[np.ndarray, "dim"],
    k: int,
    videos: Sequence[str] | None = None,
    each: int | None = None,
) -> list[Found]:
    """The `k` best segments by their best vector, ties by id; at most `each` of one video.

    A half-precision product of everything gives scores that are off by at most a known bound; whoever could be among
    the first `k` within that bound is scored again in fp64. So the answer is exact, and it depends neither on the
    order of the rows nor on how a matrix product sums.
    """
    if not len(shelf):
        return []
    length = float(np.linalg.norm(query))
    unit, matrix = torch.from_numpy(query / length if length else query).half(), torch.from_numpy(shelf.vectors)
    if shelf.reach > HALF_MAX / 2:  # products with a unit query could overflow
        unit, matrix = unit.float(), matrix.float()
    starts = np.cumsum(shelf.counts) - shelf.counts
    rough = np.maximum.reduceat((matrix @ unit).float().numpy(), starts)
    if videos is not None:
        rough = np.where(_of(shelf, videos), rough, -np.inf)
    if each is None:
        return _top(shelf, starts, rough, query, k)
    full: list[Found] = []  # the best of videos that can give no more
    size = k
    while True:
        top = _top(shelf, starts, rough, query, size)
        kept = ranked([*full, *few(top, each)], k)
        if len(kept) == k or len(top) < size:
            return kept
        counts = Counter(one.video for one in top)
        crowding = {video for video, count in counts.items() if count >= each}
        full += few([one for one in top if one.video in crowding], each)
        rough = np.where(_of(shelf, sorted(crowding)), -np.inf, rough)
        size *= 2


def ranked(found: Iterable[Found], k: int) -> list[Found]:
    """The best `k`, best first, ties by id.

    >>> [one.id for one in ranked([Found("b", 0.5, "v"), Found("a", 0.5, "v"), Found("c", 0.9, "v")], 2)]
    ['c', 'a']
    """
    return sorted(found, key=lambda one: (-one.score, one.id))[:k]


def few(found: Iterable[Found], each: int | None) -> list[Found]:
    """In the order given, without those of a video that has had `each` already.

    >>> [one.id for one in few([Found("c", 0.9, "v"), Found("b", 0.8, "v"), Found("a", 0.5, "w")], 1)]
    ['c', 'a']
    """
    if each is None:
        return list(found)
    had: Counter[str] = Counter()
    kept = []
    for one in found:
        if had[one.video] < each:
            had[one.video] += 1
            kept.append(one)
    return kept


def _of(shelf: Shelf, videos: Sequence[str]) -> Bool[np.ndarray, "segment"]:
    options = pc.SetLookupOptions(pa.array(list(videos), pa.string()))
    return pc.call_function("is_in", [shelf.videos], options).to_numpy(zero_copy_only=False)


def _top(shelf: Shelf, starts: np.ndarray, rough: np.ndarray, query: np.ndarray, k: int) -> list[Found]:
    kth = np.partition(rough, len(rough) - k)[len(rough) - k] if k < len(rough) else -np.inf
    near = np.flatnonzero((rough >= kth - SLACK * shelf.reach) & np.isfinite(rough))
    scores = _scores(shelf, starts, near, query).tolist()
    ids, videos = (column.take(pa.array(near)).to_pylist() for column in (shelf.ids, shelf.videos))
    return ranked(map(Found, ids, scores, videos), k)


def exact_scores(
    vectors: Float16[np.ndarray, "vector dim"], query: Float64[np.ndarray, "dim"]
) -> Float64[np.ndarray, "vector"]:
    """Dot products in fp64. Each row is summed by itself, so equal rows give equal bits wherever they stand."""
    return (vectors.astype(np.float64) * query).sum(axis=1)


def _scores(
    shelf: Shelf, starts: np.ndarray, segments: np.ndarray, query: np.ndarray, at_once: int = 4096
) -> Float64[np.ndarray, "segment"]:
    parts = [np.zeros(0)]
    for first in range(0, len(segments), at_once):
        chosen = segments[first : first + at_once]
        counts = shelf.counts[chosen]
        firsts = np.cumsum(counts) - counts
        rows = np.repeat(starts[chosen] - firsts, counts) + np.arange(counts.sum())
        parts.append(np.maximum.reduceat(exact_scores(shelf.vectors[rows], query), firsts))
    return np.concatenate(parts)
