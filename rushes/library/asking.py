"""What `Library.ask` and its neighbours do: a query goes through its stages and comes out as a frozen answer."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.backbones.base import Frames
from rushes.index.cues import Heard
from rushes.library import likeness
from rushes.library.catalog import Catalog
from rushes.library.rows import TagRow
from rushes.model import Model
from rushes.search.alike import alike
from rushes.search.calibrate import Background, Calibration
from rushes.search.fuse import LEAST, MOST_LINES, Fused, fuse
from rushes.search.merge import merged
from rushes.search.parts import Scorer, Sought, finest
from rushes.search.parts import likeness as alikeness
from rushes.search.pipeline import Ranking, Scored, by_video, of_segments, rank
from rushes.search.query import Answer, Match, Part, Query
from rushes.search.sequence import Pair, follow
from rushes.types import Hit, Segment, Tokens
from rushes.video.sketch import Sketch
from rushes.video.still import still

if TYPE_CHECKING:
    from rushes.library.library import Library

DEEPER = 4  # times as many candidates, where merging left too few hits
DEEPEST = 16  # times the query's own depth
LONGEST_TAG = 100
SAID = 0.8  # share of the query's words that must be said for a good match


@torch.inference_mode()
def ask(
    library: Library,
    query: Query,
    most: int,
    enough: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Answer:
    """`Library.ask`."""
    if most < 1:
        raise ValueError(f"most is {most}; ask for at least one hit")
    if enough is not None and not 1 <= enough <= most:
        raise ValueError(f"enough is {enough}; it is from 1 to {most}, the most hits that were asked for")
    work = _Work(library, query, most, enough or most, on_progress)
    return work.video_answer() if query.video is not None else work.answer()


@torch.inference_mode()
def matches(library: Library, query: Query, video: str) -> list[Hit]:
    """`Library.matches`."""
    library.video(video)
    work = _Work(library, query, 1, 1)
    return work.beside(video) if query.video is not None else work.along(video)


@dataclass(eq=False)
class _Work:
    """One question while it is answered."""

    library: Library
    query: Query
    most: int
    enough: int
    on_progress: Callable[[int, int], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sample: Background | None = None
    heard: Heard = field(default_factory=Heard)

    def answer(self) -> Answer:
        library, query = self.library, self.query
        catalog = library._catalog()
        videos = self._narrowed(catalog)
        with self._stage("encode"):
            sought = encoded(library, query.parts)
        scorer = self._scorer(sought)
        then = None
        if query.then is not None:
            with self._stage("encode"):
                after = [Sought(library.model.texts([query.then.text]).to("cpu"))]
            then = self._scorer(after, alone=True)
        hits = self._seen(scorer, then, videos)
        with self._stage("order"):
            hits = [hit for hit in hits if hit.segment.video in catalog.videos]  # else deleted while we searched
            match = self._match_with_words(hits)
            hits = self._sorted(hits[: self.most], catalog)
        return Answer(tuple(hits), match, dict(self.seconds), tuple(self.notes))

    def video_answer(self) -> Answer:
        """A clip as the question."""
        library, query = self.library, self.query
        assert query.video is not None
        catalog = library._catalog()
        videos = self._narrowed(catalog)
        with self._stage("encode"):
            clip = likeness.clip(library.model, query.video)

        def look(video: str, start: float, end: float) -> Sketch:
            with library.media.opened(video) as source:
                return likeness.sketch(source, start, end)

        with self._stage("search"):
            hits = alike(library.model, library.index, clip, videos=videos, most=self.most, look=look, mirrored=True)
        with self._stage("order"):
            hits = [hit for hit in hits if hit.segment.video in catalog.videos]
            if query.group == "video":
                hits = list({hit.segment.video: hit for hit in reversed(hits)}.values())[::-1]
            same = any(hit.scores["same"] for hit in hits)
            if hits and not same:
                self.notes.append("No video shows these very pictures; the moments found are merely alike.")
            hits = self._sorted(hits, catalog)
        return Answer(tuple(hits), "good" if same else "unknown", dict(self.seconds), tuple(self.notes))

    def along(self, video: str) -> list[Hit]:
        """Every segment of one video, in order of time."""
        segments = self.library.index.segments([video])
        sought = encoded(self.library, self.query.parts)
        scorer = self._scorer(sought)
        ranking = of_segments(scorer, self.library.index, [segment.id for segment in segments])
        sure = self._confidence(scorer, None, ranking.scored, None)
        hits = [
            replace(ranking.hit(one), scores={"visual": one.score}, confidence=confidence)
            for one, confidence in zip(ranking.scored, sure, strict=True)
        ]
        return sorted(hits, key=lambda hit: (hit.start, hit.end, hit.segment.id))

    def beside(self, video: str) -> list[Hit]:
        """Every segment of one video, in order of time, by how much of it the query clip shows."""
        assert self.query.video is not None
        index = self.library.index
        clip = likeness.clip(self.library.model, self.query.video).tokens
        known = finest(clip)
        shown = Tokens(clip.vectors[known][None], torch.ones(1, int(known.sum()), dtype=torch.bool))
        hits = []
        names = [segment.id for segment in index.segments([video])]
        for start in range(0, len(names), 1024):
            segments, tokens = index.fetch(names[start : start + 1024], skip=True)
            for row, segment in enumerate(segments):
                score = float(alikeness(tokens[row : row + 1], shown))
                hits.append(Hit(segment, score, scores={"alike": score}))
        return hits

    # ------------------------------------------------------------------ stages

    def _narrowed(self, catalog: Catalog) -> list[str] | None:
        """The videos that the filter leaves; None for all."""
        if self.query.where.open:
            return None
        videos = [video.id for video in catalog.where(self.query.where)]
        if not videos:
            self.notes.append("No video passes the filter.")
        return videos

    def _scorer(self, sought: Sequence[Sought], alone: bool = False) -> Scorer:
        alone = alone or self.query.then is not None
        sample = None
        if alone or len(sought) > 1:
            sample = self._background().tokens
        with self._stage("score"):
            return Scorer.of(self.library.model.method, sought, sample, alone)

    def _background(self) -> Background:
        if self.sample is None:
            with self._stage("background"):
                self.sample = Background.of(self.library.model.method, self.library.index)
        return self.sample

    def _seen(self, scorer: Scorer, then: Scorer | None, videos: Sequence[str] | None) -> list[Hit]:
        """Hits by what is seen and said, best first."""
        if self.query.spoken != "without" and self.query.words:
            with self._stage("words"):
                lines = self.library._subtitles.cues
                self.heard = lines.search(self.query.words, videos, k=MOST_LINES, least=LEAST)
        depth = self.query.depth
        if then is not None:  # pairs need both: no number of candidates gives any number of them
            return self._ranked(scorer, then, videos, DEEPER * depth)[0]
        while True:
            hits, full = self._ranked(scorer, then, videos, depth)
            enough = len(hits) >= self.enough or not full or depth >= DEEPEST * self.query.depth
            if enough or self.query.exact:
                return hits
            depth *= DEEPER

    def _ranked(
        self, scorer: Scorer, then: Scorer | None, videos: Sequence[str] | None, depth: int
    ) -> tuple[list[Hit], bool]:
        only = self.query.spoken == "only"
        ranking = Ranking([], 0.0) if only else self._ranking(scorer, videos, depth)
        pairs: dict[str, Pair] = {}
        if then is not None and self.query.then is not None:
            first, second = self._both(scorer, then, ranking, videos, depth)
            fused = self._fused(scorer, first)
            first = fused.ranking
            with self._stage("order"):
                found = follow(first, second, self.query.then.within)
            pairs = {pair.first.segment.id: pair for pair in found}
            scored = [replace(pair.first, score=pair.score) for pair in found]
            ranking = Ranking(scored, first.spread, first.full or second.full)
        else:
            fused = self._fused(scorer, ranking)
            ranking = fused.ranking
        with self._stage("order"):
            scored, hits = self._as_hits(ranking)
        with self._stage("confidence"):
            sure = [None] * len(scored) if only else self._confidence(scorer, then, scored, videos, pairs)
        with self._stage("order"):
            for row, (one, confidence) in enumerate(zip(scored, sure, strict=True)):
                scores, cues = fused.of(one, hits[row].segment)
                after = pairs[one.segment.id].then if one.segment.id in pairs else None
                hits[row] = replace(hits[row], scores=scores, cues=cues, then=after, confidence=confidence)
        return hits, ranking.full

    def _ranking(self, scorer: Scorer, videos: Sequence[str] | None, depth: int) -> Ranking:
        with self._stage("search"):
            several = len(scorer.parts) > 1
            ranking = rank(
                scorer,
                self.library.index,
                k=self.most,
                exact=self.query.exact,
                depth=depth,
                by=self.query.by,
                group=self.query.group,
                videos=videos,
                sample=self._background().tokens if several else None,
                on_progress=self.on_progress,
            )
        return _elsewhere(scorer, ranking)

    def _both(
        self, scorer: Scorer, then: Scorer, first: Ranking, videos: Sequence[str] | None, depth: int
    ) -> tuple[Ranking, Ranking]:
        """Candidates of both in each other's videos too: what follows a good one need not be among the best of all."""
        second = self._ranking(then, videos, depth)
        if self.query.exact:
            return first, second
        firsts = self._ranking(scorer, sorted({one.segment.video for one in second.scored}), depth)
        seconds = self._ranking(then, sorted({one.segment.video for one in first.scored}), depth)
        return _joined(first, firsts), _joined(second, seconds)

    def _as_hits(self, ranking: Ranking) -> tuple[list[Scored], list[Hit]]:
        """What is shown: the best segments, or runs of them, or videos; each with the segment that it is known by."""
        if self.query.group == "video":
            hits = by_video(ranking.scored, None, ranking.spread)
            known = {one.segment.id: one for one in ranking.scored}
            return [known[hit.segment.id] for hit in hits], hits
        if not self.query.merge:
            return list(ranking.scored), ranking.hits()
        runs = merged(ranking.scored, self.library.index)
        return [run.best for run in runs], [ranking.run(run.best, run.segments) for run in runs]

    def _fused(self, scorer: Scorer, ranking: Ranking) -> Fused:
        """The ranking joined with what is said."""
        only = self.query.spoken == "only"
        if not len(self.heard) and not only:
            return Fused(ranking)
        sample = self._background().tokens
        with self._stage("words"):
            fused = fuse(ranking, self.heard, scorer=scorer, index=self.library.index, sample=sample, only=only)
        return replace(fused, ranking=_elsewhere(scorer, fused.ranking))

    def _confidence(
        self,
        scorer: Scorer,
        then: Scorer | None,
        scored: Sequence[Scored],
        videos: Sequence[str] | None,
        pairs: Mapping[str, Pair] | None = None,
    ) -> Sequence[float | None]:
        """How sure each hit is; None where the model is not calibrated for all kinds of parts.

        Parts that are wanted: the mean of their probabilities, geometric and weighed as the parts are; times the
        probability that what is avoided is not there. Of "A, then B" the less likely of both.
        """
        calibration = self.library.calibration
        unknown = [None] * len(scored)
        if calibration is None or not scored:
            return unknown
        segments = None if videos is None else self.library.index.count(videos)
        found = self._probability(calibration, scorer, [one.raw for one in scored], segments)
        if then is not None and pairs:
            second = [pairs[one.segment.id].second.raw for one in scored]
            other = self._probability(calibration, then, second, segments)
            found = None if found is None or other is None else torch.minimum(found, other)
        return unknown if found is None else found.tolist()

    def _probability(
        self, calibration: Calibration, scorer: Scorer, raw: Sequence[np.ndarray], segments: int | None
    ) -> Float[Tensor, "hit"] | None:
        scores = torch.from_numpy(np.stack(raw)).double()
        total = torch.zeros(len(scores), dtype=torch.float64)
        weight = sum(part.weight for part in scorer.parts if part.weight > 0)
        for row, part in enumerate(scorer.parts):
            kind = "text" if part.kind == "text" else "image"
            if kind not in calibration.fits:
                return None
            found = calibration.confidence(
                scorer.method, part.tokens, scores[:, row], self._background(), kind=kind, segments=segments
            ).double()
            if part.weight > 0:
                total += part.weight / weight * found.clamp(min=1e-12).log()
            else:
                total += (1 - found).clamp(min=1e-12).log()
        return total.exp()

    def _match_with_words(self, hits: Sequence[Hit]) -> Match:
        """The better of what is seen and what is said: each is judged on its own scale."""
        words = max((hit.scores.get("words", 0.0) for hit in hits), default=0.0)
        said: Match = "good" if words >= SAID else "weak" if words >= SAID / 2 else "none"
        if self.query.spoken == "only":
            return said
        seen = self._match(hits)
        return said if said == "good" or (said == "weak" and seen == "none") else seen

    def _match(self, hits: Sequence[Hit]) -> Match:
        calibration = self.library.calibration
        if calibration is None or not calibration.fits:
            return "unknown"
        known = [hit.confidence for hit in hits if hit.confidence is not None]
        if hits and not known:
            return "unknown"
        kind = "text" if any(part.kind == "text" for part in self.query.wanted) else "image"
        return calibration.match(max(known, default=None), kind if kind in calibration.fits else "text")

    def _sorted(self, hits: list[Hit], catalog: Catalog) -> list[Hit]:
        if self.query.sort == "relevance":
            return hits

        def order(hit: Hit) -> tuple[float, str, float, str]:
            video = catalog.videos[hit.segment.video]
            return video.date.timestamp(), video.path, hit.start, hit.segment.id

        return sorted(hits, key=order)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def encoded(library: Library, parts: Sequence[Part]) -> list[Sought]:
    """The parts as tokens, always in the same order, without those of weight 0.

    Raises LookupError for a segment that is not in the index, VideoError for a file that is no picture.
    """
    kept = sorted((part for part in parts if part.weight), key=lambda part: (part.kind, part.said, part.weight))
    return [_encoded(library, part) for part in kept]


