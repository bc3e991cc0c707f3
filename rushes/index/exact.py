"""The index that is right by being plain: everything in memory, everything compared. The oracle of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16
from torch import Tensor

from rushes.index.base import By, checked, some, wanted
from rushes.index.flat import Flat, concat, flatten, unflatten
from rushes.types import Segment, Tokens


@dataclass(frozen=True, slots=True)
class _Row:
    segment: Segment
    summary: Float16[np.ndarray, "1 dim"]
    flat: Flat


class ExactIndex:
    """An `Index` in memory, for tests and for a few thousand segments; nothing of it is kept on disk."""

    def __init__(self, dim: int):
        self.dim = dim
        self._rows: dict[str, _Row] = {}
        self._changes = 0

    def add(self, segments: Sequence[Segment], summaries: Float[Tensor, "segment dim"], tokens: Tokens) -> None:
        checked(self.dim, segments, summaries, tokens)
        if known := [segment.id for segment in segments if segment.id in self._rows]:
            raise ValueError(f"{len(known)} ids are in the index already: {some(known)}; remove their videos first")
        halves = summaries.half().cpu().numpy()
        rows = [_Row(s, halves[i : i + 1], flatten(tokens[i : i + 1])) for i, s in enumerate(segments)]
        for row in rows:
            before = next(iter(self._rows.values()), row).flat.fields
            if row.flat.fields != before:
                raise ValueError(f"tokens have fields {row.flat.fields}, those in the index have {before}")
        self._rows.update((row.segment.id, row) for row in rows)
        self._changes += 1

    def remove(self, videos: Sequence[str]) -> int:
        gone = [row.segment.id for row in self._some(videos)]
        for name in gone:
            del self._rows[name]
        self._changes += 1
        return len(gone)

    def nearest(
        self,
        vector: Float[Tensor, "dim"],
        k: int,
        *,
        by: By = "summary",
        videos: Sequence[str] | None = None,
        each: int | None = None,
    ) -> list[tuple[str, float]]:
        wanted(vector, self.dim, k, by, each)
        query = vector.double().cpu().numpy()
        scored = []
        for row in self._some(videos):
            vectors = row.summary if by == "summary" else row.flat.finest()[1]
            score = float((vectors.astype(np.float64) * query).sum(axis=1).max())
            scored.append((-score, row.segment.id, row.segment.video))
        kept: list[tuple[str, float]] = []
        had: dict[str, int] = {}
        for score, name, video in sorted(scored):
            had[video] = had.get(video, 0) + 1
            if each is None or had[video] <= each:
                kept.append((name, -score))
        return kept[:k]

    def fetch(self, ids: Sequence[str], *, skip: bool = False) -> tuple[list[Segment], Tokens]:
        if skip:
            ids = [name for name in ids if name in self._rows]
        if unknown := [name for name in ids if name not in self._rows]:
            raise KeyError(f"{len(unknown)} ids are not in the index: {some(unknown)}")
        return self._open([self._rows[name] for name in ids])

    def count(self, videos: Sequence[str] | None = None) -> int:
        return len(self._some(videos))

    def segments(self, videos: Sequence[str] | None = None) -> list[Segment]:
        return sorted((row.segment for row in self._some(videos)), key=lambda s: (s.video, s.start, s.id))

    def batches(
        self, rows: int = 1024, *, videos: Sequence[str] | None = None
    ) -> Iterator[tuple[list[Segment], Tokens]]:
        every = self._some(videos) if videos is not None else list(self._rows.values())
        for start in range(0, len(every), rows):
            yield self._open(every[start : start + rows])

    def state(self) -> int:
        return self._changes

    def optimize(self) -> None:
        pass

    def _some(self, videos: Sequence[str] | None) -> list[_Row]:
        return [row for row in self._rows.values() if videos is None or row.segment.video in videos]

    def _open(self, rows: Sequence[_Row]) -> tuple[list[Segment], Tokens]:
        none = Flat(np.zeros(0, np.int64), np.zeros((0, self.dim), np.float16))
        flat = concat([row.flat for row in rows]) if rows else none
        return [row.segment for row in rows], unflatten(flat, self.dim)
