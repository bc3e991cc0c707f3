"""What the index on disk promises beyond the laws: kills, other processes, other formats, very many segments."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import lancedb
import pytest
import torch
from torch.nn.functional import normalize

from rushes.index.exact import ExactIndex
from rushes.index.lance import LanceIndex
from rushes.types import Segment, Tokens
from tests.index import writer

DIM = writer.DIM
PROCESSES = multiprocessing.get_context("forkserver")  # torch and lancedb are imported once, used in no parent
PROCESSES.set_forkserver_preload(["rushes.index.lance", "lancedb"])


def some(video: str, size: int = 3) -> tuple[list[Segment], torch.Tensor, Tokens]:
    return writer.batch(video, size)


class Writer:
    """A process that writes to an index for ever, and what it has said so far."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.said = folder, []
        self._talk, childs = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=writer.main, args=(str(folder), seed, childs), daemon=True)
        self._process.start()
        childs.close()
        self._listener = threading.Thread(target=self._listen)

    def go(self) -> None:
        """Begin, and come back when something has been done."""
        self._talk.send("go")
        self._listener.start()
        while not any(state == "done" for state, *_ in self.said):
            assert self._process.is_alive(), "the writer has failed"
            time.sleep(0.001)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._listener.join()

    def _listen(self) -> None:
        with suppress(EOFError, ConnectionResetError):
            while True:
                self.said.append(self._talk.recv())


def test_a_kill_loses_nothing_that_was_done_and_shows_no_part_of_a_batch(tmp_path):
    """Six writers, each killed at a random moment; what is found is what was done, or that and the one change begun."""
    choose, made = random.Random(time.time_ns()), 0
    for process in [Writer(tmp_path / str(seed), seed) for seed in range(6)]:
        process.go()
        time.sleep(choose.uniform(0, 0.5))
        process.kill()
        check(process.folder, process.said)
        made += sum(state == "done" for state, *_ in process.said)
    assert made > 12, f"{made} changes are too few to mean anything"


def check(folder: Path, said: list[tuple]) -> None:
    before, after, rows = {}, {}, {}
    done = {step for state, step, *_ in said if state == "done"}
    for state, step, change, video, size in said:
        if state == "begin":
            for world in [before, after] if step in done else [after]:
                if change == "add":
                    world[video] = size
                elif change == "remove":
                    world.pop(video)
            if change == "put" and step in done:
                rows |= {video: (size, step), "last": (size, step)}
    index = LanceIndex(folder, DIM)
    counts = {}
    for segment in index.segments():
        counts[segment.video] = counts.get(segment.video, 0) + 1
    assert counts in (before, after)
    for segments, tokens in index.batches():
        for segment, vectors in zip(segments, tokens.vectors, strict=True):
            expected = writer.vector(segment.video, int(segment.id.split(":")[1]))
            assert torch.allclose(vectors, expected.expand(3, -1), atol=2e-3)
    records = writer.videos(str(folder))
    last = records.get("last")
    if "last" in rows:
        assert last is not None
        assert last.step >= rows["last"][1]
        begun = [step for state, step, change, *_ in said if state == "begin" and change == "put"]
        assert last.step in begun
    for fingerprint, (size, step) in rows.items():
        record = records.get(fingerprint)
        assert record is not None
        assert (record.size, record.step) == (size, step) or (last is not None and record.step == last.step > step)
    index.add(*some("100000000", 4))  # the writer's lock died with it
    assert index.count() == sum(counts.values()) + 4
    index.optimize()
    assert len(index.nearest(writer.vector("0", 0), 5)) == min(5, index.count())


