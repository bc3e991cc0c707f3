"""An upload is what its first bytes say and its first picture proves, or it is refused with a code."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from rushes.video.inspect import IMAGES, VIDEOS, Caps, Inspection, inspected, named
from rushes.video.probe import VideoError
from rushes.video.sandbox import Limits
from tests.video.films import turned
from tests.video.test_kinds import turned_film

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def refused(path, caps: Caps | None = None, limits: Limits | None = None) -> VideoError:
    with pytest.raises(VideoError) as caught:
        inspected(path, caps, limits) if limits else inspected(path, caps)
    assert str(path.parent) not in caught.value.reason  # where uploads lie is nobody's business
    return caught.value


@pytest.mark.parametrize("format", ["png", "jpeg", "gif", "webp", "bmp", "avif"])
def test_pictures(tmp_path, format):
    path = tmp_path / "upload"  # names say nothing
    PICTURE.save(path, format=format)
    assert inspected(path) == Inspection("image", format, 80, 60, None)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16"])
def test_pictures_with_other_colours(tmp_path, mode):
    (PICTURE.convert("L").convert(mode) if mode == "I;16" else PICTURE.convert(mode)).save(tmp_path / "a.png")
    assert inspected(tmp_path / "a.png") == Inspection("image", "png", 80, 60, None)


def test_a_photo_that_a_camera_has_turned_is_as_wide_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    PICTURE.save(tmp_path / "a.jpg", exif=exif)
    assert inspected(tmp_path / "a.jpg") == Inspection("image", "jpeg", 60, 80, None)


VIDEO = {
    "mp4": {"name": "a.mp4"},
    "mov": {"name": "a.mov"},
    "matroska": {"name": "a.mkv"},
    "webm": {"name": "a.webm", "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "avi": {"name": "a.avi", "codec": "mpeg4"},
    "flv": {"name": "a.flv"},
    "mpegts": {"name": "a.ts"},
    "mpeg": {"name": "a.mpg", "codec": "mpeg2video"},
    "ogg": {"name": "a.ogv", "codec": "libtheora"},
}


@pytest.mark.parametrize("format", VIDEO)
def test_videos(films, tmp_path, format):
    how = dict(VIDEO[format])
    if "codec" in how and how["codec"] not in av.codecs_available:
        pytest.skip(f"this PyAV has no {how['codec']}")
    path = films(how.pop("name"), frames=60, size=(192, 108), **({"options": {}} | how if "codec" in how else how))
    (tmp_path / "upload").write_bytes(path.read_bytes())
    found = inspected(tmp_path / "upload")
    assert (found.kind, found.format, found.width, found.height) == ("video", format, 192, 108)
    assert found.seconds == pytest.approx(2.0, abs=0.3)  # MPEG-PS tells it by its last time stamp


def test_a_turned_video_is_as_wide_as_it_is_shown(films, tmp_path):
    path = turned(turned_film(films, "turn-1-False.mp4", 1, False), tmp_path / "a.mp4", 1)
    found = inspected(path)
    assert (found.width, found.height) == (192, 320)


def test_every_format_that_is_named_can_be_read():
    for format in (*IMAGES.values(), *VIDEOS.values()):
        assert av.format.ContainerFormat(format, "r").is_input


# ------------------------------------------------------------------ hostile


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(format: str, **how) -> bytearray:
    data = io.BytesIO()
    PICTURE.save(data, format=format, **how)
    return bytearray(data.getvalue())


def lying(format: str) -> bytes:
    """A small picture whose header claims 16,000 x 16,000 pixels or more."""
    if format == "png":
        return png(60000, 60000, bytes(1 << 20))
    exif = Image.Exif()
    exif[0x112] = 1
    data = saved(format, exif=exif) if format == "webp" else saved(format)
    if format == "gif":
        data[6:10] = struct.pack("<HH", 60000, 60000)
    elif format == "bmp":
        data[18:26] = struct.pack("<ii", 60000, -60000)
    elif format == "webp":
        assert data[12:16] == b"VP8X"
        data[24:30] = (15999).to_bytes(3, "little") * 2
    elif format == "jpeg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


@pytest.mark.parametrize("format", ["png", "gif", "bmp", "webp", "jpeg"])
def test_a_small_file_that_claims_to_be_huge(tmp_path, format):
    (tmp_path / "bomb").write_bytes(lying(format))
    assert refused(tmp_path / "bomb").code == "too-many-pixels"


def test_pictures_beyond_the_cap(films, tmp_path):
    (tmp_path / "a.png").write_bytes(png(3000, 1000, bytes(9001) * 1000))  # 9 MB of black in 9 kB
    assert (tmp_path / "a.png").stat().st_size < 20_000
    assert refused(tmp_path / "a.png", Caps(pixels=2_999_999)).code == "too-many-pixels"
    assert inspected(tmp_path / "a.png", Caps(pixels=3_000_000)).width == 3000
    path = films("a.mp4", frames=60, size=(192, 108))
    assert refused(path, Caps(pixels=192 * 108 - 1)).code == "too-many-pixels"


def test_a_film_whose_frames_are_larger_than_its_header_says(films, tmp_path):
    how = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
    data = bytearray(films("big.webm", frames=5, size=(640, 360), **how).read_bytes())
    wide, high = data.index(b"\xb0\x82\x02\x80"), data.index(b"\xba\x82\x01\x68")
    data[wide + 2 : wide + 4], data[high + 2 : high + 4] = b"\x00\x10", b"\x00\x10"
    (tmp_path / "a.webm").write_bytes(data)
    assert refused(tmp_path / "a.webm", Caps(pixels=10_000)).code in ("too-many-pixels", "unreadable")


def test_a_picture_one_pixel_high(films, tmp_path):
    Image.new("RGB", (4000, 1)).save(tmp_path / "thin.png")
    assert refused(tmp_path / "thin.png").code == "too-thin"
    assert refused(films("thin.mp4", frames=10, size=(1920, 16))).code == "too-thin"


def test_long_large_and_crowded_videos(films):
    path = films("sound.mp4", frames=60, size=(192, 108), audio=2.0)
    assert refused(path, Caps(seconds=1.9)).code == "too-long"
    assert refused(path, Caps(streams=1)).code == "too-many-streams"
    assert refused(path, Caps(size_bytes=1000)).code == "too-many-bytes"
    assert inspected(path, Caps(seconds=2.1, streams=2)).seconds == pytest.approx(2.0, abs=0.05)


def test_a_small_film_of_many_minutes(films):
    path = films("slides.mp4", frames=2, size=(192, 108), times=(0.0, 700.0))
    assert path.stat().st_size < 20_000
    assert refused(path).code == "too-long"
    assert refused(path).reason.startswith("it is 700 s long")


def hostile(secret) -> dict[str, bytes]:
    """Files that name another file, each in the way of its format."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(10 << 20))
    return {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "a.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "a.mpd": f'<?xml version="1.0"?><MPD><BaseURL>file://{secret}</BaseURL></MPD>'.encode(),
        "a.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{secret}"/></svg>'.encode(),
        "a.xml": f'<!DOCTYPE a [<!ENTITY b SYSTEM "file://{secret}">]><a>&b;</a>'.encode(),
        "a.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "a.txt": b"just words",
        "a.zip": zipped.getvalue(),
        "a.pdf": b"%PDF-1.7\n",
        "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "a.mvg": f"push graphic-context\nimage over 0,0 0,0 '{secret}'\n".encode(),
    }


