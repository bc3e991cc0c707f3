"""A sketch is a stretch of a video, every frame with the second at which it is shown."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.video import sandbox
from rushes.video.probe import VideoError
from rushes.video.sketch import SIDE, sketch, understood
from tests.video import films


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    films.film(path)
    return path


def test_pictures_are_those_of_the_stretch(film):
    whole, part = sketch(film, 0.0, 3.0), sketch(film, 1.0, 2.0)
    assert whole.pictures.shape == (len(whole), SIDE, SIDE)
    assert part.times[0] == pytest.approx(1.0, abs=0.05)
    assert part.times[-1] < 2.0
    same = whole.pictures[np.isin(whole.times.round(4), part.times.round(4))]
    assert np.array_equal(same, part.pictures)


def test_a_lower_rate_keeps_fewer(film):
    many, few = sketch(film, 0.0, 2.0), sketch(film, 0.0, 2.0, rate=5.0)
    assert len(few) == pytest.approx(10, abs=1)
    assert len(many) > 3 * len(few)
    assert np.all(np.diff(few.times) > 0.17)


def test_behind_the_end_there_is_nothing(film):
    assert len(sketch(film, 1000.0, 1001.0)) <= 1


def test_a_turned_film_is_sketched_upright(film, tmp_path):
    films.turned(film, tmp_path / "turned.mp4", 1)
    upright, turned = sketch(film, 0.0, 0.5).pictures[0], sketch(tmp_path / "turned.mp4", 0.0, 0.5).pictures[0]
    assert np.abs(np.rot90(upright, -1).astype(int) - turned).mean() < 3


def test_the_sandbox_sketches_the_same(film):
    with film.open("rb") as source:
        wanted = {"start": 0.5, "end": 1.5, "rate": 10.0}
        made = understood(*sandbox.run("rushes.video.sketch:task", wanted, source=source))
    here = sketch(film, 0.5, 1.5, 10.0)
    assert np.array_equal(made.times, here.times)
    assert np.array_equal(made.pictures, here.pictures)


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, 1e6), (float("nan"), 1.0)])
def test_a_stretch_that_is_none_is_an_error(film, start, end):
    with pytest.raises(ValueError, match="cannot be"):
        sketch(film, start, end)


def test_what_is_no_video_is_an_error(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no film" * 1000)
    with pytest.raises(VideoError):
        sketch(tmp_path / "no.mp4", 0.0, 1.0)


def test_an_answer_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="reshape"):
        understood({"times": [0.0, 1.0]}, b"\0" * SIDE * SIDE)
