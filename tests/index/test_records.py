"""Small tables of records: a put is whole, a key is unique, a type is kept."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from rushes.index.records import Records
from rushes.index.store import Store


@dataclass(frozen=True)
class Video:
    fingerprint: str
    duration: float
    frames: int
    done: bool = False
    title: str | None = None
    resume: float | None = None


@dataclass(frozen=True)
class Failure:
    path: str
    start: int
    reason: str


@pytest.fixture
def records(tmp_path) -> Records[Video]:
    return Records(Store(tmp_path), "videos", Video, key="fingerprint")


def test_nothing_yet(records):
    assert records.all() == []
    assert records.get("f") is None
    assert records.delete(["f"]) == 0
    records.put()
    records.optimize()


def test_put_get_replace_delete(records):
    first = Video("f", 12.5, 300)
    records.put(first, Video("a", 1, 2, True, "title", 0.25))
    assert records.get("f") == first
    assert records.all() == [Video("a", 1, 2, True, "title", 0.25), first]
    assert records.all()[0].done is True
    records.put(replace(first, done=True, title="it's ''; --"))
    assert records.get("f") == Video("f", 12.5, 300, True, "it's ''; --")
    assert len(records.all()) == 2
    assert records.delete(["f", "unknown"]) == 1
    assert records.get("f") is None
    records.optimize()
    assert [row.fingerprint for row in records.all()] == ["a"]


@pytest.mark.parametrize("key", ["it's", "'; DROP TABLE videos; --", "海 🌊", "a\\b", "", "%", "line\nbreak", '"'])
def test_keys_are_data(records, key):
    records.put(Video(key, 1.0, 1), Video("other", 2.0, 2))
    assert records.get(key) == Video(key, 1.0, 1)
    assert records.delete([key]) == 1
    assert records.all() == [Video("other", 2.0, 2)]


def test_two_tables_and_two_handles(tmp_path):
    videos = Records(Store(tmp_path), "videos", Video, key="fingerprint")
    again = Records(Store(tmp_path), "videos", Video, key="fingerprint")
    failures = Records(Store(tmp_path), "failures", Failure, key="path")
    videos.put(Video("f", 1.0, 1))
    failures.put(Failure("p", 0, "r"))
    assert again.get("f") == Video("f", 1.0, 1)
    again.put(Video("f", 2.0, 1))
    assert videos.get("f") == Video("f", 2.0, 1)


def test_one_key_put_by_many_at_once_is_one_row(tmp_path):
    handles = [Records(Store(tmp_path), "videos", Video, key="fingerprint") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pair: pair[1].put(Video("same", float(pair[0]), 1)), enumerate(handles * 3)))
    assert len(handles[0].all()) == 1


def test_a_bad_put_changes_nothing(records):
    records.put(Video("f", 1.0, 1))
    with pytest.raises(ValueError, match="one key"):
        records.put(Video("g", 1.0, 1), Video("g", 2.0, 1))
    with pytest.raises(Exception, match=r"int|str|convert"):
        records.put(Video("g", 1.0, "many"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames"):
        records.put(Video("g", 1.0, None))  # type: ignore[arg-type]
    assert records.all() == [Video("f", 1.0, 1)]


def test_rows_of_another_shape_are_a_clear_error(tmp_path, records):
    records.put(Video("f", 1.0, 1))

    @dataclass(frozen=True)
    class Other:
        fingerprint: str
        length: float

    with pytest.raises(ValueError, match=r"has \(fingerprint: string, duration.*writes \(fingerprint: string, length"):
        Records(Store(tmp_path), "videos", Other, key="fingerprint")
    with pytest.raises(ValueError, match="no field 'name' of str"):
        Records(Store(tmp_path), "others", Other, key="name")

    @dataclass(frozen=True)
    class Listed:
        name: str
        parts: list[str]

    with pytest.raises(TypeError, match=r"Listed\.parts is .*list"):
        Records(Store(tmp_path), "listed", Listed, key="name")


@pytest.mark.filterwarnings("ignore:optimize")
def test_it_tidies_itself(tmp_path, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr("rushes.index.records.KEEP", timedelta(0))
    monkeypatch.setattr("rushes.index.records.TIDY_EVERY", 16)
    records = Records(Store(tmp_path), "videos", Video, key="fingerprint")
    for step in range(40):
        records.put(Video(str(step % 3), float(step), 1))
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) < 60  # three a put without
    assert [row.duration for row in records.all()] == [39.0, 37.0, 38.0]
