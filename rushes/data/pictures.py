"""Folders of captioned pictures: Flickr8k's layout, or captions.csv beside your own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rushes.data import read

SPLITS = ("train", "val", "test")
FLICKR8K = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}  # where nobody has split the pictures


@dataclass(frozen=True, slots=True)
class Pictures:
    """Captions by picture, pictures by split; a picture is its path below `root`, with /, and in one split only."""

    root: Path
    splits: dict[str, dict[str, tuple[str, ...]]]
    notes: tuple[str, ...]


def captioned(root: Path) -> Pictures:
    """The pictures of a folder, in order of path.

    Flickr8k: `captions.txt` (image,caption) beside `images/` and three lists of names. Any other: `captions.csv`
    (picture,caption and where wanted split) with paths below the folder; without splits a picture's path decides,
    80/10/10, so that a picture that is added moves no other.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the folder that holds the pictures")
    if (root / "captions.txt").is_file():
        return _flickr8k(root)
    if (root / "captions.csv").is_file():
        return _own(root)
    raise FileNotFoundError(
        f"{root} has neither captions.txt nor captions.csv; write a captions.csv with the columns picture, caption"
    )


def share_of(picture: str) -> str:
    """The split that a picture's path decides.

    >>> share_of("0.jpg"), share_of("3.jpg"), share_of("6.jpg")
    ('train', 'val', 'test')
    """
    place = int.from_bytes(hashlib.blake2b(picture.encode(), digest_size=8).digest(), "big") / 2**64
    for split, share in SHARES.items():
        place -= share
        if place < 0:
            return split
    return SPLITS[-1]


def _flickr8k(root: Path) -> Pictures:
    captions: dict[str, list[str]] = {}
    for _, row in read.table(root / "captions.txt", ("image", "caption")):
        captions.setdefault(row["image"], []).append(row["caption"])
    splits: dict[str, dict[str, tuple[str, ...]]] = {}
    seen: dict[str, str] = {}
    for split, name in FLICKR8K.items():
        if not (root / name).is_file():
            raise FileNotFoundError(f"{root / name} is missing; put the three lists of Flickr8k beside captions.txt")
        names = read.names(root / name)
        for where, picture in names:
            if picture not in captions:
                raise ValueError(f"{where}: {picture!r} has no caption in {root / 'captions.txt'}; add one")
            read.once(seen, picture, where)
        splits[split] = {f"images/{picture}": tuple(captions[picture]) for picture in sorted(name for _, name in names)}
    left = len(captions) - len(seen)
    notes = (f"{left} captioned pictures are in none of the three lists and left out",) if left else ()
    return Pictures(root, splits, notes)


def _own(root: Path) -> Pictures:
    file = root / "captions.csv"
    captions: dict[str, list[str]] = {}
    told: dict[str, tuple[str, str]] = {}  # picture -> split, and where that stands
    for where, row in read.table(file, ("picture", "caption"), ("split",)):
        picture = _inside(row["picture"], where)
        split = row.get("split", "")
        if split and split not in SPLITS:
            raise ValueError(f"{where}: no split is called {split!r}; write {', '.join(SPLITS)}")
        before, first = told.setdefault(picture, (split, where))
        if before != split:
            raise ValueError(f"{where}: {picture!r} is in split {split!r} here, {before!r} at {first}; choose one")
        captions.setdefault(picture, []).append(row["caption"])
    without = [where for split, where in told.values() if not split]
    if without and len(without) < len(told):
        raise ValueError(f"{without[0]}: {len(without)} of {len(told)} pictures have no split; give all one, or none")
    splits: dict[str, dict[str, tuple[str, ...]]] = {split: {} for split in SPLITS}
    for picture in sorted(captions):
        split = share_of(picture) if without else told[picture][0]
        splits[split][picture] = tuple(captions[picture])
    counts = ", ".join(f"{len(held)} {split}" for split, held in splits.items())
    notes = (f"{file.name} has no splits: each picture's path decides, 80/10/10, here {counts}",) if without else ()
    return Pictures(root, splits, notes)


def _inside(picture: str, where: str) -> str:
    path = PurePosixPath(picture.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(f"{where}: the picture {picture!r} is not below the folder; write its path from there")
    return path.as_posix()


def in_turn(picture: str, captions: Sequence[str], seed: int) -> list[str]:
    """A picture's captions in an order that the seed decides, the same in any process.

    >>> sorted(in_turn("a.jpg", ["a dog", "a cat"], 0))
    ['a cat', 'a dog']
    """

    def place(number: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{picture}/{number}".encode(), digest_size=8).digest()

    return [captions[number] for number in sorted(range(len(captions)), key=place)]
