"""POST of searches and of what belongs to them: a video's matches, the explanation of a hit."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request

from rushes.library import Library, asking
from rushes.search.query import EVERYWHERE, Answer, Part, Query, Then, VideoInfo, Where
from rushes.serve import schemas
from rushes.serve.pool import Pool
from rushes.serve.problems import Refusal
from rushes.serve.results import Frozen
from rushes.serve.routes.videos import kinds, short
from rushes.serve.service import Service, service
from rushes.types import Hit
from rushes.video.probe import VideoError

router = APIRouter(tags=["search"])
Told = TypeVar("Told")
FIRST, LAST = date(1900, 1, 1), date(2200, 1, 1)
Item = tuple[Hit, VideoInfo]  # a hit and its video as they were when the answer was frozen
log = logging.getLogger("rushes.serve.queries")


@router.post("/v1/search")
async def search(asked: schemas.Search, request: Request) -> schemas.SearchAnswer:
    """Find moments. The first page freezes the whole answer; a cursor leads on in it, whatever is indexed since."""
    here = service(request)
    digest = _digest(asked)
    if asked.cursor is not None:
        name, frozen, position = here.results.at(asked.cursor)
        if digest not in (frozen.asked, NOTHING):
            raise Refusal("cursor-mismatch", "the cursor was made by another query than the one sent with it")
        library = here.library
    else:
        library = await here.ready(request)
        query = _query(here, asked)
        if here.log_queries:
            log.info("search %s", json.dumps(asked.model_dump(exclude_defaults=True, mode="json")))
        pool = here.searching if query.video is None else here.media  # a clip takes as long as a film does
        call = partial(_freeze, here, library, query, asked, digest)
        frozen = await _guarded(here, request, call, pool)
        name, position = here.results.put(frozen), 0
    hits, cursor = here.results.page(name, frozen, position, asked.limit)
    told = await here.looking.run(lambda: _told(here, library, hits, position), request)
    return schemas.SearchAnswer(hits=told, total=len(frozen.items), cursor=cursor, **frozen.about)


@router.post("/v1/videos/{video}/matches")
async def matches(video: schemas.VideoId, asked: schemas.Question, request: Request) -> schemas.Matches:
    """Every segment of one video in order of time, scored by the query: where in it to look."""
    here = service(request)
    library = await here.ready(request)
    query = _query(here, asked)

    def found() -> list[Hit]:
        try:
            library.video(video)
        except LookupError:
            raise Refusal("unknown-video", "the library has no video of this id") from None
        return library.matches(query, video)

    hits = await _guarded(here, request, found)
    return schemas.Matches(
        matches=[
            schemas.Match(
                segment=hit.segment.id, start=hit.start, end=hit.end, score=hit.score, confidence=hit.confidence
            )
            for hit in hits
        ]
    )


@router.post("/v1/explain")
async def explain(asked: schemas.ExplainQuestion, request: Request) -> schemas.Explanation:
    """Which words of a text a segment fits, and where in it."""
    here = service(request)
    library = await here.ready(request)
    told = await _guarded(here, request, lambda: library.explain(asked.segment, asked.text))
    return schemas.Explanation(
        words=list(told.words),
        weights=list(told.weights),
        spans=list(told.spans),
        scores=[list(row) for row in told.scores],
        whole=told.whole,
    )


async def _guarded(here: Service, request: Request, call: Callable[[], Told], pool: Pool | None = None) -> Told:
    """The call in the pool of searches; what the library says of a bad question becomes a problem."""
    try:
        return await (pool or here.searching).run(call, request)
    except FileNotFoundError:
        raise Refusal("not-indexed", "the index is not there any more") from None
    except (KeyError, IndexError, UnicodeError):
        raise  # ours to mend
    except LookupError as error:
        raise Refusal("unknown-segment", here.plain(str(error))) from None
    except VideoError as error:
        raise Refusal("bad-media", here.plain(error.reason), reason=error.code) from None
    except ValueError as error:
        raise Refusal("bad-query", here.plain(str(error))) from None


def _freeze(here: Service, library: Library, query: Query, asked: schemas.Search, digest: str) -> Frozen[Item]:
    answer: Answer = library.ask(query, here.limits.hits, enough=min(asked.limit, here.limits.hits))
    hits, floor = answer.hits, asked.min_confidence
    if floor is not None:
        if hits and all(hit.confidence is None for hit in hits):
            raise Refusal("not-calibrated", "no hit has a confidence that min_confidence could be compared with")
        # confidence is of what is seen: a hit in which the words are said stays
        hits = tuple(
            hit for hit in hits if (hit.confidence or 0.0) >= floor or hit.scores.get("words", 0.0) >= asking.SAID
        )
    # what is known of the videos is frozen, too: a page must not fail for one that was deleted since
    videos = {video.id: video for video in library.videos()} if hits else {}
    items = tuple((hit, videos[hit.segment.video]) for hit in hits if hit.segment.video in videos)
    here.metrics.searched(answer.match, len(items), answer.seconds)
    here.metrics.candidates.set(library.index.count())
    about = {
        "match": answer.match,
        "seconds": {stage: round(taken, 6) for stage, taken in answer.seconds.items()},
        "notes": [here.plain(note) for note in answer.notes],
    }
    return Frozen(items, digest, about)


def _query(here: Service, asked: schemas.Question) -> Query:
    """The question in the library's words; Refusal for one that cannot be asked."""
    first = schemas.Part(text=asked.text), schemas.Part(image=asked.image), schemas.Part(like=asked.like)
    given = [part for part in first if part.text is not None or part.image is not None or part.like is not None]
    try:
        parts: list[Part] = []
        for part in [*given, *asked.parts]:
            image = None if part.image is None else here.uploads.get(part.image, "image").path
            parts.append(Part(text=part.text, image=image, like=part.like, weight=part.weight))
        parts += [Part(text=text, weight=-1.0) for text in asked.avoid]
        if not parts and asked.video is None:
            raise Refusal("empty-query", "there is nothing to look for")
        return Query(
            parts=tuple(parts),
            video=None if asked.video is None else here.uploads.get(asked.video, "video").path,
            then=None if asked.then is None else Then(asked.then.text, asked.then.within),
            spoken=asked.spoken,
            where=_where(asked.where),
            group=asked.group,
            sort=asked.sort,
            merge=asked.merge,
        )
    except ValueError as error:
        raise Refusal("bad-query", here.plain(str(error))) from None


