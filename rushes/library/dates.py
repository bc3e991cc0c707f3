"""Looks up when videos were recorded, once for each content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rushes.index.records import Records
from rushes.library.rows import DateRow
from rushes.video.probe import VideoError
from rushes.video.worker import Decoder

AT_ONCE = 256  # rows that are stored together


def note(dates: Records[DateRow], folder: Path, contents: Mapping[str, str]) -> int:
    """Read the dates of the contents (id -> path in the folder) that have none yet; how many were read.

    Only headers are read, in the decoder's process: some milliseconds a file. A file that is no video has no date, and
    is not asked again; one that cannot be read now is.
    """
    known = {row.fingerprint for row in dates.all()}
    todo = [(name, path) for name, path in contents.items() if name not in known]
    rows: list[DateRow] = []
    if not todo:
        return 0
    with Decoder() as decoder:
        for name, path in todo:
            try:
                rows.append(DateRow(name, decoder.recorded(folder / path)))
            except VideoError as error:
                if error.code not in ("missing", "unreadable"):
                    rows.append(DateRow(name, None))
            if len(rows) >= AT_ONCE:
                dates.put(*rows)
                rows.clear()
    dates.put(*rows)
    return len(todo)
