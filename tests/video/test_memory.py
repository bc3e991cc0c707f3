"""Memory does not grow with the length of a video: 12 hours at one frame in two seconds."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.video.films import BITS, film

FRAMES = 12 * 3600 // 2

SCRIPT = """
import json, resource, sys
from rushes.video.decode import Frame, Span, read
from tests.video.films import number_of
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
early, frames, wrong, spans, end = 0.0, 0, 0, 0, 0.0
for event in read(sys.argv[1], policy=sys.argv[2], segments=sys.argv[3], size=64, threads=1):
    if isinstance(event, Frame):
        frames += 1
        wrong += frames % 100 == 0 and number_of(event.pixels) != round(event.time / 2)
        early = early or (event.time > 3600 and peak())
    elif isinstance(event, Span):
        spans, end = spans + 1, event.end
print(json.dumps([early, peak(), frames, wrong, spans, end]))
"""


def simple(number):
    """As `draw`, but quick."""
    picture = np.full((48, 64, 3), 90 + number // 20 % 2 * 60, np.uint8)
    gray = number ^ (number >> 1)
    bits = [(gray >> (BITS - 1 - bit)) & 1 for bit in range(BITS)]
    picture[:8] = np.repeat(bits, 4)[None, :, None] * 219 + 16
    return picture


@pytest.fixture(scope="module")
def half_a_day(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    times = [2.0 * number for number in range(FRAMES)]
    return film(path, frames=FRAMES, times=times, size=(64, 48), picture=simple)


@pytest.mark.parametrize(("policy", "segments"), [("balanced", "shots"), ("thorough", "windows"), ("fast", "shots")])
def test_twelve_hours(half_a_day, policy, segments):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(half_a_day), policy, segments], capture_output=True, text=True, check=True
    )
    early, late, frames, wrong, spans, end = json.loads(run.stdout)
    assert late - early < 30, "MiB grown between the first hour and the twelfth"
    assert frames > FRAMES / 4
    assert wrong == 0
    assert spans > 4000
    assert end == pytest.approx(2.0 * FRAMES, abs=4.0)
