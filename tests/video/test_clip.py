"""A clip is its moment, from second 0 on, in a form that browsers play."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rushes.video.clip import LONGEST, clip
from rushes.video.decode import Frame, read
from rushes.video.picture import frame
from rushes.video.probe import VideoError, kind, opened, probe
from rushes.video.sandbox import Limits
from tests import chromium
from tests.video.films import number_of, turned
from tests.video.test_kinds import turned_film


def cut(path, start, end, folder) -> Path:
    folder = Path(folder)
    with open(path, "rb") as file:
        made = clip(file, start, end, folder)
    assert list(folder.iterdir()) == [made]
    return made


def frames(path) -> list[tuple[float, int]]:
    """Second and number of every frame."""
    with av.open(str(path)) as container:
        return [(float(f.time), number_of(f.to_ndarray(format="rgb24"))) for f in container.decode(video=0)]


def ends(path) -> float:
    with opened(path) as (_, stream):
        return float(stream.duration * stream.time_base)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_clip_shows_exactly_its_moment(films, tmp_path, name):
    path = films(name, frames=300, size=(192, 108))
    made = cut(path, 3.02, 5.5, tmp_path)
    seen = frames(made)
    assert [number for _, number in seen] == list(range(90, 165))
    assert seen[0][0] == 0
    for second, number in seen[1:]:
        assert second == pytest.approx(number / 30 - 3.02, abs=0.001)
    assert ends(made) == pytest.approx(2.48, abs=0.001)


def test_it_is_what_browsers_play(films, tmp_path):
    path = films("ten.mkv", frames=60, size=(194, 110), pixels="yuv420p10le", audio=2.0)
    made = cut(path, 0.5, 1.5, tmp_path)
    with opened(made) as (container, stream):
        about = kind(container, stream)
    assert (about.container, about.video, about.pixels, about.audio) == ("mp4", "h264", "yuv420p", "aac")
    data = made.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # its index comes first, so that playing starts at once
    assert (probe(made).width, probe(made).height) == (194, 110)


def test_frames_of_variable_length_keep_their_times(films, tmp_path):
    times = (0.0, 0.1, 1.7, 1.8, 5.0, 5.2)
    path = films("vfr.mp4", frames=6, size=(192, 108), times=times)
    made = cut(path, 1.0, 5.1, tmp_path)
    seen = frames(made)
    assert [number for _, number in seen] == [1, 2, 3, 4]
    assert [second for second, _ in seen] == pytest.approx([0.0, 0.7, 0.8, 4.0], abs=0.001)
    assert ends(made) == pytest.approx(4.1, abs=0.001)


def test_a_picture_that_stands_still_is_shown_to_the_end(films, tmp_path):
    path = films("still.mp4", frames=2, size=(192, 108), times=(0.0, 20.0))
    made = cut(path, 2.0, 9.0, tmp_path)
    assert frames(made) == [(0.0, 0)]
    assert ends(made) == pytest.approx(7.0, abs=0.01)


def test_a_clip_ends_with_its_video(films, tmp_path):
    path = films("short.mp4", frames=90, size=(192, 108))
    made = cut(path, 2.0, 30.0, tmp_path)
    assert [number for _, number in frames(made)] == list(range(60, 90))
    assert ends(made) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (2.0, 2.0, "no moment"),
        (3.0, 2.0, "no moment"),
        (-1.0, 2.0, "no moment"),
        (float("nan"), 2.0, "no moment"),
        (0.0, float("inf"), "no moment"),
        (0.0, LONGEST + 1, "at most 60 s"),
        (3.5, 4.0, r"3\.000 s long"),
        (900.0, 901.0, r"3\.000 s long"),
    ],
)
def test_what_no_clip_can_be_is_the_callers_mistake(films, tmp_path, start, end, told):
    path = films("short.mp4", frames=90, size=(192, 108))
    with open(path, "rb") as file, pytest.raises(ValueError, match=told):
        clip(file, start, end, tmp_path)
    assert list(tmp_path.glob("*.mp4")) == []


def test_fast_films_are_thinned_and_large_ones_made_smaller(films, tmp_path):
    path = films("fast.mp4", frames=60, rate=60, size=(1600, 90))
    made = cut(path, 0.0, 1.0, tmp_path)
    seen = [second for second, _ in frames(made)]
    assert len(seen) == 30
    assert all(later - second > 0.03 for second, later in pairwise(seen))
    assert (probe(made).width, probe(made).height) == (1280, 72)


@pytest.mark.parametrize(("quarters", "mirrored"), [(1, False), (2, True), (3, False)])
def test_a_turned_film_becomes_an_upright_clip(films, tmp_path, quarters, mirrored):
    plain = turned_film(films, f"turn-{quarters}-{mirrored}.mp4", quarters, mirrored)
    path = turned(plain, tmp_path / "turned.mp4", quarters, mirrored)
    (tmp_path / "out").mkdir()
    made = cut(path, 0.0, 1.0, tmp_path / "out")
    found = probe(made)
    assert (found.width, found.height, found.rotation) == ((192, 320, 0) if quarters % 2 else (320, 192, 0))
    assert [number for _, number in frames(made)] == list(range(30))
    with path.open("rb") as one, made.open("rb") as two:
        pixels = [np.asarray(Image.open(io.BytesIO(frame(file, 0.35))), int) for file in (one, two)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 4  # the same picture in the same colours


def test_colours_stay_what_they_are(tmp_path):
    """BT.601 in, BT.709 out, and both tagged: the same red."""
    red = np.full((180, 320, 3), (200, 60, 40), np.uint8)
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 5, 1
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p", dst_colorspace=5)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    (tmp_path / "out").mkdir()
    made = cut(path, 0.0, 1.0, tmp_path / "out")
    pixels = next(e for e in read(made) if isinstance(e, Frame)).pixels
    assert np.abs(pixels[100, 100].astype(int) - (200, 60, 40)).max() <= 5
    with opened(made) as (_, stream):
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)


def tones(path: Path, rate: int, channels: str = "stereo", codec: str = "aac") -> Path:
    """Four seconds of film, with silence but for a beep from second 2 to 2.5."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        sound = output.add_stream(codec, rate=rate, layout=channels)
        for number in range(120):
            frame = av.VideoFrame.from_ndarray(np.full((108, 192, 3), number, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        time = np.arange(4 * rate) / rate
        wave = (0.5 * np.sin(2 * np.pi * 440 * time) * ((time >= 2) & (time < 2.5))).astype(np.float32)
        count = 1 if channels == "mono" else 2
        for at in range(0, len(wave), 1024):
            block = np.ascontiguousarray(np.repeat(wave[None, at : at + 1024], count, 0))
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=channels)
            frame.sample_rate, frame.pts = rate, at
            output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return path


def loud(path: Path) -> tuple[float, float, float]:
    """Seconds at which the sound begins and ends to be loud, and its length."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        parts = [(float(f.time), f.to_ndarray()[0]) for f in container.decode(audio=0)]
    whole = np.zeros(int(max(at for at, _ in parts) * rate) + 8192, np.float32)
    last = 0
    for at, samples in parts:
        place = round(at * rate)
        samples = samples[max(0, -place) :]
        whole[max(0, place) : max(0, place) + len(samples)] = samples
        last = max(last, place + len(samples))
    places = np.flatnonzero(np.abs(whole) > 0.2) / rate
    return float(places[0]), float(places[-1]), last / rate


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("a.mp4", 48000, "stereo"), ("b.mkv", 44100, "mono"), ("c.ts", 48000, "stereo"), ("d.mp4", 96000, "stereo")],
)
def test_the_sound_stays_with_the_picture(tmp_path, name, rate, channels):
    path = tones(tmp_path / name, rate, channels)
    (tmp_path / "out").mkdir()
    made = cut(path, 1.25, 3.0, tmp_path / "out")
    begin, end, length = loud(made)
    offset = 0.0
    if name.endswith(".ts"):  # there the sound's own delay of its encoder is part of the clock
        offset = loud(path)[0] - 2.0
    assert begin == pytest.approx(0.75 + offset, abs=0.015)
    assert end == pytest.approx(1.25 + offset, abs=0.015)
    assert length == pytest.approx(1.75, abs=0.03)


def test_sound_that_starts_late_or_is_missing_is_silence(films, tmp_path):
    path = films("late.mkv", frames=120, size=(192, 108), audio=2.0)
    made = cut(path, 3.0, 4.0, tmp_path)  # behind the end of the sound
    assert [number for _, number in frames(made)] == list(range(90, 120))
    mute = cut(films("mute.mp4", frames=60, size=(192, 108)), 0.0, 1.0, made.parent)
    with av.open(str(mute)) as container:
        assert not container.streams.audio


def test_work_that_takes_too_long_leaves_no_clip(films, tmp_path):
    path = films("heavy.mp4", frames=900, size=(640, 360))
    for limits in (Limits(seconds=0.05, written_bytes=1 << 30), Limits(cpu_seconds=0, written_bytes=1 << 30)):
        with open(path, "rb") as file, pytest.raises(VideoError) as caught:
            clip(file, 0.0, 30.0, tmp_path, limits)
        assert caught.value.code == "timeout"
    with open(path, "rb") as file, pytest.raises(VideoError):
        clip(file, 0.0, 30.0, tmp_path, Limits(written_bytes=1000, memory_bytes=3 << 30))


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as found:
        yield found


PLAY = """async () => {
    const video = document.querySelector("video");
    await video.play();
    while (!video.ended && video.currentTime < 0.5) await new Promise(done => setTimeout(done, 20));
    return {at: video.currentTime, length: video.duration, width: video.videoWidth,
            sound: video.webkitAudioDecodedByteCount}
}"""


def test_chromium_plays_it(browser, tmp_path):
    path = tones(tmp_path / "a.mkv", 48000)
    (tmp_path / "out").mkdir()
    made = cut(path, 1.0, 3.0, tmp_path / "out")
    page = browser.new_page()
    (tmp_path / "page.html").write_text(f'<video muted src="{made}"></video>')
    page.goto((tmp_path / "page.html").as_uri())
    played = page.evaluate(PLAY)
    assert played["at"] >= 0.5
    assert played["length"] == pytest.approx(2.0, abs=0.05)
    assert played["width"] == 192
    assert played["sound"] > 0
    page.close()
