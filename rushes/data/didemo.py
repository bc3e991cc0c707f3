"""DiDeMo: personal videos of 30 seconds with some four sentences each (Hendricks et al. 2017), as paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rushes.data import read
from rushes.data.base import (
    Benchmark,
    Count,
    Protocol,
    Split,
    Video,
    captions,
    checked,
    chosen,
    make_split,
    without_ending,
)

PROTOCOLS = {
    "official": Protocol(
        "train_data.json, val_data.json, test_data.json: all sentences of a video, joined in the order of the file",
        {"train": Count(8395, 8395), "val": Count(1065, 1065), "test": Count(1004, 1004)},
    ),
    "csv": Protocol(
        "didemo_train_label.csv and so on, as many papers use: fewer videos, some paragraphs lack sentences",
        {"train": Count(8362, 8362), "val": Count(1062, 1062), "test": Count(1004, 1004)},
    ),
}
DEFAULT = "official"
ANNOTATED = 30.0  # seconds from the start that annotators were shown, of videos that may go on


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """DiDeMo as paragraph-to-video retrieval: each video is its first 30 seconds, each paragraph a query.

    Every split has its published counts or is absent; `parse` also gives what has not.
    """
    return checked(parse(root, protocol), chosen("didemo", protocol, PROTOCOLS))


def parse(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """As `load`, whatever the counts."""
    chosen("didemo", protocol, PROTOCOLS)
    root = Path(root)
    splits, absent, notes = {}, {}, []
    for name in PROTOCOLS[protocol].counts:
        file = f"{name}_data.json" if protocol == "official" else f"didemo_{name}_label.csv"
        path = read.find(root, file)
        if path is None:
            absent[name] = f"{file} is not in {root}"
            continue
        told = _moments(path) if protocol == "official" else _paragraphs(path)
        splits[name] = _split(name, told, path)
        if protocol == "official":
            notes.append(f"{path.name}: {sum(map(len, told.values())):,} sentences of {len(told):,} videos")
    return Benchmark("didemo", protocol, splits, absent, tuple(notes))


def _split(name: str, told: dict[str, list[str]], path: Path) -> Split:
    return make_split(
        name,
        [(Video(id, id, 0.0, ANNOTATED), captions(id, [joined(texts)])) for id, texts in told.items()],
        path,
    )


def joined(texts: Sequence[str]) -> str:
    """Sentences as one paragraph, with single spaces.

    >>> joined(["a dog runs. ", "it jumps\\n over a log"])
    'a dog runs. it jumps over a log'
    """
    return " ".join(" ".join(texts).split())


def _moments(path: Path) -> dict[str, list[str]]:
    """The official layout, one entry a sentence. Some videos come under two names, as x.mov and x.mp4 or x and x., each
    with a part of the sentences: by their names without ending there are the published 1,065 and 1,004."""
    told: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for number, one in enumerate(read.document(read.text(path), str(path), list)):
        where = f"{path}, [{number}]"
        id = without_ending(read.entry(one, "video", str, where).strip())
        if "annotation_id" in one:
            read.once(seen, str(one["annotation_id"]), where)
        told.setdefault(id, []).append(read.entry(one, "description", str, where))
    return told


def _paragraphs(path: Path) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for where, row in read.table(path, ["video_path", "text"]):
        id = without_ending(row["video_path"].replace("\\", "/").rsplit("/", 1)[-1])
        read.once(seen, id, where)
        told[id] = [row["text"]]
    return told
