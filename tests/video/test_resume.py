"""A read that starts at a boundary gives exactly what an undisturbed read gives from there on."""

import random

import pytest

from rushes.video import sample
from rushes.video.decode import Damage, Frame, Span, read
from tests.video.films import film


def identity(event):
    return (event.time, event.pixels.tobytes()) if isinstance(event, Frame) else event


def moment(event):
    return event.time if isinstance(event, Frame) else event.start


def same_from_every_boundary(path, **how):
    """Checks all boundaries; how many there were."""
    whole = list(read(path, **how))
    spans = [event for event in whole if isinstance(event, Span)]
    windows = how.get("segments") == "windows"
    boundaries = [span.start for span in spans] if windows else [spans[0].start, *(span.end for span in spans[:-1])]
    for boundary in boundaries:
        rest = list(read(path, start=boundary, **how))
        wanted = [event for event in whole if moment(event) >= boundary]
        assert [identity(event) for event in rest] == [identity(event) for event in wanted], boundary
    if not windows:
        assert list(read(path, start=spans[-1].end, **how)) == []
    return len(boundaries)


CUTS = tuple(sorted(random.Random(5).sample(range(20, 880), 9)))
SPARSE = tuple(number * 1.5 + 0.25 * (number % 3) for number in range(40))
VFR = tuple(number / 30 if number < 300 else 10 + (number - 300) / 12 for number in range(600))

FILMS = {
    "b-frames.mp4": {"frames": 900, "cuts": CUTS, "pan": 1},
    "long-gop.mkv": {
        "frames": 900,
        "cuts": CUTS,
        "options": {"preset": "ultrafast", "bf": "3", "g": "250", "x264-params": "scenecut=0"},
    },
    "open-gop.mp4": {
        "frames": 900,
        "cuts": CUTS,
        "options": {"preset": "ultrafast", "bf": "3", "g": "60", "x264-params": "open-gop=1:scenecut=0"},
    },
    "film.ts": {"frames": 900, "cuts": CUTS},
    "vfr.mp4": {"frames": 600, "cuts": (40, 200, 350, 480), "times": VFR},
    "slides.mp4": {"frames": 40, "cuts": tuple(range(3, 40, 3)), "times": SPARSE},
    "bare.h264": {"frames": 600, "cuts": (100, 333)},
}


@pytest.mark.parametrize("policy", sample.POLICIES)
@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("segments", ["shots", "windows"])
def test_resuming_at_any_boundary_changes_nothing(films, name, policy, segments):
    how = {"size": (160, 96)} | FILMS[name]
    assert same_from_every_boundary(films(name, **how), policy=policy, segments=segments, size=64) >= 3


@pytest.mark.parametrize("seed", range(3))
def test_resuming_in_films_of_random_cuts_flashes_and_pauses(tmp_path, seed):
    dice = random.Random(seed)
    second, times = 0.0, []
    for _ in range(300):
        times.append(round(second, 3))
        second += dice.choice([0.04] * 30 + [0.1, 0.7, 3.0])
    cuts = sorted(dice.sample(range(2, 298), 14))
    path = film(tmp_path / "dice.mp4", frames=300, times=times, cuts=cuts, size=(160, 96))
    for policy in sample.POLICIES:
        same_from_every_boundary(path, policy=policy, size=64)


def test_damage_before_the_boundary_is_not_told_again(films, tmp_path):
    from tests.video.test_damage import broken

    path = films("b-frames.mp4", size=(160, 96), **FILMS["b-frames.mp4"])
    broken(path, tmp_path / "bad.mp4", range(40, 43), "zeroed")
    how = {"policy": "thorough", "size": 64, "threads": 1}
    whole = list(read(tmp_path / "bad.mp4", **how))
    boundary = next(event.end for event in whole if isinstance(event, Span) and event.end > 3)
    assert any(isinstance(event, Damage) for event in whole)
    assert not any(isinstance(event, Damage) for event in read(tmp_path / "bad.mp4", start=boundary, **how))


def test_a_start_between_windows_is_refused(films):
    with pytest.raises(ValueError, match=r"none at 3\.0 s; resume at a window's start"):
        list(read(films("film.ts", size=(160, 96), **FILMS["film.ts"]), segments="windows", start=3.0))
