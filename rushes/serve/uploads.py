"""Pictures and clips to search with: received piece by piece, looked at in the sandbox, forgotten after a while."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from rushes.serve.limits import Limits
from rushes.serve.problems import Refusal
from rushes.video.inspect import Caps, inspected
from rushes.video.probe import VideoError

PREFIX = "rushes-uploads-"
NOT_MEDIA = ("unsupported", "unreadable", "empty", "not-a-file")
HEADER_BYTES = 4096  # of the one part


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received and can be decoded. `expires` is in seconds of the monotonic clock."""

    id: str
    path: Path
    size_bytes: int
    kind: str
    width: int
    height: int
    seconds: float | None
    expires: float


class Uploads:
    """The uploads of one server in a folder of its own, which only its user can read and which ends with it.

    A server that was killed leaves its folder behind; the next one to start removes it, which it knows by the lock
    that nobody holds.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._caps = Caps(pixels=limits.upload_pixels, seconds=limits.upload_seconds, size_bytes=limits.upload_bytes)
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 700
        self._alive = FileLock(self.folder / "lock", timeout=0)
        self._alive.acquire()
        self._held: dict[str, Upload] = {}
        self._pending = 0  # files that are being received
        self._lock = threading.Lock()
        atexit.register(self.close)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def size_bytes(self) -> int:
        return sum(upload.size_bytes for upload in list(self._held.values()))

    def reserve(self) -> None:
        """Take one of the places; give it back with `release`. Refusal "uploads-full"."""
        self.expire()
        with self._lock:
            if len(self._held) + self._pending >= self.limits.uploads:
                raise Refusal("uploads-full", f"{self.limits.uploads} uploads are held, which is all there is room for")
            if self.size_bytes >= self.limits.uploads_bytes:
                raise Refusal("uploads-full", f"the uploads held have {self.size_bytes} bytes, all there is room for")
            self._pending += 1

    def release(self) -> None:
        with self._lock:
            self._pending -= 1

    def new_path(self) -> Path:
        return self.folder / secrets.token_hex(16)

    def keep(self, path: Path) -> Upload:
        """Look at a received file in the sandbox, and hold it. Refusal for what cannot be decoded or is too much."""
        try:
            found = inspected(path, self._caps)
        except VideoError as error:
            code = "not-media" if error.code in NOT_MEDIA else "bad-media"
            raise Refusal(code, error.reason.replace(path.name, "the file"), reason=error.code) from None
        size = path.stat().st_size
        upload = Upload(
            path.name,
            path,
            size,
            found.kind,
            found.width,
            found.height,
            found.seconds,
            time.monotonic() + self.limits.upload_lifetime,
        )
        with self._lock:
            self._held[upload.id] = upload
        return upload

    def get(self, name: str, kind: str | None = None) -> Upload:
        """Refusal "unknown-upload", or "bad-query" for a video where a picture is wanted."""
        upload = self._held.get(name)
        if upload is None or upload.expires <= time.monotonic():
            raise Refusal("unknown-upload", "no upload of this id is held")
        if kind is not None and upload.kind != kind:
            raise Refusal("bad-query", f"the upload is of kind {upload.kind}, it is used as {kind}")
        return upload

    def drop(self, name: str) -> None:
        upload = self.get(name)
        with self._lock:
            self._held.pop(name, None)
        upload.path.unlink(missing_ok=True)

    def expire(self) -> None:
        now = time.monotonic()
        for upload in [upload for upload in list(self._held.values()) if upload.expires <= now]:
            with self._lock:
                self._held.pop(upload.id, None)
            upload.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder and all in it."""
        self._held.clear()
        self._alive.release()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)


def _sweep() -> None:
    """Remove folders of servers that are no more: ours, and with a lock that nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            lock = folder / "lock"
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not lock.is_file():
                continue
            with FileLock(lock, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            continue


class _Receiver:
    """One file of a multipart form, written as it comes. Anything but one part named "file" is refused."""

    def __init__(self, boundary: bytes, target: Path, limit: int):
        self.limit, self.size, self.parts = limit, 0, 0
        self.ended = False
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._stream = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._said,
                "on_header_end": self._header,
                "on_headers_finished": self._headers_done,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError:
            raise Refusal("bad-request", "the form cannot be read") from None

    def close(self) -> None:
        self._stream.close()

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > 1:
            raise Refusal("bad-request", "the form has more than one part; send one file in the field `file`")

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._bounded()

    def _said(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bounded()

    def _bounded(self) -> None:
        if len(self._name) + len(self._value) > HEADER_BYTES:
            raise Refusal("bad-request", "the headers of the form's part are too long")

    def _header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()
        if len(self._headers) > 16:
            raise Refusal("bad-request", "the form's part has too many headers")

    def _headers_done(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", ""))
        if kind != b"form-data" or options.get(b"name") != b"file" or b"filename" not in options:
            raise Refusal("bad-request", "the form has no file in the field `file`")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.size += end - start
        if self.size > self.limit:
            raise Refusal("too-large", f"the file has more than {self.limit} bytes")
        self._stream.write(data[start:end])

    def _end(self) -> None:
        self.ended = True


async def receive(pieces: AsyncIterator[bytes], content_type: str, target: Path, limit: int) -> None:
    """Write the form's file to `target`. The name that the client gave it is not looked at."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise Refusal("bad-request", "the form names no boundary")
    receiver = _Receiver(boundary, target, limit)
    try:
        async for piece in pieces:
            if piece:
                await run_in_threadpool(receiver.feed, piece)
        if not receiver.ended:
            raise Refusal("bad-request", "the form ends in the middle")
        if not receiver.size:
            raise Refusal("not-media", "the file is empty")
    finally:
        receiver.close()


def expires(upload: Upload) -> datetime:
    return datetime.fromtimestamp(time.time() + upload.expires - time.monotonic(), UTC)
