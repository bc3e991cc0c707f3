"""Reels: a benchmark composed of captioned pictures, so that every true pair and every true second is known.

A reel is 3 to 6 pictures, each on screen for 2 to 4 seconds with a slow pan or zoom, after hard cuts or fades. Root is
a folder of captioned pictures (`pictures.captioned`). Reels of a split show pictures of that split alone, and are the
same in every protocol up to their number: a protocol with fewer has the first of them.

On Flickr8k (6,000/1,000/1,000 pictures, five captions each):

    protocol    split   videos  captions   pairs  beside the pairs (`sharing`)
    shot        train    2,667    59,705  59,705  59,410, all of them false negatives
                val        222       990     990       0
                test       222       958     958       0
    paragraph   train    2,667    13,335  13,335  59,340 that share a picture or more, none wholly true
                val        500       500     500   2,832
                test     1,000     1,000   1,000  15,222
    order       train    3,000    15,000  15,000  52,150
                val        666       222     222     666
                test     1,500       500     500   9,923

Of a recall of one half, 958 queries know +-3.2 points (95 %, were they independent), 1,000 +-3.1 and 500 +-4.4.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from rushes.data.base import Benchmark, Caption, Protocol, Split, Video, checked, chosen
from rushes.data.compose import Reel, Shot, compose, frame_at, render
from rushes.data.pictures import SPLITS, Pictures, captioned, in_turn

__all__ = [
    "DEFAULT",
    "PROTOCOLS",
    "Reel",
    "Shot",
    "compose",
    "frame_at",
    "load",
    "parse",
    "reels_of",
    "render",
    "sharing",
    "spans_of",
]

PROTOCOLS = {
    "shot": Protocol("a caption of one shot finds the reels that show its picture; the other shots distract", {}),
    "paragraph": Protocol("the captions of all shots, in order, find the reel", {}),
    "order": Protocol(
        "a paragraph finds its reel beside the same shots in another order, and beside one with a picture swapped", {}
    ),
}
DEFAULT = "shot"
SEED = 0
SHOTS = (3, 6)  # of a reel, fewest and most
# How often the pictures of a split go round. Training: twice, so that each caption is true of one more reel that no
# pair tells of, as happens in collections of the web; a batch of 128 meets that for 5 % of its captions. A third round
# would show no other picture for half as much time again. Test: once for shots, 958 captions of Flickr8k; a paragraph
# tells of a whole reel, so there must be more rounds for 1,000 of them. Under "order" each reel is three.
ROUNDS = {
    "shot": {"train": 2.0, "val": 1.0, "test": 1.0},
    "paragraph": {"train": 2.0, "val": 2.25, "test": 4.5},
    "order": {"train": 0.75, "val": 1.0, "test": 2.25},
}


def load(root: Path, protocol: str = DEFAULT) -> Benchmark:
    """The benchmark of the pictures in `root`.

    shot       a caption tells of `start` to `end` of its reel (in a fade's half second the shot before is seen, too)
    paragraph  a caption tells of the whole reel, all its shots in order
    order      the gallery has three reels of each: "test00007", "test00007-order" (its shots in another order) and
               "test00007-swap" (another picture in one shot). In val and test only the first has a paragraph, in
               training all three have theirs: else nothing would teach that order matters.

    In training a caption is paired with the reel it was made for, alone, with all captions of each picture; `sharing`
    tells what else would be right. In val and test each shot has one caption, another each time its picture comes, and
    pairs hold every reel that it is true of.
    """
    return checked(parse(root, protocol), chosen("reels", protocol, PROTOCOLS))


def parse(
    root: Path, protocol: str = DEFAULT, *, seed: int = SEED, count: int | None = None, told: bool = False
) -> Benchmark:
    """As `load`, or another drawing of it, with numbers of its own kind.

    seed   of everything that is drawn
    count  of reels a split (of which "order" makes three each); None = as many as `ROUNDS` gives
    told   under "order", give reordered and swapped reels their own paragraph in val and test, too
    """
    chosen("reels", protocol, PROTOCOLS)
    pictures = captioned(Path(root))
    splits: dict[str, Split] = {}
    absent: dict[str, str] = {}
    notes = list(pictures.notes)
    for name in SPLITS:
        if why := _too_few(pictures, name):
            absent[name] = why
            continue
        reels, captions = _made(pictures, protocol, name, seed, count, told)
        splits[name] = _split(name, reels, captions)
        shown = Counter(shot.picture for reel in reels for shot in reel.shots)
        notes.append(
            f"{name}: {len(reels):,} reels of {sum(shown.values()):,} shots and {sum(r.length for r in reels):,.0f} s "
            f"show {len(shown):,} of {len(pictures.splits[name]):,} pictures"
        )
    if seed != SEED or count is not None or (told and protocol == "order"):
        notes.append(f"drawn from seed {seed}, {count or 'the usual number of'} reels a split: no standard numbers")
    return Benchmark("reels", protocol, splits, absent, tuple(notes))


def reels_of(root: Path, protocol: str, split: str, *, seed: int = SEED, count: int | None = None) -> list[Reel]:
    """The reels of a split, in the order of its videos: what to draw, second by second."""
    return _found(root, protocol, split, seed, count)[0]


def sharing(
    root: Path, protocol: str = DEFAULT, split: str = "train", *, seed: int = SEED, count: int | None = None
) -> Int[np.ndarray, "pair 3"]:
    """Caption row, video row, and how many pictures that the caption tells of the video shows; beyond `Split.pairs`.

    Under "shot" each row is a positive that the pairs keep silent of: a false negative that training meets, with which
    whatever detects those can be judged. In val and test there is none, for pairs hold them. A paragraph that shares
    some pictures with a reel is partly true of it.
    """
    reels, told = _found(root, protocol, split, seed, count)
    marked = {(int(caption), int(video)) for caption, video in _pairs(split, reels, told)}
    holding = _holding(reels)
    rows = [
        (row, video, pictures)
        for row, one in enumerate(told)
        for video, pictures in sorted(Counter(video for name in one.pictures for video in holding[name]).items())
        if (row, video) not in marked
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def spans_of(
    root: Path, protocol: str, split: str, *, seed: int = SEED, count: int | None = None
) -> Float[np.ndarray, "pair 2"]:
    """The seconds of its video that each of `Split.pairs` is true of, in their order."""
    reels, told = _found(root, protocol, split, seed, count)
    spans = []
    for caption, video in _pairs(split, reels, told).tolist():
        shots = [shot for shot in reels[video].shots if shot.picture in told[caption].pictures]
        spans.append((shots[0].start, shots[-1].end))
    return np.array(spans, dtype=np.float64).reshape(-1, 2)


def fingerprint(reel: Reel, contents: Mapping[str, str]) -> str:
    """32 hexadecimal digits that name what a reel shows: its shots, with the content of each picture for its name."""
    shots = [asdict(shot) | {"picture": contents[shot.picture]} for shot in reel.shots]
    return hashlib.blake2b(json.dumps(shots, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class _Told:
    """A caption, the row of the reel it was made for, and the pictures it tells of."""

    caption: Caption
    home: int
    pictures: tuple[str, ...]


def _found(root: Path, protocol: str, split: str, seed: int, count: int | None) -> tuple[list[Reel], list[_Told]]:
    chosen("reels", protocol, PROTOCOLS)
    if split not in SPLITS:
        raise LookupError(f"reels ({protocol}) has no split {split!r}; it has {', '.join(SPLITS)}")
    pictures = captioned(Path(root))
    if why := _too_few(pictures, split):
        raise LookupError(f"reels ({protocol}) has no split {split!r}: {why}")
    return _made(pictures, protocol, split, seed, count)


def _too_few(pictures: Pictures, split: str) -> str:
    """Why there can be no reels of a split; "" where there can."""
    held, need = len(pictures.splits[split]), SHOTS[1] + 1  # one more than the longest reel: to swap in
    return f"{pictures.root} has {held} pictures for {split}, reels need {need}" if held < need else ""


def _made(
    pictures: Pictures, protocol: str, split: str, seed: int, count: int | None, told_all: bool = False
) -> tuple[list[Reel], list[_Told]]:
    captions = pictures.splits[split]
    names = list(captions)
    if count is None:
        count = max(1, round(ROUNDS[protocol][split] * len(names) / (sum(SHOTS) / 2)))
    elif count < 1:
        raise ValueError(f"{count} reels cannot be; give a count from 1 up")
    own_seed = seed * len(SPLITS) + SPLITS.index(split)  # no two splits or seeds draw alike
    originals = compose(names, count, seed=own_seed, shots=SHOTS)
    originals = [replace(reel, id=reel.id.replace("reel", split)) for reel in originals]
    reels = originals
    if protocol == "order":
        random = np.random.default_rng([own_seed, 1])
        # the originals first: so their features are those of the other protocols
        reels = [
            *originals,
            *(_reordered(reel, random) for reel in originals),
            *(_swapped(reel, names, random) for reel in originals),
        ]
    queries = reels if split == "train" or told_all else originals
    rows = {reel.id: row for row, reel in enumerate(reels)}
    turns: dict[str, int] = defaultdict(int)
    told: list[_Told] = []
    for reel in queries:
        # the captions of each shot, another one first each time that a picture comes
        texts = []
        for shot in reel.shots:
            turn = in_turn(shot.picture, captions[shot.picture], seed)
            at = turns[shot.picture] % len(turn)
            texts.append(turn[at:] + turn[:at])
            turns[shot.picture] += 1
        make = _by_shot if protocol == "shot" else _by_paragraph
        told += make(reel, rows[reel.id], texts, every=split == "train")
    return reels, told


def _by_shot(reel: Reel, home: int, texts: Sequence[Sequence[str]], every: bool) -> Iterable[_Told]:
    for place, (shot, of_shot) in enumerate(zip(reel.shots, texts, strict=True)):
        for number, text in enumerate(of_shot if every else of_shot[:1]):
            id = f"{reel.id}#{place}.{number}" if every else f"{reel.id}#{place}"
            yield _Told(Caption(id, text, shot.start, shot.end), home, (shot.picture,))


def _by_paragraph(reel: Reel, home: int, texts: Sequence[Sequence[str]], every: bool) -> Iterable[_Told]:
    shown = tuple(shot.picture for shot in reel.shots)
    for number in range(max(map(len, texts)) if every else 1):
        text = " ".join(_sentence(of_shot[number % len(of_shot)]) for of_shot in texts)
        yield _Told(Caption(f"{reel.id}#{number}", text, 0.0, reel.length), home, shown)


def _sentence(text: str) -> str:
    """With a full stop, or captions would run into each other.

    >>> _sentence("a dog"), _sentence("a dog .")
    ('a dog .', 'a dog .')
    """
    return text if text[-1] in ".!?" else f"{text} ."


def _reordered(reel: Reel, random: np.random.Generator) -> Reel:
    """The same shots, as long as they were, in another order; cuts and fades stay between the same places."""
    order = np.arange(len(reel.shots))
    while (order == np.arange(len(order))).all():
        order = random.permutation(len(order))
    shots, start = [], 0.0
    for place, number in enumerate(order.tolist()):
        shot = reel.shots[number]
        end = round(start + shot.end - shot.start, 6)
        shots.append(replace(shot, start=start, end=end, fade=reel.shots[place].fade))
        start = end
    return Reel(f"{reel.id}-order", tuple(shots))


def _swapped(reel: Reel, names: Sequence[str], random: np.random.Generator) -> Reel:
    """The same reel with another picture in one shot."""
    shown = {shot.picture for shot in reel.shots}
    place = int(random.integers(len(reel.shots)))
    other = names[int(random.integers(len(names)))]
    while other in shown:
        other = names[int(random.integers(len(names)))]
    shots = [replace(shot, picture=other) if row == place else shot for row, shot in enumerate(reel.shots)]
    return Reel(f"{reel.id}-swap", tuple(shots))


def _split(name: str, reels: Sequence[Reel], told: Sequence[_Told]) -> Split:
    videos = tuple(Video(reel.id, reel.id) for reel in reels)
    return Split(name, videos, tuple(one.caption for one in told), _pairs(name, reels, told))


def _pairs(split: str, reels: Sequence[Reel], told: Sequence[_Told]) -> Int[np.ndarray, "pair 2"]:
    """Caption and video rows that belong together: the home of each in training, all that is true elsewhere."""
    if split == "train":
        pairs = [(row, one.home) for row, one in enumerate(told)]
    else:
        holding = _holding(reels)
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)  # reels by what they show, in order
        for video, reel in enumerate(reels):
            alike[tuple(shot.picture for shot in reel.shots)].append(video)
        pairs = [
            (row, video)
            for row, one in enumerate(told)
            for video in (holding[one.pictures[0]] if len(one.pictures) == 1 else alike[one.pictures])
        ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _holding(reels: Sequence[Reel]) -> dict[str, list[int]]:
    """The rows of the reels that show each picture."""
    holding: dict[str, list[int]] = defaultdict(list)
    for video, reel in enumerate(reels):
        for shot in reel.shots:
            holding[shot.picture].append(video)
    return holding
