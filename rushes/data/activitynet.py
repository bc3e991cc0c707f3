"""ActivityNet Captions: web videos of 2 minutes with some four sentences each, as paragraphs (Krishna et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rushes.data import read
from rushes.data.base import (
    Benchmark,
    Count,
    Item,
    Protocol,
    Video,
    captions,
    checked,
    chosen,
    make_split,
    train_and_val,
)

HELD_OUT = 500  # videos
TEST = Count(4917, 4917)
PROTOCOLS = {
    "val1-val500": Protocol(
        "val_1 is the test set, paragraph to video; of the 10,009 training videos 500 are held out to select on",
        {"train": Count(9509, 9509), "val": Count(HELD_OUT, HELD_OUT), "test": TEST},
    ),
    "val1": Protocol(
        "val_1 is the test set, paragraph to video, all 10,009 training videos; nothing to select on",
        {"train": Count(10_009, 10_009), "test": TEST},
    ),
}
DEFAULT = "val1-val500"
FILES = {"train": "train.json", "test": "val_1.json"}
LISTS = {"train": ("train_list.txt", "train_ids.json"), "test": ("val_1_list.txt", "val_ids.json")}


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """ActivityNet Captions from train.json and val_1.json (video id -> duration, timestamps, sentences).

    Lists of ids beside them are compared, never used to leave a video out. Every split has its published counts or is
    absent; `parse` also gives what has not.
    """
    return checked(parse(root, protocol), chosen("activitynet", protocol, PROTOCOLS))


def parse(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """As `load`, whatever the counts."""
    chosen("activitynet", protocol, PROTOCOLS)
    root = Path(root)
    splits, absent, notes = {}, {}, []
    for name, file in FILES.items():
        path = read.find(root, file)
        if path is None:
            whole = "val" in PROTOCOLS[protocol].counts and name == "train"
            absent |= dict.fromkeys(["train", "val"] if whole else [name], f"{file} is not in {root}")
            continue
        items, backwards = _items(path)
        if backwards:
            notes.append(f"{file}: {backwards} sentences start after their end; a paragraph uses no times")
        notes += _compared(root, name, {video.id for video, _ in items}, file)
        if name == "train" and "val" in PROTOCOLS[protocol].counts:
            made, lacking = train_and_val(items, HELD_OUT, path)
            splits |= made
            absent |= lacking
        else:
            splits[name] = make_split(name, items, path)
    order = [name for name in ("train", "val", "test") if name in splits]
    return Benchmark("activitynet", protocol, {name: splits[name] for name in order}, absent, tuple(notes))


def _items(path: Path) -> tuple[list[Item], int]:
    """Videos in order of id, and how many times run backwards: two do in the official training file."""
    told = read.document(read.text(path), str(path), dict)
    items: list[Item] = []
    backwards = 0
    for id in sorted(told):
        where = f"{path}, {id!r}"
        texts = read.entry(told[id], "sentences", list, where)
        spans = read.entry(told[id], "timestamps", list, where)
        if not texts or len(texts) != len(spans):
            raise ValueError(
                f"{where}: {len(texts)} sentences and {len(spans)} timestamps; there is one of each, or more"
            )
        for number, (text, span) in enumerate(zip(texts, spans, strict=True)):
            start, end = _span(span, f"{where}, timestamps[{number}]")
            backwards += start > end
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{where}, sentences[{number}]: {text!r:.40} is no sentence; write one or remove it")
        # in the order of the file, as published numbers are; it is not always that of the times
        items.append((Video(id, id), captions(id, [" ".join(" ".join(texts).split())])))
    return items, backwards


def _span(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{where}: {value!r:.40} is no pair of start and end")
    return read.seconds(value[0], where), read.seconds(value[1], where)


def _compared(root: Path, name: str, known: set[str], file: str) -> list[str]:
    notes = []
    for listing in LISTS[name]:
        path = read.find(root, listing)
        if path is None:
            continue
        if path.suffix == ".json":
            ids = read.document(read.text(path), str(path), list)
            if any(not isinstance(one, str) for one in ids):
                raise ValueError(f"{path} is no list of video ids; is it the right file?")
        else:
            ids = [id for _, id in read.names(path)]
        extra, lacking = len(set(ids) - known), len(known - set(ids))
        if extra or lacking:
            notes.append(f"{listing}: {extra} ids have no captions in {file}, {lacking} that have are not listed")
    return notes
