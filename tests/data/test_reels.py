"""Reels show the picture they say at the time they say."""

import av
import cv2
import numpy as np
import pytest

from rushes.data.reels import Reel, Shot, compose, frame_at, render

WHOLE = (0.5, 0.5, 1.0)
COLOURS = {"red.png": (200, 30, 30), "green.png": (30, 200, 30), "blue.png": (30, 30, 200)}


@pytest.fixture
def pictures(tmp_path):
    for name, colour in COLOURS.items():
        cv2.imwrite(str(tmp_path / name), np.full((60, 80, 3), colour[::-1], dtype=np.uint8))
    return tmp_path


def test_a_rendered_reel_shows_each_picture_between_its_times(pictures):
    reel = Reel(
        "r",
        (
            Shot("red.png", 0, 1, WHOLE, WHOLE),
            Shot("green.png", 1, 1.6, WHOLE, WHOLE),
            Shot("blue.png", 1.6, 3, WHOLE, WHOLE),
        ),
    )
    render(reel, pictures / "r.mp4", root=pictures, size=(64, 48))
    with av.open(str(pictures / "r.mp4")) as container:
        frames = [
            (float(frame.time), frame.to_ndarray(format="rgb24").mean((0, 1))) for frame in container.decode(video=0)
        ]
    assert len(frames) == 75
    for time, colour in frames:
        shot = next(shot for shot in reel.shots if time < shot.end - 1e-6)
        assert np.abs(colour - COLOURS[shot.picture]).max() < 12, time


def test_a_fade_is_half_of_each_in_its_middle(pictures):
    reel = Reel("r", (Shot("red.png", 0, 1, WHOLE, WHOLE), Shot("blue.png", 1, 2, WHOLE, WHOLE, fade=0.5)))
    images = {name: np.full((60, 80, 3), colour, dtype=np.uint8) for name, colour in COLOURS.items()}
    middle = frame_at(reel, 1.25, images, (32, 24)).mean((0, 1))
    assert np.abs(middle - (115, 30, 115)).max() <= 1


def test_composing_is_deterministic_and_uses_every_picture_before_any_twice():
    names = [f"{n}.jpg" for n in range(40)]
    reels = compose(names, count=10, seed=3, shots=(4, 4))
    assert reels == compose(names, count=10, seed=3, shots=(4, 4)) != compose(names, count=10, seed=4, shots=(4, 4))
    used = [shot.picture for reel in reels for shot in reel.shots]
    assert sorted(used) == sorted(names)
    for reel in reels:
        assert reel.shots[0].start == 0
        assert all(a.end == b.start for a, b in zip(reel.shots, reel.shots[1:], strict=False))


def test_no_picture_comes_twice_in_a_reel():
    for reel in compose([f"{n}.jpg" for n in range(6)], count=50, seed=0, shots=(3, 6)):
        assert len({shot.picture for shot in reel.shots}) == len(reel.shots)


def test_too_few_pictures_and_broken_pictures_are_named(tmp_path):
    with pytest.raises(ValueError, match="2 pictures are too few"):
        compose(["a", "b"], count=1)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png is no picture"):
        render(Reel("r", (Shot("a.png", 0, 1, WHOLE, WHOLE),)), tmp_path / "r.mp4", root=tmp_path)
