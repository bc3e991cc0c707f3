"""A small library that is indexed once, apps on it in this process, and real servers on a socket."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import rushes
from rushes.library import Library
from rushes.serve.app import create_app
from rushes.serve.run import Server, bind
from tests.library.conftest import drawn, reels, tiny_model  # noqa: F401  fixtures

CANARY = "the-canary-of-this-test-must-never-be-sung"
BASE = "http://localhost"


@pytest.fixture(scope="session")
def films(tmp_path_factory, reels, tiny_model) -> Path:  # noqa: F811
    """Six reels in a folder with a sub-folder, indexed. Do not change it; `copied` gives one to change."""
    folder = tmp_path_factory.mktemp("served") / "films"
    shutil.copytree(reels, folder)
    (folder / "beach").mkdir()
    names = sorted(path.name for path in folder.glob("*.mp4"))
    (folder / names[-1]).rename(folder / "beach" / names[-1])
    rushes.open(folder).refresh(model=str(tiny_model))
    return folder


@pytest.fixture
def copied(films, tmp_path) -> Path:
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    return folder


@pytest.fixture(scope="session")
def library(films) -> Library:
    return rushes.open(films)


@pytest.fixture(scope="session")
def client(library) -> Iterator[TestClient]:
    """An app without a token, in this process."""
    with TestClient(create_app(library), base_url=BASE, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


@pytest.fixture(scope="session")
def segment(client) -> str:
    return client.post("/v1/search", json={"text": "a dog"}).json()["hits"][0]["segment"]


@pytest.fixture(scope="session")
def video(client) -> str:
    return client.get("/v1/videos").json()["videos"][0]["id"]


def wait_until(true, seconds: float = 240.0) -> None:
    """Until `true()`; AssertionError if that never comes."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


@dataclass
class Live:
    """A server on a socket of this machine."""

    host: str
    port: int
    app: object

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def served(library: Library, **options) -> Iterator[Live]:
    """The server that `rushes serve` runs, in a thread."""
    bound = bind("127.0.0.1", 0)
    app = create_app(library, **options)
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Live("127.0.0.1", bound.getsockname()[1], app)
    finally:
        app.state.service.closing.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"
        bound.close()
