"""Examines a benchmark's folder: what is there, what is missing or broken, what its numbers may be compared with."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from rushes.data import NAMES, find
from rushes.data.base import Benchmark, Count, Protocol, Split, differs, files_below, locate, shared

BLOCK_BYTES = 1 << 20
Probe = Callable[[Path], str | None]  # what is wrong with a video file, None where nothing is
OnProgress = Callable[[int, int, str], None]  # files done, files in all, the file at hand


@dataclass(frozen=True, slots=True)
class Served:
    """Whether the folder has all that a protocol needs: every annotation as published, a file for every video."""

    protocol: str
    about: str
    annotations: bool  # whole, and no video in two splits
    served: bool
    why: str  # "" where it is served


@dataclass(frozen=True, slots=True)
class SplitReport:
    """A split beside what is published. `absent` says why there is none; then all counts are 0."""

    name: str
    videos: int
    captions: int
    published: Count | None  # None: nobody published counts for it
    as_published: bool
    digest: str
    missing: tuple[str, ...]  # ids of videos without a file
    repeated: int  # captions whose text an earlier caption of the split has
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two splits have in common, which it is easy to learn by heart from the first and be tested on."""

    splits: tuple[str, str]
    videos: tuple[str, ...]  # ids that are in both
    captions: int  # of the second, whose text is in the first as well, whatever the case
    sources: int  # videos of the second that are cut from a film or web video which the first has cuts of, too


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that no frame can be read from, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Copies:
    """Files with the same content, and the splits that they are in."""

    files: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All that `examine` found. `problems` are to be mended before a number is taken; `remarks` are to be known."""

    name: str
    root: str
    protocol: str
    about: str
    splits: tuple[SplitReport, ...]
    protocols: tuple[Served, ...]
    videos: int  # of the protocol
    found: int  # of them, with a file
    missing: tuple[str, ...]  # of them, ids without one
    files: int  # with a video's ending, in the whole folder
    several: tuple[tuple[str, ...], ...]  # files that may all be one video's; the first of each is used
    empty: tuple[str, ...]  # files of no bytes
    broken: tuple[Broken, ...]
    probed: int  # files that were opened to see whether a frame decodes
    copies: tuple[Copies, ...]
    overlaps: tuple[Overlap, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def examine(
    name: str,
    root: str | Path,
    protocol: str | None = None,
    *,
    probe: Probe | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Look through the folder of a benchmark. A wrong, damaged or partial one is what the report tells, not an error.

    protocol   None = the default, or the first that the folder serves, or has the annotations of, if it lacks those
    probe      tells what is wrong with a video file; None = no video is opened
    """
    root = Path(root)
    parser = find(name)
    if name == "reels":
        others = ", ".join(one for one in NAMES if one != name)
        raise LookupError(f"{name} is made here, not downloaded: there is nothing to examine; the doctor sees {others}")
    if protocol is not None and protocol not in parser.PROTOCOLS:
        raise LookupError(f"{name} has no protocol {protocol!r}; it has {', '.join(parser.PROTOCOLS)}")
    files = files_below(root)
    read = {one: _parsed(parser, root, one) for one in parser.PROTOCOLS}
    served = tuple(_served(one, parser.PROTOCOLS[one], read[one], root, files) for one in parser.PROTOCOLS)
    chosen = protocol or _best(parser.DEFAULT, served)
    rules, benchmark = parser.PROTOCOLS[chosen], read[chosen]
    problems: list[str] = []
    if isinstance(benchmark, Exception):
        problems.append(str(benchmark))
        benchmark = Benchmark(name, chosen, {}, dict.fromkeys(rules.counts, "the annotations cannot be read"))
    every = {video.id: video for split in benchmark.splits.values() for video in split.videos}
    places = locate(root, every.values(), files)
    used: dict[str, list[str]] = {}  # file -> ids
    for id in sorted(places):
        used.setdefault(places[id][0], []).append(id)
    problems += [f"{' and '.join(ids)} are one file, {file}; give it one name" for file, ids in used.items() if ids[1:]]
    empty, broken = _looked_at(root, sorted(used), probe, on_progress)
    whole = sorted(used.keys() - set(empty) - {one.file for one in broken})
    splits = tuple(
        _split_report(one, benchmark, rules, places) for one in dict.fromkeys([*rules.counts, *benchmark.splits])
    )
    report = Report(
        name=name,
        root=str(root),
        protocol=chosen,
        about=rules.about,
        splits=splits,
        protocols=served,
        videos=len(every),
        found=len(places),
        missing=tuple(sorted(every.keys() - places.keys())),
        files=len(files),
        several=tuple(found for _, found in sorted(places.items()) if len(found) > 1),
        empty=empty,
        broken=broken,
        probed=len(used) - len(empty) if probe else 0,
        copies=_copies(root, whole, used, benchmark),
        overlaps=_overlaps(benchmark),
        problems=(),
        remarks=(),
    )
    return _judged(report, problems, benchmark, len(files) - len({file for found in places.values() for file in found}))