def _encoded(library: Library, part: Part) -> Sought:
    if part.text is not None:
        return Sought(library.model.texts([part.text]).to("cpu"), "text", part.weight)
    if part.image is not None:
        return Sought(picture(library.model, part.image), "image", part.weight)
    segments, tokens = library.index.fetch([part.said], skip=True)
    if not segments:
        raise LookupError(f"the index has no segment {part.said!r}; take the id of a hit, or search again")
    return Sought(tokens, "like", part.weight, segments[0])


def picture(model: Model, path: Path) -> Tokens:
    """The tokens of a video that is one picture. VideoError for a file that is none."""
    pixels = still(path, size=model.backbone.image_size, squash=model.backbone.squash)
    features = model.frames(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
    span = torch.tensor([[0.0, 1.0]], dtype=torch.float64, device=features.device)
    return model.videos(Frames.pack([features.float()], [span])).to("cpu")


def _elsewhere(scorer: Scorer, ranking: Ranking) -> Ranking:
    """Without the segments that the query asks to be like, and those that overlap them."""
    places = [part.place for part in scorer.parts if part.place is not None and part.weight > 0]
    kept = [one for one in ranking.scored if not any(_overlap(one.segment, place) for place in places)]
    return replace(ranking, scored=kept)


def _overlap(one: Segment, other: Segment) -> bool:
    return one.video == other.video and one.start < other.end and other.start < one.end


def _joined(one: Ranking, other: Ranking) -> Ranking:
    """The segments of both, each once; the first's spread."""
    known = {scored.segment.id: scored for scored in (*other.scored, *one.scored)}
    ordered = sorted(known.values(), key=lambda scored: (-scored.score, scored.segment.id))
    return Ranking(ordered, one.spread, one.full or other.full)


# ---------------------------------------------------------------------- tags


def tag(library: Library, video: str, add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """`Library.tag`."""
    if isinstance(add, str) or isinstance(remove, str):
        raise TypeError('add and remove are lists of tags; a single one is ["..."]')
    name = library._catalog().find(video).id
    fresh, gone = [_tag_row(name, one) for one in add], [_tag_row(name, one) for one in remove]
    if both := {row.id for row in fresh} & {row.id for row in gone}:
        told = ", ".join(repr(row.tag) for row in fresh if row.id in both)
        raise ValueError(f"{told} is to be added and removed at once; ask for one of them")
    library._tags.put(*{row.id: row for row in fresh}.values())
    library._tags.delete({row.id for row in gone})
    return library.video(name).tags


def _tag_row(video: str, tag: str) -> TagRow:
    plain = " ".join(unicodedata.normalize("NFC", tag).split())
    if not plain:
        raise ValueError(f"the tag {tag!r} is empty; give it a letter at least")
    if len(plain) > LONGEST_TAG or not plain.isprintable():
        raise ValueError(f"the tag {plain[:40]!r} has more than {LONGEST_TAG} letters, or some that cannot be shown")
    return TagRow(f"{video}|{plain.casefold()}", video, plain)
