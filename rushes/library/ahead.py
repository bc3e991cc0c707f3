"""Runs a generator in a thread, some items ahead of who uses them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeVar

Item = TypeVar("Item")
LOOK = 0.1  # seconds between looks whether anybody still wants the items
PATIENCE = 5.0  # seconds that closing waits for the generator to come to its next item


def ahead(items: Generator[Item, None, None], most: int) -> Generator[Item, None, None]:
    """The same items in the same order, up to `most` of them made before they are asked for.

    What the generator raises is raised here, after the items before it. Closing stops the generator at its next item.

    >>> list(ahead((number * number for number in range(4)), most=2))
    [0, 1, 4, 9]
    """
    shelf: queue.Queue[tuple[bool, Any]] = queue.Queue(most)
    stop = threading.Event()

    def put(more: bool, what: Any) -> bool:
        while not stop.is_set():
            try:
                shelf.put((more, what), timeout=LOOK)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            with closing(items):
                for item in items:
                    if not put(True, item):
                        return
        except BaseException as error:
            put(False, error)
        else:
            put(False, None)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            more, what = shelf.get()
            if more:
                yield what
            elif what is not None:
                raise what
            else:
                return
    finally:
        stop.set()
        thread.join(PATIENCE)
