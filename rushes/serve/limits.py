"""How much the server takes, holds and does at once."""

from __future__ import annotations

import os
from dataclasses import dataclass

MB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Every bound of the server in one place. Times in seconds, sizes in bytes."""

    json_bytes: int = 64 << 10  # of a request body that is no upload
    body_patience: float = 30.0  # between two pieces of a body

    upload_bytes: int = 256 * MB
    uploads: int = 32  # held at once
    uploads_bytes: int = 1024 * MB  # held at once, all together
    upload_lifetime: float = 1800.0
    upload_pixels: int = 50_000_000
    upload_seconds: float = 600.0

    workers: int = max(1, os.cpu_count() or 1)  # searches at a time: with one torch thread each, as many as cores
    waiting: int = 64  # searches that may wait for their turn
    search_seconds: float = 30.0
    media_workers: int = 2  # frames and clips made at a time
    media_waiting: int = 32
    media_seconds: float = 120.0

    results: int = 256  # answers held for paging
    results_hits: int = 20_000  # hits in all of them
    results_lifetime: float = 1800.0
    hits: int = 200  # in one answer

    requests: int = 256  # in progress at once, of all kinds
    watchers: int = 32  # of jobs, at once
    rate: float = 100.0  # units a second and client; a search costs 1, a thumbnail 0.1
    burst: float = 400.0  # units that a client may save up
    clients: int = 4096  # remembered

    ranges: int = 8  # in one request
    jobs: int = 50  # remembered
