"""Work on an untrusted file ends within its limits, and touches nothing but that file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rushes.video import sandbox
from rushes.video.probe import VideoError
from rushes.video.sandbox import Limits, run
from tests.video.test_worker import gone

TASKS = "tests.video.tasks"


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary.txt"
    path.write_text("the secret")
    return path


def test_an_answer_is_facts_and_data_whatever_the_work_prints():
    assert run(f"{TASKS}:chatter", {}) == ({"heard": True}, b"data")
    assert run(f"{TASKS}:talk", {"size_bytes": 3 << 20})[1] == bytes(3 << 20)


def test_the_source_is_the_open_file_whatever_its_name_leads_to_now(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"first content")
    with path.open("rb") as file:
        path.unlink()
        path.write_bytes(b"another")
        facts, data = run(f"{TASKS}:read_source", {}, source=file)
    assert data == b"first content"
    assert facts == {"same": True}  # each opening reads from the start


def test_no_other_file_is_read(landlock, canary, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(b"x")
    for path in (canary, "/etc/passwd", f"/proc/{os.getpid()}/environ"):
        assert "refused" in run(f"{TASKS}:read", {"path": str(path)})[0]
        with other.open("rb") as file:
            assert "refused" in run(f"{TASKS}:read", {"path": str(path)}, source=file)[0]


def test_files_are_written_in_the_folder_only(landlock, canary, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    how = {"folder": folder, "limits": Limits(written_bytes=1000)}
    assert run(f"{TASKS}:write", {"path": str(folder / "a")}, **how)[0] == {"done": "1"}
    assert "refused" in run(f"{TASKS}:write", {"path": str(tmp_path / "a")}, **how)[0]
    assert "refused" in run(f"{TASKS}:write", {"path": str(canary)}, **how)[0]
    assert canary.read_text() == "the secret"
    assert "refused" in run(f"{TASKS}:write", {"path": str(folder / "b"), "size": 1001}, **how)[0]


def test_no_program_is_started_and_nobody_is_called(landlock):
    assert run(f"{TASKS}:start", {"program": "/bin/true"})[0] == {"refused": "PermissionError"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run(f"{TASKS}:connect", {"port": server.getsockname()[1]})[0] == {"refused": "PermissionError"}


def test_the_environment_holds_no_secrets(monkeypatch):
    monkeypatch.setenv("RUSHES_TOKEN", "the secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the secret")
    facts, _ = run(f"{TASKS}:environment", {})
    assert "the secret" not in facts.values()
    assert "HOME" not in facts


def test_the_limits_are_on():
    facts, _ = run(f"{TASKS}:limits", {}, limits=Limits(cpu_seconds=7, memory_bytes=1 << 30, written_bytes=5, files=32))
    assert facts == {"AS": 1 << 30, "CPU": 7, "FSIZE": 5, "NOFILE": 32, "CORE": 0}


def failure(task, limits=None, **arguments) -> VideoError:
    with pytest.raises(VideoError) as caught:
        run(f"{TASKS}:{task}", arguments, limits=limits)
    return caught.value


def test_work_that_needs_too_much_fails_alone():
    assert run(f"{TASKS}:allocate", {"size_bytes": 64 << 20})[0] == {"size": 64 << 20}
    error = failure("allocate", size_bytes=3 << 30)
    assert (error.code, "needs more than 2048 MiB" in error.reason) == ("crashed", True)
    error = failure("spin", Limits(cpu_seconds=1))
    assert (error.code, "1 s of processor time" in error.reason) == ("timeout", True)
    error = failure("spin", Limits(seconds=0.5))
    assert (error.code, "after 0.5 s" in error.reason) == ("timeout", True)
    error = failure("die", number=int(signal.SIGSEGV))
    assert (error.code, "exit status -11" in error.reason) == ("crashed", True)
    error = failure("leave", status=0)  # a clean end without an answer is none
    assert (error.code, "exit status 0" in error.reason) == ("crashed", True)


def test_nobody_can_answer_without_end(monkeypatch):
    monkeypatch.setattr(sandbox, "ANSWER_BYTES", 1 << 20)
    error = failure("talk", size_bytes=8 << 20)
    assert (error.code, "more than 1048576 bytes" in error.reason) == ("crashed", True)


def test_errors_arrive_as_they_are():
    for kind in (ValueError, LookupError):
        with pytest.raises(kind, match="what was wrong"):
            run(f"{TASKS}:fail", {"kind": kind.__name__, "told": "what was wrong"})
    error = failure("fail", kind="VideoError", told="what was wrong")
    assert (error.code, error.reason) == ("no-frames", "what was wrong")
    error = failure("fail", kind="RuntimeError", told="what was wrong")
    assert (error.code, "RuntimeError: what was wrong" in error.reason) == ("unreadable", True)


@pytest.mark.parametrize(
    "answer", [b"", b"short", b"\xff" * 8, b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b"\x02\x00\x00\x00\x09\x00\x00\x00{}"]
)
def test_an_answer_that_makes_no_sense_is_none(answer):
    assert sandbox._understood(answer) == (None, b"", None)


def test_when_time_is_over_the_whole_group_is_killed(tmp_path):
    with pytest.raises(VideoError) as caught:
        run(f"{TASKS}:sleep", {"pid_file": str(tmp_path / "pids")}, folder=tmp_path, limits=WRITES)
    assert caught.value.code == "timeout"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


WRITES = Limits(seconds=3.0, written_bytes=100)


def test_the_child_ends_when_its_parent_is_killed(tmp_path):
    script = (
        "import sys; from rushes.video.sandbox import Limits, run; "
        "run('tests.video.tasks:sleep', {'pid_file': sys.argv[1] + '/pids'}, folder=sys.argv[1], "
        "limits=Limits(seconds=600, written_bytes=100))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        end = time.monotonic() + 60
        while not ((tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    child, other = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    try:
        assert gone(child)
    finally:
        os.kill(other, signal.SIGKILL)  # what the work itself has started is its group's, and that has no leader now
