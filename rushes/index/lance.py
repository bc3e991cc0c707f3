"""The embedded index: one Lance table of segments, searched in memory while it fits."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from torch import Tensor

from rushes.index.base import By, checked, some, wanted
from rushes.index.flat import Flat, flatten, unflatten
from rushes.index.scan import Found, Shelf, best, exact_scores, few, join, ranked, shelve
from rushes.index.store import KEEP, Store, among, of_videos
from rushes.index.view import View
from rushes.types import Segment, Tokens

if TYPE_CHECKING:
    from lancedb.table import Table

Opened = TypeVar("Opened")
FORMAT = 1  # of the table; raise it when an older reader would go wrong
NAME = "segments"
NPROBES, REFINE = 160, 10  # recall@10 1.00 at a million made-up segments; 40 probes: 0.68, 80: 0.92
DEEPEST = 1 << 16  # rows of the ANN index that are looked through for segments of other videos
OPTIONAL = {"spans": np.float64, "level": np.int8, "weights": np.float32}
COLUMNS = ("id", "video", "start", "end", "tokens", "vectors", *OPTIONAL)


class LanceIndex:
    """An `Index` on disk: in-process, many readers, one writer at a time, whole batches or nothing.

    One row a segment, with everything of it, so that one commit is one batch: summary, tokens (a blob of halves and
    their count), spans, levels, weights. Candidates come from a copy of the summaries (or frames) in memory, brought
    up to date when any process has committed; that is exact, and several times as fast as the table's own scan.
    Two sizes end it: from `approximate_from` segments on, `optimize` builds an ANN index of the summaries, which then
    answers (not where `videos` are given: those are scanned); and frames that take more than `frame_bytes` are
    streamed from disk for each search. A million summaries of 256 numbers take 0.5 GB of memory.

    A new index needs `create=True` and `dim`; an existing one knows its own.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        dim: int | None = None,
        *,
        create: bool = False,
        approximate_from: int = 2_000_000,  # at a million the scan in memory was still faster than the ANN index
        frame_bytes: int = 2 << 30,
    ):
        self._store = Store(place, create=create)
        self.approximate_from = approximate_from
        self.frame_bytes = frame_bytes
        self._shelves: dict[str, tuple[tuple[str, int], Shelf | None]] = {}
        self._lock = threading.Lock()
        table = self._store.open(NAME)
        if table is None:
            if not create or dim is None:
                hint = "give dim and create=True to start one" if not create else "a new one needs dim"
                raise FileNotFoundError(f"there is no index in {self._store.place}; {hint}")
            with self._store.writing(NAME):
                table = self._store.open_or_create(NAME, _schema(dim))
        about = table.schema.metadata or {}
        version = int(about.get(b"rushes.index", b"0"))
        if version != FORMAT:
            way = "update Rushes" if version > FORMAT else "index again in a new folder"
            raise ValueError(f"{self._store.place} has index format {version}, this Rushes reads {FORMAT}; {way}")
        self.dim = int(about[b"rushes.dim"])
        if dim is not None and dim != self.dim:
            raise ValueError(
                f"{self._store.place} keeps vectors of {self.dim} numbers, the model gives {dim}; "
                f"load the model that it was made with, or index again in a new folder"
            )

    def add(self, segments: Sequence[Segment], summaries: Float[Tensor, "segment dim"], tokens: Tokens) -> None:
        checked(self.dim, segments, summaries, tokens)
        if not segments:
            return
        flat = flatten(tokens)
        ids = [segment.id for segment in segments]
        with self._store.writing(NAME):
            view = self._view()
            if known := view.rows(["id"], among("id", ids))["id"].to_pylist():
                raise ValueError(
                    f"{len(known)} ids are in the index already: {some(sorted(known))}; remove their videos first"
                )
            if (before := _fields(view, flat)) != flat.fields:
                raise ValueError(f"tokens have fields {flat.fields}, those in the index have {before}")
            self._table().add(_rows(segments, summaries, flat, self.dim))

    def remove(self, videos: Sequence[str]) -> int:
        if not videos:
            return 0
        where = among("video", list(videos))
        with self._store.writing(NAME):
            if gone := self._view().count(where):
                self._table().delete(where)
        return gone

    def nearest(
        self,
        vector: Float[Tensor, "dim"],
        k: int,
        *,
        by: By = "summary",
        videos: Sequence[str] | None = None,
        each: int | None = None,
    ) -> list[tuple[str, float]]:
        wanted(vector, self.dim, k, by, each)
        query = vector.double().cpu().numpy()
        return [(one.id, one.score) for one in self._nearest(query, k, by, videos, each)]

    def _nearest(
        self, query: np.ndarray, k: int, by: By, videos: Sequence[str] | None, each: int | None
    ) -> list[Found]:
        view = self._view()
        if by == "summary" and "summary_idx" in view.indices and view.count() >= self.approximate_from:
            return _approximate(view, query, k, videos, each)
        shelf = self._shelf(view, by)
        if shelf is not None:
            return best(shelf, query, k, videos, each)
        found: list[Found] = []
        where = of_videos(videos)
        for part in _shelves(view, by, self.dim, where):
            found = few(ranked(found + best(part, query, k, each=each), 2 * k), each)[:k]
        return found

    def fetch(self, ids: Sequence[str], *, skip: bool = False) -> tuple[list[Segment], Tokens]:
        if not ids:
            return [], unflatten(Flat(np.zeros(0, np.int64), np.zeros((0, self.dim), np.float16)), self.dim)
        asked = list(dict.fromkeys(ids))
        table = self._view().rows(COLUMNS, among("id", asked))
        place = {name: row for row, name in enumerate(table["id"].to_pylist())}
        if skip:
            ids = [name for name in ids if name in place]
        elif unknown := [name for name in asked if name not in place]:
            raise KeyError(f"{len(unknown)} ids are not in the index: {some(unknown)}")
        return _opened(table.take([place[name] for name in ids]), self.dim) if ids else self.fetch([])

    def count(self, videos: Sequence[str] | None = None) -> int:
        return self._view().count(of_videos(videos))

    def segments(self, videos: Sequence[str] | None = None) -> list[Segment]:
        where = of_videos(videos)
        found = _segments(self._view().rows(["id", "video", "start", "end"], where))
        return sorted(found, key=lambda s: (s.video, s.start, s.id))

    def batches(
        self, rows: int = 1024, *, videos: Sequence[str] | None = None
    ) -> Iterator[tuple[list[Segment], Tokens]]:
        where = of_videos(videos)
        for batch in self._view().batches(COLUMNS, rows, where):
            if batch.num_rows:
                yield _opened(pa.Table.from_batches([batch]), self.dim)

    def state(self) -> tuple[str, int]:
        return _state(self._view())

    def optimize(self) -> None:
        """Merge the files of many small batches, index ids (and, if there are very many segments, summaries), and drop
        versions of the table older than ten minutes: no reader that works on one longer is promised it.
        """
        from lancedb.index import BTree, IvfSq

        with self._store.writing(NAME):
            table, view = self._table(), self._view()
            size = view.count()
            if size and "id_idx" not in view.indices:
                table.create_index("id", config=BTree(), name="id_idx")
            if size >= self.approximate_from and "summary_idx" not in view.indices:
                table.create_index("summary", config=IvfSq(distance_type="dot"), name="summary_idx")
            table.optimize(cleanup_older_than=KEEP)

    def _view(self) -> View:
        return self._there(self._store.view(NAME))

    def _table(self) -> Table:
        """For writers."""
        return self._there(self._store.open(NAME))

    def _there(self, table: Opened | None) -> Opened:
        if table is None:  # not `not table`: one without rows is false
            raise FileNotFoundError(f"the index in {self._store.place} has been deleted while it was open")
        return table

    def _shelf(self, view: View, by: By) -> Shelf | None:
        """What this version of the table is searched in; None for frames that would not fit."""
        version = _state(view)
        with self._lock:
            held, shelf = self._shelves.get(by, (None, None))
            if held != version:
                if by == "frame" and self._too_large(view):
                    shelf = None
                else:
                    same = held is not None and held[0] == version[0] and held[1] < version[1]
                    shelf = _refreshed(shelf, view, by, self.dim) if shelf is not None and same else None
                    shelf = shelf if shelf is not None else join(list(_shelves(view, by, self.dim)))
                self._shelves[by] = (version, shelf)
            return shelf

    def _too_large(self, view: View) -> bool:
        tokens = view.rows(["tokens"])["tokens"].to_numpy().sum()
        return int(tokens) * self.dim * 2 > self.frame_bytes


