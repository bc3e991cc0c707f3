"""A table as it was at one commit: what readers read, each time in one round trip to the engine."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from lancedb.db import AsyncConnection
    from lancedb.query import AsyncStandardQuery
    from lancedb.table import AsyncTable

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class View:
    """A Lance table at one commit, for any thread; it does not change when others write.

    The engine is asynchronous: each wait for it hands the interpreter's lock to its thread and back, which among
    busy threads takes longer than the reading. Its blocking interface waits five times to read some rows; here all of
    a read is one wait, and what belongs to the commit is known from the opening.
    """

    table: AsyncTable
    version: int
    schema: pa.Schema
    indices: frozenset[str]

    @classmethod
    def of(cls, tables: AsyncConnection, name: str) -> View | None:
        """The table as it is now; None if there is none."""

        async def opened() -> View | None:
            try:
                table = await tables.open_table(name)
            except ValueError as error:
                if "was not found" in str(error):
                    return None
                raise
            indices = frozenset(index.name for index in await table.list_indices())
            return cls(table, await table.version(), await table.schema(), indices)

        return waited(opened())

    def rows(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        query: AsyncStandardQuery | None = None,
    ) -> pa.Table:
        """Some columns (all; "_rowid" is the engine's number of the row) of the rows that the filter leaves.

        Where a vector or full-text query of `table` is given, of those that it finds.
        """
        narrowed = _narrowed(self.table.query() if query is None else query, columns, where, limit)

        async def read() -> pa.Table:
            batches = await narrowed.to_batches()
            return pa.Table.from_batches(await batches.read_all(), schema=batches.schema)

        return waited(read())

    def batches(self, columns: Sequence[str], rows: int, where: str | None = None) -> Iterator[pa.RecordBatch]:
        """The same, at most so many rows at a time, as one consistent state."""

        async def begun() -> Any:
            return await _narrowed(self.table.query(), columns, where, None).to_batches(max_batch_length=rows)

        async def following(batches: Any) -> pa.RecordBatch | None:
            return await anext(batches, None)

        batches = waited(begun())
        while (batch := waited(following(batches))) is not None:
            yield batch

    def count(self, where: str | None = None) -> int:
        """Rows that the filter leaves."""
        return self._size if where is None else waited(self.table.count_rows(where))

    @cached_property
    def _size(self) -> int:
        return waited(self.table.count_rows())


def waited(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it gives, run in the engine's thread."""
    from lancedb.background_loop import LOOP  # not a loop of our own: this one outlives a fork

    return LOOP.run(coroutine)


def _narrowed(
    query: AsyncStandardQuery, columns: Sequence[str] | None, where: str | None, limit: int | None
) -> AsyncStandardQuery:
    if columns is not None:
        query = query.select(list(columns))
        if "_rowid" in columns:
            query = query.with_row_id()
    if where is not None:
        query = query.where(where)
    return query if limit is None else query.limit(limit)
