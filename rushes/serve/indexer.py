"""The process of one indexing job: refreshes a library, tells how far it is, stops when told or when left alone."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from rushes.serve.jobs import Record, now, read, write

if TYPE_CHECKING:
    from rushes.library import Progress

NICE = 10  # who searches goes first
SAY = 0.5  # seconds between two records of progress
LOOK = 0.2  # seconds between looks for an order
WINDOW = 30.0  # seconds over which the speed is taken
PATIENCE = 20.0  # seconds in which a stop comes between two segments; then the main thread is interrupted
LIMIT = 60.0  # seconds after which the process ends whatever it does: a kill loses nothing that was stored


class Stopped(Exception):
    """Told to stop, between two segments: what was encoded is stored on the way out."""


class Run:
    """One run of a job. `order` is "" until it has to stop: "pause", "cancel" or "alone" (its server is gone)."""

    def __init__(self, place: Path, record: Record):
        self.place, self.record, self.order = place, record, ""
        self._began = time.monotonic()
        self._said = 0.0
        self._seen: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()

    def on_progress(self, progress: Progress) -> None:
        if self.order:
            raise Stopped
        moment = time.monotonic()
        self._seen.append((moment, progress.done_bytes))
        while moment - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        if moment - self._said >= SAY:
            self._said = moment
            self.say(**self._how_far(progress, moment))

    def say(self, **changes: object) -> None:
        with self._lock:
            self.record = write(self.place, replace(self.record, **changes, updated=now()))  # type: ignore[arg-type]

    def _how_far(self, progress: Progress, moment: float) -> dict[str, object]:
        record = self.record
        first = max(record.first_bytes, progress.total_bytes)
        then, done_then = self._seen[0]
        speed = (progress.done_bytes - done_then) / (moment - then) if moment > then else 0.0
        left = (progress.total_bytes - progress.done_bytes) / speed if speed > 0 else None
        return {
            "first_bytes": first,
            "total_bytes": first,
            "done_bytes": first - progress.total_bytes + progress.done_bytes,
            "frames": record.runs_frames + progress.frames,
            "segments": record.runs_segments + progress.stored,
            "frames_per_second": round(progress.frames / (moment - self._began), 2) if moment > self._began else 0.0,
            "seconds_left": None if left is None else round(left, 1),
            "video": progress.video.rpartition("/")[2],
        }

    def listen(self) -> None:
        """Until there is an order: a file that says it, or the end of stdin, which the server held open."""
        threading.Thread(target=self._until_alone, daemon=True).start()
        file = self.place / f"{self.record.id}.order"
        while not self.order:
            with contextlib.suppress(FileNotFoundError):
                self.order = file.read_text()
            time.sleep(LOOK)
        time.sleep(PATIENCE)
        _thread.interrupt_main()
        time.sleep(LIMIT - PATIENCE)
        self.stopped()
        os.killpg(os.getpgrp(), signal.SIGKILL)  # with the decoder

    def _until_alone(self) -> None:
        sys.stdin.buffer.read()
        self.order = self.order or "alone"

    def stopped(self) -> None:
        """Say that this run has ended as it was told to."""
        (self.place / f"{self.record.id}.order").unlink(missing_ok=True)
        if self.order == "alone":
            error = {"code": "interrupted", "detail": "the server that ran the job ended; what was encoded is stored"}
            self.say(state="failed", error=error, seconds_left=None)
        else:
            self.say(state="cancelled" if self.order == "cancel" else "paused", seconds_left=None)


def give_way() -> None:
    """Let whoever searches go first.

    Where Linux shares its cores among sessions ("autogroup"), niceness counts within a session only, and a job has one
    of its own: so that is made nice, too.
    """
    os.nice(NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def main(folder: str, store: str, name: str) -> int:
    """Run the job `name` of the library `folder` with its index in `store`; 0 if it ended well or as it was told."""
    place = Path(store) / "jobs"
    lock = FileLock(place / f"{name}.lock", timeout=5)
    try:
        lock.acquire()  # before anything that takes time: it is how others see that we live
    except Timeout:
        return 3
    record = read(place, name)
    if record is None or record.state != "queued":
        return 3
    give_way()
    run = Run(place, record)
    run.say(state="running")
    threading.Thread(target=run.listen, daemon=True).start()
    try:
        import rushes

        report = rushes.open(folder, store).refresh(retry_failed=record.retry_failed, on_progress=run.on_progress)
    except (Stopped, KeyboardInterrupt):
        if not run.order:
            run.order = "alone"  # interrupted by hand
        run.stopped()
        return 0
    except Exception as error:
        if run.order:
            run.stopped()  # what breaks while it is being stopped is no news
            return 0
        traceback.print_exc()
        busy = isinstance(error, RuntimeError) and str(error).startswith("another run is indexing")
        code = "library-busy" if busy else "index-failed"
        run.say(state="failed", error={"code": code, "detail": str(error)}, seconds_left=None)
        return 1
    done = run.record
    run.say(
        state="done",
        report=asdict(report),
        done_bytes=float(done.total_bytes),
        frames=done.runs_frames + report.frames,
        segments=done.runs_segments + report.segments,
        frames_per_second=round(report.frames_per_second, 2),
        seconds_left=0.0,
        video=None,
    )
    (place / f"{name}.order").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main(*sys.argv[1:]))
