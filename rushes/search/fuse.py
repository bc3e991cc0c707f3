"""One ranking of what is seen and what is said: lines count for the segments during which they are spoken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch

from rushes.index.base import Index
from rushes.index.cues import Heard
from rushes.search.parts import Scale, Scorer
from rushes.search.pipeline import Ranking, Scored, of_segments
from rushes.types import Cue, Segment, Tokens

WORDS = 8.0  # what a whole query of rare words is worth where it is said, in deviations of the visual score; the best
# picture of a thousand segments stands out by some 4. benchmarks/fuse.py
HALF = 8.0  # nats: so telling must the words be for half of that; 8 is one word that no other line of 2,000 has
LEAST = 0.2  # share of the query that a line must say to count
MOST_LINES = 1000
ENOUGH = 1.0  # seconds of a line, or half of it, that must fall into a segment for it to be said there


@dataclass(frozen=True, slots=True)
class Told:
    """What a segment owes its place to: the visual score as the method gave it, the share of the query that is said."""

    visual: float
    words: float


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A ranking in which words have a say. `told` is by segment id; `heard` are the lines, by video."""

    ranking: Ranking
    told: dict[str, Told] = field(default_factory=dict)
    heard: dict[str, list[Cue]] = field(default_factory=dict)

    def of(self, one: Scored, shown: Segment) -> tuple[dict[str, float], tuple[Cue, ...]]:
        """A segment's scores by where they come from, and the lines said in what is `shown` of it, in order of time."""
        told = self.told.get(one.segment.id)
        if told is None:
            return {"visual": one.score}, ()
        cues = [cue for cue in self.heard.get(shown.video, ()) if _said_in(cue, shown)]
        scores = {"visual": told.visual, "words": told.words}
        return scores, tuple(sorted(cues, key=lambda cue: (cue.start, cue.end, cue.text)))


def fuse(ranking: Ranking, heard: Heard, *, scorer: Scorer, index: Index, sample: Tokens, only: bool = False) -> Fused:
    """The ranking by pictures and words together; where nothing was heard, the ranking as it is.

        score(v) = z(v) + 8 w(v)^2 I(v) / (I(v) + 8)         z(v) = (s(v) - mean) / deviation over the `sample`

    s is the visual score; w the share of the query that the lines of the segment say together, each word weighed by how
    telling it is; I = the information of those words in nats. So they are joined inside a segment, before anything is
    grouped or cut off: a moment that shows it and says it beats one that only does one of both, and no list has to be
    long enough to hold the other's best. Visual scores come first onto a scale of their own, because no constant could
    compare a method's scores with those of words. The square keeps half a query's words from counting half: "a dog on
    a beach" is not answered by any line about a beach. The last factor saturates: a rare sentence counts in full, a
    single frequent word little.

    A segment of which only words tell is scored by the method, too. Segments without words keep their order. With
    `only` words alone decide: score = w, nothing else is a hit.
    """
    if not len(heard):
        return Fused(Ranking([], ranking.spread) if only else ranking)
    said = spoken(heard, index.segments(sorted({cue.video for cue in heard.cues})))
    known = {one.segment.id for one in ranking.scored}
    extra = of_segments(scorer, index, sorted(name for name in said if name not in known))
    everything = [*ranking.scored, *extra.scored]
    scale = _scale(scorer, sample)
    total = heard.information
    scored: list[Scored] = []
    told: dict[str, Told] = {}
    for one in everything:
        rows = said.get(one.segment.id, ())
        if only and not rows:
            continue
        words = heard.share(rows)
        told[one.segment.id] = Told(one.score, words)
        nats = words * total
        bonus = WORDS * words**2 * nats / (nats + HALF) if words else 0.0
        scored.append(replace(one, score=words if only else float(scale(torch.tensor(one.score))) + bonus))
    scored.sort(key=lambda one: (-one.score, one.segment.id))
    by_video: dict[str, list[Cue]] = {}
    for cue in heard.cues:
        by_video.setdefault(cue.video, []).append(cue)
    return Fused(replace(ranking, scored=scored, spread=ranking.spread or extra.spread), told, by_video)


def spoken(heard: Heard, segments: Iterable[Segment]) -> dict[str, list[int]]:
    """Which lines are said in which segment, by id: rows of `heard`. A line that is said during no segment for long
    enough is said in the one that has most of it; one that lies beside all segments is in none."""
    rows: dict[str, list[int]] = {}
    for row, cue in enumerate(heard.cues):
        rows.setdefault(cue.video, []).append(row)
    said: dict[str, list[int]] = {}
    best: dict[int, tuple[float, str]] = {}
    placed: set[int] = set()
    for segment in segments:
        for row in rows.get(segment.video, ()):
            cue = heard.cues[row]
            if _said_in(cue, segment):
                said.setdefault(segment.id, []).append(row)
                placed.add(row)
            elif _overlap(cue, segment) > max(1e-6, best.get(row, (0.0, ""))[0]):
                best[row] = (_overlap(cue, segment), segment.id)
    for row, (_, name) in best.items():
        if row not in placed:
            said.setdefault(name, []).append(row)
    return said


def _overlap(cue: Cue, segment: Segment) -> float:
    return min(cue.end, segment.end) - max(cue.start, segment.start)


def _said_in(cue: Cue, segment: Segment) -> bool:
    return _overlap(cue, segment) >= max(1e-6, min(ENOUGH, (cue.end - cue.start) / 2))


def _scale(scorer: Scorer, sample: Tokens) -> Scale:
    if not len(sample):
        return Scale(0.0, 1.0)
    with torch.inference_mode():
        return Scale.of(scorer(sample)[0])
