"""A file that hangs or kills the decoder costs that file, and nothing outlives its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rushes.video.decode import Frame, Span, read
from rushes.video.probe import Kind, VideoError
from rushes.video.worker import MEMORY, Decoder


def identity(events):
    return [(event.time, event.pixels.tobytes()) if isinstance(event, Frame) else event for event in events]


@pytest.fixture(scope="module")
def decoder():
    with Decoder(stall=30.0) as decoder:
        yield decoder


@pytest.fixture
def long(films):
    return films("long.mp4", frames=600, cuts=(100, 300), size=(160, 96))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as status:
        return status.read().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("segments", ["shots", "windows"])
@pytest.mark.parametrize("squash", [True, False])
def test_the_child_gives_what_read_gives(decoder, long, segments, squash):
    how = {"policy": "thorough", "segments": segments, "squash": squash, "size": 48}
    pid = decoder.pid
    assert identity(decoder.read(long, **how)) == identity(read(long, **how))
    assert identity(decoder.read(long, start=10.0, **how)) == identity(read(long, start=10.0, **how))
    assert pid in (None, decoder.pid)


def test_errors_arrive_as_they_are(decoder, tmp_path, long):
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(VideoError) as caught:
        list(decoder.read(tmp_path / "empty.mp4"))
    assert caught.value.code == "empty"
    with pytest.raises(LookupError, match="no policy 'quick'"):
        decoder.read(long, policy="quick")
    with pytest.raises(LookupError, match="no segments 'scenes'"):
        list(decoder.read(long, segments="scenes"))
    with pytest.raises(ValueError, match="resume at a window's start"):
        list(decoder.read(long, segments="windows", start=1.0))


def test_a_reader_that_stops_early_leaves_the_decoder_ready(decoder, long):
    whole = identity(read(long))
    for count in (0, 1, 5):
        events = decoder.read(long)
        for _ in range(count):
            next(events)
        pid = decoder.pid
        events.close()
        assert identity(decoder.read(long)) == whole
        assert pid == decoder.pid


def test_two_reads_at_once_are_told_apart(decoder, long):
    first = decoder.read(long)
    next(first)
    second = decoder.read(long)
    next(second)
    with pytest.raises(RuntimeError, match="use one Decoder for each"):
        list(first)
    assert len(identity(second)) == len(identity(read(long))) - 1


def test_a_child_that_hangs_costs_one_file(long):
    with Decoder() as decoder:
        list(decoder.read(long))
        pid = decoder.pid
        events = decoder.read(long, policy="thorough", size=512)
        next(events)
        decoder.stall = 1.0
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(VideoError, match="no sign of life after 1 s") as caught:
            list(events)
        assert caught.value.code == "timeout"
        assert gone(pid)
        decoder.stall = 30.0
        assert identity(decoder.read(long)) == identity(read(long))


def test_a_file_has_a_limit_in_all(long):
    def stopped(decoder):
        for _ in decoder.read(long, policy="thorough", size=512):  # more than the child may be ahead by
            os.kill(decoder.pid, signal.SIGSTOP)

    with Decoder(limit=2.0) as decoder, pytest.raises(VideoError, match="was not done after 2 s") as caught:
        stopped(decoder)
    assert caught.value.code == "timeout"


def test_a_child_that_crashes_costs_one_file(long):
    with Decoder() as decoder:
        events = decoder.read(long, policy="thorough", size=512)
        next(events)
        pid = decoder.pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(VideoError, match="exit status -9") as caught:
            list(events)
        assert caught.value.code == "crashed"
        assert identity(decoder.read(long)) == identity(read(long))
        assert decoder.pid != pid
    assert decoder.pid is None


def test_a_slow_reader_is_no_timeout(long):
    with Decoder(stall=30.0, limit=30.0) as decoder:
        list(decoder.read(long))
        decoder.stall = decoder.limit = 3.0
        events = decoder.read(long, policy="thorough", size=512)
        seen = [next(events)]
        time.sleep(3.5)
        seen += events
    assert len(seen) == len(list(read(long, policy="thorough", size=512)))


def test_the_child_ends_when_its_parent_is_killed(long):
    script = (
        "import sys; from rushes.video.worker import Decoder; decoder = Decoder(); "
        "events = decoder.read(sys.argv[1], policy='thorough', size=512); next(events); "
        "print(decoder.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(long)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    assert gone(child)


def test_closing_ends_the_child(long):
    with Decoder() as decoder:
        next(decoder.read(long))
        pid = decoder.pid
    assert gone(pid)


def test_the_child_knows_no_secrets_and_has_limits(long, monkeypatch):
    monkeypatch.setenv("RUSHES_TOKEN", "the secret")
    with Decoder() as decoder:
        next(decoder.read(long))
        if not os.path.exists(f"/proc/{decoder.pid}/environ"):
            pytest.skip("no /proc to look at")
        with open(f"/proc/{decoder.pid}/environ", "rb") as file:
            assert b"the secret" not in file.read()
        with open(f"/proc/{decoder.pid}/limits") as file:
            limits = {line[:26].strip(): line[26:].split()[0] for line in file}
    assert limits["Max address space"] == str(MEMORY)
    assert limits["Max core file size"] == "0"


def test_the_child_reads_nothing_outside_its_folder(landlock, long, tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a.mp4").write_bytes(long.read_bytes())
    (inside / "out.mp4").symlink_to(long)
    (inside / "link.mp4").symlink_to(inside / "a.mp4")
    with Decoder(within=inside) as decoder:
        whole = identity(decoder.read(inside / "a.mp4"))
        for path in (long, inside / "out.mp4"):
            with pytest.raises(VideoError) as caught:
                list(decoder.read(path))
            assert caught.value.code == "unreadable"
        assert identity(decoder.read(inside / "link.mp4")) == whole == identity(read(long))


def test_the_child_says_what_kind_of_file_it_reads(decoder, long, films):
    list(decoder.read(long))
    assert decoder.kind == Kind("mp4", "h264", "yuv420p", "")
    list(decoder.read(films("sound.mkv", audio=3.0)))
    assert decoder.kind == Kind("matroska", "h264", "yuv420p", "aac")


def test_thumbnails_come_through_the_pipe(decoder, long):
    spans = [event for event in decoder.read(long, thumbnails=96) if isinstance(event, Span)]
    assert spans == [event for event in read(long, thumbnails=96) if isinstance(event, Span)]
    assert all(span.thumbnail and span.thumbnail[:4] == b"RIFF" for span in spans)
