"""Benchmarks by name; a parser's file is imported when it is asked for."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rushes.data.base import Benchmark

NAMES = ("activitynet", "didemo", "folder", "lsmdc", "msrvtt", "msvd", "reels")


def load(name: str, root: str | os.PathLike[str], protocol: str | None = None) -> Benchmark:
    """The benchmark called `name` in the folder `root`, under one of its protocols or its default.

    >>> load("msrtv", ".")
    Traceback (most recent call last):
    LookupError: rushes.data has no 'msrtv'; it has activitynet, didemo, folder, lsmdc, msrvtt, msvd, reels
    """
    parser = find(name)
    return parser.load(Path(root)) if protocol is None else parser.load(Path(root), protocol)


def find(name: str) -> ModuleType:
    """The parser called `name`: a module with `load(root, protocol)`. LookupError lists what there is."""
    if name not in NAMES:
        raise LookupError(f"rushes.data has no {name!r}; it has {', '.join(NAMES)}")
    return importlib.import_module(f"rushes.data.{name}")
