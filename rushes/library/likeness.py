"""Encodes a query clip as the library encodes its videos, and looks at pictures of both in a child process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rushes.library.encode import Event, Finished, encode
from rushes.model import Model
from rushes.search.alike import CLIP_RATE, SKETCHED, Clip
from rushes.types import Tokens
from rushes.video import sandbox
from rushes.video.probe import VideoError
from rushes.video.sketch import RATE, Sketch, understood
from rushes.video.worker import Decoder

LONGEST = 600.0  # seconds of a clip
LIMITS = sandbox.Limits(seconds=60.0, cpu_seconds=60)


def clip(model: Model, path: Path, policy: str = "thorough") -> Clip:
    """A video file as a query. Two frames a second are encoded, more than a library keeps, so that each is near one.

    VideoError for a file that gives no frames; ValueError for one longer than ten minutes.
    """
    backbone = model.backbone

    def events() -> Iterator[tuple[str, Event]]:
        with Decoder() as decoder:
            for event in decoder.read(
                path, policy=policy, segments="shots", size=backbone.image_size, squash=backbone.squash
            ):
                if max(decoder.duration, getattr(event, "end", 0.0)) > LONGEST:
                    raise ValueError(f"{path.name} is longer than {LONGEST:.0f} s; cut out the part to look for")
                yield "clip", event
        yield "clip", Finished()

    parts = list(encode(model, events()))
    segments = [segment for part in parts for segment in part.segments]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    if not segments:
        raise VideoError("no-frames", f"{path.name} gives no frames to look for")
    length = max(segment.end for segment in segments)
    with path.open("rb") as source:
        return Clip(Tokens.cat(tokens), length, sketch(source, 0.0, min(length, SKETCHED), CLIP_RATE))


def sketch(source: BinaryIO, start: float, end: float, rate: float = RATE) -> Sketch:
    """Small grey pictures of a stretch of an open file, from a child process. VideoError where it gives none."""
    wanted = {"start": start, "end": end, "rate": rate}
    return understood(*sandbox.run("rushes.video.sketch:task", wanted, source=source, limits=LIMITS))
