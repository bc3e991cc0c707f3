"""What a library shows of its videos is of those videos, made once, and never of anything else."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rushes
from rushes.library import media as media_module
from rushes.library.confined import confined, inside
from rushes.library.media import _Recent, media_type, playable
from rushes.video import clip as clips
from rushes.video.probe import Kind, VideoError, probe
from tests import chromium
from tests.video.films import draw, film, number_of


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two films whose frames carry their numbers: 8 s in two scenes, the first after a black second; and 3 s."""
    folder = tmp_path_factory.mktemp("numbered")

    def late(number):
        return draw(number, 320, 180, scene=int(number >= 120)) * np.uint8(number >= 30)

    film(folder / "a.mp4", frames=240, picture=late, audio=8.0)
    (folder / "deep").mkdir()
    film(folder / "deep/b.mkv", frames=90, cuts=(45,), size=(192, 108))
    return folder


@pytest.fixture(scope="module")
def indexed(made, tiny_model, tmp_path_factory) -> Path:
    """Their store."""
    store = tmp_path_factory.mktemp("store") / "s"
    rushes.open(made, store).refresh(model=str(tiny_model))
    return store


@pytest.fixture
def library(made, indexed, tmp_path):
    """A copy of both, to do with as one likes."""
    shutil.copytree(made, tmp_path / "videos")
    shutil.copytree(indexed, tmp_path / "videos/.rushes")
    found = rushes.open(tmp_path / "videos")
    found.refresh()
    return found


def ids(library) -> dict[str, str]:
    return {row.path: row.fingerprint for row in library._files.all()}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# ------------------------------------------------------------------ thumbnails


def test_every_segment_has_a_thumbnail_of_its_own(library):
    names, black = {}, ids(library)["a.mp4"]
    for segment in library.index.segments():
        data = library.thumbnail(segment.id)
        assert Image.open(io.BytesIO(data)).format == "WEBP"
        number = number_of(pixels(data))
        assert segment.start <= number / 30 + 0.001 < segment.end
        if segment.video == black and segment.end > 1.1:
            assert number >= 30  # not of its black second
        names[segment.id] = library.thumbnail_name(segment.id)
        assert library.media.named(names[segment.id]) == data
    assert library.media.thumbnail_names(names) == names
    assert len(set(names.values())) == len(names) >= 4


def test_a_thumbnail_needs_no_video_any_more(library):
    segment = library.index.segments()[0]
    data = library.thumbnail(segment.id)
    shutil.rmtree(library.folder / "deep")
    (library.folder / "a.mp4").unlink()
    assert library.thumbnail(segment.id) == data


def test_names_that_are_none_give_nothing(library):
    (library.store / "secret.webp").write_text("the secret")
    for name in ("../secret.webp", "../../secret.webp", "", "a.webp", f"{'0' * 32}.webp", f"{'0' * 32}.webp/"):
        assert library.media.named(name) is None
    with pytest.raises(LookupError, match="no segment 'nothing'"):
        library.thumbnail("nothing")
    assert library.thumbnail_name("nothing") is None


def test_an_index_from_before_there_were_thumbnails_makes_them_when_asked(library):
    wanted = {segment.id: library.thumbnail(segment.id) for segment in library.index.segments()}
    shutil.rmtree(library.store / "thumbnails")
    shutil.rmtree(library.store / "thumbnails.lance")
    old = rushes.open(library.folder)
    for segment, before in wanted.items():
        assert old.thumbnail_name(segment) is None
        again = old.thumbnail(segment)
        assert abs(number_of(pixels(again)) - number_of(pixels(before))) < 150
        assert old.media.named(old.thumbnail_name(segment)) == again  # kept
    (old.folder / "a.mp4").unlink()
    shutil.rmtree(library.store / "thumbnails")
    gone = [segment.id for segment in old.index.segments() if segment.video == ids(old)["a.mp4"]]
    assert old.thumbnail(gone[0]) is None


def test_half_a_file_is_no_thumbnail(library):
    segment = library.index.segments()[0].id
    data, name = library.thumbnail(segment), library.thumbnail_name(segment)
    path = library.store / "thumbnails" / name[:2] / name
    path.write_bytes(data[:100])
    assert library.media.named(name) is None
    assert library.thumbnail(segment) is not None
    assert library.media.named(library.thumbnail_name(segment)) is not None


