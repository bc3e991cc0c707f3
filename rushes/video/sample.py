"""Which seconds of a video to look at: arithmetic on seconds, nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How much of a video is decoded, and how much of that is kept."""

    name: str
    rate: float  # frames kept a second, at most
    skip: str  # what FFmpeg may leave undecoded: NONKEY, NONREF or DEFAULT (nothing that shows)
    gap: float | None = None  # seconds between key frames beyond which frames in between are decoded after all


POLICIES = {
    "fast": Policy("fast", rate=1.0, skip="NONKEY", gap=4.0),
    "balanced": Policy("balanced", rate=1.0, skip="NONREF"),
    "thorough": Policy("thorough", rate=2.0, skip="DEFAULT"),
}

WINDOW = 10.0  # seconds; also the longest shot
STEP = 5.0  # seconds from one window's start to the next: half overlaps
SHORTEST = 0.5  # seconds; a shorter shot joins its neighbour


def policy(name: str) -> Policy:
    """
    >>> policy("balanced").rate
    1.0
    """
    if name not in POLICIES:
        raise LookupError(f"rushes.video has no policy {name!r}; it has {', '.join(POLICIES)}")
    return POLICIES[name]


def target(start: float, rate: float, number: int) -> float:
    """The second that frame `number` of a segment should show: the middle of its share of the time.

    >>> [target(4.0, 2.0, number) for number in range(3)]
    [4.25, 4.75, 5.25]
    """
    return start + (number + 0.5) / rate


def targets(start: float, end: float, rate: float) -> list[float]:
    """All targets of a segment.

    >>> targets(4.0, 5.0, 2.0), targets(0.0, 0.25, 1.0)
    ([4.25, 4.75], [])
    """
    count = max(0, math.ceil((end - start) * rate - 0.5))
    return [second for number in range(count + 1) if (second := target(start, rate, number)) < end]


def fills(start: float, end: float, gap: float) -> list[float]:
    """Seconds to look at between two key frames so that no two looks are more than `gap` apart, evenly spread.

    >>> fills(0.0, 10.0, 4.0), fills(0.0, 4.0, 4.0)
    ([3.3333333333333335, 6.666666666666667], [])
    """
    parts = math.ceil((end - start) / gap - 1e-6)
    return [start + (end - start) * part / parts for part in range(1, parts)]


def window(number: int) -> tuple[float, float]:
    """Start and end of a window in seconds; the last one is cut at the video's end.

    >>> window(0), window(3)
    ((0.0, 10.0), (15.0, 25.0))
    """
    return number * STEP, number * STEP + WINDOW
