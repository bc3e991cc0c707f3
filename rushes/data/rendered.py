"""Writes reels as a benchmark of files: captions.csv that `folder` reads, and the mp4 of every reel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from csv import writer
from dataclasses import asdict, dataclass
from pathlib import Path

from rushes.data import reels
from rushes.data.base import Split
from rushes.data.compose import Reel, render

# x264 at its own 23 takes the features of `small` to a cosine of 0.978 with those of the frames as drawn
OPTIONS = {"crf": "18"}
OnProgress = Callable[[int, int, str], None]  # reels drawn, reels in all, the reel at hand


@dataclass(frozen=True, slots=True)
class Written:
    """What lies in `out` now; of each split how many videos and captions."""

    out: str
    protocol: str
    seed: int
    videos: dict[str, int]
    captions: dict[str, int]
    rendered: int  # in this run
    notes: tuple[str, ...]


def write(
    root: Path,
    out: Path,
    protocol: str = reels.DEFAULT,
    *,
    splits: Sequence[str] | None = None,
    count: int | None = None,
    seed: int = reels.SEED,
    films: bool = False,
    on_progress: OnProgress | None = None,
) -> Written:
    """Write captions.csv, reels.json (which picture is where, when) and with `films` the mp4 files, by split.

    A folder says one video a caption: where a picture is in several reels, only that which the caption was made for.
    Under "order" every reel has its paragraph, for a video without a row would not be in the gallery. A run that was
    stopped goes on; a folder that holds anything else is an error.
    """
    benchmark = reels.parse(root, protocol, seed=seed, count=count, told=True)
    wanted = {split: benchmark[split] for split in splits or benchmark.splits}
    drawn = {split: reels.reels_of(root, protocol, split, seed=seed, count=count) for split in wanted}
    told = {
        "protocol": protocol,
        "seed": seed,
        "count": count,
        "reels": {split: [asdict(reel) for reel in those] for split, those in drawn.items()},
    }
    _begin(out, json.dumps(told, indent=1))
    todo = [(split, reel) for split, those in drawn.items() for reel in those] if films else []
    rendered = 0
    for number, (split, reel) in enumerate(todo):
        rendered += _film(reel, out / split / f"{reel.id}.mp4", root)
        if on_progress is not None:
            on_progress(number + 1, len(todo), reel.id)
    notes = list(benchmark.notes)
    rows = [("video", "caption", "start", "end", "split")]
    for name, split in wanted.items():
        rows += _rows(name, split)
        several = len(split.pairs) - len(split.captions)
        if several:
            notes.append(
                f"{name}: {several} pairs are beyond what a folder can say: pictures that other reels show, too"
            )
    fresh = out / ".captions.csv"
    with fresh.open("w", newline="", encoding="utf-8") as stream:
        writer(stream).writerows(rows)
    os.replace(fresh, out / "captions.csv")  # last: until then this is no benchmark
    return Written(
        str(out),
        protocol,
        seed,
        {name: len(split.videos) for name, split in wanted.items()},
        {name: len(split.captions) for name, split in wanted.items()},
        rendered,
        tuple(notes),
    )


def _rows(name: str, split: Split) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for caption in split.captions:
        home = caption.id.rpartition("#")[0]
        rows.append((f"{name}/{home}.mp4", caption.text, f"{caption.start:g}", f"{caption.end:g}", name))
    return rows


def _begin(out: Path, told: str) -> None:
    """Make the folder, or go on in one that was begun with the same reels."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "reels.json"
    if file.is_file():
        if file.read_text(encoding="utf-8") != told:
            raise ValueError(f"{file} tells of other reels than these; give another --out, or the same options again")
    elif any(out.iterdir()):
        raise ValueError(f"{out} holds {next(out.iterdir()).name} already; give an empty or a new folder for --out")
    else:
        file.write_text(told, encoding="utf-8")


def _film(reel: Reel, file: Path, root: Path) -> bool:
    """Draw a reel's file, whole or not at all; False where it was there."""
    if file.is_file():
        return False
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_name(f".{file.name}")
    render(reel, fresh, root=root, options=OPTIONS)
    os.replace(fresh, file)
    return True