def _parsed(parser: ModuleType, root: Path, protocol: str) -> Benchmark | Exception:
    try:
        return parser.parse(root, protocol)
    except (ValueError, OSError) as error:
        return error


def _served(name: str, rules: Protocol, benchmark: Benchmark | Exception, root: Path, files: list[str]) -> Served:
    if isinstance(benchmark, Exception):
        return Served(name, rules.about, False, False, str(benchmark))
    why = sorted(set(benchmark.absent.values()))
    for split, published in rules.counts.items():
        has = benchmark.splits.get(split)
        if has is not None and split not in rules.loose and differs(has, published):
            why.append(f"{split} has {_counted(has)}, published are {published}")
    why += [f"{len(ids)} videos are in {a} and {b} both" for (a, b), ids in shared(benchmark).items()]
    annotations = not why
    every = {video.id: video for split in benchmark.splits.values() for video in split.videos}
    if lacking := len(every) - len(locate(root, every.values(), files)):
        why.append(f"{lacking:,} of {len(every):,} videos have no file")
    return Served(name, rules.about, annotations, not why, "; ".join(why))


def _best(default: str, served: Sequence[Served]) -> str:
    """The default, unless the folder serves another better."""
    order = sorted(served, key=lambda one: (not one.served, not one.annotations, one.protocol != default))
    return order[0].protocol


def _split_report(name: str, benchmark: Benchmark, rules: Protocol, places: dict[str, tuple[str, ...]]) -> SplitReport:
    split, published = benchmark.splits.get(name), rules.counts.get(name)
    if split is None:
        return SplitReport(name, 0, 0, published, False, "", (), 0, benchmark.absent.get(name, "the folder has none"))
    return SplitReport(
        name=name,
        videos=len(split.videos),
        captions=len(split.captions),
        published=published,
        as_published=published is None or not differs(split, published),
        digest=split.digest(),
        missing=tuple(video.id for video in split.videos if video.id not in places),
        repeated=len(split.captions) - len({caption.text for caption in split.captions}),
    )


def _looked_at(
    root: Path, files: list[str], probe: Probe | None, on_progress: OnProgress | None
) -> tuple[tuple[str, ...], tuple[Broken, ...]]:
    empty, broken = [], []
    for number, file in enumerate(files):
        if on_progress:
            on_progress(number, len(files), file)
        try:
            reason = None
            if (root / file).stat().st_size == 0:
                empty.append(file)
            elif not os.access(root / file, os.R_OK):
                reason = "it may not be read; check its permissions"
            elif probe:
                reason = probe(root / file)
        except OSError as error:
            reason = f"it cannot be read: {error.strerror or error}"
        if reason:
            broken.append(Broken(file, reason))
    return tuple(empty), tuple(broken)


def _copies(root: Path, files: list[str], used: dict[str, list[str]], benchmark: Benchmark) -> tuple[Copies, ...]:
    """Files of one size are read whole and compared by content."""
    sizes: dict[int, list[str]] = {}
    for file in files:
        sizes.setdefault((root / file).stat().st_size, []).append(file)
    same: dict[str, list[str]] = {}
    for alike in sizes.values():
        for file in alike if len(alike) > 1 else ():
            same.setdefault(_content(root / file), []).append(file)
    splits = {name: {video.id for video in split.videos} for name, split in benchmark.splits.items()}
    return tuple(
        Copies(
            tuple(group), tuple(name for name, ids in splits.items() if any(ids & set(used[file]) for file in group))
        )
        for group in same.values()
        if len(group) > 1
    )