def _state(view: View) -> tuple[str, int]:
    """Which table it is, since a folder may be deleted and made anew, and its version."""
    return (view.schema.metadata or {})[b"rushes.born"].decode(), view.version


def _schema(dim: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("video", pa.string(), nullable=False),
            pa.field("start", pa.float64(), nullable=False),
            pa.field("end", pa.float64(), nullable=False),
            pa.field("summary", pa.list_(pa.float16(), dim), nullable=False),
            pa.field("tokens", pa.int32(), nullable=False),  # how many
            pa.field("vectors", pa.large_binary(), nullable=False),
            *(pa.field(name, pa.large_binary()) for name in OPTIONAL),
        ],
        # born: a folder deleted and made anew counts its versions from one again
        metadata={"rushes.index": str(FORMAT), "rushes.dim": str(dim), "rushes.born": uuid.uuid4().hex},
    )


def _rows(segments: Sequence[Segment], summaries: Tensor, flat: Flat, dim: int) -> pa.Table:
    ends = np.cumsum(flat.counts)

    def blobs(values: np.ndarray) -> pa.Array:
        size = values.itemsize * int(np.prod(values.shape[1:]))
        offsets = np.concatenate([[0], ends]).astype(np.int64) * size
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values))]
        return pa.Array.from_buffers(pa.large_binary(), len(ends), buffers)

    optional = [getattr(flat, name) for name in OPTIONAL]
    return pa.Table.from_arrays(
        [
            pa.array([s.id for s in segments], pa.string()),
            pa.array([s.video for s in segments], pa.string()),
            pa.array([s.start for s in segments], pa.float64()),
            pa.array([s.end for s in segments], pa.float64()),
            pa.FixedSizeListArray.from_arrays(pa.array(summaries.half().cpu().numpy().ravel()), dim),
            pa.array(flat.counts, pa.int32()),
            blobs(flat.vectors),
            *(pa.nulls(len(segments), pa.large_binary()) if part is None else blobs(part) for part in optional),
        ],
        schema=_schema(dim).remove_metadata(),
    )


