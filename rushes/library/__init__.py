"""A folder you can ask: scan, fingerprint, encode, index, search."""

from __future__ import annotations

import os

from rushes.library.ingest import Progress
from rushes.library.library import Info, Library, Report
from rushes.library.rows import Failure

__all__ = ["Failure", "Info", "Library", "Progress", "Report", "open"]


def open(folder: str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> Library:
    """The library of a folder of videos. It indexes nothing by itself: `library.refresh()` does.

    The index lies in `folder/.rushes`, or in `store`, so that a folder which cannot be written works too.
    Raises NotADirectoryError for anything but a folder.
    """
    return Library(folder, store)