def test_what_no_segment_needs_is_removed(library):
    (library.store / "thumbnails/ab").mkdir(exist_ok=True)
    (library.store / "thumbnails/ab" / f"ab{'0' * 30}.webp").write_bytes(b"left behind by a kill")
    clip = library.clip(ids(library)["a.mp4"], 2.0, 3.0)
    (library.folder / "a.mp4").unlink()
    library.refresh()
    needed = {row.name for row in library.media._thumbnails.all()}
    assert {path.name for path in (library.store / "thumbnails").glob("??/*")} == needed
    assert {row.fingerprint for row in library.media._thumbnails.all()} == {ids(library)["deep/b.mkv"]}
    assert not clip.exists()


def test_segments_that_look_alike_share_a_file(tiny_model, tmp_path):
    def scenes(number):
        return draw(0, 192, 108, scene=(0, 1, 0)[number // 60])

    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos/a.avi", frames=180, size=(192, 108), picture=scenes, codec="mjpeg", pixels="yuvj420p")
    library = rushes.open(tmp_path / "videos")
    library.refresh(model=str(tiny_model))
    names = [library.thumbnail_name(segment.id) for segment in library.index.segments()]
    assert len(names) == 3
    assert names[0] == names[2] != names[1]
    assert len(list((library.store / "thumbnails").glob("??/*"))) == 2


def test_a_decoder_that_lies_puts_nothing_into_the_store(library):
    segment = library.index.segments()[0]
    before = library.thumbnail_name(segment.id)
    for data in (b"<script>alert(1)</script>", b"RIFF\0\0\0\0WEBP" + bytes(2 << 20), b""):
        library.media.keep([segment], [data])
        assert library.thumbnail_name(segment.id) == before


RUN = """
import sys
import torch
torch.set_num_threads(1)
import rushes
folder, store, model = sys.argv[1:]

def say(now):
    print(now.stored, flush=True)

rushes.open(folder, store).refresh(model=model, commit_seconds=0.0, on_progress=say)
"""


def test_after_kills_every_stored_segment_has_its_thumbnail(made, tiny_model, tmp_path):
    store = tmp_path / "store"
    for stop in (1, 2, 3):
        command = [sys.executable, "-c", RUN, str(made), str(store), str(tiny_model)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= stop:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        library = rushes.open(made, store)
        for segment in library.index.segments():
            name = library.thumbnail_name(segment.id)
            assert name is not None
            assert library.media.named(name) is not None
    library.refresh()
    names = {library.thumbnail_name(segment.id) for segment in library.index.segments()}
    assert None not in names
    assert len({segment.video for segment in library.index.segments()}) == 2


# ------------------------------------------------------------------ frames and clips


def test_a_frame_is_the_one_shown_then(library, monkeypatch):
    video = ids(library)["deep/b.mkv"]
    assert number_of(pixels(library.frame(video, 1.34))) == 40
    assert pixels(library.frame(video, 1.34, 96)).shape == (54, 96, 3)
    monkeypatch.setattr(media_module.picture, "frame", lambda *_: pytest.fail("made twice"))
    assert number_of(pixels(library.frame(video, 1.34))) == 40
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"3\.000 s long"):
        library.frame(video, 7.0)
    with pytest.raises(LookupError, match="no video 'nothing'"):
        library.frame("nothing", 1.0)


def test_the_latest_frames_are_kept_in_bounds():
    recent = _Recent(10)
    for number in range(5):
        recent.put((number,), bytes(4))
        assert recent.size <= 10
    assert recent.get((4,)) == bytes(4)
    assert recent.get((0,)) is None
    recent.put((4,), bytes(1))
    assert recent.size == 5
    recent.put((9,), bytes(11))  # larger than all there is room for
    assert recent.size == 0


def test_a_clip_is_made_once(library, monkeypatch):
    video = ids(library)["a.mp4"]
    path = library.clip(video, 4.0, 6.0)
    assert probe(path).duration == pytest.approx(2.0, abs=0.05)
    assert path.is_relative_to(library.store / "clips")
    monkeypatch.setattr(clips, "clip", lambda *_: pytest.fail("made twice"))
    assert library.clip(video, 4.0, 6.0) == path
    assert [found for found in path.parent.iterdir() if not found.name.startswith(".lock")] == [path]


def test_many_who_ask_for_one_clip_at_once_wait_for_one(library, monkeypatch):
    video = ids(library)["a.mp4"]
    make, made = clips.clip, []

    def counted(*arguments):
        made.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(clips, "clip", counted)
    paths = []
    askers = [threading.Thread(target=lambda: paths.append(library.clip(video, 1.0, 2.0))) for _ in range(6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(made) == 1
    assert len(paths) == 6
    assert len(set(paths)) == 1


def test_a_clip_that_fails_leaves_nothing(library, monkeypatch):
    video = ids(library)["a.mp4"]

    def half(file, start, end, folder):
        (folder / "clip.mp4").write_bytes(b"half")
        raise VideoError("timeout", f"{library.folder}/a.mp4 was not done")

    monkeypatch.setattr(clips, "clip", half)
    with pytest.raises(VideoError, match=r"^a\.mp4 was not done"):  # where the library lies is not told
        library.clip(video, 1.0, 2.0)
    assert [found for found in (library.store / "clips").iterdir() if not found.name.startswith(".lock")] == []
    monkeypatch.undo()
    left = library.store / "clips/.part-killed"
    left.mkdir()
    (left / "clip.mp4").write_bytes(b"half")
    os.utime(left, (1, 1))
    for start, end in ((0.0, 61.0), (5.0, 5.0), (float("nan"), 1.0), (90.0, 91.0)):
        with pytest.raises(ValueError, match=r"s long|no moment|at most"):
            library.clip(video, start, end)
    assert library.clip(video, 1.0, 1.5).exists()
    assert not left.exists()


def test_clips_that_nobody_asked_for_longest_go_first(library):
    video = ids(library)["a.mp4"]
    paths = [library.clip(video, start, start + 0.5) for start in (1.0, 2.0, 3.0)]
    sizes = [path.stat().st_size for path in paths]
    old = time.time() - 1000
    for age, path in zip((2, 3, 1), paths, strict=True):  # the second was asked for longest ago
        os.utime(path, (old - age, old - age))
    library.clip(video, 1.0, 1.5)  # asked for again: now it is the latest
    last = library.clip(video, 4.0, 4.5, cache_bytes=sizes[0] + sizes[2] + 10)
    assert not paths[1].exists()
    assert last.exists()
    assert paths[0].exists()
    os.utime(paths[0], (old, old))
    library.clip(video, 5.0, 5.5, cache_bytes=0)
    assert last.exists()  # of this minute: somebody may be about to open it
    assert not paths[0].exists()


# ------------------------------------------------------------------ the files themselves


def test_the_file_of_a_video_is_open_at_its_start(library):
    with library.opened(ids(library)["deep/b.mkv"]) as file:
        assert file.read() == (library.folder / "deep/b.mkv").read_bytes()
    with pytest.raises(LookupError, match="no video"):
        library.opened("deep/b.mkv")  # an id is asked for, never a path


def test_a_touched_file_is_the_same_and_a_changed_one_is_not(library):
    video, path = ids(library)["deep/b.mkv"], library.folder / "deep/b.mkv"
    os.utime(path, (1, 1))
    with library.opened(video) as file:
        assert len(file.read()) == path.stat().st_size
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(path, (2, 2))
    with pytest.raises(FileNotFoundError, match="changed since it was indexed"):
        library.opened(video)
    path.write_bytes(whole + b"x")
    with pytest.raises(FileNotFoundError):
        library.opened(video)
    with pytest.raises(FileNotFoundError):
        library.frame(video, 1.0)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        library.clip(video, 1.0, 2.0)


def test_of_copies_one_that_is_left_is_opened(library):
    shutil.copyfile(library.folder / "a.mp4", library.folder / "zz.mp4")
    library.refresh()
    video = ids(library)["a.mp4"]
    (library.folder / "a.mp4").write_bytes(b"something else")
    with library.opened(video) as file:
        assert Path(file.name) == library.folder / "zz.mp4"


def test_a_link_inside_the_folder_is_a_file_and_one_that_leads_out_is_nobodys(library, tmp_path):
    outside = film(tmp_path / "outside.mp4", frames=30, size=(192, 108), cuts=(1,))
    (library.folder / "in.mp4").symlink_to(library.folder / "a.mp4")
    (library.folder / "out.mp4").symlink_to(outside)
    (library.folder / "round.mp4").symlink_to("../videos/deep/b.mkv")
    os.mkfifo(library.folder / "fifo.mp4")
    report = library.refresh()
    assert (report.videos, report.failed) == (0, 1)
    assert set(ids(library)) == {"a.mp4", "deep/b.mkv", "in.mp4", "round.mp4"}
    (failure,) = library.info().failures
    assert (failure.video, failure.code) == ("out.mp4", "outside")
    assert library.refresh().failed == 1
    (library.folder / "a.mp4").rename(library.folder / "moved.mp4")
    (library.folder / "in.mp4").unlink()
    (library.folder / "in.mp4").symlink_to(library.folder / "moved.mp4")
    with library.opened(ids(library)["in.mp4"]) as file:
        assert len(file.read()) == (library.folder / "moved.mp4").stat().st_size


def test_a_file_that_became_a_link_or_a_pipe_is_not_opened(library, tmp_path):
    secret = tmp_path / "secret.mp4"
    path, video = library.folder / "deep/b.mkv", ids(library)["deep/b.mkv"]
    shutil.copy2(path, secret)  # with the very size, date and content
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(PermissionError, match="leads out of the folder"):
        library.opened(video)
    with pytest.raises(PermissionError):
        library.frame(video, 1.0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PermissionError, match="no regular file"):
        library.opened(video)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(PermissionError, match="no regular file"):
            library.opened(video)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(PermissionError):
        library.opened(video)
    shutil.rmtree(library.folder / "deep")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy2(secret, tmp_path / "elsewhere/b.mkv")
    (library.folder / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="links to folders are not followed"):
        library.opened(video)


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "", ".", "..", "a/../../b"])
def test_no_path_leads_out(tmp_path, path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_text("the secret")
    with pytest.raises(PermissionError):
        confined(tmp_path / "in", path)


def test_links_that_lead_in_circles_or_nowhere(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("nothing")
    for name in ("a", "c"):
        with pytest.raises((FileNotFoundError, PermissionError)):
            confined(tmp_path, name)
    with pytest.raises(FileNotFoundError):
        confined(tmp_path, "none")


def test_a_link_swapped_in_between_check_and_opening_is_not_followed(tmp_path):
    """Somebody turns the file into a link out of the folder and back, as fast as they can, while it is opened."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("the secret")
    (folder / "deep/a").write_text("public")
    (folder / "real").mkdir()
    (folder / "real/a").write_text("public")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in (tmp_path / "out/a", folder / "real/a"):
                os.symlink(target, folder / "new")
                os.replace(folder / "new", folder / "deep/a")
            os.rename(folder / "deep", folder / "kept")
            os.symlink(tmp_path / "out", folder / "deep")
            os.unlink(folder / "deep")
            os.rename(folder / "kept", folder / "deep")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen, refused = 0, 0
    try:
        end = time.monotonic() + 60
        while (seen < 200 or refused < 200) and time.monotonic() < end:
            try:
                with confined(folder, "deep/a") as file:
                    assert file.read() == b"public"
                seen += 1
            except (PermissionError, FileNotFoundError):
                refused += 1
    finally:
        stop.set()
        swapper.join()
    assert seen
    assert refused


def test_a_link_that_became_a_file_while_it_was_followed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").write_text("public")

    def changed(*_: object, **__: object) -> str:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "readlink", changed)
    with pytest.raises(PermissionError, match="changed while it was opened"):
        confined(tmp_path, "a")
    assert not inside(tmp_path, tmp_path / "a")


# ------------------------------------------------------------------ what browsers play


def test_what_a_file_is_was_noted_when_it_was_indexed(library, monkeypatch):
    monkeypatch.setattr(media_module, "run", lambda *_, **__: pytest.fail("looked again"))
    names = ids(library)
    assert library.media.kind(names["a.mp4"]) == Kind("mp4", "h264", "yuv420p", "aac")
    assert (library.playable(names["a.mp4"]), library.media_type(names["a.mp4"])) == (True, "video/mp4")
    assert library.media.kind(names["deep/b.mkv"]) == Kind("matroska", "h264", "yuv420p", "")
    assert not library.playable(names["deep/b.mkv"])
    assert library.media_type(names["deep/b.mkv"]) == "video/x-matroska"


def test_what_an_old_index_does_not_know_is_looked_up_once(library, monkeypatch):
    shutil.rmtree(library.store / "kinds.lance")
    old = rushes.open(library.folder)
    video = ids(old)["a.mp4"]
    assert old.media.kind(video) == Kind("mp4", "h264", "yuv420p", "aac")
    monkeypatch.setattr(media_module, "run", lambda *_, **__: pytest.fail("looked again"))
    assert old.playable(video)
    with pytest.raises(LookupError, match="no video"):
        old.playable("nothing")


@pytest.mark.parametrize(
    ("kind", "plays", "type"),
    [
        (Kind("mp4", "h264", "yuv420p", ""), True, "video/mp4"),
        (Kind("mp4", "h264", "yuvj420p", "aac,aac"), True, "video/mp4"),
        (Kind("mov", "h264", "yuv420p", "mp3"), True, "video/mp4"),
        (Kind("webm", "vp9", "yuv420p", "opus"), True, "video/webm"),
        (Kind("webm", "vp8", "yuv420p", "vorbis"), True, "video/webm"),
        (Kind("webm", "av1", "yuv420p", ""), True, "video/webm"),
        (Kind("mp4", "hevc", "yuv420p", "aac"), False, "video/mp4"),
        (Kind("mp4", "h264", "yuv420p10le", "aac"), False, "video/mp4"),
        (Kind("mp4", "h264", "yuv422p", "aac"), False, "video/mp4"),
        (Kind("mp4", "h264", "yuv420p", "aac,ac3"), False, "video/mp4"),
        (Kind("mov", "prores", "yuv422p10le", "pcm_s16le"), False, "video/quicktime"),
        (Kind("webm", "vp9", "yuv420p10le", "opus"), False, "video/webm"),
        (Kind("matroska", "h264", "yuv420p", "aac"), False, "video/x-matroska"),
        (Kind("mpegts", "h264", "yuv420p", "aac"), False, "video/mp2t"),
        (Kind("avi", "mpeg4", "yuv420p", "mp3"), False, "video/x-msvideo"),
        (Kind("nut", "h264", "yuv420p", ""), False, "application/octet-stream"),
    ],
)
def test_what_all_browsers_play(kind, plays, type):
    assert (playable(kind), media_type(kind)) == (plays, type)


FILES = {
    "a.mp4": {"audio": 2.0},
    "b.mov": {"audio": 2.0},
    "c.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "d.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "e.webm": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
}


def test_chromium_plays_what_is_said_to_play(library, tmp_path):
    chromium.program()  # before anything is drawn for it
    for name, how in FILES.items():
        film(library.folder / name.replace("a.", "x."), frames=60, size=(192, 108), **how)
    library.refresh()
    names = {path: video for path, video in ids(library).items() if path.partition(".")[0] in "xbcde"}
    assert len(names) == 5
    page = "".join(f'<video muted src="{library.folder / path}" id="{path[0]}"></video>' for path in names)
    (tmp_path / "page.html").write_text(page)
    with chromium.running() as browser:
        shown = browser.new_page()
        shown.goto((tmp_path / "page.html").as_uri())
        for path, video in names.items():
            assert library.playable(video), (path, library.media.kind(video))
            said = shown.evaluate(
                "type => document.createElement('video').canPlayType(type)", library.media_type(video)
            )
            assert said in ("maybe", "probably"), path
            at = shown.evaluate(PLAY, path[0])
            assert at >= 0.3, path


PLAY = """async id => {
    const video = document.getElementById(id);
    await video.play();
    while (!video.ended && video.currentTime < 0.3) await new Promise(done => setTimeout(done, 20));
    return video.currentTime
}"""


def test_rebuilding_makes_all_of_it_anew(library, tiny_model):
    video = ids(library)["a.mp4"]
    clip = library.clip(video, 1.0, 2.0)
    before = {segment.id: library.thumbnail_name(segment.id) for segment in library.index.segments()}
    library.refresh(rebuild=True, model=str(tiny_model))
    assert not clip.exists()
    assert {segment.id: library.thumbnail_name(segment.id) for segment in library.index.segments()} == before
    assert library.clip(video, 1.0, 2.0).exists()
    assert json.loads((library.store / "settings.json").read_text())["model"] == str(tiny_model)
