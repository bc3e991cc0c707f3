"""Indexing jobs: each in a process of its own, with its state on disk, so that no kill loses sight of one.

A job's record is `store/jobs/ID.json`, written whole or not at all: by the server before the process starts and after
it has ended, by the process in between. The process holds `ID.lock` as long as it lives, so any server can tell a
job that runs from one that was killed. Orders (pause, cancel) are a file, too. A job ends when its server does: it
stores what it has encoded and can be resumed, as after a pause, because a refresh goes on where the last one stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from rushes.serve.metrics import Metrics

ACTIVE = ("queued", "running")
ENDED = ("done", "failed", "cancelled")
STATES = ("queued", "running", "paused", "done", "failed", "cancelled")
GRACE = 20.0  # seconds in which a process that was started must have taken its lock
PATIENCE = 10.0  # seconds that a server that ends waits for its job to store what it has


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is on disk of one job. `runs_*` are what earlier runs of it did; `first_bytes` were to do at the start."""

    id: str
    kind: str = "index"
    retry_failed: bool = False
    key: str | None = None  # a digest of the idempotency key
    state: str = "queued"
    done_bytes: float = 0.0
    total_bytes: int = 0
    first_bytes: int = 0
    frames: int = 0
    segments: int = 0
    runs_frames: int = 0
    runs_segments: int = 0
    frames_per_second: float = 0.0
    seconds_left: float | None = None
    video: str | None = None
    report: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None  # code and detail
    created: str = ""
    updated: str = ""


class JobRunning(Exception):
    """Another job runs; `record` is it."""

    def __init__(self, record: Record):
        super().__init__(f"job {record.id} is {record.state}")
        self.record = record


class WrongState(Exception):
    """The job is in a state in which this order means nothing."""


