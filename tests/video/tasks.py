"""What tests let a sandbox do: the things that a decoder in a hostile file's hands would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def tried(action):
    """What came of it, as facts."""
    try:
        return {"done": str(action())}, b""
    except OSError as error:
        return {"refused": type(error).__name__}, b""


def read(path, source=None):
    return tried(lambda: Path(path).read_text())


def read_source(source):
    with open(source, "rb") as one, open(source, "rb") as two:
        one.read(3)
        return {"same": one.read() == two.read()[3:]}, Path(source).read_bytes()


def write(path, size=1):
    return tried(lambda: Path(path).write_bytes(b"x" * size))


def start(program):
    return tried(lambda: subprocess.run([program], check=False).returncode)


def connect(port):
    def to_port():
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return "connected"

    return tried(to_port)


def environment():
    return dict(os.environ), b""


def limits():
    import resource

    names = ("AS", "CPU", "FSIZE", "NOFILE", "CORE")
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names}, b""


def allocate(size_bytes):
    return {"size": len(bytearray(size_bytes))}, b""


def spin():
    while True:
        pass


def sleep(pid_file):
    """Starts a second process, and waits for ever with it."""
    other = os.fork()
    if other == 0:
        time.sleep(1000)
    Path(pid_file).write_text(f"{os.getpid()} {other}")
    time.sleep(1000)


def die(number):
    os.kill(os.getpid(), number)


def leave(status):
    os._exit(status)


def chatter():
    sys.stdout.write("to stdout\n")
    os.write(1, b"to descriptor 1")
    return {"heard": True}, b"data"


def talk(size_bytes):
    return {}, bytes(size_bytes)


def fail(kind, told):
    from rushes.video.probe import VideoError

    kinds = {"ValueError": ValueError, "LookupError": LookupError, "RuntimeError": RuntimeError, "KeyError": KeyError}
    raise VideoError("no-frames", told) if kind == "VideoError" else kinds[kind](told)
