"""`rushes tag`: your own tags on videos, to find them by."""

from __future__ import annotations

from typing import Annotated

import typer

from rushes.cli.options import Folder, Json, Store, clock, print_json


def tag(
    folder: Folder,
    video: Annotated[
        str | None, typer.Argument(help="A video: its path in FOLDER, or its id.", show_default=False)
    ] = None,
    add: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Put this tag on it.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Take this tag off.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Tag VIDEO, or list the videos of FOLDER with their tags. Tags outlive moves, copies and rebuilds of the index."""
    if (add or remove) and video is None:
        raise typer.BadParameter("say which video the tags are for", param_hint="VIDEO")
    import rushes

    library = rushes.open(folder, store)
    if video is not None and (add or remove):
        library.tag(video, add or (), remove or ())
    videos = library.videos() if video is None else [library.find(video)]
    if as_json:
        print_json(
            [
                {
                    "video": one.path,
                    "id": one.id,
                    "paths": one.paths,
                    "tags": one.tags,
                    "seconds": round(one.length, 3),
                    "date": one.date.isoformat(timespec="seconds"),
                    "size_bytes": one.size_bytes,
                    "status": one.status,
                }
                for one in videos
            ]
        )
        return
    for one in videos:
        day = one.date.astimezone().date().isoformat()
        typer.echo(f"{day}  {clock(one.length):>9}  {one.path}  {', '.join(one.tags)}".rstrip())
    if not videos:
        typer.echo("the index holds no video yet: run `rushes index` first", err=True)
