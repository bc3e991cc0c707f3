"""Neighbouring segments of one video that look the same become one hit, so that a still hour is no page of answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from jaxtyping import Float32

from rushes.index.base import Index
from rushes.search.parts import finest
from rushes.search.pipeline import Scored
from rushes.similarity import fp32, unit

Frames = Float32[np.ndarray, "frame dim"]
TOUCH = 0.05  # seconds between two segments that follow on each other
ALIKE = 0.95  # see docs/search.md: where it lies between frames of one shot and frames of two


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Segments that are one hit: the best of them, and all of them in order of time."""

    best: Scored
    segments: tuple[Scored, ...]


def merged(scored: Sequence[Scored], index: Index, alike: float = ALIKE) -> list[Run]:
    """Runs of the segments, in the order of their best ones; every segment is in exactly one.

    scored   best first
    alike    two segments are when every frame of each has a frame of the other nearby: the lower of the two
             `likeness`es is at least this cosine

    From the best segment on, each takes in its neighbours to both sides as long as they are like it, follow on each
    other (or overlap), and belong to no better one. Likeness is to the best segment, not from neighbour to neighbour:
    a slow pan must not become one hit from a wall to the sea.
    """
    rows: dict[str, list[Scored]] = {}
    for one in scored:
        rows.setdefault(one.segment.video, []).append(one)
    near: dict[str, Scored] = {}
    for row in rows.values():
        row.sort(key=lambda one: (one.segment.start, one.segment.end, one.segment.id))
        pairs = pairwise(row)
        near |= {one.segment.id: one for pair in pairs if _touch(*pair) for one in pair}
    frames = _frames(index, near.values())
    taken: set[str] = set()
    runs: list[Run] = []
    places = {one.segment.id: place for row in rows.values() for place, one in enumerate(row)}
    for one in scored:
        if one.segment.id in taken:
            continue
        row, place = rows[one.segment.video], places[one.segment.id]
        taken.add(one.segment.id)
        members = [one]
        for step in (1, -1):
            at = place
            while 0 <= at + step < len(row):
                other = row[at + step]
                first, second = (row[at], other) if step > 0 else (other, row[at])
                if other.segment.id in taken or not _touch(first, second) or not _alike(one, other, frames, alike):
                    break
                taken.add(other.segment.id)
                members.append(other)
                at += step
        members.sort(key=lambda each: (each.segment.start, each.segment.end, each.segment.id))
        runs.append(Run(one, tuple(members)))
    return runs


def _touch(first: Scored, second: Scored) -> bool:
    return second.segment.start - first.segment.end <= TOUCH


def _alike(one: Scored, other: Scored, frames: Mapping[str, Frames], alike: float) -> bool:
    """The lower of the two `parts.likeness`es; in numpy, for hundreds of pairs are compared one by one."""
    first, second = frames.get(one.segment.id), frames.get(other.segment.id)
    if first is None or second is None:
        return False  # dropped by another process meanwhile
    cosines = first @ second.T
    return float(min(_mean(cosines.max(axis=1)), _mean(cosines.max(axis=0)))) >= alike


def _mean(values: Float32[np.ndarray, "frame"]) -> float:
    return np.add.reduce(values) / len(values)  # a third of the time of `mean`


def _frames(index: Index, scored: Collection[Scored]) -> dict[str, Frames]:
    """The finest tokens of these segments, made unit; fetched where they are not held."""
    held = {one.segment.id: one.vectors[one.finest] for one in scored if one.vectors is not None}
    segments, tokens = index.fetch([one.segment.id for one in scored if one.vectors is None], skip=True)
    known = finest(tokens)
    held |= {segment.id: tokens.vectors[row, known[row]].numpy() for row, segment in enumerate(segments)}
    if not held:
        return {}
    together = unit(fp32(torch.from_numpy(np.concatenate(list(held.values()))))).numpy()
    ends = accumulate(len(vectors) for vectors in held.values())
    return {name: together[end - len(held[name]) : end] for name, end in zip(held, ends, strict=True)}
