"""Films with subtitles inside."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import SubtitleSet

# an encoder wants to know the styles that its lines may have
STYLES = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
Said = tuple[float, float, str]  # start and end in seconds, text


def film(path: Path, codec: str, lines: Sequence[Said], seconds: float = 8.0, shift: float = 0.0) -> Path:
    """A film of a changing grey with text subtitles; all its time stamps are moved by `shift` seconds."""
    rate = 10
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=rate)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        words = container.add_stream(codec)
        assert isinstance(words, SubtitleStream)
        words.codec_context.subtitle_header = STYLES
        words.time_base = words.codec_context.time_base = Fraction(1, 1000)
        words.metadata["language"] = "eng"
        left = sorted(lines)
        for number in range(round(seconds * rate)):
            while left and left[0][0] <= number / rate:
                start, end, text = left.pop(0)
                dialogue = b"0,0,Default,,0,0,0,," + text.encode()
                length = round((end - start) * 1000)
                made = SubtitleSet.create(text=dialogue, start=0, end=length, pts=round(start * 1e6))
                packet = words.codec_context.encode_subtitle(made)
                packet.stream, packet.time_base = words, Fraction(1, 1000)
                packet.pts = packet.dts = round((start + shift) * 1000)
                packet.duration = length
                container.mux(packet)
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(shift * rate), Fraction(1, rate)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
    return path