def _fields(view: View, default: Flat) -> tuple[str, ...]:
    """The optional fields that the tokens in the table have; an empty table takes whatever comes."""
    row = view.rows(list(OPTIONAL), limit=1)
    return tuple(name for name in OPTIONAL if row[name].null_count == 0) if row.num_rows else default.fields


def _segments(table: pa.Table) -> list[Segment]:
    columns = [table[name].to_pylist() for name in ("id", "video", "start", "end")]
    return [Segment(*values) for values in zip(*columns, strict=True)]


def _opened(table: pa.Table, dim: int) -> tuple[list[Segment], Tokens]:
    optional = {name: _blob(table, name, dtype) for name, dtype in OPTIONAL.items()}
    if optional["spans"] is not None:
        optional["spans"] = optional["spans"].reshape(-1, 2)
    vectors = _blob(table, "vectors", np.float16)
    assert vectors is not None
    counts = table["tokens"].to_numpy().astype(np.int64)
    return _segments(table), unflatten(Flat(counts, vectors.reshape(-1, dim), **optional), dim)


def _blob(table: pa.Table, name: str, dtype: Any) -> np.ndarray | None:
    """A column's bytes, row after row, as numbers; None where the column is empty."""
    column = table[name]
    if column.null_count == len(column):
        return None
    parts = [np.zeros(0, np.uint8)]
    for chunk in column.chunks:
        if len(chunk):
            _, offsets, values = chunk.buffers()
            ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            parts.append(np.frombuffer(values, np.uint8)[ends[0] : ends[-1]])
    return np.concatenate(parts).view(dtype)  # the copy is aligned and writable


