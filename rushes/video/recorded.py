"""When a video was recorded, as its container tells."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from rushes.video.probe import opened

EARLIEST = 366 * 86400.0  # seconds since 1970: clocks that were never set say 1904 or 1970
AHEAD = 2 * 86400.0  # seconds that a clock may be ahead of ours


def recorded(path: str | os.PathLike[str]) -> float | None:
    """Seconds since 1970, UTC; None where the container does not tell, or tells the date of a clock that was not set.

    Phones write `creation_time`, in UTC; Apple's also the local time with its zone, which stays when a film is exported
    again. Re-encoding may set another date: it is what the file says. VideoError for a file that is no video.
    """
    with opened(path) as (container, stream):
        told = [
            container.metadata.get("com.apple.quicktime.creationdate"),
            container.metadata.get("creation_time"),
            stream.metadata.get("creation_time"),
        ]
    return next((second for second in map(understood, told) if second is not None), None)


def understood(told: str | None) -> float | None:
    """A date as containers write it; one without a zone is UTC.

    >>> understood("2024-05-01T12:00:00.000000Z"), understood("2024-05-01T14:00:00+0200"), understood("1904-01-01")
    (1714564800.0, 1714564800.0, None)
    """
    try:
        instant = datetime.fromisoformat((told or "").strip())
    except ValueError:
        return None
    instant = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    second = instant.timestamp()
    return second if EARLIEST <= second <= time.time() + AHEAD else None
