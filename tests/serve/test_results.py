"""An answer stands still: pages put together are the whole, and no cursor can be made up."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.serve.problems import Refusal
from rushes.serve.results import Frozen, Results


def walk(results: Results, name: bytes, answer: Frozen, limit: int) -> list:
    items, cursor = results.page(name, answer, 0, limit)
    found = list(items)
    while cursor is not None:
        name, answer, position = results.at(cursor)
        items, cursor = results.page(name, answer, position, limit)
        assert items, "a cursor led to an empty page"
        found += items
    return found


@given(st.integers(0, 50), st.integers(1, 60))
def test_pages_are_the_whole(count, limit):
    results = Results(most=4, most_items=1000, lifetime=60)
    answer = Frozen(tuple(range(count)), "asked")
    assert walk(results, results.put(answer), answer, limit) == list(range(count))


@given(st.text(alphabet="ABCabc019_-", max_size=80))
def test_no_text_is_a_cursor(text):
    results = Results(most=4, most_items=1000, lifetime=60)
    results.put(Frozen(tuple(range(9)), ""))
    with pytest.raises(Refusal, match="cursor-expired"):
        results.at(text)


def test_every_changed_bit_is_seen():
    results = Results(most=4, most_items=1000, lifetime=60)
    name = results.put(Frozen(tuple(range(9)), ""))
    raw = base64.urlsafe_b64decode(results.cursor(name, 3) + "=" * (-len(results.cursor(name, 3)) % 4))
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refusal, match="cursor-expired"):
            results.at(base64.urlsafe_b64encode(changed).rstrip(b"=").decode())


def test_another_server_knows_no_cursor_of_ours():
    one, two = (Results(most=4, most_items=1000, lifetime=60) for _ in range(2))
    with pytest.raises(Refusal, match="cursor-expired"):
        two.at(one.cursor(one.put(Frozen((1, 2), "")), 1))


def test_the_least_used_goes_first():
    results = Results(most=2, most_items=1000, lifetime=60)
    first, second = (results.put(Frozen((1, 2), str(n))) for n in range(2))
    results.at(results.cursor(first, 1))
    results.put(Frozen((1, 2), "third"))
    assert results.at(results.cursor(first, 1))[1].asked == "0"
    with pytest.raises(Refusal):
        results.at(results.cursor(second, 1))


def test_items_are_bounded_but_the_latest_is_always_held():
    results = Results(most=100, most_items=10, lifetime=60)
    small = results.put(Frozen(tuple(range(6)), ""))
    large = results.put(Frozen(tuple(range(40)), ""))
    assert len(results.at(results.cursor(large, 1))[1].items) == 40
    with pytest.raises(Refusal):
        results.at(results.cursor(small, 1))
    assert len(results) == 1


def test_old_answers_expire():
    clock = [0.0]
    results = Results(most=4, most_items=1000, lifetime=60, clock=lambda: clock[0])
    cursor = results.cursor(results.put(Frozen((1, 2), "")), 1)
    clock[0] = 59.0
    results.at(cursor)
    clock[0] = 61.0
    with pytest.raises(Refusal, match="cursor-expired"):
        results.at(cursor)
    assert len(results) == 0
