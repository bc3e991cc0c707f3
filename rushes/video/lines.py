"""The lines of the text subtitles that a video file carries inside it."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard
from av.subtitles.stream import SubtitleStream

from rushes.video.probe import opened, start_time

TEXT_CODECS = frozenset({"mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text"})
MOST_LINES = 100_000  # of one file: a film has 2,000
LONGEST = 2_000  # characters of a line
SHOWN = 2.0  # seconds that a line is shown where its end is missing or before its start
OVERRIDE = re.compile(r"\{[^{}]{0,500}\}")  # ASS: {\i1}, {\pos(1,2)}
TAG = re.compile(r"</?[a-zA-Z0-9][^<>\n]{0,200}>")  # <i>, <v Roger>, <c.yellow>, <00:00:01.500>


@dataclass(frozen=True, slots=True)
class Line:
    """A subtitle line: seconds on the video's clock. `language` is as the file tells it ("eng"), or empty."""

    start: float
    end: float
    text: str
    language: str = ""


def lines(path: str | os.PathLike[str]) -> list[Line]:
    """Every line of every text subtitle stream, in order of time. Pictures of text (DVD, Blu-ray) are not read.

    It decodes what the file says: run it in a child process. VideoError for a file that does not open; packets that do
    not decode are passed over.
    """
    found: list[Line] = []
    with opened(path) as (container, _):
        streams = _streams(container)
        if not streams:
            return []
        for stream in container.streams:
            if stream not in streams:
                stream.discard = Discard.all  # mp4 is then not read through for its pictures
        zero = start_time(container)
        packets = container.demux(*streams)
        while len(found) < MOST_LINES:
            try:
                packet = next(packets)
            except (StopIteration, FFmpegError):
                break
            line = _line(packet, zero)
            if line is not None:
                found.append(line)
    return sorted(found, key=lambda line: (line.start, line.end, line.text))


def has_lines(container: InputContainer) -> bool:
    """Whether `lines` would look into it."""
    return bool(_streams(container))


def task(source: str) -> tuple[dict[str, Any], bytes]:
    """`lines` for `sandbox.run`."""
    return {"lines": [[line.start, line.end, line.text, line.language] for line in lines(source)]}, b""


def understood(facts: Mapping[str, Any]) -> list[Line]:
    """What `task` said. ValueError for an answer that is none."""
    return [Line(float(start), float(end), str(text), str(tongue)) for start, end, text, tongue in facts["lines"]]


def _streams(container: InputContainer) -> list[SubtitleStream]:
    return [s for s in container.streams.subtitles if s.codec_context and s.codec_context.name in TEXT_CODECS]


def _line(packet: Packet, zero: float) -> Line | None:
    stream = packet.stream
    if not packet.size or packet.pts is None or not packet.time_base or not isinstance(stream, SubtitleStream):
        return None
    try:
        decoded = stream.decode2(packet)
    except FFmpegError:
        return None
    if decoded is None:
        return None
    texts = [_text(rect) for rect in decoded.rects]
    text = plain("\n".join(part for part in texts if part))
    if not text:
        return None
    base = float(packet.time_base)
    start = packet.pts * base - zero
    end = start + (packet.duration or 0) * base
    return Line(max(0.0, start), end if end > max(0.0, start) else max(0.0, start) + SHOWN, text, stream.language or "")


def _text(rect: object) -> str:
    """What a decoder made of a line. All text decoders give ASS: eight fields and a comma before the text."""
    said = getattr(rect, "ass", b"") or getattr(rect, "text", b"")
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text.split(",", 8)[-1] if getattr(rect, "ass", b"") else text


def plain(text: str) -> str:
    r"""A line as it is read: without markup, spaces as one, at most `LONGEST` characters.

    >>> plain(r"{\an8}<i>I&amp;you</i>\Nsay  hello")
    'I&you say hello'
    """
    text = text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    text = html.unescape(TAG.sub("", OVERRIDE.sub("", text)))
    return " ".join(text.replace("\0", "").split())[:LONGEST]
