"""Decoded frames as pictures that people see: upright, in their true aspect, as WebP or JPEG."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from rushes.video.probe import turn

THUMBNAIL = 320  # pixels wide; a tall picture is at most as high, so that none weighs much more than another


def rgb(frame: VideoFrame, width: int, height: int, scaler: VideoReformatter, filter: str = "AREA") -> np.ndarray:
    """uint8 [height width 3] as stored (see `upright`), with the tone that the frame's tags say."""
    # untagged HD is BT.709 by custom; FFmpeg takes every untagged frame for BT.601
    untagged = frame.colorspace == 2 and frame.height >= 720
    small = scaler.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        interpolation=filter,
        src_colorspace=Colorspace.ITU709 if untagged else None,
        threads=1,
    )
    return small.to_ndarray()


def upright(pixels: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """The pixels as a player turns them, contiguous."""
    quarters, mirrored = turn(frame)
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, -quarters))


def shown(frame: VideoFrame, aspect: float, wide: int, high: int) -> np.ndarray:
    """The frame as it is seen, with square pixels, as large as fits `wide` and `high`; never larger than it is."""
    width, height = max(1.0, frame.width * aspect), float(frame.height)
    if turn(frame)[0] % 2:
        wide, high = high, wide
    scale = min(1.0, wide / width, high / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return upright(rgb(frame, *size, VideoReformatter()), frame)


def telling(pixels: np.ndarray) -> float:
    """How much a picture shows, for choosing among the frames of one segment: the spread of its luminance, less what
    lies in the dark or burnt out. Black, plain and half faded pictures get little; so do titles on black.

    >>> stripes = np.zeros((32, 32, 3), np.uint8); stripes[:, ::2] = 200; stripes[:, 1::2] = 60
    >>> telling(stripes), telling(stripes // 2), telling(np.zeros_like(stripes))
    (70.0, 35.0, 0.0)
    """
    step = max(1, min(pixels.shape[:2]) // 32)
    luminance = pixels[::step, ::step] @ np.array([0.299, 0.587, 0.114], np.float32)
    lost = max(float((luminance < 20).mean()), float((luminance > 250).mean()))
    return round(float(luminance.std()) * (1.0 - lost), 3)


def thumbnail(frame: VideoFrame, aspect: float, width: int = THUMBNAIL) -> bytes:
    """The frame as a small WebP. FFmpeg's own encoder makes it, where the frame is: Pillow is no part of an installed
    Rushes, and the pixels need not travel."""
    return webp(shown(frame, aspect, width, width))


def webp(pixels: np.ndarray, quality: int = 70) -> bytes:
    """uint8 [height width 3] RGB -> a WebP file."""
    # method 2 of 6: half the time of 4 for a twentieth more bytes
    return _encoded(pixels, "libwebp", "yuv420p", ColorRange.MPEG, {"quality": str(quality), "compression_level": "2"})


def jpeg(pixels: np.ndarray, quality: int = 3) -> bytes:
    """uint8 [height width 3] RGB -> a JPEG file; `quality` is FFmpeg's, 2 is the best and 31 the worst."""
    step = str(quality)
    return _encoded(pixels, "mjpeg", "yuvj420p", ColorRange.JPEG, {"qmin": step, "qmax": step, "huffman": "optimal"})


def _encoded(pixels: np.ndarray, codec: str, format: str, tones: ColorRange, options: dict[str, str]) -> bytes:
    picture = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format=format, dst_colorspace=Colorspace.ITU601, dst_color_range=tones
    )
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height = picture.width, picture.height
    encoder.pix_fmt = format
    encoder.time_base = picture.time_base = Fraction(1, 25)  # one picture has no rate, but must name one
    encoder.options = options
    encoder.thread_count = 1
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
