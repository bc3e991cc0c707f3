"""LSMDC: clips of films with one sentence of audio description each (Rohrbach et al. 2017), challenge of 2016."""

from __future__ import annotations

import re
from pathlib import Path

from rushes.data import read
from rushes.data.base import Benchmark, Caption, Count, Protocol, Split, Video, checked, chosen, make_split

PROTOCOLS = {
    "2016": Protocol(
        "the 1,000 clips of the 2016 challenge's public test, 101,079 training and 7,408 validation sentences",
        {"train": Count(None, 101_079), "val": Count(None, 7408), "test": Count(1000, 1000)},
        # the readme counts "clips", and the files are not public to count in: compared, not enforced
        loose=frozenset({"train", "val"}),
    )
}
DEFAULT = "2016"
FILES = {
    "train": ("LSMDC16_annos_training.csv",),
    "val": ("LSMDC16_annos_val.csv",),
    "test": ("LSMDC16_challenge_1000_publictect.csv", "LSMDC16_challenge_1000_publictest.csv"),  # "tect" is no slip
}
COLUMNS = ("movie_clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")
CLOCK = re.compile(r"(\d+)[.:](\d\d)[.:](\d\d)[.,](\d+)")
CUT = re.compile(r"_\d\d\.\d\d\.\d\d\.\d+-\d\d\.\d\d\.\d\d\.\d+$")  # what a clip's name has behind its film's


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """LSMDC from its three tab-separated files, with or without a header row.

    The test set has its published counts or is absent; `parse` also gives one that has not.
    """
    return checked(parse(root, protocol), chosen("lsmdc", protocol, PROTOCOLS))


def parse(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """As `load`, whatever the counts."""
    chosen("lsmdc", protocol, PROTOCOLS)
    root = Path(root)
    splits, absent, notes = {}, {}, []
    for name, files in FILES.items():
        path = read.find(root, *files)
        if path is None:
            absent[name] = f"{files[0]} is not in {root}"
            continue
        splits[name], timeless = _split(name, path)
        if timeless:
            notes.append(f"{path.name}: {timeless} sentences start at or after their end; they keep no seconds")
    return Benchmark("lsmdc", protocol, splits, absent, tuple(notes))


def _split(name: str, path: Path) -> tuple[Split, int]:
    told: dict[str, list[Caption]] = {}
    timeless = 0
    for where, cells in read.rows(path, delimiter="\t", quotes=False):
        if cells[0].strip().lower() == COLUMNS[0]:
            continue  # the header, where there is one
        if len(cells) != len(COLUMNS):
            raise ValueError(
                f"{where}: {len(cells)} cells, not the {len(COLUMNS)} of {', '.join(COLUMNS)}; tabs part them"
            )
        clip, sentence = cells[0].strip(), cells[5].strip()
        if not clip or not sentence:
            raise ValueError(f"{where}: the cell {COLUMNS[0 if not clip else 5]!r} is empty; fill it or remove the row")
        start, end, cut, _ = (
            _seconds(cell, f"{where}, {column}") for column, cell in zip(COLUMNS[1:5], cells[1:5], strict=True)
        )
        here = told.setdefault(clip, [])  # some clips have several sentences
        span = (round(max(0.0, start - cut), 6), round(end - cut, 6))  # the files are cut at start_extracted
        if span[0] >= span[1]:
            timeless += 1
            span = (None, None)
        here.append(Caption(f"{clip}#{len(here)}", sentence, *span))
    items = [(Video(clip, clip, source=_film(clip)), captions) for clip, captions in told.items()]
    return make_split(name, items, path), timeless


def _seconds(cell: str, where: str) -> float:
    """A time of day of the film, 01.02.03.450, in seconds."""
    match = CLOCK.fullmatch(cell.strip())
    if match is None:
        raise ValueError(f"{where}: {cell!r} is no time; write hours.minutes.seconds.thousandths, as 01.02.03.450")
    hours, minutes, whole, part = match.groups()
    return round(int(hours) * 3600 + int(minutes) * 60 + float(f"{whole}.{part}"), 6)


def _film(clip: str) -> str | None:
    film = CUT.sub("", clip)
    return film if film != clip else None
