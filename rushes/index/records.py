"""Small tables of plain records beside the index: what is known of each video, what failed."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection
from typing import Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from rushes.index.store import KEEP, Store, among

T = TypeVar("T")
TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
TIDY_EVERY = 256  # versions: each put is one, of three small files


class Records(Generic[T]):
    """Rows of one frozen dataclass under a key, in a Lance table: whole puts or nothing, readable by many processes.

    Fields are str, int, float or bool, each perhaps None; the key is a field of str.
    A put takes some 10 ms. The table tidies itself after each 256 puts.
    """

    def __init__(self, store: Store, name: str, row: type[T], key: str):
        self._store, self._name, self._row, self._key = store, name, row, key
        self._schema = _schema(row)
        if key not in self._schema.names or self._schema.field(key).type != pa.string():
            raise ValueError(f"{row.__name__} has no field {key!r} of str to be its key")
        table = store.view(name)
        if table is not None and table.schema.remove_metadata() != self._schema:
            have, want = (", ".join(f"{f.name}: {f.type}" for f in s) for s in (table.schema, self._schema))
            raise ValueError(f"{name} in {store.place} has ({have}), this Rushes writes ({want}); index again")

    def put(self, *rows: T) -> None:
        """Insert or replace, all at once; on return it survives a kill."""
        if not rows:
            return
        keys = [self._of(row) for row in rows]
        if len(set(keys)) < len(keys):
            raise ValueError(f"two of the {len(rows)} {self._name} rows have one key; put the last of them only")
        data = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=self._schema)  # type: ignore[call-overload]
        for field in self._schema:
            if not field.nullable and (empty := data[field.name].null_count):
                raise ValueError(f"{empty} of {len(rows)} {self._name} rows have no {field.name}")
        with self._store.writing(self._name):
            table = self._store.open_or_create(self._name, self._schema)
            merge = table.merge_insert(self._key).when_matched_update_all().when_not_matched_insert_all()
            if merge.execute(data).version % TIDY_EVERY == 0:
                table.optimize(cleanup_older_than=KEEP)

    def get(self, key: str) -> T | None:
        """The row of this key; None if there is none."""
        rows = self._read(among(self._key, [key]))
        return rows[0] if rows else None

    def some(self, keys: Collection[str]) -> list[T]:
        """The rows of these keys, as far as there are any, by key."""
        return sorted(self._read(among(self._key, list(keys))), key=self._of) if keys else []

    def version(self) -> int:
        """A number that grows with each change of any process; 0 before the first."""
        table = self._store.view(self._name)
        return 0 if table is None else table.version

    def all(self) -> list[T]:
        """Every row, by key."""
        return sorted(self._read(None), key=self._of)

    def delete(self, keys: Collection[str]) -> int:
        """Drop the rows of these keys, all at once; how many there were."""
        if not keys:
            return 0
        where = among(self._key, list(keys))
        with self._store.writing(self._name):
            table = self._store.open(self._name)
            gone = 0 if table is None else table.count_rows(where)
            if table is not None and gone:
                table.delete(where)
            return gone

    def optimize(self) -> None:
        """Merge files, and drop versions older than ten minutes."""
        with self._store.writing(self._name):
            table = self._store.open(self._name)
            if table is not None:
                table.optimize(cleanup_older_than=KEEP)

    def _of(self, row: T) -> str:
        return getattr(row, self._key)

    def _read(self, where: str | None) -> list[T]:
        table = self._store.view(self._name)
        return [] if table is None else [self._row(**row) for row in table.rows(where=where).to_pylist()]


def _schema(row: type) -> pa.Schema:
    if not dataclasses.is_dataclass(row):
        raise TypeError(f"{row.__name__} is no dataclass; records are rows of one")
    hints, fields = get_type_hints(row), []
    for name in (field.name for field in dataclasses.fields(row)):
        kinds = get_args(hints[name]) if get_origin(hints[name]) in (Union, types.UnionType) else (hints[name],)
        plain = [kind for kind in kinds if kind is not type(None)]
        if len(plain) != 1 or plain[0] not in TYPES:
            raise TypeError(f"{row.__name__}.{name} is {hints[name]}; a record holds str, int, float, bool, or None")
        fields.append(pa.field(name, TYPES[plain[0]], nullable=len(plain) < len(kinds)))
    return pa.schema(fields)
