"""Decoded frames become stored segments: batches that run across videos, so that short ones cost no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.backbones.base import Frames
from rushes.model import Model
from rushes.types import Segment, Tokens
from rushes.video.decode import Damage, Frame, Span

BATCH_FRAMES = 32  # 5 MB of pixels; `small` takes them in eights on a CPU, where larger batches are slower


@dataclass(frozen=True, slots=True)
class Finished:
    """A video's events have all come. `error` is None, or why the rest of the video cannot be had."""

    error: Exception | None = None


Event = Frame | Span | Damage | Finished


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What one encoder batch completed: whole segments ready to store, then what else was learnt, in order."""

    segments: list[Segment]
    summaries: Float[Tensor, "segment dim"] | None
    tokens: Tokens | None
    notes: list[tuple[str, Damage | Finished]]
    frames: int  # that went through the encoder
    thumbnails: tuple[bytes | None, ...] = ()  # one for each segment


def encode(model: Model, events: Iterable[tuple[str, Event]], batch: int = BATCH_FRAMES) -> Iterator[Encoded]:
    """Turn the events of videos, one video after another, into stored form, `batch` frames at a time.

    `events` are pairs of a video's name and what its decoder said. A segment is given out once all its frames are
    encoded, and a video's `Finished` only after its last segment. Frames that overlapping windows share are encoded
    once. Nothing else is held: memory does not grow with the length of a video.
    """
    frames: list[tuple[str, Frame]] = []
    waiting: list[tuple[str, Span | Damage | Finished]] = []
    features: dict[str, dict[float, Float[Tensor, "dim"]]] = {}

    def flush() -> Encoded:
        encoded = len(frames)
        if frames:
            pixels = torch.from_numpy(np.stack([frame.pixels for _, frame in frames])).permute(0, 3, 1, 2)
            for (video, frame), vector in zip(frames, model.frames(pixels).float().cpu(), strict=True):
                features.setdefault(video, {})[frame.time] = vector
        frames.clear()
        result = _close(model, features, waiting, encoded)
        waiting.clear()
        return result

    for video, event in events:
        if isinstance(event, Frame):
            if frames and frames[0][1].pixels.shape != event.pixels.shape:
                yield flush()  # frames of another shape cannot share a batch
            frames.append((video, event))
            if len(frames) == batch:
                yield flush()
        else:
            waiting.append((video, event))
            if not frames:
                yield flush()
    if frames or waiting:
        yield flush()


def _close(
    model: Model,
    features: dict[str, dict[float, Float[Tensor, "dim"]]],
    waiting: list[tuple[str, Span | Damage | Finished]],
    encoded: int,
) -> Encoded:
    segments: list[Segment] = []
    thumbnails: list[bytes | None] = []
    vectors: list[Float[Tensor, "frame dim"]] = []
    spans: list[Float[Tensor, "frame 2"]] = []
    notes: list[tuple[str, Damage | Finished]] = []
    for video, event in waiting:
        if not isinstance(event, Span):
            notes.append((video, event))
            if isinstance(event, Finished):
                features.pop(video, None)
            continue
        known = features[video]
        segments.append(Segment(f"{video}:{round(event.start * 1000):09d}", video, event.start, event.end))
        thumbnails.append(event.thumbnail)
        vectors.append(torch.stack([known[time] for time in event.times]))
        spans.append(seen(event))
        for time in [time for time in known if time < event.start]:
            del known[time]  # spans come in order of their start, so no later one reaches back
    if not segments:
        return Encoded([], None, None, notes, encoded)
    tokens = model.videos(Frames.pack(vectors, spans))
    return Encoded(segments, model.method.summary(tokens).detach(), tokens, notes, encoded, tuple(thumbnails))


def seen(span: Span) -> Float[Tensor, "frame 2"]:
    """The seconds each frame of a segment stands for: half way to its neighbours, the segment's ends at the ends.

    >>> seen(Span(start=2.0, end=5.0, times=(2.5, 3.5, 4.5))).tolist()
    [[2.0, 3.0], [3.0, 4.0], [4.0, 5.0]]
    """
    times = torch.tensor(span.times, dtype=torch.float64)
    middles = (times[1:] + times[:-1]) / 2
    edges = torch.cat([times.new_tensor([span.start]), middles, times.new_tensor([span.end])])
    return torch.stack([edges[:-1], edges[1:]], dim=1)
