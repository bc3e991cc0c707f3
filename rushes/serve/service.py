"""What the routes share: the library and whether it can be searched, the limits, and what is held in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from rushes.library import Library
from rushes.search.query import Query
from rushes.serve.jobs import Jobs
from rushes.serve.limits import Limits
from rushes.serve.metrics import Metrics
from rushes.serve.pool import Pool
from rushes.serve.problems import Refusal
from rushes.serve.results import Results
from rushes.serve.uploads import Uploads
from rushes.video.probe import Kind

log = logging.getLogger("rushes.serve")
RETRY = 30.0  # seconds before a library that could not be opened is tried again
LOOK = 1.0  # seconds between looks at the store while the server has nothing else to do
TRIM = 30.0  # seconds after which free memory is given back


class Service:
    """One library being served. Made by `create_app`; routes find it with `service(request)`."""

    def __init__(self, library: Library, limits: Limits, *, log_queries: bool = False):
        self.folder, self.store = library.folder, library.store
        self.limits, self.log_queries = limits, log_queries
        self.metrics = Metrics()
        self.results: Results[Any] = Results(limits.results, limits.results_hits, limits.results_lifetime)
        self.uploads = Uploads(limits)
        self.searching = Pool("search", limits.workers, limits.waiting, limits.search_seconds, _one_thread_each)
        self.media = Pool("media", limits.media_workers, limits.media_waiting, limits.media_seconds, _one_thread_each)
        self.looking = Pool("look", 4, 4 * limits.waiting, limits.search_seconds)  # tables, small files
        self.jobs = Jobs(library.folder, library.store, limits.jobs)
        self.kinds: dict[str, Kind] = {}  # of contents
        self.watchers = 0  # of jobs
        self.closing = threading.Event()
        self._library = library
        self._stamp: tuple[int, int] | None = None  # of the settings that the library was warmed with
        self._trouble: tuple[float, tuple[int, int], str] | None = None
        self._warming = threading.Lock()

    # ------------------------------------------------------------------ the library

    @property
    def library(self) -> Library:
        """The library as it is: for whatever needs no model."""
        return self._library

    def _settings(self) -> tuple[int, int] | None:
        """Which settings the store has: the file's time and number. A rebuild writes another file."""
        try:
            found = (self.store / "settings.json").stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def not_ready(self) -> str | None:
        """Why a search would not be answered at once; None if it would."""
        stamp = self._settings()
        if stamp is None:
            return "the folder is not indexed yet"
        if stamp == self._stamp:
            return None
        trouble = self._trouble
        return trouble[2] if trouble is not None and trouble[1] == stamp else "the model is being loaded"

    async def ready(self, request: Request | None = None) -> Library:
        """The library with its model loaded and its index read, which the first call waits for.

        Refusal "not-indexed" or "not-ready". A library that was indexed anew since is opened anew.
        """
        if self._settings() is None:
            raise Refusal("not-indexed", "the folder has no index yet")
        if self._settings() != self._stamp:
            await self.searching.run(self._warm, request)
        return self._library

    def _warm(self) -> None:
        with self._warming:
            stamp = self._settings()
            if stamp is None or stamp == self._stamp:
                return
            retry = {"Retry-After": str(int(RETRY))}
            if self._trouble is not None and self._trouble[1] == stamp and time.monotonic() < self._trouble[0] + RETRY:
                raise Refusal("not-ready", self._trouble[2], headers=retry)
            library = Library(self.folder, self.store)
            try:
                library.ask(Query.of_text("a first question, so that the next one finds all in memory"), 1)
                library.media.kinds([video.id for video in library.videos()[:1]])
                library.media.thumbnail_names(["of the first hit"])
            except Exception as error:  # whatever it is, it must not end the server: /readyz tells it
                log.exception("the library in %s cannot be opened", self.folder)
                self._trouble = (time.monotonic(), stamp, self.plain(f"the library cannot be opened: {error}"))
                raise Refusal("not-ready", self._trouble[2], headers=retry) from error
            self._library, self._stamp, self._trouble = library, stamp, None
            _settle()

    async def watch(self) -> None:
        """Warm the library as soon as it can be, drop what has expired; until the server closes."""
        trimmed = time.monotonic()
        while not self.closing.is_set():
            with contextlib.suppress(Refusal):  # /readyz tells
                await self.ready()
            await run_in_threadpool(self.uploads.expire)
            if time.monotonic() > trimmed + TRIM:
                await run_in_threadpool(_give_back)
                trimmed = time.monotonic()
            await asyncio.sleep(LOOK)

    def calibrated(self) -> bool | None:
        """Whether hits have a confidence; None until the model is loaded."""
        if self._stamp is None:
            return None
        return self._library.calibration is not None

    def close(self) -> None:
        """Pause the job, end the threads, remove the uploads. May be called twice."""
        self.closing.set()
        self.jobs.close()
        for pool in (self.searching, self.media, self.looking):
            pool.close()
        self.uploads.close()

    # ------------------------------------------------------------------ what may be said

    def plain(self, text: str) -> str:
        """A message without the paths of this machine: what lies in the folder is named from there.

        Messages of the library name files in full, for people at a terminal; who asks over the network may know
        names inside the library, nothing around it.
        """
        places = [
            (self.store, "the store"),
            (self.folder, ""),
            (self.uploads.folder, "the upload"),
            (Path(tempfile.gettempdir()), "a temporary file"),
            (Path.home(), "a file"),
        ]
        for place, name in sorted(places, key=lambda pair: -len(os.fspath(pair[0]))):
            path = os.fspath(place)
            if path in ("/", ""):
                continue
            inside = "" if name == "" else f"{name}: "
            text = text.replace(path + "/", inside).replace(path, name or "the folder")
        return text


def service(request: Request) -> Service:
    return request.app.state.service


def _one_thread_each() -> None:
    """As many searches at a time as there are cores, one thread each: threads that share a search only wait."""
    import torch

    torch.set_num_threads(1)


def _settle() -> None:
    """What is loaded now stays: a full collection that looks through it all would stop every search for 0.2 s."""
    gc.unfreeze()  # an earlier library is garbage now
    gc.collect()
    gc.freeze()


def _give_back() -> None:
    """Give the system the memory that is free: the C library keeps what threads freed, some MB for each new commit."""
    with contextlib.suppress(OSError, AttributeError):  # another system's
        ctypes.CDLL("libc.so.6").malloc_trim(0)
