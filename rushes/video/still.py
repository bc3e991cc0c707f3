"""A picture from a file, as the encoder wants it: what a search by image starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from rushes.video.pixels import rgb, upright
from rushes.video.probe import VideoError, first_frame, opened, pixel_aspect
from rushes.video.sandbox import Limits, run

# By their first bytes: FFmpeg would choose by the name, and take "a%d.jpg" for a numbered sequence of files.
PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (b"BM", "bmp_pipe"),
    (b"II*\x00", "tiff_pipe"),
    (b"MM\x00*", "tiff_pipe"),
    (b"qoif", "qoi_pipe"),
)
LIMITS = Limits(seconds=30.0, cpu_seconds=30)


def still(
    path: str | os.PathLike[str], *, size: int = 224, squash: bool = True, limits: Limits = LIMITS
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in a file (JPEG, PNG, WebP, BMP, TIFF, AVIF, GIF, ...), or a video's first frame: RGB, upright.

    squash  True: `size` x `size` pixels; False: the shorter side is `size`, the aspect stays. As `decode.read` has it.

    Decoded in the sandbox. VideoError for a file that gives no picture, with the codes of `probe.VideoError`.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  the with follows; errors of opening are told apart
    except FileNotFoundError:
        raise VideoError("missing", f"{path} does not exist; give the path of a picture") from None
    except OSError as error:
        raise VideoError("unreadable", f"{path} cannot be read: {error.strerror}") from None
    with file:
        facts, data = run("rushes.video.still:still_task", {"size": size, "squash": squash}, source=file, limits=limits)
    return np.frombuffer(data, np.uint8).reshape(facts["height"], facts["width"], 3)


def still_task(source: str, size: int, squash: bool) -> tuple[dict[str, Any], bytes]:
    """In the sandbox: `still`."""
    with picture_opened(source) as (container, stream):
        frame = first_frame(container, stream, source)
        if squash:
            width = height = size
        else:
            sides = frame.width * pixel_aspect(stream), frame.height
            width, height = (max(1, round(side * size / min(sides))) for side in sides)
        pixels = upright(rgb(frame, width, height, VideoReformatter()), frame)
    return {"width": pixels.shape[1], "height": pixels.shape[0]}, pixels.tobytes()


@contextmanager
def picture_opened(source: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The picture in a file as a stream of one frame; of any other file the video stream."""
    with open(source, "rb") as file:
        head = file.read(16)
    kind = "webp_pipe" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None
    kind = kind or next((name for magic, name in PICTURES if head.startswith(magic)), None)
    if kind is None:
        with opened(source) as both:
            yield both
        return
    options = {"protocol_whitelist": "file", "format_whitelist": kind}
    try:
        container = cast(InputContainer, av.open("file:" + source, format=kind, options=options))
    except (FFmpegError, ValueError, OSError) as error:
        raise VideoError("not-a-video", f"{source} is no picture that FFmpeg can read ({error})") from None
    with container:
        yield container, container.streams.video[0]
