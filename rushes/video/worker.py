"""Decodes in a child process, so that a file that hangs or crashes the decoder costs that file only."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import monotonic
from typing import IO, Any

import numpy as np

from rushes.video import sample
from rushes.video.decode import Damage, Frame, Span, events
from rushes.video.probe import Kind, VideoError
from rushes.video.sandbox import Limits, confine, environment, restrict
from rushes.video.shots import dense, sparse

STALL = 60.0  # seconds that the child may go without a sign of life
LIMIT = 300.0  # seconds that one file may be waited for; a longer video may take twice its length
AHEAD = 32  # events that the child may be ahead of the reader, besides what fits the pipe
HEAD = struct.Struct("<II")  # bytes of JSON, bytes of pixels
MEMORY = 6 << 30  # bytes of address space: 8K in 10 bit, with its reference frames, takes three
LONGEST = 256 << 20  # bytes that one event may have; more is no event of ours


class Decoder:
    """`decode.read` with a wall-clock limit, in one child process that serves file after file.

        with Decoder() as decoder:
            for event in decoder.read("beach.mp4"):
                ...

    The child decodes ahead of the reader by AHEAD events and then waits, so memory is bounded and a slow reader costs
    nothing. Only the seconds that the reader waits for the child count against the limits. A child that is killed is
    started again by the next `read`. If this process dies, the child ends by itself.

    The child has MEMORY bytes of address space and no caller's environment; where the kernel knows Landlock, it may
    write no file, start no program, and open no connection.

    within  the folder of the files: where the kernel knows Landlock, the child can read none outside; None = anywhere
    stall   seconds without a sign of life from the child after which the file fails with "timeout"
    limit   seconds of waiting for one file; None = max(300, twice the video's length)
    """

    def __init__(
        self,
        *,
        within: str | os.PathLike[str] | None = None,
        stall: float = STALL,
        limit: float | None = None,
        threads: int | None = None,
    ):
        self.within = None if within is None else os.path.realpath(within)
        self.stall = stall
        self.limit = limit
        self.threads = threads
        self.duration = 0.0  # seconds that the file being read promises; 0 where it does not tell
        self.kind: Kind | None = None  # of the file being read, once its first event is there
        self.lines: bool | None = None  # whether that file has text subtitles inside
        self._child: subprocess.Popen[bytes] | None = None
        self._inbox: queue.Queue[tuple[int, Any]] = queue.Queue(AHEAD)
        self._serial = 0  # of the file being read

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """End the child. A later `read` starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()  # the listening thread closes stdout

    def read(
        self,
        path: str | os.PathLike[str],
        *,
        policy: str = "balanced",
        segments: str = "shots",
        size: int = 224,
        squash: bool = True,
        start: float = 0.0,
        thumbnails: int = 0,
    ) -> Iterator[Frame | Span | Damage]:
        """As `decode.read`; VideoError also for "timeout" and "crashed". One file at a time: a new read ends the last.

        A reader that stops early leaves the decoder ready for the next file.
        """
        sample.policy(policy)  # a wrong name fails here and now
        self._serial += 1
        serial = self._serial
        self.duration, self.kind = 0.0, None
        request = (serial, (os.fspath(path), policy, segments, size, squash, start, self.threads, thumbnails))
        return self._read(serial, request)

    def recorded(self, path: str | os.PathLike[str]) -> float | None:
        """As `recorded.recorded`, from the file's headers alone; raises as `read` does, and ends the last `read`."""
        self._serial += 1
        found = list(self._read(self._serial, (self._serial, (os.fspath(path),))))
        return found[0].second if found and isinstance(found[0], _Recorded) else None

    def _read(self, serial: int, request: tuple) -> Iterator[Any]:
        if serial != self._serial:
            raise RuntimeError("this decoder reads another file by now; use one Decoder for each file read at a time")
        name = request[1][0]
        self._send(request)
        waited, limit = 0.0, self.limit or LIMIT
        try:
            while True:
                if serial != self._serial:
                    raise RuntimeError(f"another read began before {name} was read; use one Decoder for each")
                begun = monotonic()
                patience = min(self.stall, limit - waited)
                try:
                    if patience <= 0:
                        raise queue.Empty  # however soon the next event comes
                    number, event = self._inbox.get(timeout=patience)
                except queue.Empty:
                    self.close()
                    over = "gave no sign of life" if patience >= self.stall else "was not done"
                    reason = f"{name} {over} after {patience if patience >= self.stall else limit:.0f} s of decoding"
                    raise VideoError("timeout", f"{reason}; try another policy or convert the file") from None
                waited += monotonic() - begun
                if number == CLOSED:
                    if event is self._child:
                        raise self._crashed(name)
                elif number == serial:
                    if isinstance(event, _Length):
                        self.duration, self.kind, self.lines = event.seconds, event.kind(), event.lines
                        limit = self.limit or max(LIMIT, 2 * event.seconds)
                    elif isinstance(event, _Failure):
                        raise event.error()
                    elif isinstance(event, _Done):
                        return
                    elif event is not None:
                        yield event
        finally:
            if serial == self._serial:
                self._cancel()

    def _crashed(self, name: str) -> VideoError:
        child = self._child
        self.close()
        code = child.returncode if child else None
        return VideoError("crashed", f"decoding {name} ended the decoder (exit status {code}); is the file malformed?")

    def _send(self, message: tuple) -> None:
        for attempt in (1, 2):
            child = self._child
            if child is None or child.poll() is not None:
                self.close()
                child = self._start()
            assert child.stdin is not None
            try:
                _say(child.stdin, message)
                return
            except OSError:
                self.close()
                if attempt == 2:
                    raise VideoError("crashed", "the decoder process ends as soon as it is started") from None

    def _cancel(self) -> None:
        """Tell the child that nobody reads on; it needs no answer."""
        child = self._child
        if child is None or child.stdin is None:
            return
        with contextlib.suppress(OSError):
            _say(child.stdin, (0, None))

    def _start(self) -> subprocess.Popen[bytes]:
        # a program of its own: no fork (threads), no multiprocessing spawn (it would run the caller's script again)
        self._inbox = queue.Queue(AHEAD)
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", "from rushes.video.worker import serve; serve()", self.within or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        listener = threading.Thread(target=_listen, args=(self._child, self._inbox), daemon=True)
        listener.start()
        return self._child


CLOSED = -1  # the serial under which the listener reports the end of the child


@dataclass(frozen=True, slots=True)
class _Length:
    """What the file promises and what it is, before anything else."""

    seconds: float
    container: str
    video: str
    pixels: str
    audio: str
    lines: bool = False

    def kind(self) -> Kind:
        return Kind(self.container, self.video, self.pixels, self.audio)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """When the file says that it was recorded: seconds since 1970."""

    second: float | None


@dataclass(frozen=True, slots=True)
class _Done:
    """The file is read to its end."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error of the child, as data."""

    kind: str
    code: str
    reason: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        if isinstance(error, VideoError):
            return cls("VideoError", error.code, error.reason)
        return cls(type(error).__name__, "unreadable", str(error))

    def error(self) -> Exception:
        for usage in (LookupError, ValueError, TypeError):  # the caller's mistakes, not the file's
            if self.kind == usage.__name__:
                return usage(self.reason)
        told = "" if self.kind == "VideoError" else f"{self.kind}: "
        return VideoError(self.code, told + self.reason)


# what may come through the pipe, under its name: JSON, because a decoder that a hostile file has taken over must not be
# able to say anything that runs here
WORDS = {kind.__name__: kind for kind in (Span, Damage, _Length, _Recorded, _Done, _Failure)}


def _say(pipe: IO[bytes], request: tuple) -> None:
    pipe.write(json.dumps(request).encode() + b"\n")
    pipe.flush()


def _listen(child: subprocess.Popen[bytes], inbox: queue.Queue[tuple[int, Any]]) -> None:
    """Move events from the child's pipe to the inbox until the child is gone. The inbox is bounded: that stops us, and
    a full pipe then stops the child."""
    assert child.stdout is not None
    malformed = (ValueError, KeyError, TypeError)  # what no child of ours says: as good as a crash
    with child.stdout as pipe, contextlib.suppress(EOFError, OSError, *malformed):
        while _put(child, inbox, _receive(pipe)):
            pass
    _put(child, inbox, (CLOSED, child))


def _put(child: subprocess.Popen[bytes], inbox: queue.Queue[tuple[int, Any]], item: tuple[int, Any]) -> bool:
    """False when the child was closed meanwhile, so that nobody will ever make room."""
    while child.returncode is None or item[0] == CLOSED:
        try:
            inbox.put(item, timeout=1.0)
            return True
        except queue.Full:
            if child.returncode is not None:
                return False
    return False


def _receive(pipe: IO[bytes]) -> tuple[int, Any]:
    head, body = HEAD.unpack(_exactly(pipe, HEAD.size))
    if head + body > LONGEST:
        raise ValueError(f"an event of {head + body} bytes")
    serial, name, fields = json.loads(_exactly(pipe, head))
    if name == "Frame":
        return serial, Frame(fields["time"], np.frombuffer(_exactly(pipe, body), np.uint8).reshape(fields["shape"]))
    if name == "Span":
        fields["times"] = tuple(fields["times"])
        fields["thumbnail"] = bytes(_exactly(pipe, body)) or None
    return serial, None if name is None else WORDS[name](**fields)


def _exactly(pipe: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    done = 0
    while done < count:
        got = pipe.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        done += got
    return data


def _give(pipe: IO[bytes], serial: int, event: Any) -> None:
    pixels = b""
    if event is None:
        name, fields = None, None
    elif isinstance(event, Frame):
        pixels = event.pixels.tobytes()
        name, fields = "Frame", {"time": event.time, "shape": event.pixels.shape}
    elif isinstance(event, Span):
        pixels = event.thumbnail or b""
        name, fields = "Span", {"start": event.start, "end": event.end, "times": event.times}
    else:
        name, fields = type(event).__name__, asdict(event)
    head = json.dumps((serial, name, fields)).encode()
    pipe.write(HEAD.pack(len(head), len(pixels)) + head)
    if len(pixels):
        pipe.write(pixels)
    pipe.flush()


def serve() -> None:
    """The child: requests on stdin, events on stdout, until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # a library that prints must not print into the events
    # no limit on processor time: one child reads all files, each by the parent's clock; none on what is written: stderr
    # may be a file
    restrict(Limits(memory_bytes=MEMORY, files=256), processor=False, writing=False)
    for ready in (dense, sparse):  # what they import, they import before the doors close
        ready()
    within = sys.argv[1] if len(sys.argv) > 1 else ""
    confine(within or None, reading=bool(within))
    requests: queue.Queue[tuple[int, tuple]] = queue.Queue()
    latest = [0]

    def commands() -> None:
        while True:
            try:
                serial, request = json.loads(sys.stdin.readline())
            except Exception:
                os._exit(0)  # the parent is gone, and the main thread may be deep in a decoder
            latest[0] = serial
            if serial:
                requests.put((serial, request))

    threading.Thread(target=commands, daemon=True).start()
    while True:
        serial, request = requests.get()
        try:
            for event in _with_length(request) if len(request) > 1 else _recorded(*request):
                if latest[0] != serial:
                    break
                _give(out, serial, event)
            else:
                _give(out, serial, _Done())
        except Exception as error:
            _give(out, serial, _Failure.of(error))


def _with_length(request: tuple) -> Iterator[Any]:
    from rushes.video.lines import has_lines
    from rushes.video.probe import duration, kind, opened

    with opened(request[0]) as (container, stream):
        length = duration(container, stream)
        what, lines = kind(container, stream), has_lines(container)
    yield _Length(length or 0.0, **asdict(what), lines=lines)
    yield from events(*request)


def _recorded(path: str) -> Iterator[_Recorded]:
    from rushes.video.recorded import recorded

    yield _Recorded(recorded(path))
