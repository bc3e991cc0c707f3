"""Your own benchmark: a folder of videos with captions.csv or captions.jsonl beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from rushes.data import read
from rushes.data.base import Benchmark, Caption, Protocol, Video, checked, chosen, make_split

PROTOCOLS = {
    "videos": Protocol("each row of captions.csv or captions.jsonl is a query, each file that a row names a video", {})
}
DEFAULT = "videos"
FILES = ("captions.csv", "captions.jsonl")
SPLITS = ("train", "val", "test")


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """Rows of video, caption, and where given start, end (seconds the caption tells of) and split.

    `video` is a path below the folder, or a file's name without its ending. Without `split` all is "test". A row that
    repeats another exactly counts once, and `notes` says how many did.
    """
    return checked(parse(root, protocol), chosen("folder", protocol, PROTOCOLS))


def parse(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """As `load`, even where a video is in two splits."""
    chosen("folder", protocol, PROTOCOLS)
    root = Path(root)
    there = [path for name in FILES if (path := root / name).is_file()]
    if len(there) != 1:
        if not root.is_dir():
            raise NotADirectoryError(f"{root} is not a folder; give the folder that holds the videos")
        wrong = "both; keep one" if there else "neither; write one with the columns video, caption"
        raise ValueError(f"{' or '.join(FILES)} in {root}: there is {wrong}")
    told: dict[str, dict[str, list[Caption]]] = {}
    first: dict[tuple, str] = {}
    repeats: list[str] = []
    for where, row in _csv(there[0]) if there[0].suffix == ".csv" else _jsonl(there[0]):
        video, split = _inside(row["video"], where), row.get("split") or "test"
        if split not in SPLITS:
            raise ValueError(f"{where}: no split is called {split!r}; write {', '.join(SPLITS)}, or nothing for test")
        start, end = _span(row, where)
        key = (video, row["caption"], start, end, split)
        if key in first:
            repeats.append(f"{where} that of {first[key].rpartition(', ')[2]}")
            continue
        first[key] = where
        here = told.setdefault(split, {}).setdefault(video, [])
        here.append(Caption(f"{video}#{len(here)}", row["caption"], start, end))
    if not told:
        raise ValueError(f"{there[0]} holds no row; write one caption a row")
    splits = {
        name: make_split(name, [(Video(id, id), captions) for id, captions in told[name].items()], there[0])
        for name in SPLITS
        if name in told
    }
    notes = (f"{len(repeats)} rows repeat another exactly and count once: {repeats[0]}",) if repeats else ()
    return Benchmark("folder", protocol, splits, {}, notes)


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield from read.table(path, ("video", "caption"), ("start", "end", "split"))


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    for number, line in enumerate(read.text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        one = read.document(line, where, dict)
        row = {name: read.entry(one, name, str, where).strip() for name in ("video", "caption")}
        rest = {name: str(one[name]).strip() for name in ("start", "end", "split") if one.get(name) is not None}
        yield where, row | rest


def _inside(video: str, where: str) -> str:
    """The path of a video with /, below the folder and nowhere else."""
    path = PurePosixPath(video.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(f"{where}: the video {video!r} is not below the folder; write its path from there")
    return path.as_posix()


def _span(row: Mapping[str, str], where: str) -> tuple[float | None, float | None]:
    times = [row.get(name) or None for name in ("start", "end")]
    if times == [None, None]:
        return None, None
    if None in times:
        raise ValueError(f"{where}: start and end go together; give both or neither")
    start, end = (read.seconds(time, where) for time in times)
    if start >= end:
        raise ValueError(f"{where}: start {start:g} is not before end {end:g}; mend one, in seconds")
    return start, end
