"""Requests that nobody honest sends, against a real server: each has its refusal, and nothing outside is ever read."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import zlib
from pathlib import Path

import pytest

import rushes
from rushes.serve.limits import Limits
from tests.serve.conftest import CANARY, served
from tests.serve.wire import chunked, form, post, request, say, upload

TOKEN = "a-token-of-this-test-0123456789"
LIMITS = Limits(upload_bytes=300_000, rate=10_000, burst=10_000, body_patience=1.0, uploads=8)
JSON = {"Content_Type": "application/json"}
ID = "0" * 32


class Watch:
    """Which files this process has opened since it was made: an audit hook, which Python cannot take off again."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.on = True
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.on and event == "open" and isinstance(arguments[0], (str, bytes)):
            self.opened.add(os.path.abspath(os.fsdecode(arguments[0])))


@pytest.fixture(scope="module")
def place(films, tmp_path_factory) -> Path:
    """A copy of the library, with a canary beside it."""
    import shutil

    place = tmp_path_factory.mktemp("hostile")
    shutil.copytree(films, place / "films")
    (place / "canary.txt").write_text(CANARY)
    (place / "canary.mp4").write_text(CANARY * 100)
    return place


@pytest.fixture(scope="module")
def watch(place) -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def live(place, watch):
    with served(rushes.open(place / "films"), limits=LIMITS) as live:
        ready = post("/v1/search", {"text": "a dog"})
        assert say(live.host, live.port, ready).status == 200
        yield live
        watch.on = False


@pytest.fixture(scope="module")
def locked(place):
    with served(rushes.open(place / "films"), limits=LIMITS, token=TOKEN) as live:
        yield live


@pytest.fixture(scope="module")
def name(live) -> str:
    return json.loads(say(live.host, live.port, request("GET", "/v1/videos")).body)["videos"][0]["id"]


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that says it is this large, whatever is in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


BOMB = png(40_000, 40_000, b"\0" * 2_000_000)
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{canary}\n#EXT-X-ENDLIST\n"
SVG = f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>{"&x;" * 9}</svg>'
DEEP = b'{"parts":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
SEARCH = "/v1/search"
TEXT = {"text": "a dog"}

