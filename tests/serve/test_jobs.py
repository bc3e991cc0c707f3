"""Jobs: whatever is killed, and whenever, the library opens, the job can be resumed, and the end is the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import rushes
from rushes.data.reels import compose, render
from rushes.serve.jobs import ACTIVE, JobRunning, Jobs, Record, WrongState, read, write
from tests.library.test_kill import same
from tests.serve.conftest import served, wait_until

LONG = 180.0  # seconds that a job may take on a machine that is busy with other things


@pytest.fixture(scope="session")
def many(tmp_path_factory, drawn) -> Path:
    """Three reels, a minute in all."""
    folder, pictures = tmp_path_factory.mktemp("many"), drawn[0]
    for reel in compose(sorted(path.name for path in pictures.glob(".p*.png")), count=3, seed=5, fades=0.0):
        render(reel, folder / f"{reel.id}.mp4", root=pictures, size=(160, 120))
    return folder


@pytest.fixture
def fresh(many, tiny_model, tmp_path) -> Path:
    """A folder whose model is chosen, and of whose videos none is indexed."""
    folder = tmp_path / "films"
    folder.mkdir()
    rushes.open(folder).refresh(model=str(tiny_model))
    for path in many.glob("*.mp4"):
        shutil.copy2(path, folder)
    return folder


@pytest.fixture(scope="session")
def calm(many, tiny_model, tmp_path_factory) -> rushes.library.Library:
    """The index of an undisturbed run."""
    library = rushes.open(many, tmp_path_factory.mktemp("calm"))
    library.refresh(model=str(tiny_model))
    return library


def ended(jobs: Jobs, name: str, *states: str) -> Record:
    wait_until(lambda: jobs.get(name).state in (states or ("done", "failed", "cancelled", "paused")), LONG)
    return jobs.get(name)


def finish(folder: Path, calm) -> None:
    """Resume whatever there is until it is done, and compare."""
    jobs = Jobs(folder, folder / ".rushes")
    (record,) = jobs.all()
    wait_until(lambda: jobs.get(record.id).state not in ACTIVE, LONG)
    rushes.open(folder).info()  # it opens
    if jobs.get(record.id).state != "done":
        jobs.resume(record.id)
    record = ended(jobs, record.id)
    assert record.state == "done", record
    assert record.error is None
    library = rushes.open(folder)
    assert same(library, calm)
    assert library.info().unfinished == 0
    jobs.close()


def test_a_job_does_what_a_refresh_does(fresh, calm):
    jobs = Jobs(fresh, fresh / ".rushes")
    record, new = jobs.start(key="once")
    assert new
    assert record.state in ACTIVE
    again, other = jobs.start(key="once")
    assert (again.id, other) == (record.id, False)
    with pytest.raises(ValueError, match="another one"):
        jobs.start(key="once", retry_failed=True)
    with pytest.raises(JobRunning):
        jobs.start()
    with pytest.raises(JobRunning):
        Jobs(fresh, fresh / ".rushes").start()  # of another server
    with pytest.raises(WrongState):
        jobs.resume(record.id)
    record = ended(jobs, record.id)
    assert record.state == "done"
    assert record.report["videos"] == 3
    assert record.segments == record.report["segments"] == rushes.open(fresh).index.count()
    assert record.done_bytes == record.total_bytes == sum(path.stat().st_size for path in fresh.glob("*.mp4"))
    assert record.seconds_left == 0
    for what in ("pause", "cancel"):
        with pytest.raises(WrongState):
            jobs.order(record.id, what)
    assert jobs.start(key="once")[0].id == record.id, "the key still means the job that is done"
    assert same(rushes.open(fresh), calm)


def test_pause_and_resume(fresh, calm):
    jobs = Jobs(fresh, fresh / ".rushes")
    record, _ = jobs.start()
    wait_until(lambda: jobs.get(record.id).done_bytes > 0, LONG)
    jobs.order(record.id, "pause")
    paused = ended(jobs, record.id)
    assert paused.state in ("paused", "done")
    if paused.state == "paused":
        assert rushes.open(fresh).index.count() >= paused.segments
        resumed = jobs.resume(record.id)
        assert resumed.done_bytes == paused.done_bytes
        assert ended(jobs, record.id).frames >= paused.frames
    finish(fresh, calm)


def test_cancel(fresh, calm):
    jobs = Jobs(fresh, fresh / ".rushes")
    record, _ = jobs.start()
    jobs.order(record.id, "cancel")
    assert ended(jobs, record.id).state == "cancelled"
    with pytest.raises(WrongState):
        jobs.resume(record.id)
    second, _ = jobs.start()
    assert ended(jobs, second.id).state == "done"
    assert same(rushes.open(fresh), calm)


@pytest.mark.parametrize("moment", ["at once", "first bytes", "half", "nearly all"])
def test_kill_the_job(fresh, calm, moment):
    jobs = Jobs(fresh, fresh / ".rushes")
    record, _ = jobs.start()
    child = jobs._children[record.id]
    total = sum(path.stat().st_size for path in fresh.glob("*.mp4"))
    share = {"first bytes": 1 / total, "half": 0.5, "nearly all": 0.9}.get(moment, 0.0)
    wait_until(lambda: child.poll() is not None or jobs.get(record.id).done_bytes >= share * total, LONG)
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    record = ended(jobs, record.id)
    if record.state != "done":
        assert (record.state, record.error["code"]) == ("failed", "interrupted")
    finish(fresh, calm)


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    """`rushes serve` in a process of its own, asked to stop in the end, if it is still there."""
    command = [sys.executable, "-m", "rushes", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        line = process.stderr.readline()
        address = re.search(r"http://127.0.0.1:\d+/", line)
        assert address, line
        with httpx.Client(base_url=address[0], timeout=60) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("what", ["server", "both"])
def test_kill_the_server(fresh, calm, what):
    jobs = Jobs(fresh, fresh / ".rushes")
    with server(fresh) as (process, client):
        name = client.post("/v1/jobs", json={}).json()["id"]
        wait_until(lambda: jobs.get(name).done_bytes > 0, LONG)
        pids = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        process.kill()
        process.wait()
        if what == "both":
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: not any(running(int(pid)) for pid in pids), LONG)  # it ends by itself
    with server(fresh) as (process, client):
        told = client.get(f"/v1/jobs/{name}").json()
        if told["state"] != "done":
            assert (told["state"], told["error"]["code"]) == ("failed", "interrupted")
            assert client.post(f"/v1/jobs/{name}/resume").status_code == 202
        with client.stream("GET", f"/v1/jobs/{name}/events") as stream:
            events = [line for line in stream.iter_lines() if line.startswith("event:")]
        assert events[-1] == "event: end"
        assert client.get(f"/v1/jobs/{name}").json()["state"] == "done"
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/search", json={"text": "a dog"}).json()["total"] > 0
    assert process.returncode == 0
    assert same(rushes.open(fresh), calm)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_that_is_stopped_pauses_its_job(fresh, calm):
    jobs = Jobs(fresh, fresh / ".rushes")
    with server(fresh) as (process, client):
        name = client.post("/v1/jobs", json={}).json()["id"]
        wait_until(lambda: jobs.get(name).state == "running", LONG)
    assert process.returncode == 0
    assert ended(jobs, name).state in ("paused", "done")
    finish(fresh, calm)


def test_over_http(fresh):
    with served(rushes.open(fresh)) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        started = client.post("/v1/jobs", json={"kind": "index"}, headers={"Idempotency-Key": "abc"})
        assert started.status_code == 202
        job = started.json()
        assert started.headers["location"] == f"/v1/jobs/{job['id']}"
        again = client.post("/v1/jobs", json={"kind": "index"}, headers={"Idempotency-Key": "abc"})
        assert (again.status_code, again.json()["id"]) == (200, job["id"])
        other = client.post("/v1/jobs", json={"retry_failed": True}, headers={"Idempotency-Key": "abc"})
        assert (other.status_code, other.json()["code"]) == (422, "key-mismatch")
        second = client.post("/v1/jobs", json={})
        assert (second.status_code, second.json()["code"]) == (409, "job-running")
        assert second.json()["job"]["id"] == job["id"]
        seen = []
        with client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            seen += [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
        assert [one["state"] for one in seen][-1] == "done"
        assert {"queued", "running"} & {one["state"] for one in seen}
        assert [one["done_bytes"] for one in seen] == sorted(one["done_bytes"] for one in seen)
        assert seen[-1]["report"]["videos"] == 3
        assert client.get("/v1/jobs").json()["jobs"] == [seen[-1]]
        wrong = client.post(f"/v1/jobs/{job['id']}/resume", json={})
        assert (wrong.status_code, wrong.json()["code"]) == (409, "job-state")
        assert 'rushes_jobs{state="done"} 1.0' in client.get("/metrics").text


def test_another_process_is_indexing(fresh):
    from filelock import FileLock

    jobs = Jobs(fresh, fresh / ".rushes")
    with FileLock(fresh / ".rushes" / "lock"):
        record = ended(jobs, jobs.start()[0].id)
    assert (record.state, record.error["code"]) == ("failed", "library-busy")
    jobs.resume(record.id)
    assert ended(jobs, record.id).state == "done"


def test_a_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    (tmp_path / "store").write_text("a file where the store should be")
    jobs = Jobs(folder, tmp_path / "store")
    with pytest.raises(OSError, match="store"):
        jobs.start()


def test_old_jobs_are_forgotten(tmp_path):
    jobs = Jobs(tmp_path, tmp_path / "store", most=3)
    jobs.place.mkdir(parents=True)
    for number in range(5):
        write(jobs.place, Record(id=f"{number:016x}", state="done", created=f"2026-01-0{number + 1}T00:00:00+00:00"))
    jobs._forget_oldest(jobs.all())
    assert [record.id for record in jobs.all()] == [f"{4:016x}", f"{3:016x}"]  # and the one that is being made


def test_records_of_killed_servers(tmp_path):
    """A job that was queued when all was killed is no job that runs; one that a server just made is."""
    jobs = Jobs(tmp_path, tmp_path / "store")
    jobs.place.mkdir(parents=True)
    long_ago, now = "2026-01-01T00:00:00+00:00", time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    write(jobs.place, Record(id="0" * 16, state="queued", created=long_ago, updated=long_ago))
    write(jobs.place, Record(id="1" * 16, state="queued", created=now, updated=now))
    write(jobs.place, Record(id="2" * 16, state="running", created=now, updated=now))
    assert {record.id[0]: record.state for record in jobs.all()} == {"0": "failed", "1": "queued", "2": "failed"}
    assert read(jobs.place, "../../etc/passwd") is None