class Jobs:
    """The jobs of one store. Several servers may share it; one job runs at a time in all of them."""

    def __init__(self, folder: Path, store: Path, most: int = 50):
        self.folder, self.place, self.most = folder, store / "jobs", most
        self._store = store
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ looking

    def all(self) -> list[Record]:
        """The latest first."""
        names = [path.stem for path in self.place.glob("*.json")] if self.place.is_dir() else []
        records = [record for name in names if (record := self.get(name)) is not None]
        return sorted(records, key=lambda record: (record.created, record.id), reverse=True)

    def get(self, name: str) -> Record | None:
        """None for an unknown id. A job whose process was killed is found to have failed."""
        record = read(self.place, name)
        if record is not None and record.state in ACTIVE and not self._lives(record):
            return self._bury(name)
        return record

    def active(self) -> Record | None:
        return next((record for record in self.all() if record.state in ACTIVE), None)

    # ------------------------------------------------------------------ orders

    def start(self, *, retry_failed: bool = False, key: str | None = None) -> tuple[Record, bool]:
        """A new job, and True; or, for a key that was used before, its job and False.

        Raises JobRunning, ValueError for a key used with something else, OSError if the store cannot be written.
        """
        mark = None if key is None else hashlib.sha256(key.encode()).hexdigest()
        with self._alone():
            records = self.all()
            if mark is not None:
                for record in records:
                    if record.key == mark:
                        if record.retry_failed != retry_failed:
                            raise ValueError(f"this key belongs to job {record.id}, which is another one")
                        return record, False
            self._check_free(records)
            self._forget_oldest(records)
            record = Record(id=secrets.token_hex(8), retry_failed=retry_failed, key=mark, created=now())
            return self._launch(record), True

    def resume(self, name: str) -> Record:
        """Go on with a job that was paused or has failed. Raises WrongState, JobRunning, LookupError."""
        with self._alone():
            record = self._known(name)
            if record.state not in ("paused", "failed"):
                raise WrongState(f"the job is {record.state}; only one that is paused or has failed can go on")
            self._check_free(self.all())
            again = replace(
                record,
                state="queued",
                error=None,
                report=None,
                seconds_left=None,
                runs_frames=record.frames,
                runs_segments=record.segments,
            )
            return self._launch(again)

    def order(self, name: str, what: str) -> Record:
        """ "pause" or "cancel": the process stores what it has and ends; its record tells when it did."""
        with self._alone():
            record = self._known(name)
            if record.state in ACTIVE:
                _whole(self.place / f"{name}.order", what)
                return record
            if what == "cancel" and record.state in ("paused", "failed"):
                return write(self.place, replace(record, state="cancelled", seconds_left=None, updated=now()))
            raise WrongState(f"the job is {record.state}; it cannot be {'paused' if what == 'pause' else 'cancelled'}")

    def close(self) -> None:
        """Pause what this server started, and wait until that is stored."""
        with self._lock:
            children = dict(self._children)
        for name, child in children.items():
            with contextlib.suppress(OSError):
                _whole(self.place / f"{name}.order", "pause")
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
            if child.stdin is not None:
                child.stdin.close()  # the process, should it still be there, now knows that it is alone

    def measure(self, metrics: Metrics) -> None:
        states = [record.state for record in self.all()]
        for state in STATES:
            metrics.job.labels(state).set(states.count(state))

    # ------------------------------------------------------------------ inside

    def _known(self, name: str) -> Record:
        record = self.get(name)
        if record is None:
            raise LookupError(f"there is no job {name!r}")
        return record

    def _check_free(self, records: list[Record]) -> None:
        for record in records:
            if record.state in ACTIVE:
                raise JobRunning(record)

    @contextlib.contextmanager
    def _alone(self):
        """One server at a time decides about jobs."""
        self.place.mkdir(parents=True, exist_ok=True)
        with FileLock(self.place / "lock", timeout=10):
            yield

    def _launch(self, record: Record) -> Record:
        write(self.place, replace(record, updated=now()))
        (self.place / f"{record.id}.order").unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "rushes.serve.indexer"]  # -P: no module is taken from where we stand
        arguments = [os.fspath(self.folder), os.fspath(self._store), record.id]
        with (self.place / f"{record.id}.log").open("ab") as log:
            child = subprocess.Popen(
                command + arguments,
                stdin=subprocess.PIPE,  # never written to: its end tells the process that its server is gone
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the server, which then asks its job to stop
            )
        with self._lock:
            self._children[record.id] = child
        threading.Thread(target=self._wait, args=(record.id, child), daemon=True).start()
        return self.get(record.id) or record

    def _wait(self, name: str, child: subprocess.Popen[bytes]) -> None:
        child.wait()
        with self._lock:
            if self._children.get(name) is child:
                del self._children[name]
        with contextlib.suppress(OSError, Timeout):
            self.get(name)  # finds that it failed, if it could not say so itself

    def _lives(self, record: Record) -> bool:
        with self._lock:
            child = self._children.get(record.id)
        if child is not None and child.poll() is None:
            return True
        if held(self.place / f"{record.id}.lock"):
            return True
        # another server may have started it a moment ago
        return child is None and record.state == "queued" and age(record.updated) < GRACE and not self._ours(record)

    def _ours(self, record: Record) -> bool:
        return record.id in self._children

    def _bury(self, name: str) -> Record | None:
        """Its process is no more: if it did not say why, it was killed."""
        record = read(self.place, name)  # again: its last words may have come in between
        if record is None or record.state not in ACTIVE:
            return record
        order = self.place / f"{name}.order"
        asked = order.read_text() if order.is_file() else ""
        order.unlink(missing_ok=True)
        if asked in ("pause", "cancel"):
            state = {"pause": "paused", "cancel": "cancelled"}[asked]
            return write(self.place, replace(record, state=state, seconds_left=None, updated=now()))
        error = {"code": "interrupted", "detail": "the process of the job was killed; what it had stored is kept"}
        return write(self.place, replace(record, state="failed", error=error, seconds_left=None, updated=now()))

    def _forget_oldest(self, records: list[Record]) -> None:
        for record in records[self.most - 1 :]:
            for ending in ("json", "lock", "log", "order"):
                (self.place / f"{record.id}.{ending}").unlink(missing_ok=True)


# ---------------------------------------------------------------------- records on disk


def read(place: Path, name: str) -> Record | None:
    if not re.fullmatch("[0-9a-f]{16}", name):
        return None
    try:
        stored = json.loads((place / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    known = {field.name for field in fields(Record)}
    return Record(**{key: value for key, value in stored.items() if key in known})


def write(place: Path, record: Record) -> Record:
    _whole(place / f"{record.id}.json", json.dumps(asdict(record)))
    return record


def held(lock: Path) -> bool:
    """Whether a process holds this lock. One that was killed does not."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def age(moment: str) -> float:
    """Seconds since then."""
    return time.time() - datetime.fromisoformat(moment).timestamp() if moment else float("inf")


def _whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    stream: IO[str]
    with part.open("w") as stream:
        stream.write(text)
    part.replace(path)