def test_readers_in_another_process_see_whole_batches_while_it_writes(tmp_path):
    process = Writer(tmp_path / "index", seed=77)
    sizes, seen = {}, set()
    process.go()
    try:
        index = LanceIndex(tmp_path / "index")
        until = time.monotonic() + 2
        while time.monotonic() < until:
            found: dict[str, int] = {}
            for segment in index.segments():
                found[segment.video] = found.get(segment.video, 0) + 1
            for video, count in found.items():
                assert sizes.setdefault(video, count) == count, "part of a batch was visible"
            seen.add(tuple(sorted(found)))
            for by in ("summary", "frame"):
                top = [name for name, _ in index.nearest(writer.vector("0", 0), 100_000, by=by)]
                again = {name.split(":")[0] for name in top}
                for video in again & sizes.keys():
                    assert sum(name.startswith(f"{video}:") for name in top) == sizes[video]
    finally:
        process.kill()
    assert len(seen) > 3, "the reader saw too few states to mean anything"


def test_two_handles_see_each_others_changes(tmp_path):
    first = LanceIndex(tmp_path, DIM, create=True)
    second = LanceIndex(tmp_path)
    vector = writer.vector("1", 0)
    for by in ("summary", "frame"):
        assert second.nearest(vector, 3, by=by) == []
    for step in range(12):
        first.add(*some(str(step), 5))
        if step % 3 == 2:
            second.remove([str(step - 1)])
        if step % 4 == 3:
            first.optimize()
        fresh = LanceIndex(tmp_path)
        for by in ("summary", "frame"):
            want = fresh.nearest(vector, 100, by=by)
            assert second.nearest(vector, 100, by=by) == want
            assert first.nearest(vector, 100, by=by) == want
            assert len(want) == fresh.count()
    with pytest.raises(ValueError, match="already"):
        second.add(*some("0", 5))


def test_two_writers_cannot_both_add_one_id(tmp_path):
    LanceIndex(tmp_path, DIM, create=True)
    handles = [LanceIndex(tmp_path) for _ in range(4)]

    def attempt(index: LanceIndex) -> bool:
        try:
            index.add(*some("7", 5))
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, handles)) == 1
    assert handles[0].count() == 5


def test_one_handle_serves_many_threads(tmp_path):
    index = LanceIndex(tmp_path, DIM, create=True)
    index.add(*some("0", 40))
    stop = threading.Event()

    def ask(seed: int) -> int:
        asked = 0
        while not stop.is_set():
            found = index.nearest(writer.vector("0", seed), 10, by="summary" if seed % 2 else "frame")
            ids = [name for name, _ in found]
            assert len(ids) == 10
            assert [segment.id for segment in index.fetch(ids)[0]] == ids
            asked += 1
        return asked

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, seed) for seed in range(3)]
        for video in range(1, 8):
            index.add(*some(str(video), 10))
            index.optimize()
        stop.set()
        assert all(future.result() > 0 for future in asking)


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*create=True"):
        LanceIndex(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"there is no index in .*create=True"):
        LanceIndex(tmp_path, DIM)
    with pytest.raises(FileNotFoundError, match="a new one needs dim"):
        LanceIndex(tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []
    index = LanceIndex(tmp_path, DIM, create=True)
    index.add(*some("0"))
    assert LanceIndex(tmp_path, DIM, create=True).count() == 3  # create starts none over
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError, match="deleted while it was open"):
        index.count()


def test_an_index_made_anew_under_an_open_handle_is_not_mixed_up(tmp_path):
    index = LanceIndex(tmp_path / "i", DIM, create=True)
    index.add(*some("0"))
    assert {name for name, _ in index.nearest(writer.vector("0", 0), 9)} == {"0:0", "0:1", "0:2"}
    shutil.rmtree(tmp_path / "i")
    LanceIndex(tmp_path / "i", DIM, create=True).add(*some("1"))  # the same number of versions
    assert {name for name, _ in index.nearest(writer.vector("0", 0), 9)} == {"1:0", "1:1", "1:2"}


