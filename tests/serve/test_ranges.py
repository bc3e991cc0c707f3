"""Ranges of a file: what is served is what lies there, each byte once, and no more than was asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from rushes.serve.problems import Refusal
from rushes.serve.ranges import FileBytes, parse
from rushes.serve.security import Gate, Hosts

BODY = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(BODY)

    async def give(request: Request):
        return FileBytes(path.open("rb"), request, media_type="video/mp4", etag="abc")

    app = Starlette(routes=[Route("/", give, methods=["GET"])], middleware=[Middleware(Gate, hosts=Hosts())])
    return TestClient(app, base_url="http://localhost")


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8))
def test_a_range_holds_the_bytes_that_were_asked_for(size, pairs):
    header = "bytes=" + ",".join(f"{a}-{b}" for a, b in pairs)
    wanted = {byte for a, b in pairs for byte in range(a, min(b + 1, size))}
    if any(b < a for a, b in pairs):
        assert parse(header, size) is None
        return
    if not wanted:
        with pytest.raises(Refusal, match="bad-range"):
            parse(header, size)
        return
    found = parse(header, size)
    assert found is not None
    served = [byte for start, end in found for byte in range(start, end)]
    assert sorted(wanted) == served


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("0-0", 0, 1),
        ("0-1023", 0, 1024),
        ("10-19", 10, 20),
        ("1000-", 1000, 1024),
        ("-24", 1000, 1024),
        ("-9999", 0, 1024),
        ("1023-1023", 1023, 1024),
        ("1000-99999999999999999999999", 1000, 1024),
    ],
)
def test_one_range(client, header, start, end):
    answer = client.get("/", headers={"Range": f"bytes={header}"})
    assert answer.status_code == 206
    assert answer.content == BODY[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1024"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=9999-10000", "bytes=-0", "bytes=99999999999999999999999-"])
def test_beyond_the_end(client, header):
    answer = client.get("/", headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */1024"
    assert answer.json()["code"] == "bad-range"


@pytest.mark.parametrize(
    "header", ["bytes=9-1", "bytes=a-b", "bytes=--1", "bytes=", "bytes=-", "lines=1-2", "bytes=1,2"]
)
def test_what_is_no_range_is_ignored(client, header):
    answer = client.get("/", headers={"Range": header})
    assert answer.status_code == 200
    assert answer.content == BODY


def test_several_ranges(client):
    answer = client.get("/", headers={"Range": "bytes=0-3,900-905,2-8"})
    assert answer.status_code == 206
    boundary = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]{32})", answer.headers["content-type"])[1]
    parts = answer.content.split(f"--{boundary}".encode())
    assert parts[0] == b"\r\n"
    assert parts[-1] == b"--\r\n"
    bodies = [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts[1:-1]]
    assert bodies == [BODY[0:9], BODY[900:906]]
    assert answer.headers["content-length"] == str(len(answer.content))


def test_too_many_ranges(client):
    answer = client.get("/", headers={"Range": "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 18, 2))})
    assert answer.status_code == 416


def test_head_has_the_headers_and_no_body(client):
    whole, head = client.get("/"), client.head("/")
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "etag", "accept-ranges", "content-type"):
        assert head.headers[name] == whole.headers[name]
    assert client.head("/", headers={"Range": "bytes=0-1"}).status_code == 200


def test_validators(client):
    assert client.get("/").headers["etag"] == '"abc"'
    assert client.get("/", headers={"If-None-Match": '"x", W/"abc"'}).status_code == 304
    assert client.get("/", headers={"If-None-Match": '"x"'}).status_code == 200
    partial = {"Range": "bytes=0-1"}
    assert client.get("/", headers=partial | {"If-Range": '"abc"'}).status_code == 206
    assert client.get("/", headers=partial | {"If-Range": '"other"'}).status_code == 200
    assert client.get("/", headers=partial | {"If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}).status_code == 200
