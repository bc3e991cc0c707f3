"""`rushes index`: bring a folder's index up to date."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.cli.options import Folder, Json, Store, print_json
from rushes.cli.progress import bar

if TYPE_CHECKING:
    from rushes.library import Progress


class Policy(StrEnum):
    fast = "fast"
    balanced = "balanced"
    thorough = "thorough"


class Segments(StrEnum):
    shots = "shots"
    windows = "windows"


def index(
    folder: Folder,
    model: Annotated[
        str | None, typer.Option(help="An installed model, a folder, or a CLIP or SigLIP hub id.", show_default="small")
    ] = None,
    policy: Annotated[
        Policy | None,
        typer.Option(
            help="fast: key frames; balanced: 1 frame/s; thorough: every frame decoded, 2 frames/s.",
            show_default="balanced",
        ),
    ] = None,
    segments: Annotated[
        Segments | None, typer.Option(help="Cut at shots, or into overlapping windows.", show_default="shots")
    ] = None,
    store: Store = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try files of the failure ledger again.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Drop the index and encode all again.")] = False,
    as_json: Json = False,
) -> None:
    """Index what is new or changed in FOLDER, drop what is gone, go on where a run was stopped."""
    import rushes

    library = rushes.open(folder, store)
    with bar("frames") as show:

        def on_progress(now: Progress) -> None:
            assert show is not None
            show(now.done_bytes, now.total_bytes, now.video, now.frames)

        report = library.refresh(
            model=model,
            policy=None if policy is None else policy.value,
            segments=None if segments is None else segments.value,
            retry_failed=retry_failed,
            rebuild=rebuild,
            on_progress=on_progress if show else None,
        )
    if as_json:
        print_json(asdict(report))
    say = [f"{report.videos} videos indexed, {report.unchanged} files as before"]
    say += [f"{count} {what}" for count, what in ((report.moved, "moved"), (report.removed, "removed")) if count]
    say += [f"{report.segments} new segments in {report.seconds:.1f} s ({report.frames_per_second:.0f} frames/s)"]
    typer.echo("; ".join(say), err=True)
    if report.videos == report.unchanged == report.failed == 0:
        typer.echo(f"no video found below {folder} ({report.ignored} other files)", err=True)
    if report.failed:
        typer.echo(f"{report.failed} files with failures: `rushes info {folder}` lists them", err=True)
    if report.failed and library.info().videos == 0:
        raise typer.Exit(1)
