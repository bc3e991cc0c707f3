"""One stretch laid over another: the offset and the crop come out, and what is not the same is told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.search.register import agreement, register
from rushes.video.sketch import SIDE, Sketch

RATE = 25


def scene(seed: int, side: int = 256) -> np.ndarray:
    """A soft random picture, as photographs are."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 12)).astype(np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def filmed(shots: list[tuple[int, float]], moving: float = 0.05) -> Sketch:
    """Pictures of (seed, seconds) shots, the view moving by a share of the width each second."""
    times, pictures, start = [], [], 0.0
    for seed, seconds in shots:
        whole = scene(seed)
        for number in range(round(seconds * RATE)):
            left = round(min(0.2, moving * number / RATE) * 256)
            times.append(start + number / RATE)
            pictures.append(cv2.resize(whole[20:225, left : left + 205], (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        start += seconds
    return Sketch(np.array(times), np.stack(pictures).round().astype(np.uint8))


def cut(video: Sketch, start: float, seconds: float, rate: float = 10.0, crop=(0.0, 0.0, 1.0, 1.0), noise: float = 4.0):
    """The sketch of a clip: cropped, noisy, at its own rate, its clock from zero."""
    random = np.random.default_rng(0)
    left, top, right, bottom = (round(edge * SIDE) for edge in crop)
    times = np.arange(0, seconds, 1 / rate)
    rows = np.searchsorted(video.times, times + start + 1e-6, side="right") - 1
    pictures = [
        cv2.resize(picture[top:bottom, left:right].astype(np.float32), (SIDE, SIDE)) * 0.8 + 30
        for picture in video.pictures[rows]
    ]
    noisy = np.stack(pictures) + random.normal(0, noise, (len(pictures), SIDE, SIDE))
    return Sketch(times, noisy.clip(0, 255).astype(np.uint8))


VIDEO = filmed([(1, 3.0), (2, 4.0), (3, 2.5), (4, 4.0)])


@pytest.mark.parametrize("crop", [(0, 0, 1, 1), (0.06, 0.04, 0.98, 1.0), (0.1, 0.1, 0.9, 0.9), (0.0, 0.1, 0.92, 1.0)])
@pytest.mark.parametrize(("start", "seconds"), [(1.0, 4.0), (4.3, 6.0), (8.72, 2.0)])
def test_the_offset_of_a_cropped_noisy_darker_clip(crop, start, seconds):
    fit = register(cut(VIDEO, start, seconds, crop=crop), VIDEO, (start - 1.2, start + 1.5))
    assert fit is not None
    assert fit.offset == pytest.approx(start, abs=0.15)
    assert fit.agreement > 0.9
    assert not fit.mirrored


@pytest.mark.parametrize("rate", [1.0, 5.0, 15.0, 30.0])
def test_the_clips_rate_plays_no_part(rate):
    fit = register(cut(VIDEO, 2.0, 5.0, rate=rate), VIDEO, (0.5, 3.5))
    assert fit is not None
    assert fit.offset == pytest.approx(2.0, abs=0.15)


def test_a_mirrored_clip_is_known_only_when_it_is_asked_for():
    clip = cut(VIDEO, 2.0, 5.0)
    turned = Sketch(clip.times, np.ascontiguousarray(clip.pictures[:, :, ::-1]))
    plain, asked = (register(turned, VIDEO, (0.5, 3.5), mirrored=mirrored) for mirrored in (False, True))
    assert plain is not None
    assert asked is not None
    assert plain.agreement < 0.6 < 0.9 < asked.agreement
    assert asked.offset == pytest.approx(2.0, abs=0.15)
    assert asked.mirrored


def test_other_footage_does_not_agree():
    other = filmed([(11, 3.0), (12, 4.0)])
    fit = register(cut(other, 1.0, 4.0), VIDEO, (0.0, 4.0))
    assert fit is not None
    assert fit.agreement < 0.6


def test_a_still_picture_has_no_margin_and_a_moving_one_has():
    still = filmed([(5, 10.0)], moving=0.0)
    fit, moving = register(cut(still, 4.0, 2.0), still, (2.0, 6.0)), register(cut(VIDEO, 2.0, 4.0), VIDEO, (0.0, 4.0))
    assert fit is not None
    assert moving is not None
    assert fit.agreement > 0.9
    assert fit.margin < 0.02 < 0.1 < moving.margin
    assert fit.offset == pytest.approx(4.0, abs=0.2)  # the middle of all that fit


def test_pictures_that_show_nothing_are_like_nothing():
    black = Sketch(np.arange(10) / 10, np.zeros((10, SIDE, SIDE), np.uint8))
    fit = register(black, black, (-0.5, 0.5))
    assert fit is not None
    assert fit.agreement == 0.0


def test_nothing_to_compare():
    none = Sketch(np.zeros(0), np.zeros((0, SIDE, SIDE), np.uint8))
    assert register(none, VIDEO, (0.0, 1.0)) is None
    assert register(VIDEO, none, (0.0, 1.0)) is None


def test_one_picture():
    fit = register(cut(VIDEO, 3.0, 0.05), VIDEO, (1.5, 4.5))
    assert fit is not None
    assert fit.agreement > 0.9


def test_agreement_tells_each_picture():
    clip = cut(VIDEO, 1.0, 3.0)
    fit = register(clip, VIDEO, (0.0, 2.0))
    assert fit is not None
    mixed = Sketch(clip.times, np.concatenate([clip.pictures[:15], np.stack([scene(99, SIDE).astype(np.uint8)] * 15)]))
    told = agreement(mixed, VIDEO, fit)
    assert told[:15].min() > 0.8
    assert told[15:].max() < 0.6
    late = Sketch(clip.times + 100.0, clip.pictures)
    assert not agreement(late, VIDEO, fit).any()
