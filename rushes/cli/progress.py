"""A progress bar on stderr with rate and time left, for what turns out to take more than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.0  # seconds before a bar appears: what is done sooner needs none
Show = Callable[[float, float, str, float], None]


@contextmanager
def bar(unit: str) -> Iterator[Show | None]:
    """Gives `show(done, total, what, count)`: `count` things of `unit` are done, whose rate is shown.

    None where stderr is no terminal, so that a caller may skip the work of reporting.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=None, rate=0.0)

    def show(done: float, total: float, what: str, count: float) -> None:
        elapsed = time.monotonic() - began
        if elapsed < PATIENCE:
            return
        if not progress.live.is_started:
            progress.start()
        name = what if len(what) <= 40 else "…" + what[-39:]
        progress.update(task, completed=done, total=total, description=name, rate=count / elapsed)

    try:
        yield show
    finally:
        progress.stop()
