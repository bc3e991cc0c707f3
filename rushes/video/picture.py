"""Single frames of a video as JPEG or WebP: the one shown at a second, or the most telling of a segment."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any, BinaryIO

from av.video.reformatter import VideoReformatter

from rushes.video import sample
from rushes.video.decode import looks
from rushes.video.pixels import THUMBNAIL, jpeg, rgb, shown, telling, thumbnail
from rushes.video.probe import duration, opened
from rushes.video.sandbox import Limits, run
from rushes.video.shots import End, Look

WIDEST = 3840  # pixels
ROUNDED = 0.0005  # seconds: a time may have been rounded to milliseconds, and must not show the shot before
SLACK = 0.05  # seconds behind the end that still show the last frame: lengths are rounded
LIMITS = Limits(seconds=60.0, cpu_seconds=90)  # a file without an index is read from its start


def frame(file: BinaryIO, second: float, width: int | None = None, limits: Limits = LIMITS) -> bytes:
    """The frame that a player shows at `second` of the video's clock, as JPEG: upright, with square pixels, at most
    `width` pixels wide (None: as wide as it is, WIDEST at most), never enlarged. Runs in the sandbox.

    ValueError for a second outside the video, VideoError for a file that does not give it.
    """
    if width is not None and not 1 <= width <= WIDEST:
        raise ValueError(f"a frame of {width} pixels; give a width from 1 to {WIDEST}")
    if not math.isfinite(second) or second < 0:
        raise ValueError(f"a video has no second {second}; give one from 0 to its length")
    arguments = {"second": second, "width": width or WIDEST}
    return run("rushes.video.picture:frame_task", arguments, source=file, limits=limits)[1]


def telling_frame(file: BinaryIO, start: float, end: float, width: int = THUMBNAIL, limits: Limits = LIMITS) -> bytes:
    """A thumbnail (`pixels.thumbnail`) for the seconds from `start` to `end`. Runs in the sandbox."""
    arguments = {"start": start, "end": end, "width": width}
    return run("rushes.video.picture:telling_task", arguments, source=file, limits=limits)[1]


def frame_task(source: str, second: float, width: int) -> tuple[dict[str, Any], bytes]:
    """In the sandbox: `frame`."""
    with opened(source) as (container, stream):
        length = duration(container, stream)
    if length is not None and second > length + 60:  # far outside: not worth reading all of a file without an index
        raise ValueError(outside(second, length))
    with closing(looks(source, sample.policy("thorough"), second, 2, quick=True)) as passing:
        found: Look | None = None
        for event in passing:
            if isinstance(event, End):
                if second > event.time + SLACK:
                    raise ValueError(outside(second, event.time))
                break
            if isinstance(event, Look):
                if event.time > second + ROUNDED:
                    found = found or event  # before the first frame a player shows the first
                    break
                found = event
    if found is None:
        raise ValueError(outside(second, length or 0.0))
    pixels = shown(found.picture, found.aspect, width, WIDEST)
    return {"time": found.time, "width": pixels.shape[1], "height": pixels.shape[0]}, jpeg(pixels)


def telling_task(source: str, start: float, end: float, width: int) -> tuple[dict[str, Any], bytes]:
    """In the sandbox: `telling_frame`. Looks at one frame a second, as indexing does."""
    rule = sample.policy("balanced")
    targets = sample.targets(start, end, rule.rate) or [(start + end) / 2]
    scaler = VideoReformatter()
    best: tuple[float, Look] | None = None
    before: Look | None = None

    def consider(look: Look | None, best: tuple[float, Look] | None) -> tuple[float, Look] | None:
        if look is None:
            return best
        score = telling(rgb(look.picture, 64, 64, scaler))
        return (score, look) if best is None or score > best[0] else best

    for event in looks(source, rule, start, 2, quick=True):
        if isinstance(event, Look):
            if event.time >= end and before is not None:
                break
            if targets and event.time > targets[0]:
                best = consider(before or event, best)
                targets = [target for target in targets if target >= event.time]
            before = event
    best = consider(before, best) if targets or best is None else best
    if best is None:
        raise ValueError(outside(start, 0.0))
    return {"time": best[1].time}, thumbnail(best[1].picture, best[1].aspect, width)


def outside(second: float, length: float) -> str:
    """What to say of a second that the video does not have."""
    return f"second {second:g} is outside the video, which is {length:.3f} s long"
