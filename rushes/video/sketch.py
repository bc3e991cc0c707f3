"""A stretch of a video as small grey pictures, every frame of it: what tells one second from the next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rushes.video import sample
from rushes.video.decode import looks
from rushes.video.probe import turn
from rushes.video.shots import End, Look

SIDE = 48  # pixels
RATE = 30.0  # frames kept a second, at most
LONGEST = 120.0  # seconds


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """Grey pictures of SIDE x SIDE pixels, whatever the video's shape, with the seconds at which each is shown."""

    times: np.ndarray
    pictures: UInt8[np.ndarray, "frame side side"]

    def __len__(self) -> int:
        return len(self.times)


def sketch(path: str | os.PathLike[str], start: float, end: float, rate: float = RATE) -> Sketch:
    """The frames shown from `start` to `end` (seconds), at most `rate` a second, the one shown at `start` first.

    VideoError for a file that gives no frames; a stretch behind the video's end has none, which is no error.
    """
    if not 0 <= start < end or end - start > LONGEST:
        raise ValueError(f"a sketch from {start} s to {end} s cannot be; give up to {LONGEST:.0f} s from 0 on")
    times: list[float] = []
    pictures: list[np.ndarray] = []
    rule = sample.Policy("sketch", rate=rate, skip="DEFAULT")
    for event in looks(path, rule, start, threads=2):
        if isinstance(event, End) or (isinstance(event, Look) and event.time >= end):
            break
        if isinstance(event, Look) and (not times or event.time - times[-1] > 0.9 / rate):
            times.append(event.time)
            small = event.picture.reformat(width=SIDE, height=SIDE, format="gray", interpolation="AREA", threads=1)
            turns, mirrored = turn(event.picture)
            picture = small.to_ndarray()
            picture = picture[:, ::-1] if mirrored else picture
            pictures.append(np.rot90(picture, -turns))
    empty = np.zeros((0, SIDE, SIDE), np.uint8)
    return Sketch(np.array(times), np.stack(pictures) if pictures else empty)


def task(source: str, start: float, end: float, rate: float) -> tuple[dict[str, Any], bytes]:
    """`sketch` for `sandbox.run`."""
    made = sketch(source, start, end, rate)
    return {"times": made.times.tolist()}, made.pictures.tobytes()


def understood(facts: Mapping[str, Any], data: bytes) -> Sketch:
    """What `task` said. ValueError for an answer that is none."""
    times = np.array(facts["times"], np.float64).reshape(-1)
    return Sketch(times, np.frombuffer(data, np.uint8).reshape(len(times), SIDE, SIDE))
