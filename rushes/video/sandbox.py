"""Runs one piece of media work in a child process that may do little else, and not for long."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import monotonic
from typing import IO, Any, BinaryIO

try:
    import resource
except ImportError:  # not on Windows: there the wall clock is the only limit
    resource = None

ANSWER_BYTES = 64 << 20  # the longest answer that a child may give
HEAD = struct.Struct("<II")  # bytes of JSON, bytes of data
KEPT = frozenset({"LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TZ"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a piece of work may use.

    seconds         of the wall clock, starting the process included
    cpu_seconds     of all its threads together
    memory_bytes    of address space; PyAV and numpy alone map 0.2 GiB, a 4K picture takes 12 MiB
    written_bytes   of the longest file it may write
    """

    seconds: float = 30.0
    cpu_seconds: int = 60
    memory_bytes: int = 2 << 30
    written_bytes: int = 0
    files: int = 64


def run(
    task: str,
    arguments: Mapping[str, Any],
    *,
    source: BinaryIO | None = None,
    folder: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Call `task` ("package.module:function") with `arguments` (JSON) in a process of its own; its facts and its data.

    The function gets, besides `arguments`, `source`: the path under which it may read the file that the caller has
    opened, and that file only, wherever its name may lead by now. It may write files in `folder`, and nowhere else.
    It returns a dict for JSON, and bytes.

    The child is a new program (no fork, no pickle) in a session of its own, without the caller's environment but for
    locale and paths. It has the limits given, no core dumps, and, where the kernel knows Landlock (Linux 5.13), sees no
    other file and (6.7) opens no connection: what a hostile file makes a decoder do ends there. When the time is over
    its whole group is killed; when the caller dies it ends by itself. On Windows only the wall clock limits it.

    VideoError "timeout" or "crashed" where no answer comes. A VideoError of the function is raised here again, and so
    are ValueError, LookupError and TypeError, which are the caller's mistakes; all else is VideoError "unreadable".

    >>> run("rushes.video.sandbox:echo", {"words": ["a", "b"]})
    ({'words': ['a', 'b']}, b'')
    """
    limits = limits or Limits()
    end = monotonic() + limits.seconds
    request = {
        "task": task,
        "arguments": dict(arguments),
        "source": None if source is None else [source.fileno(), os.path.abspath(source.name)],
        "folder": None if folder is None else os.path.abspath(folder),
        "limits": asdict(limits),
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", "from rushes.video.sandbox import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        pass_fds=() if source is None or os.name == "nt" else (source.fileno(),),
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    answer, talk = _Drain(child.stdout, ANSWER_BYTES), _Drain(child.stderr, 1 << 16)
    try:
        with contextlib.suppress(OSError):  # a child that ended at once is told by its exit status
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        answer.join(end - monotonic())
        over = answer.is_alive()
        if not over and not answer.full:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(1.0, end - monotonic()))
    finally:
        _kill(child)
        answer.join()
        talk.join()
        for pipe in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
    from rushes.video.probe import VideoError  # not at the top: it imports PyAV, which not every task needs

    name = "the work" if source is None else str(source.name)
    if over:
        raise VideoError("timeout", f"{name} was not done after {limits.seconds:g} s")
    if answer.full:
        raise VideoError("crashed", f"{name} gave more than {ANSWER_BYTES} bytes")
    facts, data, failed = _understood(bytes(answer.data))
    if failed is not None and failed["kind"] == "VideoError":
        raise VideoError(failed["code"], failed["told"])
    if failed is not None and failed["kind"] == "MemoryError":
        raise VideoError("crashed", f"{name} needs more than {limits.memory_bytes >> 20} MiB of memory")
    if failed is not None:
        for usage in (ValueError, LookupError, TypeError):
            if failed["kind"] == usage.__name__:
                raise usage(failed["told"])
        raise VideoError("unreadable", f"{name}: {failed['kind']}: {failed['told']}")
    if facts is None:
        if child.returncode == -getattr(signal, "SIGXCPU", 0):
            raise VideoError("timeout", f"{name} used up {limits.cpu_seconds} s of processor time")
        said = "".join(talk.data.decode(errors="replace").strip().splitlines()[-1:])
        told = f"exit status {child.returncode}{said and ': '}{said}"
        raise VideoError("crashed", f"{name} ended the process that read it ({told})")
    return facts, data


def environment() -> dict[str, str]:
    """What a child may know of the caller's environment: no tokens, no keys, no home."""
    kept = {name: value for name, value in os.environ.items() if name.upper() in KEPT}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path or os.getcwd()) for path in sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",  # numpy's and OpenCV's threads would only be in the way
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # an arena a thread would use up the address space
    }


class _Drain(threading.Thread):
    """Reads a pipe to its end, or to as many bytes as anybody may say."""

    def __init__(self, pipe: IO[bytes], most: int):
        super().__init__(daemon=True)
        self.pipe, self.most = pipe, most
        self.data = bytearray()
        self.full = False
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := self.pipe.read1(1 << 16):  # type: ignore[attr-defined]
                if len(self.data) + len(piece) > self.most:
                    self.full = True
                    return
                self.data += piece

    def join(self, timeout: float | None = None) -> None:
        super().join(None if timeout is None else max(0.0, timeout))


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child and whatever it may have started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()