# what is said, and the codes that may answer it; a number alone is an answer of the HTTP parser, before any route
TABLE: dict[str, tuple[bytes, tuple[str | int, ...]]] = {
    # paths
    "dots": (request("GET", "/v1/videos/../../../../../canary.txt"), ("not-found",)),
    "dots at the root": (request("GET", "/../../../../../../etc/passwd"), ("not-found",)),
    "escaped slashes": (request("GET", "/v1/videos/..%2f..%2f..%2fcanary.txt/stream"), ("not-found",)),
    "all escaped": (request("GET", "/v1/videos/%2e%2e%2f%2e%2e%2fcanary.txt/stream"), ("not-found",)),
    "escaped twice": (request("GET", "/v1/videos/%252e%252e%252fcanary.txt/stream"), ("invalid",)),
    "four dots": (request("GET", "/v1/videos/....//....//canary.txt/stream"), ("not-found",)),
    "backslashes": (request("GET", "/v1/videos/..\\..\\canary.txt/stream"), ("invalid",)),
    "escaped backslashes": (request("GET", "/v1/videos/..%5c..%5ccanary.txt/stream"), ("invalid",)),
    "overlong dots": (request("GET", "/v1/videos/%c0%ae%c0%ae%c0%afcanary.txt/stream"), ("invalid",)),
    "two slashes": (request("GET", "//etc/passwd"), ("not-found",)),
    "an absolute path as an id": (request("GET", "/v1/videos/%2fetc%2fpasswd/stream"), ("not-found",)),
    "a drive": (request("GET", "/v1/videos/C:%5cboot.ini/stream"), ("invalid",)),
    "an address as an id": (request("GET", "/v1/videos/file:%2f%2f%2fetc%2fpasswd/stream"), ("not-found",)),
    "a null byte": (request("GET", f"/v1/videos/{ID}%00.mp4/stream"), ("invalid",)),
    "a name as an id": (request("GET", "/v1/videos/reel00000.mp4/stream"), ("invalid",)),
    "capitals in an id": (request("GET", f"/v1/videos/{'A' * 32}/stream"), ("invalid",)),
    "digits of another script": (request("GET", "/v1/videos/" + "%D9%A1" * 32), ("invalid",)),
    "an id and a line end": (request("GET", f"/v1/videos/{ID}%0a"), ("invalid",)),
    "a matrix parameter": (request("GET", "/v1/videos/..;/..;/canary.txt"), ("not-found",)),
    "dots for a thumbnail": (request("GET", "/v1/thumbnails/..%2f..%2fsettings.json.webp"), ("not-found",)),
    "a thumbnail that is none": (request("GET", "/v1/thumbnails/settings.webp"), ("invalid",)),
    "the page's neighbours": (request("GET", "/../security.py"), ("not-found",)),
    "the page's neighbours, escaped": (request("GET", "/%2e%2e/security.py"), ("not-found",)),
    "the page's neighbours, in between": (request("GET", "/app.js/../../security.py"), ("not-found",)),
    "hidden files": (request("GET", "/.git/config"), ("not-found",)),
    "the store": (request("GET", "/.rushes/settings.json"), ("not-found",)),
    "an absolute address": (request("GET", "http://evil.example/v1/library"), ("not-found",)),
    "a job's neighbours": (request("GET", "/v1/jobs/..%2f..%2fsettings"), ("not-found",)),
    "a job that is a path": (request("GET", "/v1/jobs/....settings....."), ("invalid",)),
    "an upload that is a path": (request("DELETE", "/v1/uploads/..%2f..%2fcanary"), ("not-found",)),
    "a folder that leads out": (request("GET", "/v1/videos?folder=../../"), (200,)),  # and finds nothing, see below
    "a folder with a null byte": (request("GET", "/v1/videos?folder=a%00b"), ("invalid",)),
    "a path as an image": (post(SEARCH, {"image": "/etc/passwd"}), ("invalid",)),
    "an address as a video": (post(SEARCH, {"video": "http://127.0.0.1/"}), ("invalid",)),
    "an unknown field": (post(SEARCH, {"text": "x", "path": "/etc/passwd"}), ("invalid",)),
    "an endless address": (request("GET", "/v1/videos?folder=" + "a" * 8000), ("address-too-long",)),
    # hosts
    "another name": (request("GET", "/v1/library", host="evil.example"), ("wrong-host",)),
    "another name with our port": (request("GET", "/v1/library", host="evil.example:80"), ("wrong-host",)),
    "our name before theirs": (request("GET", "/v1/library", host="localhost.evil.example"), ("wrong-host",)),
    "our address before theirs": (request("GET", "/v1/library", host="127.0.0.1.evil.example"), ("wrong-host",)),
    "a user in the host": (request("GET", "/v1/library", host="localhost@evil.example"), ("wrong-host",)),
    "two ports": (request("GET", "/v1/library", host="localhost:80:80"), ("wrong-host",)),
    "a broken address": (request("GET", "/v1/library", host="[::1"), ("wrong-host",)),
    "another address": (request("GET", "/v1/library", host="10.0.0.1"), ("wrong-host",)),
    "our address in other digits": (request("GET", "/v1/library", host="0x7f.1"), ("wrong-host",)),
    "a dot at the end": (request("GET", "/v1/library", host="localhost."), ("wrong-host",)),
    "an empty host": (request("GET", "/v1/library", host=""), ("wrong-host",)),
    "no host": (request("GET", "/v1/library", host=None), (400,)),
    "two hosts": (request("GET", "/v1/library", hOST="evil.example"), (400,)),
    "a forwarded host": (
        request("GET", "/v1/library", host="evil.example", X_Forwarded_Host="localhost"),
        ("wrong-host",),
    ),
    "rebinding, origin and all": (
        post(SEARCH, TEXT, host="evil.example", Origin="http://evil.example", Sec_Fetch_Site="same-origin"),
        ("wrong-host",),
    ),
    # other sites
    "another origin": (post(SEARCH, TEXT, Origin="http://evil.example"), ("cross-site",)),
    "no origin to speak of": (post(SEARCH, TEXT, Origin="null"), ("cross-site",)),
    "another port's origin": (post(SEARCH, TEXT, Origin="http://localhost:1"), ("cross-site",)),
    "an origin that begins like ours": (post(SEARCH, TEXT, Origin="http://localhost.evil.example"), ("cross-site",)),
    "two origins": (post(SEARCH, TEXT, Origin="http://localhost", oRIGIN="http://evil.example"), ("bad-request",)),
    "another site reads": (request("GET", "/v1/videos", Sec_Fetch_Site="cross-site"), ("cross-site",)),
    "another port reads": (request("GET", "/v1/videos", Sec_Fetch_Site="same-site"), ("cross-site",)),
    "another site's link into the API": (
        request("GET", "/v1/videos", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"),
        ("cross-site",),
    ),
    "another site starts a job": (post("/v1/jobs", {}, Sec_Fetch_Site="cross-site"), ("cross-site",)),
    "a form of another site": (
        request("POST", "/v1/jobs", b"kind=index", Content_Type="application/x-www-form-urlencoded"),
        ("wrong-type",),
    ),
    "JSON as text": (request("POST", "/v1/jobs", b"{}", Content_Type="text/plain"), ("wrong-type",)),
    "JSON as nothing": (request("POST", "/v1/jobs", b"{}"), ("wrong-type",)),
    "JSON in a form": (
        request("POST", SEARCH, form(b"{}"), Content_Type="multipart/form-data; boundary=edge"),
        ("wrong-type",),
    ),
    "a preflight": (
        request("OPTIONS", SEARCH, Origin="http://evil.example", Access_Control_Request_Method="POST"),
        ("wrong-method",),
    ),
    # ranges: of a file that is there, see `name`
    "a range beyond the end": (request("GET", "/v1/videos/NAME/stream", Range="bytes=999999999-"), ("bad-range",)),
    "a range of nothing": (request("GET", "/v1/videos/NAME/stream", Range="bytes=-0"), ("bad-range",)),
    "a thousand ranges": (
        request("GET", "/v1/videos/NAME/stream", Range="bytes=" + ",".join(["0-"] * 1000)),
        ("bad-range",),
    ),
    "huge numbers in a range": (
        request("GET", "/v1/videos/NAME/stream", Range=f"bytes={'9' * 90}-{'9' * 91}"),
        ("bad-range",),
    ),
    "two range headers": (
        request("GET", "/v1/videos/NAME/stream", Range="bytes=0-1", rANGE="bytes=2-3"),
        ("bad-request",),
    ),
    # bodies
    "a large body": (post(SEARCH, {"text": "x" * 70_000}), ("too-large",)),
    "a large body without a length": (chunked("POST", SEARCH, [b'"' + b"x" * 40_000] * 3, **JSON), ("too-large",)),
    "a body that says it is huge": (post(SEARCH, b"", Content_Length="99999999999"), ("too-large",)),
    "an absurd length": (post(SEARCH, b"", Content_Length="9" * 30), ("too-large", 400)),
    "a negative length": (post(SEARCH, b"", Content_Length="-1"), (400,)),
    "a length that is no number": (post(SEARCH, b"", Content_Length="ten"), (400,)),
    "two lengths": (post(SEARCH, b"{}", cONTENT_LENGTH="5"), (400,)),
    "a length and chunks": (post(SEARCH, b"{}", Transfer_Encoding="chunked"), ("bad-request", 400)),
    "an unknown encoding": (post(SEARCH, b"{}", Transfer_Encoding="gzip", length=False), (400, 501)),  # type: ignore[arg-type]
    "a body that stops coming": (post(SEARCH, b'{"te', Content_Length="500", length=False), ("slow-body",)),  # type: ignore[arg-type]
    "a packed body": (post(SEARCH, zlib.compress(b"{}"), Content_Encoding="deflate"), ("wrong-type",)),
    "no body": (request("POST", SEARCH, **JSON), ("invalid",)),
    "broken JSON": (post(SEARCH, b'{"text": '), ("bad-request",)),
    "no UTF-8": (post(SEARCH, b'{"text": "\xff\xfe"}'), ("bad-request",)),
    "deep JSON": (post(SEARCH, DEEP), ("bad-request", "invalid")),
    "a list": (post(SEARCH, b"[]"), ("invalid",)),
    "a number": (post(SEARCH, b"7"), ("invalid",)),
    "NaN": (post(SEARCH, b'{"parts": [{"text": "x", "weight": NaN}]}'), ("invalid",)),
    "Infinity": (post(SEARCH, b'{"text": "x", "where": {"min_seconds": Infinity}}'), ("invalid",)),
    "a number beyond all numbers": (post(SEARCH, b'{"text": "x", "min_confidence": 1e999}'), ("invalid",)),
    "a huge integer": (post(SEARCH, b'{"text": "x", "limit": ' + b"9" * 400 + b"}"), ("invalid",)),
    "an integer too long to read": (
        post(SEARCH, b'{"text": "x", "limit": ' + b"9" * 5000 + b"}"),
        ("bad-request", "invalid"),
    ),
    "a flag as a number": (post(SEARCH, {"text": "x", "merge": 1}), ("invalid",)),
    "half a character": (post(SEARCH, b'{"text": "\\ud800"}'), ("invalid",)),
    "a null byte in a text": (post(SEARCH, b'{"text": "a\\u0000b"}'), ("invalid",)),
    "a quote in a tag": (post(SEARCH, {"text": "x", "where": {"tags": ["' OR 1=1 --"]}}), (200,)),  # and finds nothing
    "a quote in an id": (post(SEARCH, {"text": "x", "where": {"videos": ["' OR '1'='1"]}}), ("invalid",)),
    "a text too long": (post(SEARCH, {"text": "x" * 501}), ("invalid",)),
    "too many parts": (post(SEARCH, {"parts": [{"text": "x"}] * 11}), ("invalid",)),
    "a day that is none": (post(SEARCH, {"text": "x", "where": {"after": "2024-02-30"}}), ("invalid",)),
    "a day as a number": (post(SEARCH, {"text": "x", "where": {"after": 0}}), ("invalid",)),
    "a day before all days": (post(SEARCH, {"text": "x", "where": {"after": "0001-01-01"}}), (200,)),
    # cursors
    "a made-up cursor": (post(SEARCH, {"cursor": "A" * 48}), ("cursor-expired",)),
    "a short cursor": (post(SEARCH, {"cursor": "A"}), ("cursor-expired",)),
    "a pickle as a cursor": (post(SEARCH, {"cursor": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"}), ("cursor-expired",)),
    "a cursor with dots": (post(SEARCH, {"cursor": "../../etc/passwd"}), ("invalid",)),
    # uploads
    "an upload that is JSON": (request("POST", "/v1/uploads", b"{}", **JSON), ("wrong-type",)),
    "an upload that says it is huge": (upload(b"", Content_Length="999999999"), ("too-large",)),
    "an upload that is large": (upload(form(b"\0" * 400_000)), ("too-large",)),
    "a large upload without a length": (
        chunked(
            "POST", "/v1/uploads", [form(b"\0" * 400_000)], Content_Type="multipart/form-data; boundary=edge"
        ),
        ("too-large",),
    ),
    "no boundary": (upload(form(b"x"), Content_Type="multipart/form-data"), ("bad-request",)),
    "another boundary": (upload(form(b"x", boundary="other")), ("bad-request",)),
    "half a form": (upload(form(b"x")[:-9]), ("bad-request",)),
    "two files": (upload(form(b"x", times=2)), ("bad-request",)),
    "another field": (upload(form(b"x", name="path")), ("bad-request",)),
    "endless headers of a part": (upload(form(b"x", filename="a" * 9000)), ("bad-request",)),
    "a file of nothing": (upload(form(b"")), ("not-media",)),
    "a text as a picture": (upload(form(CANARY.encode(), filename="../../../a.png")), ("not-media",)),
    "a playlist as a video": (upload(form(PLAYLIST.encode(), filename="a.mp4")), ("not-media",)),
    "a list of files as a video": (upload(form(b"ffconcat version 1.0\nfile {canary}\n")), ("not-media",)),
    "a drawing that reads files": (upload(form(SVG.encode(), filename="a.svg")), ("not-media",)),
    "a picture that grows": (upload(form(BOMB)), ("bad-media",)),
    "half a picture": (upload(form(BOMB[:60])), ("not-media", "bad-media")),
    "a picture without end": (upload(form(png(1, 9000, b"\0" * 10))), ("not-media", "bad-media")),
    # the protocol
    "another method over this one": (
        request("POST", f"/v1/uploads/{ID}", X_HTTP_Method_Override="DELETE", Content_Length="0"),
        ("wrong-method",),
    ),
    "TRACE": (request("TRACE", "/v1/library"), ("wrong-method",)),
    "CONNECT": (request("CONNECT", "localhost:22"), ("not-found", "wrong-method", 400)),
    "DELETE of a video": (request("DELETE", f"/v1/videos/{ID}"), ("wrong-method",)),
    "an unknown method": (request("BREW", "/v1/search"), ("wrong-method",)),
    "a web socket": (
        request("GET", "/v1/library", Upgrade="websocket", Sec_WebSocket_Key="x", Sec_WebSocket_Version="13"),
        ("no-upgrade",),
    ),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ("wrong-host", 400, 505)),
    "no version": (b"GET /\r\n\r\n", (400,)),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40 + b"\r\n\r\n", (400,)),
    "a folded header": (request("GET", "/v1/library", X_A="a\r\n b: c"), (200, 400)),  # one value, as h11 reads it
    "a null byte in a header": (request("GET", "/v1/library", X_A="a\0b"), (400,)),
    "a bare line end in a header": (request("GET", "/v1/library", X_A="a\nSet-Cookie: b=c"), (200, 400)),
    "a line end in a path": (request("GET", "/v1/videos/a%0d%0aSet-Cookie:%20b=c"), ("invalid",)),
    "a line end in a key": (post("/v1/jobs", {}, Idempotency_Key="a b"), ("invalid",)),
    "a large header": (request("GET", "/v1/library", X_A="a" * 14_000), ("headers-too-large", 400)),
    "an endless header": (request("GET", "/v1/library", X_A="a" * 70_000), ("headers-too-large", 400)),
    "very many headers": (
        request("GET", "/v1/library", **{f"X_{n}": "a" for n in range(2000)}),
        ("headers-too-large", 400),
    ),
}  # fmt: skip

LOCKED: dict[str, tuple[bytes, tuple[str | int, ...]]] = {
    "no token": (request("GET", "/v1/library"), ("no-token",)),
    "no token for the page": (request("GET", "/"), ("no-token",)),
    "no token for the metrics": (request("GET", "/metrics"), ("no-token",)),
    "no token for what is not there": (request("GET", "/v1/nothing"), ("no-token",)),
    "another token": (request("GET", "/v1/library", Authorization="Bearer wrong"), ("bad-token",)),
    "an empty token": (request("GET", "/v1/library", Authorization="Bearer "), ("bad-token",)),
    "half a token": (request("GET", "/v1/library", Authorization=f"Bearer {TOKEN[:-1]}"), ("bad-token",)),
    "a token and more": (request("GET", "/v1/library", Authorization=f"Bearer {TOKEN}x"), ("bad-token",)),
    "a token in another scheme": (request("GET", "/v1/library", Authorization=f"Basic {TOKEN}"), ("bad-token",)),
    "a token of no letters": (request("GET", "/v1/library", Authorization="Bearer \xe9\xff"), ("bad-token",)),
    "a token in the address": (request("GET", f"/v1/library?token={TOKEN}"), ("no-token",)),
    "a token in another header": (request("GET", "/v1/library", X_Token=TOKEN), ("no-token",)),
    "a token in a body": (post(SEARCH, {"token": TOKEN}), ("no-token",)),
    "a token in another cookie": (request("GET", "/v1/library", Cookie=f"token={TOKEN}"), ("no-token",)),
    "two authorizations": (
        request("GET", "/v1/library", Authorization="Bearer wrong", aUTHORIZATION=f"Bearer {TOKEN}"),
        ("bad-request",),
    ),
    "a wrong token at the door": (request("GET", "/?token=wrong"), ("bad-token",)),
    "two tokens at the door": (request("GET", f"/?token=wrong&token={TOKEN}"), ("bad-token",)),
    "the right token from another name": (request("GET", f"/?token={TOKEN}", host="evil.example"), ("wrong-host",)),
    "a post at the door": (request("POST", f"/?token={TOKEN}", Origin="http://evil.example"), ("no-token",)),
}  # fmt: skip


def refused(live, said: bytes, wanted: tuple[str | int, ...], place: Path, name: str = "") -> None:
    said = said.replace(b"NAME", name.encode())
    if b"{canary}" in said:
        body = said.partition(b"\r\n\r\n")[2].replace(b"{canary}", str(place / "canary.mp4").encode())
        said = upload(body)
    answer = say(live.host, live.port, said)
    told = answer.status
    if answer.headers.get("content-type") == "application/problem+json":
        told = answer.problem()["code"]
        assert answer.problem()["status"] == answer.status
        for header in ("content-security-policy", "x-content-type-options", "cross-origin-resource-policy"):
            assert header in answer.headers
    assert told in wanted, answer.raw[:500]
    assert CANARY.encode() not in answer.raw
    assert b"root:" not in answer.raw
    assert str(place).encode() not in answer.raw
    assert b"set-cookie" not in answer.raw.lower().split(b"\r\n\r\n")[0]
    assert b"access-control" not in answer.raw.lower()


def test_there_are_many():
    assert len(TABLE) + len(LOCKED) >= 100


@pytest.mark.parametrize("what", TABLE)
def test_refused(live, place, name, what):
    refused(live, *TABLE[what], place, name)


@pytest.mark.parametrize("what", LOCKED)
def test_refused_without_the_token(locked, place, what):
    refused(locked, *LOCKED[what], place)


def test_the_token_opens(locked):
    opened = say(locked.host, locked.port, request("GET", f"/?token={TOKEN}"))
    assert opened.status == 303
    assert opened.headers["location"] == "/"
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    pair = cookie.partition(";")[0]
    for headers in ({"Cookie": pair}, {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"bearer {TOKEN}"}):
        assert say(locked.host, locked.port, request("GET", "/v1/library", **headers)).status == 200
    assert say(locked.host, locked.port, request("GET", "/healthz")).status == 200
    # the cookie goes with no request that another site made, and would not be enough for one
    cross = request("GET", "/v1/library", Cookie=pair, Sec_Fetch_Site="cross-site")
    assert say(locked.host, locked.port, cross).problem()["code"] == "cross-site"


def test_folders_and_quotes_find_nothing(live):
    told = json.loads(say(live.host, live.port, request("GET", "/v1/videos?folder=../../")).body)
    assert told["total"] == 0
    asked = post(SEARCH, {"text": "x", "where": {"tags": ["' OR 1=1 --"]}})
    assert json.loads(say(live.host, live.port, asked).body)["total"] == 0


@pytest.mark.parametrize("trick", ["link", "link to a folder", "pipe", "folder", "device"])
def test_a_file_that_was_swapped_is_not_served(live, place, trick):
    """After indexing, a film becomes something that leads out of the folder."""
    told = json.loads(say(live.host, live.port, request("GET", "/v1/videos?folder=beach")).body)["videos"][0]
    path, kept = place / "films" / "beach" / told["name"], place / "kept.mp4"
    path.rename(kept)
    try:
        if trick == "link":
            path.symlink_to(place / "canary.mp4")
        elif trick == "link to a folder":
            (place / "films" / "beach").rename(place / "films" / "was")
            (place / "other").mkdir()
            (place / "other" / told["name"]).write_text(CANARY)
            (place / "films" / "beach").symlink_to(place / "other")
        elif trick == "pipe":
            os.mkfifo(path)
        elif trick == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        for rest in ("stream", "frame?t=0.25", "clip?start=0.1&end=0.6"):
            began = time.monotonic()
            answer = say(live.host, live.port, request("GET", f"/v1/videos/{told['id']}/{rest}"))
            assert answer.problem()["code"] in ("outside", "video-gone"), answer.raw
            assert CANARY.encode() not in answer.raw
            assert time.monotonic() - began < 10
    finally:
        if trick == "link to a folder":
            (place / "films" / "beach").unlink()
            (place / "films" / "was").rename(place / "films" / "beach")
        elif path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        kept.rename(path)
    assert say(live.host, live.port, request("GET", f"/v1/videos/{told['id']}/stream")).status == 200


def test_a_link_inside_the_library_at_indexing_leads_nowhere(place, tiny_model, films):
    """A link out of the folder is no video; a playlist with a film's ending is a failure, and opens nothing."""
    import shutil

    folder = place / "linked"
    folder.mkdir()
    shutil.copy(films / "beach" / next((films / "beach").iterdir()).name, folder / "good.mp4")
    (folder / "canary.mp4").symlink_to(place / "canary.mp4")
    (folder / "list.mp4").write_text(PLAYLIST.replace("{canary}", str(place / "canary.mp4")))
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {place / 'canary.mp4'}\n")
    (folder / "list.m3u8").write_text(PLAYLIST.replace("{canary}", str(place / "canary.mp4")))
    library = rushes.open(folder, place / "store of linked")
    library.refresh(model=str(tiny_model))
    with served(library, limits=LIMITS) as live:
        videos = say(live.host, live.port, request("GET", "/v1/videos"))
        failures = say(live.host, live.port, request("GET", "/v1/failures"))
        found = {one["name"]: one for one in json.loads(videos.body)["videos"]}
        assert found["good.mp4"]["status"] == "done"
        assert all(one["status"] == "failed" for name, one in found.items() if name != "good.mp4")
        for one in found.values():
            stream = say(live.host, live.port, request("GET", f"/v1/videos/{one['id']}/stream"))
            assert CANARY.encode() not in stream.raw
        for answer in (videos, failures):
            assert CANARY.encode() not in answer.raw
            assert str(place).encode() not in answer.raw


def test_an_upload_that_is_cut_off_leaves_nothing(live):
    uploads = live.app.state.service.uploads
    before = set(uploads.folder.iterdir())
    head = upload(b"", Content_Length="200000")
    assert say(live.host, live.port, head + form(b"\0" * 1000)[:600], shut=True, seconds=5).status in (0, 400)
    for _ in range(100):
        if set(uploads.folder.iterdir()) == before:
            break
        time.sleep(0.05)
    assert set(uploads.folder.iterdir()) == before


def test_nothing_outside_was_ever_opened(live, place, watch, name):
    """Runs last: over all of the above, this process opened no file that it had no business with."""
    assert say(live.host, live.port, request("GET", f"/v1/videos/{name}/stream")).status == 200
    assert any(path.startswith(str(place / "films")) for path in watch.opened), "the watch saw nothing"
    read = {path for path in watch.opened if "canary" in os.path.basename(path)}
    assert read <= {str(place / "linked" / "canary.mp4")}, "only the link itself may have been tried, never followed"
    assert "/etc/passwd" not in watch.opened
    assert say(live.host, live.port, request("GET", "/healthz")).status == 200
