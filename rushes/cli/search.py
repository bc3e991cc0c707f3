"""`rushes search`: the moments of a folder's videos that match a text, a picture, a clip, or several of them."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes.cli.options import Folder, Json, Store, clock, print_json
from rushes.cli.progress import bar

if TYPE_CHECKING:
    from rushes.library import Library
    from rushes.search.query import Answer, Query
    from rushes.types import Hit


class Group(StrEnum):
    segment = "segment"
    video = "video"


class By(StrEnum):
    summary = "summary"
    frame = "frame"


class Sort(StrEnum):
    relevance = "relevance"
    time = "time"


class Spoken(StrEnum):
    yes = "with"
    only = "only"
    no = "without"


def search(
    folder: Folder,
    text: Annotated[str | None, typer.Argument(help="What to look for.", show_default=False)] = None,
    avoid: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help='What to avoid: "a beach", or "a beach:2".')
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help='What else to look for: "snow", or "snow:0.5" for less.')
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A picture to be like.", exists=True, dir_okay=False, show_default=False),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A segment to be like: the id that --json shows.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(help="A clip to find, alone.", exists=True, dir_okay=False, show_default=False),
    ] = None,
    then: Annotated[str | None, typer.Option(metavar="TEXT", help="What comes after it in the same video.")] = None,
    within: Annotated[float, typer.Option(metavar="SECONDS", help="How soon it comes.", min=0.001)] = 30.0,
    spoken: Annotated[Spoken, typer.Option(help="Search with subtitles, only in them, or without.")] = Spoken.yes,
    inside: Annotated[
        str | None, typer.Option("--in", metavar="DIR", help="Only videos in this folder of FOLDER.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="VIDEO", help="Only this video: a path or id.")] = None,
    longer: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Only videos at least so long.", min=0)
    ] = None,
    shorter: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Only videos at most so long.", min=0)
    ] = None,
    after: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], metavar="DATE", help="Only videos of that day or later."
        ),
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], metavar="DATE", help="Only videos of an earlier day."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Only videos with this tag of yours.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits a page.", min=1)] = 10,
    page: Annotated[int, typer.Option(help="Which page of hits.", min=1)] = 1,
    most: Annotated[int, typer.Option(help="Hits on all pages together, at most.", min=1)] = 200,
    group: Annotated[Group, typer.Option(help="A hit for each segment, or one for each video.")] = Group.segment,
    sort: Annotated[Sort, typer.Option(help="The best first, or in order of time.")] = Sort.relevance,
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="Show neighbours that look the same as one hit.")
    ] = True,
    exact: Annotated[
        bool, typer.Option("--exact", help="Score every segment, not only the nearest candidates.")
    ] = False,
    depth: Annotated[
        int | None, typer.Option(help="Candidates that the method re-ranks.", min=1, show_default="500")
    ] = None,
    by: Annotated[By | None, typer.Option(help="What candidates are found by.", show_default="summary")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find TEXT (or a picture, a segment, a clip) in the videos of FOLDER: hits, best first, with moments."""
    if text is not None and not text.strip():
        raise typer.BadParameter("the text is empty; say what to look for", param_hint="TEXT")
    if not (text or also or image or like or video):
        raise typer.BadParameter("say what to look for, or give --image, --like or --video", param_hint="TEXT")
    if video and (text or avoid or also or image or like or then):
        raise typer.BadParameter("a clip is looked for alone; ask twice", param_hint="--video")
    import rushes
    from rushes.search.query import CANDIDATES, DEPTH, Part, Query, Then, Where
    from rushes.video.probe import VideoError

    library = rushes.open(folder, store)
    parts = [
        *([Part(text=text)] if text else []),
        *(Part(text=what, weight=weight) for what, weight in map(_weighed, also or [])),
        *(Part(text=what, weight=-weight) for what, weight in map(_weighed, avoid or [])),
        *(Part(image=path) for path in image or []),
        *(Part(like=name) for name in like or []),
    ]
    query = Query(
        parts=tuple(parts),
        video=video,
        then=Then(then, within) if then else None,
        spoken=spoken.value,
        where=Where(
            videos=tuple(library.find(name).id for name in only) if only else None,
            folder=inside,
            min_seconds=longer,
            max_seconds=shorter,
            after=after,
            before=before,
            tags=tuple(tag or ()),
        ),
        group=group.value,
        sort=sort.value,
        merge=merge,
        exact=exact,
        depth=depth or DEPTH,
        by=by.value if by else CANDIDATES,
    )
    with bar("segments") as show:
        try:
            answer = library.ask(
                query,
                max(most, k),
                on_progress=(lambda done, total: show(done, total, "scoring", done)) if show else None,
            )
        except VideoError as error:  # of the picture or clip that was given
            raise ValueError(str(error)) from error
    first = (page - 1) * k
    hits = list(enumerate(answer.hits[first : first + k], start=first + 1))
    names = {hit.segment.video: library.video(hit.segment.video).path for _, hit in hits}
    if as_json:
        print_json([_json(rank, hit, names[hit.segment.video]) for rank, hit in hits])
    else:
        for rank, hit in hits:
            typer.echo(_line(rank, hit, names[hit.segment.video]))
    _tell(library, query, answer, hits, page)


