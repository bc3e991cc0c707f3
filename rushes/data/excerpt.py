"""Cuts clips out of videos the way people pass them on: a part, cropped, encoded again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is cut out and how it is changed.

    start, seconds   of the video
    crop      left, top, right and bottom edge of what stays, as shares of width and height
    mirrored  left to right
    rate      frames a second; None as the video has
    quality   x264's crf: 18 is near the original, 34 a small blocky file
    """

    start: float
    seconds: float
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirrored: bool = False
    rate: int | None = None
    quality: int = 34


def excerpt(video: str | os.PathLike[str], path: Path, cut: Cut) -> None:
    """Write the clip. A second of it shows what a player of the video shows at `start` plus that second."""
    left, top, right, bottom = cut.crop
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"the crop {cut.crop} leaves nothing; give left, top, right, bottom between 0 and 1")
    reformat = VideoReformatter().reformat
    with av.open(os.fspath(video)) as source, av.open(str(path), "w") as target:
        pictures = source.streams.video[0]
        rate = cut.rate or round(float(pictures.average_rate or 25))
        stream = target.add_stream("libx264", rate=rate, options={"crf": str(cut.quality), "preset": "veryfast"})
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        number, second, shown = 0, 0.0, None
        count = max(1, round(cut.seconds * rate))

        def write(picture: np.ndarray) -> None:
            nonlocal number
            height, width = picture.shape[:2]
            picture = picture[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
            picture = np.ascontiguousarray(picture[:, ::-1] if cut.mirrored else picture)
            if number == 0:
                stream.width, stream.height = (side // 2 * 2 for side in (picture.shape[1], picture.shape[0]))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = reformat(frame, width=stream.width, height=stream.height, format="yuv420p", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            target.mux(stream.encode(frame))
            number += 1

        for frame in source.decode(pictures):
            second = float(frame.time or 0.0)
            while shown is not None and number < count and cut.start + number / rate < second - 1e-6:
                write(shown)
            if number >= count:
                break
            if second + 1.0 >= cut.start:
                shown = frame.to_ndarray(format="rgb24")
        while shown is not None and number < count and cut.start + number / rate < second + 1 / rate:
            write(shown)
        if number == 0:
            raise ValueError(f"{video} shows nothing at {cut.start} s; choose a start before its end")
        target.mux(stream.encode())
