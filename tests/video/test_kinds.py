"""Every kind of file gives its true frames at their true times: each film's frame n shows the number n."""

import os
import struct
from itertools import pairwise

import av
import numpy as np
import pytest

from rushes.video.decode import Damage, Frame, Span, read
from rushes.video.probe import VideoError, probe
from tests.video.films import draw, number_of, turned

POLICIES = ("fast", "balanced", "thorough")


def parts(path, **how):
    """Frames, spans and damage of a read, after checking what must hold of any."""
    events = list(read(path, **how))
    frames = [event for event in events if isinstance(event, Frame)]
    spans = [event for event in events if isinstance(event, Span)]
    delivered = set()
    for event in events:
        if isinstance(event, Frame):
            delivered.add(event.time)
            assert event.pixels.dtype == np.uint8
            assert event.pixels.flags.c_contiguous
            assert event.pixels.ndim == 3
        if isinstance(event, Span):
            assert event.times
            assert delivered.issuperset(event.times)
            assert all(event.start <= time < event.end for time in event.times)
    assert [frame.time for frame in frames] == sorted({frame.time for frame in frames})
    if how.get("segments", "shots") == "shots":
        assert all(one.end == two.start for one, two in pairwise(spans))
    return frames, spans, [event for event in events if isinstance(event, Damage)]


def true_at(frames, rate=30.0, first=0):
    """Whether each frame shows the number that its time says."""
    assert frames
    return [(round(frame.time * rate) + first, number_of(frame.pixels)) for frame in frames]


def exact(frames, rate=30.0, first=0):
    pairs = true_at(frames, rate, first)
    assert all(want == got for want, got in pairs), pairs


CODECS = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.mov": {},
    "fragmented.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "long-gop.mp4": {"options": {"preset": "ultrafast", "bf": "2", "g": "250", "x264-params": "scenecut=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"qscale": "3"}},
    "h264.ts": {},
    "h264.flv": {},
    "ten-bit.mp4": {"pixels": "yuv420p10le"},
    "ten-bit-422.mkv": {"pixels": "yuv422p10le"},
    "odd.mp4": {"pixels": "yuv444p", "size": (641, 361)},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("policy", POLICIES)
def test_codecs_and_containers(films, name, policy):
    path = films(name, **({"size": (192, 108)} | CODECS[name]))
    frames, spans, damage = parts(path, policy=policy)
    exact(frames)
    assert not damage
    assert spans[0].start == 0
    assert abs(spans[-1].end - 3.0) < 0.035
    if policy == "thorough":
        assert len(frames) == 6
        assert all(abs(frame.time - (0.25 + 0.5 * index)) <= 0.034 for index, frame in enumerate(frames))


@pytest.mark.parametrize("name", ["gaps.mp4", "gaps.mkv", "gaps.ts"])
def test_fast_fills_what_lies_between_distant_key_frames(films, name):
    """Key frames at 0, 7, 8 and 18 s of 24: no two looks are more than 4 s (and a frame or two) apart."""

    def keyed(number):
        return number in (0, 210, 240, 540)

    options = {"preset": "ultrafast", "bf": "2", "g": "9999", "x264-params": "scenecut=0", "forced-idr": "1"}
    path = films(name, frames=720, size=(160, 96), options=options, keyed=keyed)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys = [packet.pts - stream.start_time for packet in container.demux(stream) if packet.is_keyframe]
        assert [round(pts * stream.time_base * 30) for pts in keys] == [0, 210, 240, 540]
    frames, _, damage = parts(path, policy="fast", size=64)
    exact(frames)
    assert not damage
    times = [0.0, *(frame.time for frame in frames), 24.0]
    assert max(b - a for a, b in pairwise(times)) <= 4.2
    assert len(frames) == 4 + 1 + 2 + 1  # the key frames, and one, two and one between them


