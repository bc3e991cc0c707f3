"""Answers that stand still while they are paged through, whatever happens to the index meanwhile."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rushes.serve.problems import Refusal

Item = TypeVar("Item")
ID_BYTES, POSITION_BYTES, MARK_BYTES = 16, 4, 16


@dataclass(frozen=True, slots=True)
class Frozen(Generic[Item]):
    """One answer: its items in order, what was asked (a digest), and what is said with every page."""

    items: tuple[Item, ...]
    asked: str
    about: dict[str, Any] = field(default_factory=dict)


class Results(Generic[Item]):
    """The last answers, at most `most` of them with `most_items` items in all, none older than `lifetime` seconds.

    A cursor is an answer's random id and a position in it, signed, so that neither can be made up. The answer that
    was not used for longest goes first.
    """

    def __init__(
        self, most: int, most_items: int, lifetime: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.most_items, self.lifetime, self._clock = most, most_items, lifetime, clock
        self._key = secrets.token_bytes(32)
        self._held: OrderedDict[bytes, tuple[float, Frozen[Item]]] = OrderedDict()
        self._items = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, answer: Frozen[Item]) -> bytes:
        """Hold an answer; its id."""
        name = secrets.token_bytes(ID_BYTES)
        with self._lock:
            self._held[name] = (self._clock(), answer)
            self._items += len(answer.items)
            now = self._clock()
            while self._held:
                oldest, (made, first) = next(iter(self._held.items()))
                full = len(self._held) > self.most or self._items > self.most_items
                if oldest == name or not (full or now - made > self.lifetime):
                    break
                del self._held[oldest]
                self._items -= len(first.items)
        return name

    def cursor(self, name: bytes, position: int) -> str:
        body = name + position.to_bytes(POSITION_BYTES, "big")
        return base64.urlsafe_b64encode(body + self._mark(body)).rstrip(b"=").decode()

    def at(self, cursor: str) -> tuple[bytes, Frozen[Item], int]:
        """The answer of a cursor, and the position in it; Refusal "cursor-expired" for any other text."""
        expired = Refusal("cursor-expired", "the cursor leads to no answer that is still held")
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise expired from None
        body, mark = raw[:-MARK_BYTES], raw[-MARK_BYTES:]
        if len(body) != ID_BYTES + POSITION_BYTES or not hmac.compare_digest(mark, self._mark(body)):
            raise expired
        name = body[:ID_BYTES]
        with self._lock:
            made, answer = self._held.get(name, (0.0, None))
            if answer is None:
                raise expired
            if self._clock() - made > self.lifetime:
                del self._held[name]
                self._items -= len(answer.items)
                raise expired
            self._held.move_to_end(name)
        return name, answer, int.from_bytes(body[ID_BYTES:], "big")

    def page(self, name: bytes, answer: Frozen[Item], position: int, limit: int) -> tuple[tuple[Item, ...], str | None]:
        """`limit` items from `position` on, and the cursor of what follows, if anything does."""
        end = position + limit
        return answer.items[position:end], self.cursor(name, end) if end < len(answer.items) else None

    def _mark(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()[:MARK_BYTES]
