"""Draws test films in which every frame carries its own number."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from colorsys import hsv_to_rgb
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

BITS = 16


def draw(number: int, width: int, height: int, scene: int = 0, pan: int = 0) -> np.ndarray:
    """A picture [height width 3]: a scene of soft coloured hills, moved by `pan` pixels, under a band of 16 bits.

    The band is the number in Gray code, so that from frame to frame one block changes, not a scene.
    """
    picture = np.roll(hills(scene, width, height), -pan, axis=1)
    gray = number ^ (number >> 1)
    bits = [(gray >> (BITS - 1 - bit)) & 1 for bit in range(BITS)]
    picture[: max(2, height // 6)] = np.repeat(bits, -(-width // BITS))[None, :width, None] * 219 + 16
    return picture


@cache
def hills(scene: int, width: int, height: int) -> np.ndarray:
    """Waves that fit the width, so that a picture that is moved out on the left comes in on the right."""
    random = np.random.default_rng(scene)
    x, y = np.arange(width) / width, np.arange(height)[:, None] / height
    base = 255 * np.array(hsv_to_rgb(scene * 0.382 % 1, 0.7, 0.35 + 0.4 * (scene % 2)))  # neighbours look unlike
    picture = np.empty((height, width, 3))
    for colour in range(3):
        waves = sum(
            np.sin(2 * np.pi * (random.integers(1, 5) * x + random.integers(1, 5) * y) + random.uniform(0, 6))
            for _ in range(3)
        )
        picture[..., colour] = base[colour] + 13 * waves
    return picture.clip(0, 255).astype(np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """The number that `draw` put into a frame, from pixels of any size."""
    height, width = pixels.shape[:2]
    cell = -(-width // BITS) if width % BITS == 0 else width / BITS
    row = pixels[height // 14 : max(height // 14 + 1, height // 10), :].mean(axis=(0, 2))
    bits = [int(row[int((bit + 0.5) * cell)] > 127) for bit in range(BITS)]
    gray = int("".join(map(str, bits)), 2)
    number = 0
    while gray:
        number ^= gray
        gray >>= 1
    return number


def film(
    path: Path,
    *,
    frames: int = 90,
    rate: int | Fraction = 30,
    size: tuple[int, int] = (320, 180),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    cuts: Sequence[int] = (),
    pan: int = 0,
    times: Sequence[float] | None = None,
    first: float = 0.0,
    audio: float = 0.0,
    container: dict[str, str] | None = None,
    picture: Callable[[int], np.ndarray] | None = None,
    keyed: Callable[[int], bool] | None = None,
    setup: Callable[[av.VideoStream], None] | None = None,
) -> Path:
    """Write a film whose frame n shows n. A new scene starts at each frame of `cuts`.

    times    seconds of every frame, for a variable rate; otherwise frame n is at first + n / rate
    audio    seconds of silence beside it
    keyed    which frames must be key frames
    """
    width, height = size
    if options is None and codec == "libx264":
        options = {"preset": "ultrafast", "bf": "2", "g": "30", "crf": "20", "x264-params": "scenecut=0"}
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.thread_count = 1
        base = Fraction(1, 90000)
        if codec not in ("mpeg4", "mpeg2video", "gif"):
            stream.time_base = stream.codec_context.time_base = base
        if setup:
            setup(stream)
        sound = output.add_stream("aac", rate=8000) if audio else None
        for number in range(frames):
            scene = sum(number >= cut for cut in cuts)
            image = picture(number) if picture else draw(number, width, height, scene, pan * number)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            second = times[number] if times is not None else first + number / rate
            frame.time_base = stream.codec_context.time_base or base
            frame.pts = round(second / frame.time_base)
            if keyed and keyed(number):
                frame.pict_type = PictureType.I
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound:
            for start in range(0, int(audio * 8000), 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 8000, start
                silence.time_base = Fraction(1, 8000)
                output.mux(sound.encode(silence))
            output.mux(sound.encode())
    return path


def turned(film: Path, path: Path, quarters: int, mirrored: bool = False) -> Path:
    """A copy of an mp4 that players turn clockwise by `quarters`, after mirroring it if asked.

    The matrix is written into the track header by hand: a, b, u, c, d, v, x, y, w in 16.16 and 2.30.
    """
    data = bytearray(film.read_bytes())
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    a, b, c, d = (-cosine, -sine, -sine, cosine) if mirrored else (cosine, sine, -sine, cosine)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
