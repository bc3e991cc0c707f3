"""What a benchmark is: videos, captions, which belong together, and under which name their numbers are published."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int

# fmt: off
ENDINGS = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm",
    ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Video:
    """One item of the gallery: a file, or the seconds `start` to `end` of one; `end` may lie beyond the file's end.

    `file` is relative to the benchmark's root where the parser knows it, else the name without an ending.
    """

    id: str
    file: str
    start: float | None = None
    end: float | None = None
    source: str | None = None  # the film or web video it was cut from, where known: cuts of one are alike


@dataclass(frozen=True, slots=True)
class Caption:
    """One query. `start` and `end` are the seconds of its video that it tells of, where they are known."""

    id: str
    text: str
    start: float | None = None
    end: float | None = None


Item = tuple[Video, Sequence[Caption]]  # a video with all captions that tell of it


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Captions and videos that are ranked against each other, or trained on together.

    `pairs` lists which belong together, as row numbers into `captions` and `videos`: a relation, many to many.
    """

    name: str
    videos: tuple[Video, ...]
    captions: tuple[Caption, ...]
    pairs: Int[np.ndarray, "pair 2"]

    def __post_init__(self) -> None:
        for what, ids in (("video", [v.id for v in self.videos]), ("caption", [c.id for c in self.captions])):
            if len(set(ids)) != len(ids):
                twice = next(one for one, count in Counter(ids).items() if count > 1)
                raise ValueError(f"split {self.name!r} has the {what} id {twice!r} twice; ids are unique")
        limits = (len(self.captions), len(self.videos))
        if len(self.pairs) and (self.pairs.min() < 0 or (self.pairs >= limits).any()):
            raise ValueError(f"split {self.name!r} has pairs beyond its {limits[0]} captions and {limits[1]} videos")
        if alone := len(self.captions) - len(np.unique(self.pairs[:, 0])):
            raise ValueError(f"{alone} of {len(self.captions)} captions of split {self.name!r} belong to no video")

    def digest(self) -> str:
        """12 hexadecimal digits over ids, texts, seconds and pairs: two runs with the same one saw the same split.

        The order of videos and captions does not count: it changes no rank.

        >>> one = Split("test", (Video("a", "a"),), (Caption("a#0", "a dog"),), np.array([[0, 0]]))
        >>> two = Split("test", (Video("a", "a"),), (Caption("a#0", "a cat"),), np.array([[0, 0]]))
        >>> one.digest() == two.digest(), one.digest()
        (False, 'dc6fc45c1430')
        """
        parts = (
            [(video.id, _number(video.start), _number(video.end)) for video in self.videos],
            [(one.id, one.text, _number(one.start), _number(one.end)) for one in self.captions],
            [(self.captions[caption].id, self.videos[video].id) for caption, video in self.pairs.tolist()],
        )
        # JSON in ASCII: repr of a text depends on the Unicode tables of the Python that runs
        lines = [sorted(json.dumps(entry) for entry in part) for part in parts]
        return hashlib.blake2b("\n\n".join("\n".join(part) for part in lines).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Benchmark:
    """Splits under one protocol, whose name says what the numbers may be compared with."""

    name: str  # "msrvtt"
    protocol: str  # "1k-A-9k"
    splits: dict[str, Split]  # "train", "val", "test"; not every protocol has all
    absent: Mapping[str, str] = field(default_factory=dict)  # splits that the folder lacks the files for, and why
    notes: tuple[str, ...] = ()  # what the parser met and had to decide, with counts

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            why = f": {self.absent[split]}" if split in self.absent else f"; it has {', '.join(self.splits)}"
            raise LookupError(f"{self.name} ({self.protocol}) has no split {split!r}{why}")
        return self.splits[split]


@dataclass(frozen=True, slots=True)
class Count:
    """How many videos and captions a split has; None where nobody published it."""

    videos: int | None
    captions: int | None

    def __str__(self) -> str:
        told = ((self.videos, "videos"), (self.captions, "captions"))
        return ", ".join(f"{number:,} {what}" for number, what in told if number is not None)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One sentence on what a protocol is, and the counts of its splits that numbers are published for.

    The counts of `loose` splits are compared by the doctor, not enforced: papers understand them differently.
    """

    about: str
    counts: Mapping[str, Count]
    loose: frozenset[str] = frozenset()


def chosen(name: str, protocol: str, protocols: Mapping[str, Protocol]) -> Protocol:
    """The protocol of that name; LookupError lists what there is."""
    if protocol not in protocols:
        raise LookupError(f"{name} has no protocol {protocol!r}; it has {', '.join(protocols)}")
    return protocols[protocol]


def differs(split: Split, expected: Count) -> bool:
    """Whether a split has other counts than published; what nobody published is not compared."""
    found = ((expected.videos, len(split.videos)), (expected.captions, len(split.captions)))
    return any(wanted is not None and wanted != has for wanted, has in found)


def shared(benchmark: Benchmark) -> dict[tuple[str, str], list[str]]:
    """The video ids that two splits have both, for each two that share any."""
    ids = {name: {video.id for video in split.videos} for name, split in benchmark.splits.items()}
    names = list(ids)
    both = {(a, b): sorted(ids[a] & ids[b]) for place, a in enumerate(names) for b in names[place + 1 :]}
    return {pair: common for pair, common in both.items() if common}


def checked(benchmark: Benchmark, protocol: Protocol) -> Benchmark:
    """The benchmark itself, if every split that it has is as published and no video is in two splits.

    A split without files stays absent, and asking for it says why: a test set alone can be evaluated. A smaller one
    is an error: its numbers would look like those of the whole.
    """
    what = f"{benchmark.name} ({benchmark.protocol})"
    if not benchmark.splits:
        raise FileNotFoundError(f"{what} has no split: {'; '.join(sorted(set(benchmark.absent.values())))}")
    for name, expected in protocol.counts.items():
        split = benchmark.splits.get(name)
        if split is not None and name not in protocol.loose and differs(split, expected):
            found = Count(len(split.videos), len(split.captions))
            raise ValueError(
                f"{what}: split {name!r} has {found}; published are {expected}; "
                f"`rushes data doctor {benchmark.name}` tells what is missing"
            )
    for (one, other), ids in shared(benchmark).items():
        raise ValueError(f"{what}: {len(ids)} videos are in {one!r} and {other!r} both, as {ids[0]!r}; take them out")
    return benchmark


def captions(video: str, texts: Iterable[str]) -> list[Caption]:
    """Captions numbered within their video: "video7#0", "video7#1", ..."""
    return [Caption(f"{video}#{number}", text) for number, text in enumerate(texts)]


def make_split(name: str, items: Sequence[Item], origin: str | os.PathLike[str]) -> Split:
    """A split of videos each with its own captions, in the order given; `origin` is the file to name where empty."""
    if not items:
        raise ValueError(f"{origin} gives split {name!r} no video; is it the right file?")
    pairs = [(caption, video) for video, (_, told) in enumerate(items) for caption in told]
    return Split(
        name,
        tuple(video for video, _ in items),
        tuple(caption for caption, _ in pairs),
        np.array([(row, video) for row, (_, video) in enumerate(pairs)], dtype=np.int64).reshape(-1, 2),
    )


def train_and_val(
    items: Sequence[Item], count: int, origin: str | os.PathLike[str]
) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits "train" and "val" with `count` videos held out; where there are too few, none and why."""
    if len(items) <= count:
        why = f"{origin} has {len(items):,} videos, of which {count:,} are to be held out"
        return {}, {"train": why, "val": why}
    rest, held = hold_out(items, count)
    return {"train": make_split("train", rest, origin), "val": make_split("val", held, origin)}, {}


def hold_out(items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """Training items without, and only, `count` videos to select on: the same in every run and for any order of items.

    Whole sources are taken in the order of their hashes, each that still fits: with one cut of a film in training, to
    recognise another would look like learning.

    >>> items = [(Video(f"v{n}", f"v{n}", source=f"film{n // 2}"), ()) for n in range(8)]
    >>> rest, held = hold_out(items, 4)
    >>> [video.id for video, _ in held]
    ['v2', 'v3', 'v6', 'v7']
    """
    sources: dict[str, list[str]] = {}
    for video, _ in items:
        sources.setdefault(video.source or video.id, []).append(video.id)
    held: set[str] = set()
    for source in sorted(sources, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest()):
        if len(held) + len(sources[source]) <= count:
            held.update(sources[source])
    return [item for item in items if item[0].id not in held], [item for item in items if item[0].id in held]


def files_below(root: Path) -> list[str]:
    """The paths below `root` of all files with a common video ending, in order; hidden ones are passed over.

    Links to folders are entered, each folder once: videos often lie on another disk than their annotations.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the folder that holds the benchmark")

    def stop(error: OSError) -> None:
        raise error  # a folder that cannot be read would look like missing videos

    paths: list[str] = []
    entered: set[str] = set()
    for place, folders, names in os.walk(root, onerror=stop, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        films = (name for name in names if os.path.splitext(name)[1].lower() in ENDINGS and not name.startswith("."))
        paths += [Path(place, name).relative_to(root).as_posix() for name in films]
    return sorted(paths)


def locate(root: Path, videos: Iterable[Video], files: Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
    """The files of videos by id, as paths below `root`; no file is opened, and a video without one is not in it.

    A file has the very path that `Video.file` says, or else its name with any common video ending, in any folder
    below; where several have, all are given in order of path, and the first is meant. `files` = `files_below(root)`,
    for who has it already.
    """
    paths = files_below(root) if files is None else files
    there = set(paths)
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(without_ending(path.rpartition("/")[2]), []).append(path)
    found = {}
    for video in videos:
        if video.file in there:
            found[video.id] = (video.file,)
        elif "/" not in video.file and (same := by_name.get(without_ending(video.file))):
            found[video.id] = tuple(same)
    return found


def without_ending(name: str) -> str:
    """A file's name without its video ending; other dots stay.

    >>> without_ending("clip_00.51.926.AVI"), without_ending("clip_00.51.926"), without_ending("clip.")
    ('clip_00.51.926', 'clip_00.51.926', 'clip')
    """
    stem, ending = os.path.splitext(name)
    return (stem if ending.lower() in ENDINGS else name).rstrip(".")


def _number(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)