def _understood(answer: bytes) -> tuple[dict[str, Any] | None, bytes, dict[str, str] | None]:
    """Facts, data, and what failed; no facts and no failure for anything but an answer."""
    try:
        head, body = HEAD.unpack(answer[: HEAD.size])
        told = json.loads(answer[HEAD.size : HEAD.size + head])
        facts, failed = told["facts"], told["failed"]
        if failed is not None:
            return None, b"", {name: str(failed[name]) for name in ("kind", "told", "code")}
        if isinstance(facts, dict) and len(answer) == HEAD.size + head + body:
            return facts, answer[HEAD.size + head :], None
    except (struct.error, ValueError, KeyError, TypeError):
        pass  # cut off, or taken over
    return None, b"", None


# ---------------------------------------------------------------------- the child


def serve() -> None:
    """The child: one request on stdin, one answer on stdout."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not print into the answer
    request = json.loads(sys.stdin.buffer.readline())
    limits = Limits(**request["limits"])
    module, _, name = request["task"].partition(":")
    facts: dict[str, Any] | None = None
    data = b""
    failed: dict[str, str] | None = None
    try:
        function = getattr(importlib.import_module(module), name)  # before the doors close
        arguments = request["arguments"]
        if request["source"] is not None:
            arguments["source"] = path_of(*request["source"])
        restrict(limits)
        confine(request["source"] and request["source"][0], request["folder"])
        threading.Thread(target=_with_parent, daemon=True).start()
        facts, data = function(**arguments)
    except BaseException as error:
        told = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        if request["source"] is not None:  # people know the file by its name
            told = told.replace(path_of(*request["source"]), request["source"][1])
        kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
        failed = {"kind": kind, "told": told, "code": str(getattr(error, "code", ""))}
    head = json.dumps({"facts": facts, "failed": failed}).encode()
    out.write(HEAD.pack(len(head), len(data)) + head)
    out.write(data)
    out.flush()
    os._exit(0)  # a decoder's threads may hang


def echo(**arguments: Any) -> tuple[dict[str, Any], bytes]:
    """The smallest piece of work: what it was given. Tells what a process of its own costs."""
    return arguments, b""


def path_of(descriptor: int, name: str) -> str:
    """A path to an open file, each opening of which reads from its start, whatever its name leads to by now.

    Without /proc it is the name: /dev/fd would share one place in the file among all who open it.
    """
    path = f"/proc/self/fd/{descriptor}"
    return path if os.path.exists(path) else name


def _with_parent() -> None:
    """Ends this process when the one that asked is gone."""
    with contextlib.suppress(Exception):
        while os.read(0, 1 << 12):
            pass
    os._exit(1)


def restrict(limits: Limits, *, processor: bool = True, writing: bool = True) -> None:
    """Put `limits` on this process, for good; what the system does not know is left out."""
    if resource is None:
        return
    wanted = {"RLIMIT_AS": limits.memory_bytes, "RLIMIT_NOFILE": limits.files, "RLIMIT_CORE": 0}
    if processor:
        wanted["RLIMIT_CPU"] = limits.cpu_seconds
    if writing:
        wanted["RLIMIT_FSIZE"] = limits.written_bytes
    for name, most in wanted.items():
        number = getattr(resource, name, None)
        if number is None:
            continue
        _, hard = resource.getrlimit(number)
        last = most + (name == "RLIMIT_CPU")  # at the first a signal that tells, at the last the end
        if hard != resource.RLIM_INFINITY:
            most, last = min(most, hard), min(last, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            resource.setrlimit(number, (most, last))


# the kernel's numbers: linux/landlock.h, asm-generic/unistd.h
_CREATE, _ADD, _SELF = 444, 445, 446
_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1}  # by version of the interface; 3 and later know truncation too


def confine(source: int | str | None, folder: str | None = None, *, reading: bool = True) -> bool:
    """Let this thread, and threads it starts, read nothing but `source` (an open file, or a folder) and what programs
    are made of, write no files but in `folder`, run no program, and make no TCP connection. Whether the kernel does
    that (Linux with Landlock); there is no way back.

    reading   False: files may be read anywhere, all else as above
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.syscall
    version = call(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = _ALL.get(version, (1 << 15) - 1)
    if not reading:
        files &= ~(_READ | _LIST)
    net = 3 if version >= 4 else 0
    rules = struct.pack("<QQ", files, net) if version >= 4 else struct.pack("<Q", files)
    ruleset = call(_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return False
    allowed: list[tuple[int | str, int]] = []
    if reading:
        allowed += [(place, _READ | _LIST) for place in _code()]
        if source is not None:
            allowed.append((source, _READ if isinstance(source, int) else _READ | _LIST))
    if folder is not None:
        allowed.append((folder, _READ | _LIST | _WRITE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE))
    try:
        for place, rights in allowed:
            descriptor = place if isinstance(place, int) else os.open(place, os.O_RDONLY)
            try:
                if call(_ADD, ruleset, 1, struct.pack("<Qi", rights & files, descriptor), 0) != 0:
                    return False
            finally:
                if not isinstance(place, int):
                    os.close(descriptor)
        no_new_privileges = 38
        return libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0 and call(_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _code() -> list[str]:
    """The folders of installed modules, shared libraries, and what the processor is: read as late as when a file has
    subtitles, or a codec asks how many threads to start."""
    paths = sysconfig.get_paths()
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    wanted = {own, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))}
    wanted |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/sys/devices/system/cpu"}
    return sorted(place for place in wanted if os.path.isdir(place))
