"""A query checks itself: what can be asked is asked, anything else is told why not."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from rushes.search.query import EVERYWHERE, Part, Query, Then, VideoInfo, Where


def video(**other) -> VideoInfo:
    known = {
        "id": "a1",
        "path": "beach/one.mp4",
        "paths": ("beach/one.mp4", "copies/one again.mp4"),
        "folder": "beach/",
        "name": "one.mp4",
        "length": 60.0,
        "date": datetime(2024, 5, 17, 12, tzinfo=UTC),
        "size_bytes": 5,
        "status": "done",
        "tags": ("Holiday", "Straße"),
    }
    return VideoInfo(**(known | other))


@pytest.mark.parametrize(
    "where",
    [
        Where(),
        Where(videos=("b2", "a1")),
        Where(folder="beach"),
        Where(folder="beach/"),
        Where(folder="./beach/"),
        Where(folder="copies"),
        Where(folder=""),
        Where(folder="."),
        Where(min_seconds=60, max_seconds=60),
        Where(after=date(2024, 5, 16), before=date(2024, 5, 19)),
        Where(after=datetime(2024, 5, 17, 12, tzinfo=UTC)),
        Where(tags=("holiday",)),
        Where(tags=("HOLIDAY ", "strasse")),
    ],
)
def test_what_passes(where):
    assert where.passes(video())


@pytest.mark.parametrize(
    "where",
    [
        Where(videos=()),
        Where(videos=("b2",)),
        Where(folder="bea"),
        Where(folder="one.mp4"),
        Where(folder="again"),
        Where(min_seconds=60.1),
        Where(max_seconds=59.9),
        Where(after=date(2024, 5, 19)),
        Where(before=date(2024, 5, 16)),
        Where(before=datetime(2024, 5, 17, 12, tzinfo=UTC)),
        Where(tags=("holiday", "work")),
        Where(tags=("holi",)),
    ],
)
def test_what_does_not(where):
    assert not where.passes(video())
    assert not where.open


def test_only_no_condition_is_open():
    assert EVERYWHERE.open
    assert Where(videos=None, tags=[]).open
    assert not Where(videos=[]).open
    assert not Where(folder="").open


def test_a_day_begins_at_local_midnight():
    midnight = datetime(2024, 5, 17).astimezone()
    assert Where(after=date(2024, 5, 17)).passes(video(date=midnight))
    assert not Where(before=date(2024, 5, 17)).passes(video(date=midnight))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Query(), "the query is empty"),
        (lambda: Query(parts=(Part(text="a", weight=0.0),)), "the query is empty"),
        (lambda: Query(parts=(Part(text="a beach", weight=-1.0),)), "only avoids 'a beach'"),
        (lambda: Query.of_text("  "), "the text '  ' is empty"),
        (lambda: Query.of_text("a", avoid=[""]), "the text '' is empty"),
        (lambda: Part(), "got none of them"),
        (lambda: Part(text="a", like="b"), "got text and like"),
        (lambda: Part(text="a", weight=float("nan")), "the weight nan"),
        (lambda: Part(text="a", weight=float("inf")), "the weight inf"),
        (lambda: Part(like=""), "like is empty"),
        (lambda: Then("x", 0), "within is 0"),
        (lambda: Then(" "), "`then` is empty"),
        (lambda: Query.of_text("a", spoken="sometimes"), "spoken='sometimes' is not one of with, only, without"),
        (lambda: Query.of_text("a", group="folder"), "group='folder'"),
        (lambda: Query.of_text("a", sort="size"), "sort='size'"),
        (lambda: Query.of_text("a", by="name"), "by='name'"),
        (lambda: Query.of_text("a", depth=0), "depth is 0"),
        (lambda: Query(video=Path("a.mp4"), parts=(Part(text="a"),)), "ask twice"),
        (lambda: Query(parts=(Part(image=Path("a.jpg")),), spoken="only"), "give a text"),
        (lambda: Query.of_text("a", spoken="only", then=Then("b")), "knows no `then`"),
        (lambda: Where(min_seconds=5, max_seconds=4), "longer than 5 s and shorter than 4 s"),
        (lambda: Where(min_seconds=-1), "min_seconds is -1"),
        (lambda: Where(after=date(2024, 2, 1), before=date(2024, 1, 1)), "swap them"),
    ],
)
def test_what_cannot_be_asked(make, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        make()


def test_a_single_text_is_no_list():
    with pytest.raises(TypeError, match="give a tuple"):
        Where(tags="holiday")


def test_what_a_query_looks_for():
    query = Query(parts=[Part(text="snow"), Part(text="a dog", weight=2), Part(text="a", weight=0), Part(like="s:1")])
    assert [part.said for part in query.wanted] == ["snow", "a dog", "s:1"]
    assert query.words == "snow a dog"
    assert [part.said for part in Query.of_text("a", avoid=["b"]).avoided] == ["b"]
