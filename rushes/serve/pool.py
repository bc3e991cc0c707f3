"""Work that takes a processor: in a few threads, with a queue that ends, and a limit of time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from rushes.serve.problems import Refusal
from rushes.serve.security import Hangup

Result = TypeVar("Result")
LOOK = 0.25  # seconds between looks whether the client is still there


class Pool:
    """At most `workers` calls at a time and `waiting` more in line; who comes then is refused as "busy".

    A call that is not answered within `seconds` is refused as "too-slow", and one whose client has gone is dropped:
    before its turn it never runs. A thread that has begun runs to its end, and its place is free only then.
    """

    def __init__(
        self, name: str, workers: int, waiting: int, seconds: float, begin: Callable[[], None] | None = None
    ) -> None:
        self.workers, self.waiting, self.seconds = workers, waiting, seconds
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=begin)
        self._lock = threading.Lock()
        self.load = 0  # calls that run or wait

    async def run(self, call: Callable[[], Result], request: Request | None = None) -> Result:
        """What `call` returns or raises. `request` is watched for its client going away."""
        with self._lock:
            if self.load >= self.workers + self.waiting:
                raise Refusal("busy", "too many such requests are waiting already", headers={"Retry-After": "2"})
            self.load += 1
        future = self._threads.submit(call)
        future.add_done_callback(lambda _: self._leave())
        answer = asyncio.wrap_future(future)
        deadline = asyncio.get_running_loop().time() + self.seconds
        try:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    raise Refusal("too-slow", f"no answer within {self.seconds:.0f} s", headers={"Retry-After": "5"})
                await asyncio.wait([answer], timeout=min(left, LOOK))
                if answer.done():
                    return answer.result()
                if request is not None and await request.is_disconnected():
                    raise Hangup
        finally:
            if not answer.done():
                future.cancel()  # it works for what still waits; a thread cannot be stopped
                answer.add_done_callback(_look)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _leave(self) -> None:
        with self._lock:
            self.load -= 1


def _look(future: asyncio.Future) -> None:
    """Nobody waits for it any more; look at its error, or asyncio would complain about one that nobody saw."""
    if not future.cancelled():
        future.exception()
