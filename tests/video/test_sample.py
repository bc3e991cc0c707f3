"""Arithmetic on seconds keeps its promises."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.video import sample

seconds = st.floats(0, 1e5)
rates = st.sampled_from([0.5, 1.0, 2.0, 3.0])


@given(seconds, st.floats(0, 500), rates)
def test_targets_lie_inside_evenly_spaced_and_none_is_missing(start, length, rate):
    found = sample.targets(start, start + length, rate)
    assert all(start <= second < start + length for second in found)
    assert all(abs(b - a - 1 / rate) < 1e-6 for a, b in pairwise(found))
    assert abs(len(found) - length * rate) <= 1


@given(seconds, st.floats(0.001, 1000), st.floats(0.5, 20))
def test_fills_leave_no_gap_and_are_no_more_than_needed(start, length, gap):
    looks = [start, *sample.fills(start, start + length, gap), start + length]
    steps = [b - a for a, b in pairwise(looks)]
    assert all(0 < step <= gap * 1.001 for step in steps)
    assert len(steps) <= length / gap + 1


@given(st.integers(0, 10**5))
def test_each_second_but_the_first_lies_in_two_windows(number):
    start, end = sample.window(number)
    assert end - start == sample.WINDOW
    assert sample.window(number + 2)[0] == end


def test_windows_and_samples_share_one_grid():
    """Else a frame could not belong to two windows."""
    assert all((sample.STEP * policy.rate).is_integer() for policy in sample.POLICIES.values())


def test_an_unknown_policy_is_told_the_known_ones():
    with pytest.raises(LookupError, match=r"no policy 'quick'; it has fast, balanced, thorough"):
        sample.policy("quick")