def test_a_strange_name_is_a_name(films, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9 \xff %d.mp4")
    with open(path, "wb") as file:
        file.write(films("h264.mp4").read_bytes())
    exact(parts(os.fsdecode(path))[0])


def test_gif(films):
    path = films("film.gif", codec="gif", pixels="rgb8", rate=10, frames=30, options={})
    for policy in POLICIES:
        exact(parts(path, policy=policy)[0], rate=10)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_frame_rate(films, name, policy):
    times, second = [], 0.0
    for number in range(120):  # 30 frames/s, then 5, then one picture of 3 s, then 60
        times.append(round(second, 3))
        second += 1 / 30 if number < 60 else 1 / 5 if number < 80 else 3.0 if number == 80 else 1 / 60
    path = films(name, frames=120, times=tuple(times))
    frames, spans, _ = parts(path, policy=policy)
    for frame in frames:
        assert abs(times[number_of(frame.pixels)] - frame.time) < 0.001
    if policy == "thorough":  # at every target it shows what a player shows then
        for target in (0.25 + 0.5 * index for index in range(18)):
            shown = max(number for number, time in enumerate(times) if time <= target)
            assert any(number_of(frame.pixels) == shown for frame in frames)
    assert abs(spans[-1].end - times[-1]) < 0.04


@pytest.mark.parametrize("policy", POLICIES)
def test_edit_list_hides_the_start(films, policy):
    """Frames before second 0 are decoded, because others need them, and shown by no player."""
    path = films("edit.mp4", times=tuple(number / 30 - 1 for number in range(90)))
    data = path.read_bytes()
    assert b"elst" in data
    entry = data.index(b"elst") + 4
    assert struct.unpack(">ii", data[entry + 12 : entry + 20][:8])[0] >= 0
    frames, spans, damage = parts(path, policy=policy)
    exact(frames, first=30)
    assert not damage
    assert abs(spans[-1].end - 2.0) < 0.035


def test_video_that_starts_after_the_audio_keeps_its_delay(films):
    path = films("late.mp4", first=1.0, audio=4.0)
    frames, spans, _ = parts(path)
    exact(frames, first=-30)
    assert spans[0].start == pytest.approx(1.0, abs=0.03)


def turned_film(films, name, quarters, mirrored, **how):
    """Drawn so that it reads upright only after the player's turn of `quarters` clockwise, after a mirror."""

    def stored(number):
        picture = np.rot90(draw(number, 192, 320) if quarters % 2 else draw(number, 320, 192), quarters)
        return np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)

    return films(name, frames=30, size=(320, 192), picture=stored, **how)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_and_mirror(films, tmp_path, quarters, mirrored):
    plain = turned_film(films, f"turn-{quarters}-{mirrored}.mp4", quarters, mirrored)
    path = turned(plain, tmp_path / "turned.mp4", quarters, mirrored)
    found = probe(path)
    assert (found.width, found.height) == ((192, 320) if quarters % 2 else (320, 192))
    assert found.rotation == 90 * quarters
    for squash in (True, False):
        frames, _, _ = parts(path, squash=squash, size=192)
        exact(frames)
        height, width = (192, 192) if squash else (320, 192) if quarters % 2 else (192, 320)
        assert frames[0].pixels.shape == (height, width, 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_mpeg_ts_with_a_start_far_from_zero(films, policy):
    path = films("offset.ts", container={"output_ts_offset": "1000"})
    with av.open(str(path)) as container:
        assert container.start_time > 900e6
    assert not probe(path).seekable
    frames, spans, _ = parts(path, policy=policy)
    exact(frames)
    assert spans[0].start == 0


@pytest.mark.parametrize("name", ["one.mp4", "one.mkv", "one.ts", "one.h264"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("segments", ["shots", "windows"])
def test_one_frame(films, name, policy, segments):
    frames, spans, damage = parts(films(name, frames=1), policy=policy, segments=segments)
    assert [number_of(frame.pixels) for frame in frames] == [0]
    assert len(spans) == 1
    assert spans[0].start == 0 < spans[0].end < 0.05
    assert not damage


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv"])
def test_audio_longer_than_video_is_no_truncation(films, name):
    path = films(name, audio=8.0)
    frames, spans, damage = parts(path)
    exact(frames)
    assert not damage
    assert abs(spans[-1].end - 3.0) < 0.07
    assert abs(probe(path).duration - 3.0) < 0.07


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("name", "rate"), [("bare.h264", 25), ("b-frames.avi", 30)])
def test_missing_time_stamps_are_counted(films, name, rate, policy):
    """A raw stream is taken for 25 frames a second; AVI stores decoding order only."""
    path = films(name)
    frames, _, damage = parts(path, policy=policy)
    exact(frames, rate=rate)
    assert len(frames) >= 3
    assert not damage


def test_sizes(films):
    path = films("wide.mp4", frames=10, size=(640, 360))
    assert parts(path, size=96)[0][0].pixels.shape == (96, 96, 3)
    assert parts(path, size=90, squash=False)[0][0].pixels.shape == (90, 160, 3)
    assert parts(path, size=720, squash=False)[0][0].pixels.shape == (720, 1280, 3)


def test_oblong_pixels_are_shown_as_wide_as_players_show_them(films):
    def oblong(stream):
        stream.sample_aspect_ratio = stream.codec_context.sample_aspect_ratio = 2

    path = films("oblong.mp4", frames=10, size=(320, 360), setup=oblong)
    assert (probe(path).width, probe(path).height) == (640, 360)
    assert parts(path, size=90, squash=False)[0][0].pixels.shape == (90, 160, 3)


@pytest.mark.parametrize(("matrix", "height"), [(1, 180), (5, 180), (1, 720), (2, 180), (2, 720)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_tags(tmp_path, matrix, height, full):
    """A red square in BT.709 or BT.601 (1, 5; 2 = untagged: 709 if HD), limited or full range, comes back red."""
    red, green, blue = 200, 60, 40
    kr, kb = (0.2126, 0.0722) if matrix == 1 or (matrix == 2 and height >= 720) else (0.299, 0.114)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    levels = (luma, 128 + cb, 128 + cr) if full else (16 + luma * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255)
    width = height * 16 // 9
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if full else 1
        planes = [np.full((height * width,), round(levels[0]), np.uint8)]
        planes += [np.full((height * width // 4,), round(level), np.uint8) for level in levels[1:]]
        image = np.concatenate(planes).reshape(height * 3 // 2, width)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
            frame.colorspace, frame.color_range, frame.pts = matrix, 2 if full else 1, number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    colour = parts(path)[0][0].pixels[100, 100].astype(int)
    assert np.abs(colour - (red, green, blue)).max() <= 4, colour


FAILURES = {
    "empty.mp4": (b"", "empty"),
    "text.mp4": (b"this is no video\n" * 300, "not-a-video"),
    "zeros.mp4": (bytes(5000), "not-a-video"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_no_video_at_all(tmp_path, name):
    content, code = FAILURES[name]
    path = tmp_path / name
    path.write_bytes(content)
    for look in (probe, lambda path: list(read(path))):
        with pytest.raises(VideoError) as caught:
            look(path)
        assert caught.value.code == code
        assert name in str(caught.value)


def test_audio_only(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=8000)
        for start in range(0, 8000, 1000):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 8000, start
            output.mux(sound.encode(silence))
        output.mux(sound.encode())
    with pytest.raises(VideoError, match="only audio") as caught:
        list(read(path))
    assert caught.value.code == "no-video-stream"


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, code in ((tmp_path / "pipe.mp4", "not-a-file"), (tmp_path, "not-a-file"), (tmp_path / "no", "missing")):
        with pytest.raises(VideoError) as caught:
            list(read(path))
        assert caught.value.code == code
    for address in ("http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "/dev/zero"):
        with pytest.raises(VideoError) as caught:
            list(read(address))
        assert caught.value.code in ("missing", "not-a-file")


def test_a_file_with_the_name_of_an_address_is_a_file(films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    strange = tmp_path / "concat:a.mp4|b.mp4"
    strange.write_bytes(films("h264.mp4").read_bytes())
    exact(parts(strange.name)[0])


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "list.txt", "manifest.mpd"])
def test_a_file_that_names_other_files_reads_none_of_them(films, tmp_path, name):
    """A hostile playlist under any name must not pull other local files into the index."""
    secret = films("h264.ts")
    playlists = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{secret}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile:{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"ffconcat version 1.0\nfile '{secret.name}'\n",
    )
    (tmp_path / secret.name).write_bytes(secret.read_bytes())
    for playlist in playlists:
        (tmp_path / name).write_text(playlist)
        with pytest.raises(VideoError) as caught:
            list(read(tmp_path / name))
        assert caught.value.code == "not-a-video"


def test_an_unknown_segmentation_is_told_the_known_ones(films):
    with pytest.raises(LookupError, match="no segments 'scenes'; it has shots, windows"):
        list(read(films("h264.mp4"), segments="scenes"))
