"""Moments are runs of evidence near the best, in seconds, inside what was looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.search.moments import moments

evidence = st.lists(st.floats(-1, 1), min_size=1, max_size=12)


@given(evidence, st.floats(0, 1))
def test_moments_lie_inside_and_the_best_token_is_in_the_first(values, spread):
    spans = [(float(i), float(i + 1)) for i in range(len(values))]
    found = moments(values, spans, spread)
    assert all(0 <= moment.start < moment.end <= len(values) for moment in found)
    assert found[0].score == max(values)
    best = values.index(max(values))
    assert any(moment.start <= best and best + 1 <= moment.end for moment in found)


@given(evidence)
def test_more_than_the_whole_spread_gives_one_moment(values):
    spans = [(float(i), float(i + 1)) for i in range(len(values))]
    assert len(moments(values, spans, spread=3.0)) == 1


def test_no_token_gives_no_moment():
    assert moments([], [], spread=0.1) == ()


def test_one_token_gives_its_span():
    (only,) = moments([0.3], [(1.0, 2.0)], spread=0.0)
    assert (only.start, only.end, only.score) == (1.0, 2.0, 0.3)


def test_unequal_lists_are_an_error():
    with pytest.raises(ValueError, match="2 evidences for 1 spans"):
        moments([0.1, 0.2], [(0.0, 1.0)], spread=0.1)
