"""MSVD: 1,970 clips of web videos, some 40 captions each (Chen and Dolan 2011)."""

from __future__ import annotations

from pathlib import Path

from rushes.data import read
from rushes.data.base import Benchmark, Count, Protocol, Video, captions, checked, chosen, make_split

PROTOCOLS = {
    "official": Protocol(
        "1,200/100/670 videos; each caption is a query, so say for video-to-text how a video's captions are counted",
        {"train": Count(1200, 48_774), "val": Count(100, 4290), "test": Count(670, 27_763)},
    )
}
DEFAULT = "official"
CAPTIONS = "captions_msvd.json"
PICKLES = ("raw-captions.pkl", "raw_captions.pkl")


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """MSVD from captions_msvd.json (video id -> captions) and train_list.txt, val_list.txt, test_list.txt.

    Every split has its published counts or is absent; `parse` also gives what has not.
    """
    return checked(parse(root, protocol), chosen("msvd", protocol, PROTOCOLS))


def parse(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """As `load`, whatever the counts."""
    chosen("msvd", protocol, PROTOCOLS)
    root = Path(root)
    path = read.find(root, CAPTIONS)
    if path is None:
        pickle = read.find(root, *PICKLES)
        why = f"{CAPTIONS} is not in {root}"
        if pickle:
            why += f"; {pickle} is a pickle, which can run any code and is never loaded: get the JSON file of captions"
        return Benchmark("msvd", protocol, {}, dict.fromkeys(PROTOCOLS[protocol].counts, why))
    told = read.document(read.text(path), str(path), dict)
    splits, absent = {}, {}
    listed: set[str] = set()
    for name in PROTOCOLS[protocol].counts:
        place = read.find(root, f"{name}_list.txt")
        if place is None:
            absent[name] = f"{name}_list.txt is not in {root}"
            continue
        items = []
        for where, id in read.names(place):
            if id not in told:
                raise ValueError(f"{where}: the video {id!r} has no captions in {path}; is that file whole?")
            texts = _texts(told[id], f"{path}, {id!r}")
            items.append((Video(id, id, source=id.rsplit("_", 2)[0]), captions(id, texts)))  # WEBID_START_END
            listed.add(id)
        splits[name] = make_split(name, items, place)
    unused = sum(id not in listed for id in told) if not absent else 0
    notes = (f"{unused} videos of {path.name} are in no list",) if unused else ()
    return Benchmark("msvd", protocol, splits, absent, notes)


def _texts(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: {value!r:.40} is no list of captions")
    for number, one in enumerate(value):
        if not isinstance(one, str) or not one.strip():
            raise ValueError(f"{where}[{number}]: {one!r:.40} is no caption; write one or remove it")
    return [one.strip() for one in value]
