"""Reads annotation files so that an error names the file and the row."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")
LARGEST_BYTES = 1 << 30  # of one unpacked file in a zip; the largest published one has 16 MB


def find(root: Path, *names: str) -> Path | None:
    """The first of these files that lies in `root` or in a folder directly below it."""
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the folder that holds the benchmark")
    for name in names:
        if (root / name).is_file():
            return root / name
        below = sorted(path for path in root.glob(f"*/{name}") if path.is_file())
        if len(below) > 1:
            raise ValueError(f"{name} is in {below[0].parent} and in {below[1].parent}; keep one of them")
        if below:
            return below[0]
    return None


def text(path: Path, member: str | None = None) -> str:
    """A file's text, or that of a member of a zip file: UTF-8 with or without a byte order mark."""
    if member is None:
        data, where = path.read_bytes(), str(path)
    else:
        data, where = _unpacked(path, member), f"{path}/{member}"
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{where}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8; save the file as UTF-8"
        ) from None


def rows(path: Path, delimiter: str = ",", quotes: bool = True) -> Iterator[tuple[str, list[str]]]:
    """The rows of a table, each after the words that say where it begins; blank lines are none.

    A quoted cell may go over several lines; line numbers are those of an editor.
    """
    reader = csv.reader(
        io.StringIO(text(path), newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: {error}; is a quote left open?") from None
        if cells and cells != [""] and "".join(cells).strip():
            yield f"{path}, line {line}", cells
        line = reader.line_num + 1


def table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows below a header: the columns asked for, stripped. Required ones are there and not empty."""
    lines = rows(path)
    where, header = next(lines, (f"{path}, line 1", []))
    names = [name.strip() for name in header]
    for name in required:
        if names.count(name) != 1:
            count = "no column" if name not in names else "more than one column"
            raise ValueError(f"{where}: {count} {name!r} among {', '.join(names) or 'nothing'}; a header must name it")
    places = {name: names.index(name) for name in (*required, *optional) if name in names}
    empty = True
    for where, cells in lines:
        empty = False
        if len(cells) != len(names):
            raise ValueError(f"{where}: {len(cells)} cells under {len(names)} columns; quote what holds a comma")
        row = {name: cells[place].strip() for name, place in places.items()}
        for name in required:
            if not row[name]:
                raise ValueError(f"{where}: the cell {name!r} is empty; fill it or remove the row")
        yield where, row
    if empty:
        raise ValueError(f"{path} has a header and no row; is it the right file?")


def names(path: Path) -> list[tuple[str, str]]:
    """The lines of a list, one name each and none twice, each after the words that say where it stands."""
    seen: dict[str, str] = {}
    for number, line in enumerate(text(path).split("\n"), start=1):
        if name := line.strip():
            once(seen, name, f"{path}, line {number}")
    if not seen:
        raise ValueError(f"{path} holds no name; is it the right file?")
    return [(where, name) for name, where in seen.items()]


def once(seen: dict[str, str], name: str, where: str) -> None:
    """Remember where a name stands; an error where it stood already."""
    if name in seen:
        raise ValueError(f"{where}: {name!r} is there twice, first in {seen[name]}; remove one")
    seen[name] = where


def document(content: str, where: str, kind: type[Kind]) -> Kind:
    """A JSON text whose outermost value is of `kind`. A key that comes twice is an error: one value would be lost."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in made if keys.count(key) > 1)
            raise ValueError(f"{where}: the key {twice!r} is there twice; remove one")
        return made

    try:
        value = json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in content.strip() else ""
        raise ValueError(
            f"{where}{line}, column {error.colno}: {error.msg}; this is no whole JSON, download or mend it"
        ) from None
    except RecursionError:
        raise ValueError(f"{where} nests too deep to be annotations; is it the right file?") from None
    if not isinstance(value, kind):
        raise ValueError(f"{where} holds a {type(value).__name__}, not a {kind.__name__}; is it the right file?")
    return value


def entry(holder: object, name: str, kind: type[Kind], where: str) -> Kind:
    """The value called `name` of a JSON object; an error where it is missing, of another kind, or an empty text."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
        has = f"a {type(holder).__name__}" if not isinstance(holder, dict) else ", ".join(map(str, holder)) or "nothing"
        given = "" if value is None else f" but {value!r:.40}"
        raise ValueError(f"{where}: no {kind.__name__} {name!r}{given}; it has {has}")
    return value


def seconds(value: object, where: str) -> float:
    """A time in seconds, from a number or its digits."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0) or isinstance(value, bool):
        raise ValueError(f"{where}: {value!r} is no time; write seconds, as 12.5")
    return number


def _unpacked(path: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [info for info in archive.infolist() if info.filename.rsplit("/", 1)[-1] == member]
            if not inside:
                raise ValueError(f"{path} holds no {member}; it has {', '.join(archive.namelist()[:5])}")
            if inside[0].file_size > LARGEST_BYTES:
                raise ValueError(f"{path}/{member} unpacks to {inside[0].file_size:,} bytes; is it the right file?")
            return archive.read(inside[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path} is no whole zip file ({error}); download it again") from None