def _weighed(told: str) -> tuple[str, float]:
    """A text and its weight; a number behind a colon is one, unless it goes on with a number before it.

    >>> _weighed("snow:0.5"), _weighed("snow"), _weighed("a clock at 10:30")
    (('snow', 0.5), ('snow', 1.0), ('a clock at 10:30', 1.0))
    """
    found = re.fullmatch(r"(.*[^\d\s])\s*:\s*(\d+(?:\.\d+)?)", told)
    return (found[1], float(found[2])) if found else (told, 1.0)


def _json(rank: int, hit: Hit, path: str) -> dict[str, Any]:
    def timed(part: Any) -> dict[str, Any]:
        row = {name: value for name, value in asdict(part).items() if name != "video"}
        return {name: _rounded(name, value) for name, value in row.items()}

    return {
        "rank": rank,
        "video": path,
        "start": round(hit.start, 3),
        "end": round(hit.end, 3),
        "score": round(hit.score, 6),
        "moments": [timed(moment) for moment in hit.moments],
        "confidence": None if hit.confidence is None else round(hit.confidence, 4),
        "scores": {name: round(value, 6) for name, value in hit.scores.items()},
        "cues": [timed(cue) for cue in hit.cues],
        "then": None if hit.then is None else timed(hit.then),
        "merged": hit.merged,
        "of_query": None if hit.of_query is None else dict(zip(("start", "end"), hit.of_query, strict=True)),
        "segment": hit.segment.id,
        "id": hit.segment.video,
    }


def _rounded(name: str, value: Any) -> Any:
    return round(value, 6 if name == "score" else 3) if isinstance(value, float) else value


def _line(rank: int, hit: Hit, path: str) -> str:
    where = f"{clock(hit.start)}–{clock(hit.end)}"
    told = []
    if hit.moments:
        told.append(f"(best {clock(hit.moments[0].start)}–{clock(hit.moments[0].end)})")
    if hit.then is not None:
        told.append(f"then {clock(hit.then.start)}–{clock(hit.then.end)}")
    if hit.of_query is not None:
        told.append(f"like {clock(hit.of_query[0])}–{clock(hit.of_query[1])} of the clip")
    if hit.confidence is not None:
        told.append(f"{100 * hit.confidence:.0f} %")
    if hit.merged > 1:
        told.append(f"{hit.merged} segments")
    if hit.cues:
        told.append(f"“{' '.join(hit.cues[0].text.split())}”")
    return f"{rank:>3}  {hit.score:6.3f}  {where:<17}  {path}  {'  '.join(told)}".rstrip()


def _tell(library: Library, query: Query, answer: Answer, hits: list[tuple[int, Hit]], page: int) -> None:
    """On stderr, what the hits do not say themselves."""
    for note in answer.notes:
        typer.echo(note, err=True)
    if hits:
        if answer.match == "none":
            typer.echo("no good match: these are the nearest, but none is likely to be what was asked for", err=True)
        elif answer.match == "weak":
            typer.echo("a weak match: the first hits may or may not be what was asked for", err=True)
    elif answer.hits:
        typer.echo(f"page {page} is beyond the end: there are {len(answer.hits)} hits", err=True)
    elif library.index.count() == 0:
        typer.echo("the index holds no segment yet: run `rushes index` first", err=True)
    elif not answer.notes:
        typer.echo("nothing was found" + ("" if query.where.open else " in the videos that pass the filter"), err=True)
