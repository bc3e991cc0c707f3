"""`rushes serve`: what it tells, what it binds, what it refuses, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rushes.serve.run import address_of, bind, read_token
from tests.serve.conftest import wait_until

ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rushes", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENV)


def started(*arguments: str) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "rushes", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENV)
    return process, process.stderr.readline()


def test_one_line_for_each_mistake(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = run(str(tmp_path), "--port", port)
    assert told.returncode == 1
    assert (
        told.stderr == f"rushes: error: port {port} is in use; give another with --port, or --port 0 for a free one\n"
    )
    told = run(str(tmp_path / "nothing"))
    assert told.returncode == 2
    assert "does not exist" in told.stderr


@pytest.mark.parametrize(
    ("text", "mode"), [("short", 0o600), ("0123456789abcdef", 0o644), ("two words and more", 0o600)]
)
def test_token_files_that_are_none(tmp_path, text, mode):
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ValueError, match="token"):
        read_token(file)
    file.write_text("0123456789abcdef-_XYZ\n")
    file.chmod(0o400)
    assert read_token(file) == "0123456789abcdef-_XYZ"


def test_without_a_token_only_this_machine_reaches_it(tmp_path):
    process, line = started(str(tmp_path))
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        assert "?token" not in line
        assert httpx.get(address + "v1/library").status_code == 200
        port = int(address.rsplit(":", 1)[1].strip("/"))
        sockets = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X} 00000000:0000 0A" in sockets, "it listens on 127.0.0.1"
        assert f"00000000:{port:04X} 00000000:0000 0A" not in sockets
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert rest.endswith("rushes: stopped\n")


def test_any_other_address_needs_the_token_that_is_told_once(tmp_path):
    process, line = started(str(tmp_path), "--host", "0.0.0.0")
    try:
        found = re.search(r"http://(\S+):(\d+)/\?token=([\w-]{40,})", line)
        port, token = found[2], found[3]
        base = f"http://127.0.0.1:{port}"
        assert httpx.get(base + "/v1/library").json()["code"] == "no-token"
        assert httpx.get(base + "/v1/library", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        with httpx.Client(base_url=base) as client:
            assert client.get("/", params={"token": token}).status_code == 303
            assert client.get("/v1/library").status_code == 200
            assert client.get("/").status_code == 200
        assert httpx.get(base + "/v1/library", headers={"Host": "evil.example"}).json()["code"] == "wrong-host"
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert token not in rest


def test_queries_are_logged_only_if_asked_for(films):
    for options, logged in (((), False), (("--log-queries",), True)):
        process, line = started(str(films), *options)
        try:
            with httpx.Client(base_url=re.search(r"http://\S+/", line)[0], timeout=60) as client:
                wait_until(lambda client=client: client.get("/readyz").status_code == 200)
                assert client.post("/v1/search", json={"text": "a private matter"}).status_code == 200
        finally:
            process.terminate()
            rest = process.communicate(timeout=60)[1]
        assert ("a private matter" in rest) == logged, rest


def test_the_page_is_there_with_its_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    files = set(re.findall(r'(?:src|href)="([\w./-]+\.(?:js|css|svg))"', page.text))
    assert files
    for file in files:
        answer = client.get(f"/{file}")
        assert answer.status_code == 200, file
        assert client.get(f"/{file}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert not re.search(r"<script>|style=|onclick=|https?://", page.text), "the policy would refuse it"


def test_addresses():
    assert address_of("::1", 80) == "http://[::1]:80/"
    with pytest.raises(OSError, match="no address"):
        bind("nowhere.invalid", 0)
    with pytest.raises(OSError, match="cannot be bound"):
        bind("8.8.8.8", 0)
    bound = bind("127.0.0.1", 0)
    assert not bound.get_inheritable()
    bound.close()