def _shelves(view: View, by: By, dim: int, where: str | None = None, rows: int = 4096) -> Iterator[Shelf]:
    """The table in parts, ready to be searched; an empty one if there is nothing."""
    columns = ["_rowid", "id", "video", *(["summary"] if by == "summary" else ["tokens", "vectors", "level"])]
    for batch in view.batches(columns, rows, where):
        part = pa.Table.from_batches([batch])
        if not len(part):
            continue
        if by == "summary":
            counts, vectors = np.ones(len(part), np.int64), _summaries(part, dim)
        else:
            vectors = _blob(part, "vectors", np.float16)
            assert vectors is not None
            flat = Flat(
                part["tokens"].to_numpy().astype(np.int64),
                vectors.reshape(-1, dim),
                level=_blob(part, "level", np.int8),
            )
            counts, vectors = flat.finest()
        yield shelve(
            part["_rowid"].to_numpy(), part["id"].combine_chunks(), part["video"].combine_chunks(), counts, vectors
        )
    yield shelve(
        np.zeros(0, np.uint64),
        pa.array([], pa.string()),
        pa.array([], pa.string()),
        np.zeros(0, np.int64),
        np.zeros((0, dim), np.float16),
    )


def _refreshed(shelf: Shelf, view: View, by: By, dim: int) -> Shelf | None:
    """The shelf of an older version, brought up to this one: rows that are gone dropped, new ones read.

    A row's number is never given to another row, and new rows, those that compaction rewrote among them, have larger
    numbers than all before. None where starting over is less work.
    """
    now = view.rows(["_rowid"])["_rowid"].to_numpy()
    stay = np.isin(shelf.row_ids, now)
    if 2 * stay.sum() < len(now):
        return None
    new = [] if stay.sum() == len(now) else _shelves(view, by, dim, f"_rowid > {int(shelf.row_ids.max())}")
    updated = join([shelf if stay.all() else shelf.keep(stay), *new])
    return updated if len(updated) == len(now) else None


def _summaries(table: pa.Table, dim: int) -> np.ndarray:
    return table["summary"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)


def _approximate(view: View, query: np.ndarray, k: int, videos: Sequence[str] | None, each: int | None) -> list[Found]:
    """Candidates of the ANN index, scored exactly. Few rows pass a filter, so there the table is scanned: exact, too,
    and never short of answers because the probed parts hold too few of them. Where videos crowd, it looks deeper.
    """
    limit = k
    where = of_videos(videos)
    while True:
        search = view.table.query().nearest_to(query.astype(np.float32)).column("summary").distance_type("dot")
        search = search.nprobes(NPROBES).refine_factor(REFINE) if videos is None else search.bypass_vector_index()
        rows = view.rows(["id", "summary", "video", "_distance"], where, limit, search)
        scores = exact_scores(_summaries(rows, len(query)), query).tolist()
        found = ranked(map(Found, rows["id"].to_pylist(), scores, rows["video"].to_pylist()), limit)
        kept = few(found, each)[:k]
        if each is None or len(kept) == k or len(rows) < limit or limit >= DEEPEST:
            return kept
        limit *= 4
