"""Recipes by name: functions without arguments that return a run, `FILE/FUNCTION` on the command line."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

from rushes.train.run import Run

FILES = ("xmlnet", "hcmi", "dmae", "baselines")  # small.py is another matter: it trains a backbone


def names() -> list[str]:
    """
    >>> "dmae/msrvtt" in names()
    True
    """
    return [f"{file}/{function}" for file in FILES for function in _functions(file)]


def find(name: str) -> Callable[[], Run]:
    """The recipe of that name. LookupError lists what there is.

    >>> find("dmae/msrvtt")().method
    'dmae'
    """
    file, _, function = name.partition("/")
    if file not in FILES or function not in _functions(file):
        raise LookupError(f"rushes has no recipe {name!r}; it has {', '.join(names())}")
    return _functions(file)[function]


def _functions(file: str) -> dict[str, Callable[[], Run]]:
    module = importlib.import_module(f"rushes.train.recipes.{file}")
    found = inspect.getmembers(module, inspect.isfunction)
    return {
        name: one
        for name, one in found
        if one.__module__ == module.__name__ and not name.startswith("_") and not inspect.signature(one).parameters
    }
