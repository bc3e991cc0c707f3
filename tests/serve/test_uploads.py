"""Uploads: received, looked at, searched with, forgotten; bounded in number, bytes and time."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from rushes.serve.limits import Limits
from rushes.serve.problems import Refusal
from rushes.serve.uploads import PREFIX, Uploads, receive
from tests.serve.test_api import problem, search
from tests.serve.wire import form


@pytest.fixture(scope="module")
def picture() -> bytes:
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.imencode(".png", cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_NEAREST))[1].tobytes()


def send(client, content: bytes, name: str = "a.png"):
    return client.post("/v1/uploads", files={"file": (name, content)})


def test_a_picture_to_search_with(client, picture):
    told = send(client, picture)
    assert told.status_code == 201
    upload = told.json()
    assert (upload["kind"], upload["width"], upload["height"], upload["seconds"]) == ("image", 160, 120, None)
    alone = search(client, image=upload["id"], limit=100)["hits"]
    both = search(client, image=upload["id"], text="a dog", limit=100)["hits"]
    weighed = search(client, parts=[{"image": upload["id"], "weight": 0.5}, {"text": "a dog"}], limit=100)["hits"]
    orders = [[hit["segment"] for hit in hits] for hits in (alone, both, weighed)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    problem(client.post("/v1/search", json={"video": upload["id"]}), 422, "bad-query")
    assert client.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    problem(client.post("/v1/search", json={"image": upload["id"]}), 404, "unknown-upload")
    problem(client.delete(f"/v1/uploads/{upload['id']}"), 404, "unknown-upload")


def test_a_frame_of_the_library_finds_its_moment(client, video):
    frame = client.get(f"/v1/videos/{video}/frame", params={"t": 0.5}).content
    upload = send(client, frame, "frame.jpg").json()["id"]
    best = search(client, image=upload)["hits"][0]
    assert best["video"]["id"] == video
    assert best["start"] <= 0.5 <= best["end"]


def test_a_clip_to_search_with(client, video):
    clip = client.get(f"/v1/videos/{video}/clip", params={"start": 1.0, "end": 4.0}).content
    upload = send(client, clip, "clip.mp4").json()
    assert upload["kind"] == "video"
    assert upload["seconds"] == pytest.approx(3.0, abs=0.3)
    told = search(client, video=upload["id"])
    best = told["hits"][0]
    assert best["video"]["id"] == video
    assert best["start"] == pytest.approx(1.0, abs=1.5)
    assert 0 <= best["of_query"]["start"] < best["of_query"]["end"] <= 3.5
    problem(client.post("/v1/search", json={"image": upload["id"]}), 422, "bad-query")
    problem(client.post("/v1/search", json={"video": upload["id"], "text": "a dog"}), 422, "bad-query")


@pytest.mark.parametrize(("content", "code"), [(b"no picture", "not-media"), (b"\x89PNG\r\n\x1a\n cut", "not-media")])
def test_what_is_no_picture(client, content, code):
    held = len(client.app.state.service.uploads)
    told = problem(send(client, content), 415, code)
    assert told["reason"] in ("unsupported", "unreadable")
    assert len(client.app.state.service.uploads) == held


def test_the_folder_is_ours_alone_and_goes(picture):
    uploads = Uploads(Limits())
    assert stat.S_IMODE(uploads.folder.stat().st_mode) == 0o700
    path = uploads.new_path()
    asyncio.run(receive(pieces(form(picture)), "multipart/form-data; boundary=edge", path, 1 << 20))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == picture
    assert uploads.keep(path).kind == "image"
    uploads.close()
    assert not uploads.folder.exists()


async def pieces(body: bytes, size: int = 1 << 16):
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_however_the_form_is_cut(tmp_path, picture, size):
    content = picture[:500] + b"\r\n--edge\r\n--edg" + b"\r\n-"  # what only looks like a border
    content = content.replace(b"\r\n--edge\r\n", b"\r\n--edgy\r\n")
    asyncio.run(receive(pieces(form(content), size), "multipart/form-data; boundary=edge", tmp_path / "a", 1 << 20))
    assert (tmp_path / "a").read_bytes() == content


def test_a_file_beyond_the_limit_is_cut_off_at_once(tmp_path):
    read = []

    async def endless():
        yield form(b"")[: -len(b"\r\n--edge--\r\n")]
        while True:
            read.append(1)
            yield b"\0" * 1000

    with pytest.raises(Refusal, match="too-large"):
        asyncio.run(receive(endless(), "multipart/form-data; boundary=edge", tmp_path / "a", 10_000))
    assert len(read) <= 12
    assert (tmp_path / "a").stat().st_size <= 10_000


def test_number_bytes_and_age_are_bounded(picture):
    def add(uploads: Uploads) -> str:
        uploads.reserve()
        try:
            path = uploads.new_path()
            path.write_bytes(picture)
            return uploads.keep(path).id
        finally:
            uploads.release()

    uploads = Uploads(Limits(uploads=2, upload_lifetime=1000.0))
    first = add(uploads)
    add(uploads)
    with pytest.raises(Refusal, match="uploads-full"):
        add(uploads)
    uploads.drop(first)
    add(uploads)
    uploads.close()

    uploads = Uploads(Limits(uploads_bytes=len(picture)))
    add(uploads)
    with pytest.raises(Refusal, match="uploads-full"):
        add(uploads)
    uploads.close()

    uploads = Uploads(Limits(upload_lifetime=0.0))
    old = add(uploads)
    with pytest.raises(Refusal, match="unknown-upload"):
        uploads.get(old)
    uploads.expire()
    assert [path.name for path in uploads.folder.iterdir()] == ["lock"]
    uploads.close()


def test_pixels_and_seconds_are_bounded(picture, films):
    uploads = Uploads(Limits(upload_pixels=100, upload_seconds=1.0))
    for content, reason in ((picture, "too-many-pixels"), (next(films.glob("*.mp4")).read_bytes(), "too-")):
        path = uploads.new_path()
        path.write_bytes(content)
        with pytest.raises(Refusal, match="bad-media") as refused:
            uploads.keep(path)
        assert refused.value.more["reason"].startswith(reason)
        assert str(path) not in refused.value.detail
        assert path.name not in refused.value.detail
    uploads.close()


def test_what_a_killed_server_left_is_swept_and_what_a_living_one_holds_is_not():
    code = "import sys, time; from rushes.serve.uploads import Uploads; from rushes.serve.limits import Limits\n"
    code += "u = Uploads(Limits()); (u.folder / 'a').write_text('a'); print(u.folder, flush=True); time.sleep(600)"
    killed, living = (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    left, held = killed.stdout.readline().strip(), living.stdout.readline().strip()
    try:
        killed.kill()
        killed.communicate()
        assert os.path.basename(left).startswith(PREFIX)
        assert os.path.exists(left)
        Uploads(Limits()).close()
        assert not os.path.exists(left)
        assert os.path.exists(os.path.join(held, "a"))
    finally:
        living.terminate()
        living.communicate()
    time.sleep(0.1)
    Uploads(Limits()).close()
    assert not os.path.exists(held)
