"""A reader's view of a table is opened once a commit, and every commit is seen, whoever made it and however soon."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pyarrow as pa
import pytest

from rushes.index.store import Store

SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("n", pa.int64())])


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", create=True)


def add(store: Store, *names: str) -> None:
    with store.writing("things"):
        rows = [{"id": name, "n": len(name)} for name in names]
        store.open_or_create("things", SCHEMA).add(pa.Table.from_pylist(rows, schema=SCHEMA))


def ids(store: Store) -> list[str]:
    view = store.view("things")
    return [] if view is None else sorted(view.rows(["id"])["id"].to_pylist())


def test_a_table_that_is_not_there_yet(store):
    assert store.view("things") is None
    add(store, "a")
    assert ids(store) == ["a"]


def test_it_is_opened_once_until_somebody_commits(store):
    add(store, "a")
    first = store.view("things")
    assert store.view("things") is first
    add(store, "b")
    assert store.view("things") is not first
    assert first.rows(["id"])["id"].to_pylist() == ["a"], "a view stays what it was"
    assert (first.count(), store.view("things").count()) == (1, 2)


def test_each_of_many_commits_in_a_row_is_seen(store):
    reader = Store(store.place)
    states = set()
    for number in range(30):  # far more often than a clock of a file system ticks
        add(store, f"{number:02d}")
        assert len(ids(reader)) == number + 1
        states.add(reader.state("things"))
    assert len(states) == 30
    assert reader.state("things") == reader.state("things")


def test_a_commit_of_another_process_is_seen(store):
    add(store, "a")
    assert ids(store) == ["a"]
    code = "import sys; from tests.index.test_store import Store, add; add(Store(sys.argv[1]), 'b')"
    subprocess.run([sys.executable, "-c", code, store.place], check=True)
    assert ids(store) == ["a", "b"]


def test_a_table_that_was_deleted_and_made_anew(store):
    add(store, "a")
    assert ids(store) == ["a"]
    shutil.rmtree(f"{store.place}/things.lance")
    assert store.view("things") is None
    add(store, "z")
    assert ids(store) == ["z"]


def test_what_a_view_reads(store):
    add(store, *"abcdefg", "hh")
    view = store.view("things")
    assert view.rows(["n"], "id IN ('a', 'hh')")["n"].to_pylist() == [1, 2]
    assert view.rows(["_rowid", "id"], limit=3).num_rows == 3
    assert view.rows().column_names == ["id", "n"]
    assert [len(batch) for batch in view.batches(["id"], 3)] == [3, 3, 2]
    assert [row for batch in view.batches(["id"], 3, "n = 2") for row in batch["id"].to_pylist()] == ["hh"]
    assert (view.count("n = 2"), view.count(), view.schema.names) == (1, 8, ["id", "n"])