def _content(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _overlaps(benchmark: Benchmark) -> tuple[Overlap, ...]:
    both = shared(benchmark)
    names = list(benchmark.splits)
    found = []
    for one, other in ((a, b) for place, a in enumerate(names) for b in names[place + 1 :]):
        first, second = benchmark.splits[one], benchmark.splits[other]
        texts, sources = _texts(first), {video.source for video in first.videos} - {None}
        overlap = Overlap(
            (one, other),
            tuple(both.get((one, other), ())),
            sum(count for text, count in _texts(second).items() if text in texts),
            sum(video.source in sources for video in second.videos),
        )
        if overlap.videos or overlap.captions or overlap.sources:
            found.append(overlap)
    return tuple(found)


def _texts(split: Split) -> Counter[str]:
    return Counter(" ".join(caption.text.casefold().split()) for caption in split.captions)


def _judged(report: Report, problems: list[str], benchmark: Benchmark, extra: int) -> Report:
    """The report with sentences on what must be mended and on what should be known."""
    remarks = list(benchmark.notes)
    sizes = {split.name: split for split in report.splits}
    for split in report.splits:
        if split.absent:
            problems.append(f"{split.name}: {split.absent}")
        elif not split.as_published:
            told = f"{split.name} has {Count(split.videos, split.captions)}; published are {split.published}"
            (remarks if split.name in _loose(report) else problems).append(told)
        if split.missing and report.found:
            told = f"{len(split.missing):,} of {split.videos:,} videos have no file ({_some(split.missing)})"
            problems.append(f"{split.name}: {told}")
        if split.repeated:
            told = f"{split.repeated:,} of {split.captions:,} captions repeat the text of an earlier one"
            remarks.append(f"{split.name}: {told}")
    if report.missing and not report.found:
        there = f"{report.files:,} others" if report.files else "no video file at all"
        problems.append(
            f"none of {report.videos:,} videos has a file; there is {there} below {report.root}: "
            f"put or link the videos there, in any folder, as {report.missing[0]}.mp4"
        )
    if report.empty:
        problems.append(f"{len(report.empty):,} video files are empty ({_some(report.empty)}); copy them again")
    if report.broken:
        first = report.broken[0]
        problems.append(f"{len(report.broken):,} video files give no frame, as {first.file}: {first.reason}")
    for overlap in report.overlaps:
        one, other = overlap.splits
        if overlap.videos:
            problems.append(f"{one} and {other}: {len(overlap.videos):,} videos are in both ({_some(overlap.videos)})")
        if overlap.captions:
            told = f"{overlap.captions:,} of {sizes[other].captions:,} captions"
            remarks.append(f"{other}: {told} have the text of one of {one}")
        if overlap.sources:
            told = f"{overlap.sources:,} of {sizes[other].videos:,} videos"
            remarks.append(f"{other}: {told} are cuts of a film or web video that {one} has cuts of, too")
    remarks += [
        f"{' and '.join(copies.splits)}: the same content in {', '.join(copies.files)}"
        for copies in report.copies
        if len(copies.splits) > 1
    ]
    if alone := [copies.files[0] for copies in report.copies if len(copies.splits) == 1]:
        remarks.append(f"{len(alone):,} video files have copies under another name in the same split ({_some(alone)})")
    if report.several:
        told = ", ".join(report.several[0])
        remarks.append(f"{len(report.several):,} videos have several files, of which the first is used, as {told}")
    if extra and report.found:
        remarks.append(f"{extra:,} video files belong to no video of this protocol")
    return replace(report, problems=tuple(problems), remarks=tuple(remarks))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _loose(report: Report) -> frozenset[str]:
    return find(report.name).PROTOCOLS[report.protocol].loose


def _counted(split: Split) -> Count:
    return Count(len(split.videos), len(split.captions))
