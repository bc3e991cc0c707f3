"""Where batches come from: rows of a split, the same for every step whoever asks, and their features or pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rushes.backbones.base import Backbone, Frames, Words
from rushes.data.base import Split
from rushes.methods.base import Batch
from rushes.similarity import fp32
from rushes.train.features import Drawn, End, Files, seconds_seen, stretches
from rushes.train.run import Run
from rushes.video.decode import Frame
from rushes.video.probe import VideoError

Rows = Sequence[int] | Int[np.ndarray, "row"]


class Reader(Protocol):
    """The videos and captions of a split by their rows: features, or what a backbone has still to read."""

    def frames(self, rows: Rows, most: int | None = None, draw: np.random.Generator | None = None) -> Any:
        """Videos with at most `most` frames each: one drawn from each equal share, or its middle."""

    def words(self, rows: Rows) -> Any:
        """Captions."""


@dataclass(frozen=True, eq=False)
class Pool:
    """A split and its reader."""

    split: Split
    reader: Reader


class Batches:
    """The batches of a run, each a function of the run's seed and the step's number alone.

    An epoch goes through the videos that have captions, or through captions, in an order of its own; what is left over
    by full batches waits for another epoch. Fewer items than a batch make one smaller batch. A video that several
    captions of a batch belong to is in it once, except where the method takes pairs.
    """

    def __init__(self, pool: Pool, run: Run, views: int = 1, paired: bool = False):
        if paired and run.captions > 1:
            raise ValueError(
                f"{run.method} trains on pairs, captions={run.captions} gives several texts a video; leave it"
            )
        split = pool.split
        if not len(split.captions):
            raise ValueError(f"split {split.name!r} has no captions to learn from")
        self.pool, self.run, self.views, self.paired = pool, run, views, paired
        self.captions_of: list[list[int]] = [[] for _ in split.videos]
        self.videos_of: list[list[int]] = [[] for _ in split.captions]
        for caption, video in split.pairs.tolist():
            self.captions_of[video].append(caption)
            self.videos_of[caption].append(video)
        several = max(map(len, self.videos_of))
        filled = np.array([videos + [-1] * (several - len(videos)) for videos in self.videos_of], dtype=np.int64)
        self.numbers = filled[:, 0] if several == 1 else filled
        told = [row for row, captions in enumerate(self.captions_of) if captions]
        self.items = np.array(told if run.epoch_of == "videos" else range(len(split.captions)), dtype=np.int64)
        self.size = min(run.batch, len(self.items))
        self.steps = len(self.items) // self.size  # an epoch
        self._order = lru_cache(maxsize=2)(self._ordered)

    def rows(self, step: int) -> tuple[Int[np.ndarray, "text"], Int[np.ndarray, "video"]]:
        """Captions and videos of the whole batch."""
        epoch, place = divmod(step, self.steps)
        items = self._order(epoch)[place * self.size : (place + 1) * self.size]
        random = np.random.default_rng((self.run.seed, step, 0))
        if self.run.epoch_of == "captions":
            videos = [self.videos_of[row][int(random.integers(len(self.videos_of[row])))] for row in items]
            return items, np.array(videos if self.paired else list(dict.fromkeys(videos)), dtype=np.int64)
        texts = [
            int(caption) for row in items for caption in random.permutation(self.captions_of[row])[: self.run.captions]
        ]
        return np.array(texts if self.paired else list(dict.fromkeys(texts)), dtype=np.int64), items

    def batch(self, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """One process's share: a stretch of the batch's texts, and one of its videos."""
        texts, videos = self.rows(step)
        if min(len(texts), len(videos)) < processes:
            raise ValueError(
                f"a batch of {len(texts)} texts and {len(videos)} videos is too small for {processes} processes"
            )
        own_texts, own_videos = share(len(texts), rank, processes), share(len(videos), rank, processes)
        reader, most = self.pool.reader, self.run.frames
        # all rows are asked for and a stretch is taken, so that what is drawn does not depend on who draws
        drawn = [np.random.default_rng((self.run.seed, step, view)) for view in (1, 2)]
        first = reader.frames(videos, most, drawn[0] if self.run.draw else None)[own_videos]
        second = reader.frames(videos, most, drawn[1])[own_videos] if self.views == 2 else None
        return Batch(
            reader.words(texts)[own_texts],
            loaded(first),
            torch.from_numpy(self.numbers[texts[own_texts]]),
            torch.from_numpy(videos[own_videos]),
            None if second is None else loaded(second),
        )

    def ahead(self, steps: range, rank: int = 0, processes: int = 1) -> Iterator[Batch]:
        """The batches of some steps in turn, each made while the one before it is at work."""
        with ThreadPoolExecutor(1) as thread:
            waiting = [thread.submit(self.batch, steps[0], rank, processes)] if steps else []
            for step in steps:
                batch = waiting.pop().result()
                if step + 1 in steps:
                    waiting.append(thread.submit(self.batch, step + 1, rank, processes))
                yield batch

    def _ordered(self, epoch: int) -> Int[np.ndarray, "item"]:
        return self.items[np.random.default_rng((self.run.seed, epoch)).permutation(len(self.items))]


def share(count: int, rank: int, processes: int) -> slice:
    """The stretch of `count` things that one of several processes takes.

    >>> [share(5, rank, 2) for rank in (0, 1)]
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return slice(count * rank // processes, count * (rank + 1) // processes)


# --- end to end -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Captions that the backbone has still to read."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: slice) -> Texts:
        return Texts(self.texts[index])


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded frames of videos that the backbone has still to see, with the seconds each stands for."""

    pixels: tuple[UInt8[Tensor, "frame 3 height width"], ...]
    spans: tuple[Float[Tensor, "frame 2"], ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice) -> Pixels:
        return Pixels(self.pixels[index], self.spans[index])


@dataclass(frozen=True, eq=False)
class Undecoded:
    """Videos to decode, each with a seed for the frames to draw, or none for evenly spread ones."""

    films: Films
    rows: tuple[int, ...]
    most: int | None
    seeds: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> Undecoded:
        return Undecoded(self.films, self.rows[index], self.most, self.seeds[index])

    def load(self) -> Pixels:
        made = list(self.films.threads.map(self.films.decode, self.rows, [self.most] * len(self), self.seeds))
        return Pixels(tuple(pixels for pixels, _ in made), tuple(spans for _, spans in made))


def loaded(features: Any) -> Any:
    return features.load() if isinstance(features, Undecoded) else features


class Films:
    """Reads pixels and raw texts: frames are decoded anew each time, since few disks hold them all."""

    def __init__(self, split: Split, source: Callable[[], Files | Drawn], backbone: Backbone, workers: int = 2):
        self.split = split
        self.threads = ThreadPoolExecutor(workers)  # kept: each thread's source is dear to make
        self.size, self.squash = backbone.image_size, backbone.squash
        self._source = source
        self._own = threading.local()  # a source a thread: each reads one file at a time

    def frames(self, rows: Rows, most: int | None = None, draw: np.random.Generator | None = None) -> Undecoded:
        seeds = [None] * len(rows) if draw is None else draw.integers(2**32, size=len(rows)).tolist()
        return Undecoded(self, tuple(int(row) for row in rows), most, tuple(seeds))

    def words(self, rows: Rows) -> Texts:
        return Texts(tuple(self.split.captions[int(row)].text for row in rows))

    def decode(
        self, row: int, most: int | None, seed: int | None
    ) -> tuple[UInt8[Tensor, "frame 3 height width"], Float[Tensor, "frame 2"]]:
        """A video's frames, at most `most` of them, and the seconds each stands for. ValueError if none."""
        if not hasattr(self._own, "source"):
            self._own.source = self._source()
        frames: list[Frame] = []
        start = end = 0.0
        try:
            for event in self._own.source.read(row, self.size, self.squash):
                if isinstance(event, Frame):
                    frames.append(event)
                elif isinstance(event, End):
                    start, end = event.start, event.end
        except VideoError as error:
            id = self.split.videos[row].id
            raise ValueError(
                f"video {id!r} cannot be read: {error}; mend it, or take it out of the annotations"
            ) from error
        spans = torch.from_numpy(seconds_seen([frame.time for frame in frames], start, end))
        if most is not None and len(frames) > most:
            chosen = stretches(len(frames), most, None if seed is None else np.random.default_rng(seed))
            frames, spans = [frames[place] for place in chosen], spans[chosen]
        return torch.from_numpy(np.stack([frame.pixels for frame in frames])).permute(0, 3, 1, 2), spans


@dataclass(frozen=True, eq=False)
class Picked:
    """A reader of some rows of another one's split."""

    reader: Reader
    videos: Int[np.ndarray, "video"]  # its rows, by ours
    captions: Int[np.ndarray, "caption"]

    def frames(self, rows: Rows, most: int | None = None, draw: np.random.Generator | None = None) -> Any:
        return self.reader.frames(self.videos[rows], most, draw)

    def words(self, rows: Rows) -> Any:
        return self.reader.words(self.captions[rows])

    @staticmethod
    def of(reader: Reader, whole: Split, part: Split) -> Picked:
        videos = {video.id: row for row, video in enumerate(whole.videos)}
        captions = {caption.id: row for row, caption in enumerate(whole.captions)}
        return Picked(
            reader,
            np.array([videos[video.id] for video in part.videos], dtype=np.int64),
            np.array([captions[caption.id] for caption in part.captions], dtype=np.int64),
        )


@dataclass(frozen=True)
class Reading:
    """Brings what a reader gave to where encoders take it: to a device, through the backbone, cut to the run's words.

    Under `autocast` the backbone alone computes in half precision; what comes out is fp32.
    """

    backbone: Backbone
    tagger: str | None
    words: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __call__(self, features: Any) -> Words | Frames:
        if isinstance(features, Texts):
            with self.autocast():
                features = self.backbone.read(features.texts, self.tagger)
        elif isinstance(features, Pixels):
            with self.autocast():
                features = Frames.pack(self._seen(features.pixels), [spans.to(self.device) for spans in features.spans])
        if isinstance(features, Frames):
            device = self.device
            return Frames(fp32(features.vectors.to(device)), features.mask.to(device), features.spans.to(device))
        most = min(self.words, max(1, int(features.mask.sum(dim=1).max())))
        vectors, mask = features.vectors[:, :most].to(self.device), features.mask[:, :most].to(self.device)
        content = None if features.content is None else features.content[:, :most].to(self.device)
        return Words(fp32(vectors), mask, fp32(features.sentence.to(self.device)), content)

    def _seen(self, videos: Sequence[UInt8[Tensor, "frame 3 height width"]]) -> list[Float[Tensor, "frame dim"]]:
        """Every video's frame features; videos of one shape go through the backbone together."""
        shapes: dict[torch.Size, list[int]] = {}
        for number, video in enumerate(videos):
            shapes.setdefault(video.shape[2:], []).append(number)
        seen: dict[int, Tensor] = {}
        for numbers in shapes.values():
            together = self.backbone.frames(torch.cat([videos[number] for number in numbers]).to(self.device))
            parts = together.split([len(videos[number]) for number in numbers])
            seen |= dict(zip(numbers, parts, strict=True))
        return [seen[number] for number in range(len(videos))]


def some(split: Split, videos: Sequence[int], captions: int | None = None) -> Split:
    """The split of some of its videos, with at most so many captions each; rows are numbered anew.

    >>> from rushes.data.base import Caption, Video, make_split
    >>> whole = make_split("train", [(Video(n, n), [Caption(n + str(i), n) for i in range(3)]) for n in "abc"], "here")
    >>> part = some(whole, [2, 0], captions=2)
    >>> [one.id for one in part.captions], part.pairs.tolist()
    (['c0', 'c1', 'a0', 'a1'], [[0, 0], [1, 0], [2, 1], [3, 1]])
    """
    of_video: dict[int, list[int]] = {video: [] for video in videos}
    for caption, video in split.pairs.tolist():
        if video in of_video and (captions is None or len(of_video[video]) < captions):
            of_video[video].append(caption)
    told = {caption: row for row, caption in enumerate(dict.fromkeys(c for v in videos for c in of_video[v]))}
    pairs = [(told[caption], row) for row, video in enumerate(videos) for caption in of_video[video]]
    return replace(
        split,
        videos=tuple(split.videos[video] for video in videos),
        captions=tuple(split.captions[caption] for caption in told),
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )
