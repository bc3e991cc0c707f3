"""`rushes data`: benchmarks on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.cli.options import Json, print_json
from rushes.cli.progress import bar

if TYPE_CHECKING:
    from rushes.data.doctor import Report

app = typer.Typer(help="Benchmarks on disk: what is there, what is missing.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Benchmarks on disk: what is there, what is missing."""


@app.command("doctor")
def doctor(
    name: Annotated[
        str, typer.Argument(help="activitynet, didemo, folder, lsmdc, msrvtt or msvd.", show_default=False)
    ],
    root: Annotated[
        Path,
        typer.Option(help="The folder with annotations and videos.", exists=True, file_okay=False, show_default=False),
    ],
    protocol: Annotated[
        str | None, typer.Option(help="One of the benchmark's protocols.", show_default="its default, or what is there")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Try to read a frame of every video.")] = True,
    as_json: Json = False,
) -> None:
    """Compare the benchmark NAME in a folder with what is published; 1 is returned where something must be mended."""
    from rushes.data.doctor import examine

    with bar("files") as show, _reader() as read:
        report = examine(
            name,
            root,
            protocol,
            probe=read if probe else None,
            on_progress=(lambda done, total, file: show(done, total, file, done)) if show else None,
        )
    if as_json:
        print_json(asdict(report))
    else:
        _tell(report)
    if report.problems:
        raise typer.Exit(1)


@contextmanager
def _reader() -> Iterator[Callable[[Path], str | None]]:
    """Tells what is wrong with a video file, by decoding up to its first frame in a process that may hang or crash."""
    from rushes.video.decode import Frame
    from rushes.video.probe import VideoError
    from rushes.video.worker import Decoder

    with Decoder() as decoder:

        def read(path: Path) -> str | None:
            try:
                events = decoder.read(path, policy="fast", segments="windows", size=32)
                found = any(isinstance(event, Frame) for event in events)
            except VideoError as error:
                return str(error)
            return None if found else f"{path} has not one frame that decodes [no-frames]"

        yield read


def _tell(report: Report) -> None:
    typer.echo(f"{report.name} in {report.root}")
    typer.echo(f"protocol {report.protocol}: {report.about}")
    for split in report.splits:
        counts = f"{split.videos:>7,} videos  {split.captions:>8,} captions"
        mark = "absent" if split.absent else "as published" if split.as_published else "NOT as published"
        if split.published is None and not split.absent:
            mark = ""
        typer.echo(f"  {split.name:<6}{counts}  {split.digest:<12}  {mark}".rstrip())
    looked = f", {report.probed:,} read for a frame" if report.probed else ", none opened"
    typer.echo(f"files    {report.found:,} of {report.videos:,} videos have one{looked}")
    for title, lines in (("to mend", report.problems), ("to know", report.remarks)):
        if lines:
            typer.echo(title)
        for line in lines:
            typer.echo(f"  - {line}")
    typer.echo("protocols that this folder serves")
    for one in report.protocols:
        mark = "yes" if one.served else "annotations only" if one.annotations else "no"
        typer.echo(f"  {one.protocol:<16}{mark:<18}{one.why or one.about}")
