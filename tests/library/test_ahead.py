"""Items come in order, errors come after them, and nobody is left running."""

import threading
import time

import pytest

from rushes.library.ahead import ahead


def count_to(number, fail_at=None, ended=None):
    try:
        for item in range(number):
            if item == fail_at:
                raise KeyError(item)
            yield item
    finally:
        if ended is not None:
            ended.set()


def test_order_and_end():
    assert list(ahead(count_to(1000), 3)) == list(range(1000))
    assert list(ahead(count_to(0), 3)) == []


def test_an_error_comes_after_the_items_before_it():
    items = ahead(count_to(9, fail_at=5), 2)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="5"):
        next(items)


def test_it_runs_ahead_but_not_further_than_told():
    made = []
    items = ahead((made.append(item) or item for item in range(100)), 4)
    assert next(items) == 0
    time.sleep(0.3)
    assert 4 <= len(made) <= 6  # on the shelf, one in hand, one used
    items.close()


def test_closing_ends_the_generator_and_its_thread():
    ended, before = threading.Event(), threading.active_count()
    items = ahead(count_to(10**9, ended=ended), 2)
    next(items)
    items.close()
    assert ended.wait(2)
    assert threading.active_count() == before