def _where(asked: schemas.Where | None) -> Where:
    if asked is None:
        return EVERYWHERE
    return Where(
        videos=None if asked.videos is None else tuple(asked.videos),
        folder=asked.folder,
        min_seconds=asked.min_seconds,
        max_seconds=asked.max_seconds,
        after=_within_reach(asked.after),
        before=_within_reach(asked.before),
        tags=tuple(asked.tags),
    )


def _within_reach(day: date | None) -> date | None:
    """Days that no clock of a file can show, as the nearest that one can: the same videos pass."""
    return None if day is None else min(max(day, FIRST), LAST)


def _digest(asked: schemas.Search) -> str:
    """Equal for equal questions, whatever page of the answer is wanted."""
    body = asked.model_dump(mode="json", exclude={"limit", "cursor"}, exclude_defaults=True)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


NOTHING = _digest(schemas.Search())


def _told(here: Service, library: Library, items: tuple[Item, ...], position: int) -> list[schemas.Hit]:
    known = kinds(here, library, {video.id for _, video in items})
    thumbnails = library.media.thumbnail_names([hit.segment.id for hit, _ in items])
    return [
        _hit(hit, short(video, known.get(video.id)), rank, thumbnails.get(hit.segment.id))
        for rank, (hit, video) in enumerate(items, position + 1)
    ]


def _hit(hit: Hit, video: schemas.VideoShort, rank: int, thumbnail: str | None) -> schemas.Hit:
    then, of_query = hit.then, hit.of_query
    return schemas.Hit(
        rank=rank,
        segment=hit.segment.id,
        video=video,
        start=round(hit.start, 3),
        end=round(hit.end, 3),
        score=round(hit.score, 6),
        confidence=None if hit.confidence is None else round(hit.confidence, 4),
        scores={name: round(score, 6) for name, score in hit.scores.items()},
        moments=[_moment(moment.start, moment.end, moment.score) for moment in hit.moments],
        cues=[schemas.Cue(start=cue.start, end=cue.end, text=cue.text) for cue in hit.cues],
        then=None if then is None else _moment(then.start, then.end, then.score),
        of_query=None if of_query is None else schemas.Span(start=round(of_query[0], 3), end=round(of_query[1], 3)),
        merged=hit.merged,
        thumbnail=None if thumbnail is None else f"/v1/thumbnails/{thumbnail}",
    )


def _moment(start: float, end: float, score: float) -> schemas.Moment:
    return schemas.Moment(start=round(start, 3), end=round(end, 3), score=round(score, 6))
