"""`rushes search`: the moments of a folder's videos that match a text."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from rushes.cli.options import Folder, Json, Store, clock, print_json
from rushes.cli.progress import bar


class Group(StrEnum):
    segment = "segment"
    video = "video"


class By(StrEnum):
    summary = "summary"
    frame = "frame"


def search(
    folder: Folder,
    text: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many hits.", min=1)] = 10,
    exact: Annotated[
        bool, typer.Option("--exact", help="Score every segment, not only the nearest candidates.")
    ] = False,
    group: Annotated[Group, typer.Option(help="A hit for each segment, or one for each video.")] = Group.segment,
    depth: Annotated[
        int | None, typer.Option(help="Candidates that the method re-ranks.", min=1, show_default="500")
    ] = None,
    by: Annotated[By | None, typer.Option(help="What candidates are found by.", show_default="summary")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find TEXT in the videos of FOLDER: segments, best first, with the moments inside them."""
    if not text.strip():
        raise typer.BadParameter("the text is empty; say what to look for", param_hint="TEXT")
    import rushes
    from rushes.search.pipeline import CANDIDATES, DEPTH

    with bar("segments") as show:
        hits = rushes.open(folder, store).search(
            text,
            k,
            exact=exact,
            group=group.value,
            depth=depth or DEPTH,
            by=by.value if by else CANDIDATES,
            on_progress=(lambda done, total: show(done, total, "scoring", done)) if show else None,
        )
    if as_json:
        print_json(
            [
                {
                    "rank": rank,
                    "video": hit.segment.video,
                    "start": round(hit.start, 3),
                    "end": round(hit.end, 3),
                    "score": round(hit.score, 6),
                    "moments": [
                        {name: round(value, 6 if name == "score" else 3) for name, value in asdict(moment).items()}
                        for moment in hit.moments
                    ],
                }
                for rank, hit in enumerate(hits, start=1)
            ]
        )
        return
    if not hits:
        typer.echo("the index holds no segment yet: run `rushes index` first", err=True)
    for rank, hit in enumerate(hits, start=1):
        best = hit.moments[0]
        where = f"{clock(hit.start)}–{clock(hit.end)}"
        typer.echo(
            f"{rank:>3}  {hit.score:6.3f}  {where:<17}  {hit.segment.video}"
            f"  (best {clock(best.start)}–{clock(best.end)})"
        )
