"""Keeps features on disk: ragged arrays in parts, each named by all that its numbers depend on, read through maps.

    OUT/parts/<digest>/     some dozens of videos, or some thousand texts: .npy files, and `offsets` into them
    OUT/<split>-<digest>/   a split's manifest: ids, parts in order, what is missing, what failed and why

A part is written beside its place and renamed into it, and no number in it depends on another part: a run that was
killed goes on with the first part that is not there, and ends with the same bytes. Splits that show the same share
parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int, Shaped

FORMAT = 1  # of parts and manifests; it is a part of every digest
MANIFEST = "manifest.json"
PATIENCE_SECONDS = 60.0  # for another process that writes; one that computes takes far longer


def digest(what: Any) -> str:
    """24 hexadecimal digits over anything that JSON can say.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
    True
    """
    return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=12).hexdigest()


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """The right to write below `out`, for one process at a time.

    Who finds nothing left to compute holds it for seconds: several trainings that start at once wait for each other.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise RuntimeError(f"another process writes features to {out}; wait for it, or give another folder") from None
    try:
        for left in (out / "parts").glob(".*"):  # by a run that was killed
            shutil.rmtree(left)
        yield
    finally:
        lock.release()


def place_of(out: Path, name: str) -> Path:
    """Where the part of that digest lies."""
    return out / "parts" / name


def write_part(out: Path, name: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]], told: Mapping[str, Any]) -> None:
    """Put a part in its place, whole or not at all; one that is there is replaced."""
    target = place_of(out, name)
    fresh = target.with_name(f".{name}")
    fresh.mkdir(parents=True)
    for what, array in arrays.items():
        with (fresh / f"{what}.npy").open("wb") as stream:
            np.save(stream, array)
            _settle(stream)
    write_json(fresh / "part.json", told)
    if target.exists():
        shutil.rmtree(target)
    os.replace(fresh, target)


def told_by_part(out: Path, name: str) -> dict[str, Any] | None:
    """What was written beside a part's arrays; None if there is no such part."""
    file = place_of(out, name) / "part.json"
    return json.loads(file.read_text()) if file.is_file() else None


def write_json(file: Path, what: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    fresh = file.with_name(f".{file.name}")
    with fresh.open("w") as stream:
        json.dump(what, stream, indent=1)
        _settle(stream)
    os.replace(fresh, file)


def manifest(folder: Path) -> dict[str, Any]:
    """What a split's folder says; an error where it is none, not whole, or of another format."""
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}, so no finished features; run `rushes features` (again)")
    told = json.loads(file.read_text())
    if told["format"] != FORMAT:
        raise ValueError(f"{file} has format {told['format']}, this Rushes reads {FORMAT}; compute the features again")
    gone = [name for name in (*told["frame_parts"], *told["word_parts"]) if not place_of(folder.parent, name).is_dir()]
    if gone:
        raise FileNotFoundError(f"{len(gone)} parts of {folder} are gone, as {gone[0]}; run `rushes features` again")
    return told


def folder_of(out: str | os.PathLike[str], name: str, protocol: str, split: str, backbone: str | None = None) -> Path:
    """The one finished split below `out` that this describes. LookupError lists what there is."""
    wanted = {"benchmark": name, "protocol": protocol, "split": split}
    if backbone is not None:
        wanted["backbone"] = backbone
    found, others = [], []
    for file in sorted(Path(out).glob(f"*/{MANIFEST}")):
        told = json.loads(file.read_text())
        fits = all(told[key] == value for key, value in wanted.items())
        (found if fits else others).append(file.parent)
    asked = " ".join(wanted.values())
    if not found:
        have = ", ".join(folder.name for folder in others) or "nothing"
        raise LookupError(f"{out} has no features of {asked}, it has {have}; `rushes features {name}` computes them")
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise LookupError(f"{out} has {len(found)} features of {asked}: {names}; name the folder itself")
    return found[0]


class Ragged:
    """Items of unequal length, one after another in the parts of a split."""

    def __init__(self, out: Path, parts: Sequence[str]):
        offsets = [np.load(place_of(out, name) / "offsets.npy") for name in parts]
        self._folders = [place_of(out, name) for name in parts]
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        ends = np.cumsum([0, *(len(one) - 1 for one in offsets)])
        self._part = np.repeat(np.arange(len(parts)), np.diff(ends))
        self._first = ends  # the item that each part begins with
        self.start = np.concatenate([one[:-1] for one in offsets] or [np.zeros(0, np.int64)])
        self.length: Int[np.ndarray, "item"] = np.concatenate([np.diff(one) for one in offsets] or [self.start])

    def __len__(self) -> int:
        return len(self.length)

    def rows(self, what: str, item: int, picked: Int[np.ndarray, "row"] | None = None) -> Shaped[np.ndarray, "row ..."]:
        """An item's rows of an array, all or those picked. A view into the map, or a copy where picked."""
        start = int(self.start[item])
        array = self._map(int(self._part[item]), what)
        return array[start : start + int(self.length[item])] if picked is None else array[start + picked]

    def of(self, what: str, item: int) -> Shaped[np.ndarray, "..."]:
        """The item's own entry of an array that has one for each."""
        part = int(self._part[item])
        return self._map(part, what)[item - int(self._first[part])]

    def _map(self, part: int, what: str) -> np.ndarray:
        if (part, what) not in self._maps:
            self._maps[part, what] = np.load(self._folders[part] / f"{what}.npy", mmap_mode="r")
        return self._maps[part, what]


def _settle(stream: Any) -> None:
    """On the disk itself, so that a file which has its name has its content, whatever stops the machine."""
    stream.flush()
    os.fsync(stream.fileno())