def test_another_size_and_another_format_are_clear_errors(tmp_path):
    LanceIndex(tmp_path, DIM, create=True)
    with pytest.raises(ValueError, match="keeps vectors of 32 numbers, the model gives 64; load the model"):
        LanceIndex(tmp_path, 64)
    assert LanceIndex(tmp_path).dim == DIM
    schema = lancedb.connect(tmp_path).open_table("segments").schema
    for number, way in ((2, "update Rushes"), (0, "index again")):
        other = tmp_path / str(number)
        changed = schema.with_metadata({**schema.metadata, b"rushes.index": str(number).encode()})
        lancedb.connect(other).create_table("segments", schema=changed)
        with pytest.raises(ValueError, match=f"index format {number}, this Rushes reads 1; {way}"):
            LanceIndex(other)


def test_an_address_is_as_good_as_a_folder(tmp_path):
    index = LanceIndex(f"file://{tmp_path}/library", DIM, create=True)
    index.add(*some("0", 6))
    assert index.nearest(writer.vector("0", 2), 1)[0][0] == "0:2"
    assert LanceIndex(tmp_path / "library").count() == 6
    assert index.remove(["0"]) == 6


def test_a_failed_add_leaves_neither_rows_nor_lock(tmp_path, monkeypatch):
    index = LanceIndex(tmp_path, DIM, create=True)
    monkeypatch.setattr("rushes.index.lance._rows", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        index.add(*some("0"))
    monkeypatch.undo()
    index.add(*some("0"))
    assert index.count() == 3


def test_a_busy_writer_is_named_when_patience_ends(tmp_path):
    index = LanceIndex(tmp_path, DIM, create=True)
    with (
        index._store.writing("segments"),
        pytest.raises(TimeoutError, match="another process has been writing"),
        index._store.writing("segments", patience_s=0.1),
    ):
        pass


@pytest.mark.filterwarnings("ignore:optimize")
def test_optimize_bounds_the_files(tmp_path, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr("rushes.index.lance.KEEP", timedelta(0))
    index = LanceIndex(tmp_path, DIM, create=True)
    for video in range(20):
        index.add(*some(str(video), 2))
    crowded = sum(len(files) for _, _, files in os.walk(tmp_path))
    index.optimize()
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) < crowded / 3
    assert index.count() == 40


@pytest.mark.filterwarnings("ignore")
def test_very_many_segments_are_searched_by_ann_with_measured_recall(tmp_path):
    random_ = torch.Generator().manual_seed(0)
    size = 6000
    centres = normalize(torch.randn(40, DIM, generator=random_), dim=-1)
    vectors = normalize(
        centres[torch.randint(0, 40, (size,), generator=random_)] + 0.15 * torch.randn(size, DIM, generator=random_),
        dim=-1,
    )
    segments = [Segment(f"s{row}", f"v{row % 50}", 0.0, 1.0) for row in range(size)]
    tokens = Tokens(vectors[:, None], torch.ones(size, 1).bool())
    exact, lance = ExactIndex(DIM), LanceIndex(tmp_path, DIM, create=True, approximate_from=4000)
    for index in (exact, lance):
        index.add(segments, vectors, tokens)
    lance.optimize()
    lance.add([Segment("late", "late", 0.0, 1.0)], vectors[:1] * 1.5, tokens[:1])  # not in the ANN index yet
    assert not lance._shelves
    hits, asked = 0, 20
    for row in range(0, 20 * asked, 20):
        vector = normalize(vectors[row] + 0.05 * torch.randn(DIM, generator=random_), dim=-1)
        truth, found = exact.nearest(vector, 10), dict(lance.nearest(vector, 11))
        hits += len({name for name, _ in truth} & found.keys())
        assert all(found[name] == score for name, score in truth if name in found)  # scores are exact
        assert lance.nearest(vector, 50, videos=["v3", "v7"]) == exact.nearest(vector, 50, videos=["v3", "v7"])
    assert hits / (10 * asked) > 0.95
    assert "late" in dict(lance.nearest(vectors[0], 3))
    assert not lance._shelves, "the summaries were read into memory all the same"
