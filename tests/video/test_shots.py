"""Segments begin at cuts, tile the video, and know nothing of what came before them."""

from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.video import sample
from rushes.video.decode import Frame, Span, read
from rushes.video.shots import (
    SMALL,
    Detector,
    End,
    Look,
    by_shots,
    by_windows,
    dense,
    difference,
    smaller,
    sparse,
)
from tests.video.films import draw

LONG = {"preset": "ultrafast", "bf": "2", "g": "250", "x264-params": "scenecut=0"}


def starts(path, **how):
    return [round(event.start * 30) for event in read(path, size=32, **how) if isinstance(event, Span)]


@pytest.mark.parametrize("policy", ["balanced", "thorough"])
def test_hard_cuts_are_found_to_the_frame(films, policy):
    cuts = (60, 150, 171, 240)
    path = films("cuts.mp4", frames=300, cuts=cuts, pan=3, size=(192, 108), options=LONG)
    found = starts(path, policy=policy)
    assert len(found) == 5
    late = 0 if policy == "thorough" else 2  # a cut on a frame that is skipped is seen on the next
    assert all(0 <= got - cut <= late for got, cut in zip(found[1:], cuts, strict=True))


def test_camera_motion_is_no_cut(films):
    path = films("pan.mp4", frames=270, pan=14, size=(192, 108))
    assert starts(path, policy="thorough") == [0]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_flash_is_no_cut(films, length):
    def flashing(number):
        picture = draw(number, 192, 108, pan=number)
        return picture // 8 + 223 if 70 <= number < 70 + length else picture

    path = films(f"flash-{length}.mp4", frames=150, size=(192, 108), picture=flashing)
    assert starts(path, policy="thorough") == [0]
    assert starts(path, policy="balanced") == [0]


def test_a_cut_is_found_in_a_slide_show(films):
    times = tuple(2.0 * number for number in range(12))
    path = films("slides.mp4", frames=12, times=times, cuts=(2, 3, 7), size=(192, 108))
    spans = [event for event in read(path, policy="thorough") if isinstance(event, Span)]
    assert {0.0, 4.0, 6.0, 14.0}.issubset(span.start for span in spans)


def colour(scene):
    """A flat picture that differs from its neighbours in hue and brightness."""
    hsv = np.uint8([[[scene * 37 % 180, 255, 255 if scene % 2 else 60]]])
    return np.full((8, 8, 3), cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0], np.uint8)


def cut_up(times, scenes, end, rate, detector=dense, start=0.0, windows=False):
    """Segments of a film that exists only as a list of times and scenes."""
    looks = [Look(time, scene) for time, scene in zip(times, scenes, strict=True)]
    first = max((index for index, time in enumerate(times) if time <= start), default=0)
    events = [*looks[first:], End(end)]
    pixels = lambda look: np.uint8([[[look.picture % 256] * 3]])  # noqa: E731
    if windows:
        return list(by_windows(events, rate, pixels, start))
    return list(by_shots(events, rate, pixels, start, detector, small=colour))


@st.composite
def imagined(draw):
    steps = draw(
        st.lists(st.sampled_from([0.02, 1 / 30, 0.04, 0.1, 0.3, 0.5, 1.0, 4.0, 25.0]), min_size=1, max_size=150)
    )
    dwell = draw(st.integers(1, 30))
    times = np.cumsum([0.0, *steps]).round(4).tolist()
    jumps = draw(st.lists(st.integers(0, dwell), min_size=len(times), max_size=len(times)))
    scenes = np.cumsum([jump == 0 for jump in jumps]).tolist()
    return times, scenes, round(times[-1] + draw(st.sampled_from([0.04, 0.6, 3.0])), 4)


@settings(max_examples=150, deadline=None)
@given(imagined(), st.sampled_from([1.0, 2.0]), st.sampled_from([dense, sparse]))
def test_shots_tile_any_film_and_resume_at_any_boundary(film, rate, detector):
    times, scenes, end = film
    events = cut_up(times, scenes, end, rate, detector)
    spans = [event for event in events if isinstance(event, Span)]
    assert spans[0].start == 0
    assert spans[-1].end == end
    assert all(one.end == two.start for one, two in pairwise(spans))
    assert all(span.end - span.start >= sample.SHORTEST for span in spans[:-1])
    assert len(spans) == 1 or end - spans[-1].start >= sample.SHORTEST
    for span in spans:
        within = [time for time in times if span.start <= time < span.end]
        assert span.times
        assert set(span.times) <= set(within)
        longest = sample.WINDOW + sample.SHORTEST + 1e-6
        assert span.end - span.start <= longest or all(
            min(time - span.start, span.end - time) < sample.SHORTEST for time in within
        ), "longer only where there is no frame to split at"
    order = [event.time if isinstance(event, Frame) else event.end for event in events]
    assert order == sorted(order)
    for span in spans[1:]:
        rest = cut_up(times, scenes, end, rate, detector, span.start)
        wanted = [e for e in events if (e.time if isinstance(e, Frame) else e.start) >= span.start]
        assert [getattr(e, "time", e) for e in rest] == [getattr(e, "time", e) for e in wanted]


@settings(max_examples=150, deadline=None)
@given(imagined(), st.sampled_from([1.0, 2.0]))
def test_windows_cover_any_film_and_resume_at_any_window(film, rate):
    times, scenes, end = film
    events = cut_up(times, scenes, end, rate, windows=True)
    spans = [event for event in events if isinstance(event, Span)]
    assert [span.start for span in spans] == [number * sample.STEP for number in range(len(spans))]
    assert spans[-1].end == end
    assert all(span.end == span.start + sample.WINDOW for span in spans[:-1])
    assert all(span.start <= time < span.end for span in spans for time in span.times)
    sent = [event.time for event in events if isinstance(event, Frame)]
    assert sent == sorted(set(sent))
    for span in spans:
        own = [time for time in sent if span.start <= time < span.end and time in times]
        assert list(span.times) == own or span.times == (span.start,)
        rest = cut_up(times, scenes, end, rate, start=span.start, windows=True)
        wanted = [e for e in events if (e.time if isinstance(e, Frame) else e.start) >= span.start]
        assert [getattr(e, "time", e) for e in rest] == [getattr(e, "time", e) for e in wanted]


@pytest.mark.parametrize(
    "format",
    ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "nv12", "yuv420p10le", "yuv444p12le", "rgb24", "gray", "p010le"],
)
@pytest.mark.parametrize("size", [(641, 361), (64, 48), (1920, 1080)])
def test_the_small_picture_is_the_picture(format, size):
    picture = draw(5, *size, scene=3)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=format)
    small = smaller()(frame)
    wanted = cv2.resize(picture, SMALL, interpolation=cv2.INTER_AREA)[..., ::-1]
    if format == "gray":
        wanted = np.repeat(cv2.cvtColor(np.ascontiguousarray(wanted), cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
    assert small.shape == (SMALL[1], SMALL[0], 3)
    assert small.dtype == np.uint8
    assert difference(small, np.ascontiguousarray(wanted)) < 4


def test_a_detector_names_the_first_frame_of_the_new_shot():
    for make in (dense, sparse):
        detector: Detector = make()
        found = [cut for number in range(40) for cut in detector.feed(number / 10, colour(number // 20))]
        assert found == [2.0]
