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


@app.command("reels")
def reels(
    pictures: Annotated[
        Path,
        typer.Option(
            help="A folder of captioned pictures: Flickr8k, or with captions.csv (picture, caption and maybe split).",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False, show_default=False)],
    protocol: Annotated[str, typer.Option(help="shot, paragraph or order.")] = "shot",
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test; may be given more than once.", show_default="all")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Reels a split.", min=1, show_default="as in the benchmark")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other reels.", min=0)] = 0,
    render: Annotated[bool, typer.Option("--render", help="Draw the mp4 files, too.")] = False,
    as_json: Json = False,
) -> None:
    """Compose videos of captioned pictures, and write them as a benchmark that `folder` reads."""
    from rushes.data.rendered import write

    with bar("reels") as show:
        done = write(
            pictures,
            out,
            protocol,
            splits=split,
            count=count,
            seed=seed,
            films=render,
            on_progress=(lambda now, total, reel: show(now, total, reel, now)) if show else None,
        )
    for note in done.notes:
        typer.echo(note, err=True)
    if as_json:
        print_json(asdict(done))
    else:
        for name, videos in done.videos.items():
            typer.echo(f"{name:<6}{videos:>7,} videos  {done.captions[name]:>8,} captions")


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
