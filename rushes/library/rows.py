"""What a store keeps beside the segments: its settings, the files, the videos, the failures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

FORMAT = 1  # of the store; raise it when an older reader would go wrong

Segmentation = Literal["shots", "windows"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an index was made with. All its segments share them, or scores could not be compared."""

    model: str = "small"
    method: str = ""  # filled from the model
    policy: str = "balanced"
    segments: Segmentation = "shots"
    digest: str = ""  # of the model's weights
    dim: int = 0
    format: int = FORMAT


@dataclass(frozen=True)
class FileRow:
    """A path, relative to the folder, and the content last seen there."""

    path: str
    fingerprint: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True)
class VideoRow:
    """One content, wherever it lies. `length` is in seconds, as far as it was decoded."""

    fingerprint: str
    status: str  # "partial", "done" or "failed"
    length: float


@dataclass(frozen=True)
class DateRow:
    """When a content was recorded, as its container tells: seconds since 1970, UTC; None where it does not tell."""

    fingerprint: str
    recorded: float | None


@dataclass(frozen=True)
class TagRow:
    """One of the user's own tags on one content. `id` is both, the tag in lower case: two spellings are one tag."""

    id: str
    fingerprint: str
    tag: str


@dataclass(frozen=True)
class ThumbnailRow:
    """Which picture shows a segment: the name of a file of the store that its content gives."""

    segment: str
    fingerprint: str
    name: str


@dataclass(frozen=True)
class KindRow:
    """What a content's container and codecs are, in FFmpeg's names, as `probe.Kind` has them."""

    fingerprint: str
    container: str
    video: str
    pixels: str
    audio: str


@dataclass(frozen=True)
class Failure:
    """What could not be indexed: a whole file, or the seconds from `start` to `end` of one."""

    id: str
    video: str
    fingerprint: str
    code: str
    reason: str
    start: float | None
    end: float | None
    at: str


def failure(
    path: str, content: str, code: str, reason: str, start: float | None = None, end: float | None = None
) -> Failure:
    moment = "" if start is None else f"{start:.3f}"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Failure(f"{content or path}|{code}|{moment}", path, content, code, reason, start, end, at)