@pytest.mark.parametrize("name", hostile("x"))
@pytest.mark.parametrize("ending", [None, ".mp4", ".png"])
def test_what_could_name_other_files_is_refused_by_its_first_bytes(films, tmp_path, name, ending, monkeypatch):
    """The file that it names is a FIFO: whoever opened it would wait here for ever."""
    secret = tmp_path / "canary"
    os.mkfifo(secret)
    path = tmp_path / (name if ending is None else "a" + ending)
    path.write_bytes(hostile(secret)[name])
    assert named(path.read_bytes()) is None
    assert refused(path).code == "unsupported"


def test_a_real_beginning_does_not_let_a_playlist_in(tmp_path):
    secret = tmp_path / "canary"
    os.mkfifo(secret)
    playlist = hostile(secret)["a.m3u8"]
    starts = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"\0\0\0\x18ftypmp42", b"OggS\0", b"BM")
    for number, start in enumerate(starts):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(start + playlist)
        assert refused(path).code in ("unreadable", "unsupported", "too-many-pixels", "too-thin")


def test_a_mov_that_keeps_its_frames_in_another_file_gets_none_of_them(films, tmp_path):
    """A data reference of QuickTime may be a path: it is not followed."""
    data = bytearray(films("a.mov", frames=30, size=(192, 108)).read_bytes())
    at = data.index(b"url ", data.index(b"dref"))
    assert data[at + 4 : at + 8] == b"\0\0\0\x01"  # "in this very file"
    data[at + 4 : at + 8] = b"\0\0\0\0"  # elsewhere
    (tmp_path / "a.mov").write_bytes(data)
    try:
        found = inspected(tmp_path / "a.mov")
    except VideoError as error:
        assert error.code in ("unreadable", "unsupported")  # noqa: PT017  either is right
    else:
        assert (found.width, found.height) == (192, 108)  # read from this file all the same


