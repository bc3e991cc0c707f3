"""A single frame is the one that a player shows then, upright and in its colours; a thumbnail shows something."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from rushes.video.decode import Frame, Span, read
from rushes.video.picture import frame, telling_frame
from rushes.video.pixels import jpeg, telling, webp
from rushes.video.probe import VideoError
from rushes.video.sandbox import Limits
from tests.video.films import draw, number_of, turned
from tests.video.test_kinds import turned_film
from tests.video.test_worker import identity


def shown(data: bytes, format: str = "JPEG") -> np.ndarray:
    """The pixels, read by another library than made them."""
    picture = Image.open(io.BytesIO(data))
    assert picture.format == format
    return np.asarray(picture.convert("RGB"))


def at(path, second, width=None):
    with open(path, "rb") as file:
        return shown(frame(file, second, width))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
@pytest.mark.parametrize("second", [0.0, 0.01, 1.5, 3.34, 5.98])
def test_the_frame_is_the_one_that_a_player_shows(films, name, second):
    path = films(name, frames=180, size=(192, 108))
    assert number_of(at(path, second)) == int(second * 30 + 1e-6)


def test_frames_of_variable_length_are_found_by_time(films):
    times = [0.0, 0.1, 1.7, 1.75, 4.0]
    path = films("vfr.mp4", frames=5, size=(192, 108), times=times)
    for second, number in ((0.05, 0), (0.1, 1), (1.69, 1), (1.7, 2), (1.76, 3), (3.99, 3), (4.0, 4)):
        assert number_of(at(path, second)) == number


def test_a_recording_that_does_not_start_at_zero(films):
    path = films("late.ts", frames=90, size=(192, 108), first=1000.0)
    assert number_of(at(path, 2.5)) == 75


def test_spliced_recordings_go_on_from_where_they_are(films, tmp_path):
    one = films("spliced.ts", frames=90, size=(192, 108)).read_bytes()
    two = films("spliced2.ts", frames=90, size=(192, 108), cuts=(0,)).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + two)
    kept = [event for event in read(tmp_path / "both.ts", policy="thorough", size=192) if isinstance(event, Frame)]
    late = [event for event in kept if event.time > 3.2]
    assert late
    for event in late[:2]:
        assert number_of(at(tmp_path / "both.ts", event.time + 0.001)) == number_of(event.pixels)


@pytest.mark.parametrize("second", [-0.1, 3.5, 1e9, float("nan"), float("inf")])
def test_a_second_outside_the_video_is_the_callers_mistake(films, second):
    path = films("short.mp4", frames=90, size=(192, 108))
    with open(path, "rb") as file, pytest.raises(ValueError, match=r"no second|3\.000 s long"):
        frame(file, second)
    assert number_of(at(path, 3.0)) == 89  # the end itself shows the last frame


def test_the_width_is_what_is_asked_and_nothing_is_enlarged(films):
    path = films("wide.mp4", frames=30, size=(320, 180))
    assert at(path, 0.5, 160).shape == (90, 160, 3)
    assert at(path, 0.5, 1000).shape == (180, 320, 3)
    with open(path, "rb") as file, pytest.raises(ValueError, match="from 1 to 3840"):
        frame(file, 0.5, 0)


def test_a_turned_film_with_long_pixels_is_shown_as_a_player_does(films, tmp_path):
    def long(stream):
        stream.sample_aspect_ratio = Fraction(4, 3)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = films("long.mp4", frames=30, size=(240, 180), setup=long)
    assert at(path, 0.5).shape == (180, 320, 3)
    for quarters, mirrored in ((1, False), (3, True), (2, False)):
        plain = turned_film(films, f"turn-{quarters}-{mirrored}.mp4", quarters, mirrored)
        pixels = at(turned(plain, tmp_path / "turned.mp4", quarters, mirrored), 0.5)
        assert pixels.shape == ((320, 192, 3) if quarters % 2 else (192, 320, 3))
        assert number_of(pixels) == 15


def test_a_file_that_gives_nothing_says_so(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video at all" * 100)
    with open(tmp_path / "no.mp4", "rb") as file:
        with pytest.raises(VideoError) as caught:
            frame(file, 0.0)
        assert caught.value.code == "not-a-video"
        assert str(tmp_path / "no.mp4") in caught.value.reason
        with pytest.raises(VideoError) as caught:
            telling_frame(file, 0.0, 1.0)
        assert caught.value.code == "not-a-video"


def test_a_decode_that_takes_too_long_is_ended(films):
    path = films("heavy.flv", frames=900, size=(640, 360))  # no index: read to its end
    with open(path, "rb") as file:
        for limits in (Limits(seconds=0.05), Limits(cpu_seconds=0)):
            with pytest.raises(VideoError) as caught:
                frame(file, 29.9, limits=limits)
            assert caught.value.code == "timeout"


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize(("encode", "format"), [(webp, "WEBP"), (jpeg, "JPEG")])
@pytest.mark.parametrize("size", [(120, 160), (61, 33), (1, 1), (2, 300)])
def test_pictures_keep_their_colours_and_size(encode, format, size):
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : max(1, width // 2)] = (200, 30, 60)
    pixels[:, max(1, width // 2) :] = (20, 120, 220)
    back = shown(encode(pixels), format)
    assert back.shape == pixels.shape
    corner = back[0, 0].astype(int)
    assert np.abs(corner - pixels[0, 0]).max() < 12


def test_what_shows_more_tells_more():
    scene = draw(5, 160, 90)
    plain = np.full_like(scene, 128)
    title = np.zeros_like(scene)
    title[40:50, 30:130] = 255
    assert telling(scene) > telling((scene * 0.5).astype(np.uint8)) > telling((scene * 0.1).astype(np.uint8))
    assert telling(scene) > telling(title)
    assert telling(scene) > telling(np.full_like(scene, 255)) == telling(plain) == telling(plain * 0) == 0
    half = (scene * 0.4 + plain * 0.6).astype(np.uint8)  # half way through a fade
    assert telling(scene) > telling(half)


def fading(number):
    """Black for two seconds, two of fading in, then a scene."""
    light = min(1.0, max(0.0, (number - 60) / 60))
    return (draw(number, 320, 180, scene=1) * light).astype(np.uint8)


def thumbnails(path, **how):
    return [event for event in read(path, thumbnails=320, **how) if isinstance(event, Span)]


def test_the_thumbnail_of_a_segment_is_no_black_frame(films):
    path = films("fading.mp4", frames=210, picture=fading)
    first = thumbnails(path, segments="windows")[0]
    assert first.start == 0
    assert first.times[0] < 2 < 4 < first.end
    picture = shown(first.thumbnail, "WEBP")
    assert picture.shape == (180, 320, 3)
    assert number_of(picture) >= 117  # behind the fade
    assert number_of(picture) in [round(time * 30) for time in first.times]
    with open(path, "rb") as file:
        later = shown(telling_frame(file, first.start, first.end), "WEBP")
        black = shown(telling_frame(file, 0.0, 1.0), "WEBP")
    assert number_of(later) >= 117
    assert black.max() < 20  # where all is black, that is what there is to show


@pytest.mark.parametrize("segments", ["shots", "windows"])
@pytest.mark.parametrize("policy", ["fast", "balanced", "thorough"])
def test_a_thumbnail_shows_its_own_segment(films, segments, policy):
    path = films("scenes.mp4", frames=1080, size=(192, 108), cuts=(240, 400, 800))
    spans = thumbnails(path, segments=segments, policy=policy)
    assert len(spans) >= 4
    for span in spans:
        number = number_of(shown(span.thumbnail, "WEBP"))
        assert any(abs(number / 30 - time) < 0.04 for time in span.times), (span, number)


@pytest.mark.parametrize("segments", ["shots", "windows"])
def test_thumbnails_change_nothing_else_and_survive_a_resume(films, segments):
    path = films("scenes.mp4", frames=1080, size=(192, 108), cuts=(240, 400, 800))
    plain = [event for event in read(path, segments=segments)]
    rich = [event for event in read(path, segments=segments, thumbnails=320)]
    bare = [Span(e.start, e.end, e.times) if isinstance(e, Span) else e for e in rich]
    assert identity(bare) == identity(plain)
    spans = [event for event in rich if isinstance(event, Span)]
    resume = spans[1].end if segments == "shots" else spans[1].start + 5.0
    again = [event for event in read(path, segments=segments, thumbnails=320, start=resume) if isinstance(event, Span)]
    assert again == spans[2:]


def test_a_tall_or_turned_film_gives_an_upright_thumbnail_of_the_same_weight(films, tmp_path):
    tall = thumbnails(films("tall.mp4", frames=30, size=(180, 320)))[0]
    assert shown(tall.thumbnail, "WEBP").shape == (320, 180, 3)
    plain = turned_film(films, "turn-1-False.mp4", 1, False)
    picture = shown(thumbnails(turned(plain, tmp_path / "turned.mp4", 1))[0].thumbnail, "WEBP")
    assert picture.shape == (320, 192, 3)
    assert number_of(picture) == 15
    small = thumbnails(films("small.mp4", frames=30, size=(96, 64)))[0]
    assert shown(small.thumbnail, "WEBP").shape == (64, 96, 3)  # not enlarged
