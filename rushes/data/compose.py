"""Composes reels, videos of still pictures, so that what is on screen at every second is known; draws them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

SIZE = (320, 240)  # pixels, width and height of a reel
RATE = 25  # frames a second of a reel
FORMAT = "yuv420p"  # of its pixels
Box = tuple[float, float, float]  # centre x, centre y and side of a crop, as shares of the picture


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture on screen from `start` to `end` (seconds of the reel), the view moving from one crop to another.

    `fade` seconds at its start are a cross-fade from the shot before; 0 is a hard cut.
    """

    picture: str
    start: float
    end: float
    view_from: Box
    view_to: Box
    fade: float = 0.0


@dataclass(frozen=True, slots=True)
class Reel:
    """Shots one after another, without a gap."""

    id: str
    shots: tuple[Shot, ...]

    @property
    def length(self) -> float:
        """Seconds."""
        return self.shots[-1].end


def compose(
    pictures: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    shots: tuple[int, int] = (3, 6),
    seconds: tuple[float, float] = (2.0, 4.0),
    fades: float = 0.3,
    rate: int = RATE,
) -> list[Reel]:
    """`count` reels of `shots` (fewest, most) pictures each, no picture twice in a reel; the same for the same seed.

    Pictures go round: each is used once before any is used again. Lengths are drawn from `seconds` and rounded to
    whole frames at `rate`; a share `fades` of the cuts are cross-fades of half a second.

    >>> reels = compose([f"{n}.jpg" for n in range(9)], count=2, seed=1)
    >>> [len(reel.shots) for reel in reels], reels == compose([f"{n}.jpg" for n in range(9)], count=2, seed=1)
    ([4, 4], True)
    """
    fewest, most = shots
    if not 1 <= fewest <= most:
        raise ValueError(f"a reel of {fewest} to {most} shots cannot be; give (fewest, most) from 1 up")
    if len(set(pictures)) < most:
        raise ValueError(f"{len(set(pictures))} pictures are too few for reels of up to {most} shots")
    random = np.random.default_rng(seed)
    deck: list[str] = []
    reels = []
    for number in range(count):
        wanted = int(random.integers(fewest, most + 1))
        chosen: list[str] = []
        while len(chosen) < wanted:
            if not deck:
                deck = _shuffled(pictures, random)
            # a picture that this reel has already stays in the deck for the next one
            place = next((i for i, picture in enumerate(deck) if picture not in chosen), None)
            if place is None:
                deck = [picture for picture in _shuffled(pictures, random) if picture not in chosen]
                place = 0
            chosen.append(deck.pop(place))
        start, made = 0.0, []
        for position, picture in enumerate(chosen):
            frames = round(float(random.uniform(*seconds)) * rate)
            end = round(start + frames / rate, 6)
            fade = 0.5 if position and random.random() < fades else 0.0
            made.append(Shot(picture, start, end, _view(random), _view(random), fade))
            start = end
        reels.append(Reel(f"reel{number:05d}", tuple(made)))
    return reels


def render(
    reel: Reel,
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] = ".",
    size: tuple[int, int] = SIZE,
    rate: int = RATE,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
) -> None:
    """Draw a reel into a video file of `size` (width, height) pixels at `rate` frames/s; pictures lie below `root`.

    `options` are the codec's own, as {"crf": "18"}.
    """
    width, height = size
    pictures = pictures_of(reel, root)
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, FORMAT
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        stream.time_base = Fraction(1, rate)
        for number in range(round(reel.length * rate)):
            frame = av.VideoFrame.from_ndarray(frame_at(reel, number / rate, pictures, size), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def pictures_of(reel: Reel, root: str | os.PathLike[str]) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """The pictures of a reel as RGB, by name; they lie below `root`."""
    return {shot.picture: _read(Path(root) / shot.picture) for shot in reel.shots}


def draw(
    reel: Reel, times: Sequence[float], root: str | os.PathLike[str], size: int, squash: bool
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The frames that a player of the rendered reel would show at these seconds, without rendering it.

    They are drawn at SIZE, take a file's pixel format, and are scaled as the decoder scales: to `size` x `size` pixels
    if `squash`, else until the shorter side is `size`. What they miss is the loss of the codec.
    """
    width, height = (size, size) if squash else (round(side * size / min(SIZE)) for side in SIZE)
    pictures = pictures_of(reel, root)
    reformat = VideoReformatter().reformat
    drawn = []
    for time in times:
        frame = av.VideoFrame.from_ndarray(frame_at(reel, time, pictures, SIZE), format="rgb24")
        frame = reformat(frame, format=FORMAT)
        frame = reformat(frame, width=width, height=height, format="rgb24", interpolation="AREA", threads=1)
        drawn.append(frame.to_ndarray())
    return drawn


def frame_at(
    reel: Reel, time: float, pictures: dict[str, UInt8[np.ndarray, "_ _ 3"]], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """What a reel shows at a time in seconds, as RGB."""
    place = next((i for i, shot in enumerate(reel.shots) if time < shot.end - 1e-9), len(reel.shots) - 1)
    shot = reel.shots[place]
    image = _draw(shot, time, pictures[shot.picture], size)
    if shot.fade and time < shot.start + shot.fade:
        before = reel.shots[place - 1]
        share = (time - shot.start) / shot.fade
        image = cv2.addWeighted(_draw(before, before.end, pictures[before.picture], size), 1 - share, image, share, 0)
    return image


def _draw(
    shot: Shot, time: float, picture: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    share = min(1.0, (time - shot.start) / (shot.end - shot.start))
    x, y, side = (a + (b - a) * share for a, b in zip(shot.view_from, shot.view_to, strict=True))
    height, width = picture.shape[:2]
    across, down = size[0] / (side * width), size[1] / (side * height)
    move = np.array(
        [[across, 0, size[0] / 2 - x * width * across], [0, down, size[1] / 2 - y * height * down]], dtype=np.float64
    )
    return cv2.warpAffine(picture, move, size, flags=cv2.INTER_AREA if across < 0.5 else cv2.INTER_LINEAR)


def _shuffled(pictures: Sequence[str], random: np.random.Generator) -> list[str]:
    return [pictures[int(place)] for place in random.permutation(len(pictures))]


def _view(random: np.random.Generator) -> Box:
    """A crop of 80 to 100 % of a picture's width and height, somewhere inside it."""
    side = float(random.uniform(0.8, 1.0))
    x, y = (float(random.uniform(side / 2, 1 - side / 2)) for _ in range(2))
    return x, y, side


def _read(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    image = cv2.imread(os.fspath(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is no picture that can be read; remove it or give another root")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