def test_files_that_are_cut_off_or_damaged(films, tmp_path):
    whole = films("a.mp4", frames=60, size=(192, 108)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    assert refused(tmp_path / "half.mp4").code == "unreadable"  # its index was at its end
    (tmp_path / "half.png").write_bytes(bytes(saved("png"))[:40])
    assert refused(tmp_path / "half.png").code == "unreadable"
    broken = bytearray(saved("jpeg"))
    broken[30:400] = bytes(370)
    (tmp_path / "broken.jpg").write_bytes(broken)
    assert refused(tmp_path / "broken.jpg").code == "unreadable"
    (tmp_path / "sound.mp4").write_bytes(b"")
    assert refused(tmp_path / "sound.mp4").code == "empty"


def test_an_animation_that_ffmpeg_cannot_decode_is_told_as_one(tmp_path):
    PICTURE.save(tmp_path / "a.webp", save_all=True, append_images=[PICTURE.rotate(90)], duration=100)
    error = refused(tmp_path / "a.webp")
    assert (error.code, "animated WebP" in error.reason) == ("unsupported", True)
    PICTURE.save(tmp_path / "a.gif", save_all=True, append_images=[PICTURE.rotate(90)], duration=100)
    assert inspected(tmp_path / "a.gif").kind == "image"


def test_sound_is_no_picture(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=8000)
        for start in range(0, 16384, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, start
            output.mux(sound.encode(frame))
        output.mux(sound.encode())
    assert refused(tmp_path / "a.mp4").code == "unsupported"


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    PICTURE.save(tmp_path / "real.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    for name in ("fifo.png", "folder.png", "link.png"):
        assert refused(tmp_path / name).code == "not-a-file"
    assert refused(tmp_path / "none.png").code == "missing"


def test_a_decode_that_takes_too_long_is_ended(films):
    path = films("a.mp4", frames=60, size=(192, 108))
    assert refused(path, limits=Limits(seconds=0.02)).code == "timeout"
    assert refused(path, limits=Limits(cpu_seconds=0)).code == "timeout"


def test_a_decode_that_needs_too_much_memory_is_ended(tmp_path):
    Image.new("RGB", (7000, 7000)).save(tmp_path / "large.png")
    error = refused(tmp_path / "large.png", limits=Limits(memory_bytes=320 << 20))
    assert error.code in ("crashed", "unreadable")
    assert inspected(tmp_path / "large.png").width == 7000


@pytest.mark.parametrize("seed", range(3))
def test_noise_behind_any_beginning_is_refused_or_read_but_never_more(tmp_path, films, seed):
    """Bytes changed at random in real files: an answer or a VideoError, nothing else."""
    random = np.random.default_rng(seed)
    for number, data in enumerate((films("a.mp4", frames=60, size=(192, 108)).read_bytes(), bytes(saved("webp")))):
        broken = bytearray(data)
        for place in random.integers(12, len(broken), 40):
            broken[place] = random.integers(256)
        path = tmp_path / str(number)
        path.write_bytes(broken)
        try:
            found = inspected(path)
        except VideoError as error:
            assert error.code  # noqa: PT017
        else:
            assert found.width * found.height <= Caps().pixels
