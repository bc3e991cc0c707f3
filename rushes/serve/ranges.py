"""Bytes of one open file over HTTP: whole, a range, or a few ranges, with validators."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rushes.serve.problems import Refusal

PIECE = 256 << 10  # bytes read at a time


def parse(header: str | None, size: int, most: int = 8) -> list[tuple[int, int]] | None:
    """The ranges that a Range header asks for, first and last byte each, as (start, end) with `end` beyond the last.

    None for the whole file: no header, another unit, or one that cannot be read, which the RFC says to ignore.
    Refusal "bad-range" if no range lies in the file, or more than `most` are asked for. Ranges that touch become one,
    so no byte is sent twice.

    >>> parse("bytes=0-3", 10), parse("bytes=-3", 10), parse("bytes=8-", 10), parse("bytes=5-2", 10)
    ([(0, 4)], [(7, 10)], [(8, 10)], None)
    >>> parse("bytes=0-1,1-4,8-9", 10), parse("lines=1-2", 10)
    ([(0, 5), (8, 10)], None)
    """
    if header is None or not header.startswith("bytes="):
        return None
    texts = header.removeprefix("bytes=").split(",")
    outside = {"Content-Range": f"bytes */{size}"}
    if len(texts) > most:
        raise Refusal("bad-range", f"{len(texts)} ranges are asked for, {most} are served", headers=outside)
    found: list[tuple[int, int]] = []
    for text in texts:
        match = re.fullmatch(r"([0-9]{0,100})-([0-9]{0,100})", text.strip())
        if match is None or not (match[1] or match[2]):
            return None
        if not match[1]:
            start, end = max(0, size - int(match[2])), size
        else:
            start, end = int(match[1]), int(match[2]) + 1 if match[2] else size
            if match[2] and end <= start:
                return None
        if start < min(end, size):
            found.append((start, min(end, size)))
    if not found:
        raise Refusal("bad-range", f"the file has {size} bytes, none of them in the range", headers=outside)
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


class FileBytes(Response):
    """An answer from an open file, which it closes. `etag` is a strong validator without its quotes."""

    def __init__(self, file: IO[bytes], request: Request, *, media_type: str, etag: str, most: int = 8):
        self.file = file
        try:
            self._prepare(request, media_type, f'"{etag}"', most)
        except BaseException:
            file.close()
            raise

    def _prepare(self, request: Request, media_type: str, etag: str, most: int) -> None:
        size = os.fstat(self.file.fileno()).st_size
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
        self.body_too = request.method != "HEAD"
        self.parts: list[tuple[bytes, int, int]] = []
        self.last = b""
        if etag in _tags(request.headers.get("if-none-match")):
            super().__init__(status_code=304, headers=headers)
            return
        asked = request.headers.get("range") if request.method == "GET" else None
        condition = request.headers.get("if-range")
        ranges = parse(asked, size, most) if condition is None or condition.strip() == etag else None
        if ranges is None:
            self.parts = [(b"", 0, size)]
            self._say(200, media_type, headers, size)
        elif len(ranges) == 1:
            start, end = ranges[0]
            self.parts = [(b"", start, end)]
            self._say(206, media_type, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, end - start)
        else:
            boundary = secrets.token_hex(16)
            for start, end in ranges:
                head = f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\n"
                head += f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
                self.parts.append((head.encode(), start, end))
            self.last = f"\r\n--{boundary}--\r\n".encode()
            length = sum(len(head) + end - start for head, start, end in self.parts) + len(self.last)
            self._say(206, f"multipart/byteranges; boundary={boundary}", headers, length)

    def _say(self, status: int, media_type: str, headers: Mapping[str, str], length: int) -> None:
        self.status_code, self.background, self.body = status, None, b""
        self.init_headers({**headers, "Content-Type": media_type, "Content-Length": str(length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            if self.body_too:
                async for piece in self._pieces():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await run_in_threadpool(self.file.close)

    async def _pieces(self) -> AsyncIterator[bytes]:
        for head, start, end in self.parts:
            if head:
                yield head
            place = start
            while place < end:
                piece = await run_in_threadpool(os.pread, self.file.fileno(), min(PIECE, end - place), place)
                if not piece:
                    raise OSError(f"the file became shorter while it was sent: byte {place} of {end} is gone")
                place += len(piece)
                yield piece
        if self.last:
            yield self.last


def _tags(header: str | None) -> list[str]:
    if header is None:
        return []
    return [tag.strip().removeprefix("W/") for tag in header.split(",")][:32]
