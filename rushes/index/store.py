"""Where the tables of an index live: a folder, or an address of an object store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from filelock import FileLock, Timeout

from rushes.index.view import View, waited

if TYPE_CHECKING:
    from lancedb.table import Table

CACHE = 128 << 20  # bytes, of indices and of metadata each: the engine's own bounds are gigabytes
KEEP = timedelta(minutes=10)  # old versions that other processes may still be reading


class Store:
    """Lance tables side by side. Readers never wait and see whole commits; writers take turns.

    Each piece of work is done on the last commit of any process, and what it reads does not change meanwhile: readers
    take a `view`, writers `open` the table. A folder is locked while one process writes; on an object store ("s3://...")
    nothing is, there the caller has one writer.
    """

    def __init__(self, place: str | os.PathLike[str], *, create: bool = False):
        os.environ.setdefault("LANCE_LOG", "error")  # it would warn on stderr about each new table
        import lancedb  # a second or two

        self.place = os.fspath(place)
        self.folder = None if "://" in self.place else Path(self.place)
        if self.folder is not None and not self.folder.is_dir():
            if not create:
                raise FileNotFoundError(f"there is no folder {self.folder}; give create=True to start one")
            self.folder.mkdir(parents=True)
        session = lancedb.Session(index_cache_size_bytes=CACHE, metadata_cache_size_bytes=CACHE)
        self._tables = lancedb.connect(self.place, session=session)
        self._read = waited(lancedb.connect_async(self.place, session=session))
        self._views: dict[str, tuple[Hashable, View | None]] = {}
        self._lock = threading.Lock()

    def view(self, name: str) -> View | None:
        """The table as it is now; None if there is none. For readers: as long as nobody commits, it is opened once."""
        state = self.state(name)
        with self._lock:
            held, view = self._views.get(name, (None, None))
        if state is None or held != state:
            view = View.of(self._read, name)
            with self._lock:
                self._views[name] = state, view  # of the state before: a commit meanwhile is seen next time
        return view

    def open(self, name: str) -> Table | None:
        """The table as it is now; None if there is none. For writers: call it while `writing`."""
        try:
            return self._tables.open_table(name)
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise

    def open_or_create(self, name: str, schema: pa.Schema) -> Table:
        """The table as it is now, or a new one. For writers: call it while `writing`."""
        table = self.open(name)
        # not `table or ...`: a table without rows is false
        return self._tables.create_table(name, schema=schema) if table is None else table

    def state(self, *names: str) -> Hashable:
        """Changes whenever any process commits to one of these tables; for a folder it costs no more than a look.

        Every commit puts a file with a name of its own among a table's versions. None on an object store, where to
        look would be a request.
        """
        if self.folder is None:
            return None
        return tuple(_versions(self.folder / f"{name}.lance" / "_versions") for name in names)

    @contextmanager
    def writing(self, name: str, patience_s: float = 120) -> Iterator[None]:
        """Alone among writers; when it ends, what was written to the table has reached the disk.

        A kill loses nothing that was committed even without the flush; it is for a power cut.
        """
        if self.folder is None:
            yield
            return
        try:
            with FileLock(self.folder / ".writers.lock", timeout=patience_s):
                began = time.time() - 0.1  # file times are coarse
                yield
                _flush(self.folder / f"{name}.lance", began)
        except Timeout as error:
            raise TimeoutError(f"another process has been writing to {self.folder} for {patience_s:.0f} s") from error


def quoted(text: str) -> str:
    """A literal of the filters' SQL.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def among(column: str, values: list[str] | tuple[str, ...]) -> str:
    """A filter: the column is one of these values.

    >>> among("id", ["a", "b"]), among("id", [])
    ("id IN ('a', 'b')", 'false')
    """
    return f"{column} IN ({', '.join(quoted(value) for value in values)})" if values else "false"


def of_videos(videos: Sequence[str] | None) -> str | None:
    """A filter: rows of these videos; None, which is no filter, for all.

    >>> of_videos(["v"]), of_videos([]), of_videos(None)
    ("video IN ('v')", 'false', None)
    """
    return None if videos is None else among("video", list(videos))


def _versions(folder: Path) -> Hashable:
    try:
        about = folder.stat()
        return about.st_ino, about.st_mtime_ns, frozenset(os.listdir(folder))
    except FileNotFoundError:
        return None


def _flush(folder: Path, since: float) -> None:
    """Bring what changed to the disk, side by side: the file system then commits once for all, not once for each."""
    changed = []
    for parent, _, names in os.walk(folder):
        files = [Path(parent, name) for name in names]
        changed += [file for file in (*files, Path(parent)) if _modified(file) >= since]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_fsync, changed))


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # cleaned away by this very write
        return 0.0


def _fsync(file: Path) -> None:
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError:
        if file.is_file():
            raise
        return  # gone, or a folder where folders cannot be opened
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
