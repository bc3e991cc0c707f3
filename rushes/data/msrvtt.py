"""MSR-VTT: 10,000 clips of web videos, 20 captions each (Xu et al. 2016), and its test set 1k-A (Yu et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rushes.data import read
from rushes.data.base import (
    Benchmark,
    Caption,
    Count,
    Item,
    Protocol,
    Split,
    Video,
    captions,
    checked,
    chosen,
    make_split,
    train_and_val,
)

HELD_OUT = 500  # videos
TEST = Count(1000, 1000)
PROTOCOLS = {
    "1k-A-9k-val500": Protocol(
        "1k-A test; of the 9,000 training videos 500 are held out to select on, no web video on both sides",
        {"train": Count(8500, 170_000), "val": Count(HELD_OUT, 10_000), "test": TEST},
    ),
    "1k-A-7k-val500": Protocol(
        "1k-A test; of the 7,010 training videos 500 are held out to select on, no web video on both sides",
        {"train": Count(6510, 130_200), "val": Count(HELD_OUT, 10_000), "test": TEST},
    ),
    "1k-A-9k": Protocol(
        "1k-A test, all 9,000 training videos; nothing to select on, so train for a fixed number of epochs",
        {"train": Count(9000, 180_000), "test": TEST},
    ),
    "1k-A-7k": Protocol(
        "1k-A test, all 7,010 training videos; nothing to select on, so train for a fixed number of epochs",
        {"train": Count(7010, 140_200), "test": TEST},
    ),
    "full": Protocol(
        "the official split; each of the 59,800 test captions is a query",
        {"train": Count(6513, 130_260), "val": Count(497, 9940), "test": Count(2990, 59_800)},
    ),
}
DEFAULT = "1k-A-9k-val500"
WHOLE = "MSRVTT_data.json"
HALVES = {  # JSON, and the zip file it is published in
    "train_val_videodatainfo.json": "train_val_annotation.zip",
    "test_videodatainfo.json": "test_videodatainfo.json.zip",
}
OFFICIAL = {"train": "train", "val": "validate", "test": "test"}  # our names, and those in the files


@dataclass(slots=True)
class _Clip:
    split: str
    source: str | None
    told: list[tuple[int, str]] = field(default_factory=list)  # number of the sentence, text


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """MSR-VTT under one of PROTOCOLS, from the official files as downloaded (zipped or not) and the lists of 1k-A.

    Every split has its published counts or is absent; `parse` also gives what has not.
    """
    return checked(parse(root, protocol), chosen("msrvtt", protocol, PROTOCOLS))


def parse(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """As `load`, whatever the counts."""
    chosen("msrvtt", protocol, PROTOCOLS)
    root = Path(root)
    clips, missing = _clips(root)
    splits: dict[str, Split] = {}
    absent: dict[str, str] = {}
    if protocol == "full":
        for name, official in OFFICIAL.items():
            half = list(HALVES)[name == "test"]
            if half in missing:
                absent[name] = f"{half} is not in {root}"
            else:
                ids = sorted((id for id, clip in clips.items() if clip.split == official), key=lambda id: (len(id), id))
                splits[name] = make_split(name, [_item(id, clips[id], str(root)) for id in ids], root)
    else:
        size = protocol.split("-")[2]
        path = read.find(root, f"MSRVTT_train.{size}.csv")
        if path is None or missing:
            lacking = [*([f"MSRVTT_train.{size}.csv"] if path is None else []), *missing]
            absent |= dict.fromkeys(
                set(PROTOCOLS[protocol].counts) - {"test"}, f"{' and '.join(lacking)} not in {root}"
            )
        else:
            items = _training(path, clips)
            if "val" in PROTOCOLS[protocol].counts:
                splits, absent = train_and_val(items, HELD_OUT, path)
            else:
                splits["train"] = make_split("train", items, path)
        path = read.find(root, "MSRVTT_JSFUSION_test.csv")
        if path is None:
            absent["test"] = f"MSRVTT_JSFUSION_test.csv is not in {root}"
        else:
            splits["test"] = make_split("test", _testing(path, clips, whole=not missing), path)
    order = [name for name in OFFICIAL if name in splits]
    return Benchmark("msrvtt", protocol, {name: splits[name] for name in order}, absent)


def _training(path: Path, clips: dict[str, _Clip]) -> list[Item]:
    seen: dict[str, str] = {}
    items = []
    for where, row in read.table(path, ["video_id"]):
        read.once(seen, row["video_id"], where)
        if row["video_id"] not in clips:
            raise ValueError(f"{where}: the video {row['video_id']!r} is not among the {len(clips):,} official ones")
        items.append(_item(row["video_id"], clips[row["video_id"]], where))
    return items


def _testing(path: Path, clips: dict[str, _Clip], whole: bool) -> list[Item]:
    seen: dict[str, str] = {}
    items = []
    for where, row in read.table(path, ["video_id", "sentence"]):
        id = row["video_id"]
        read.once(seen, id, where)
        if whole and id not in clips:
            raise ValueError(f"{where}: the video {id!r} is not among the {len(clips):,} official ones")
        source = clips[id].source if id in clips else None
        # 35 of these 1,000 texts are in no official sentence of their video: corrected spelling, so taken from here
        items.append((Video(id, id, source=source), captions(id, [row["sentence"]])))
    return items


def _item(id: str, clip: _Clip, where: str) -> tuple[Video, list[Caption]]:
    if not clip.told:
        raise ValueError(f"{where}: the video {id!r} has no sentence; is the annotation whole?")
    # the official start and end are seconds of the web video, while the files are cut already: the whole file counts
    return Video(id, id, source=clip.source), captions(id, [text for _, text in sorted(clip.told)])


def _clips(root: Path) -> tuple[dict[str, _Clip], list[str]]:
    """All videos that the official files tell of, and which of the two files are not there."""
    parts: list[tuple[str, str]] = []
    missing = []
    if path := read.find(root, WHOLE):
        parts.append((str(path), read.text(path)))
    else:
        for member, zipped in HALVES.items():
            if path := read.find(root, member):
                parts.append((str(path), read.text(path)))
            elif path := read.find(root, zipped):
                parts.append((f"{path}/{member}", read.text(path, member)))
            else:
                missing.append(member)
    clips: dict[str, _Clip] = {}
    videos: dict[str, str] = {}
    sentences: set[int] = set()
    for where, content in parts:
        told = read.document(content, where, dict)
        for number, one in enumerate(read.entry(told, "videos", list, where)):
            here = f"{where}, videos[{number}]"
            id = read.entry(one, "video_id", str, here)
            read.once(videos, id, here)
            split = read.entry(one, "split", str, here)
            if split not in OFFICIAL.values():
                raise ValueError(f"{here}: no split is called {split!r}; there are {', '.join(OFFICIAL.values())}")
            clips[id] = _Clip(split, read.entry(one, "url", str, here) if "url" in one else None)
        for number, one in enumerate(read.entry(told, "sentences", list, where)):
            here = f"{where}, sentences[{number}]"
            id, key = read.entry(one, "video_id", str, here), read.entry(one, "sen_id", int, here)
            if id not in clips:
                raise ValueError(f"{here}: the video {id!r} is not among its videos; is the file whole?")
            if key in sentences:
                raise ValueError(f"{here}: the sen_id {key} is there twice; remove one")
            sentences.add(key)
            clips[id].told.append((key, read.entry(one, "caption", str, here).strip()))
    return clips, missing
