"""Names become classes: a file in the folder, an installed entry point, or a path ending in .py."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

Base = TypeVar("Base")


def names(kind: str) -> list[str]:
    """The names that `find(kind, name)` knows, without importing any of them. kind: "methods" or "backbones".

    >>> "wti" in names("methods")
    True
    """
    package = importlib.util.find_spec(f"rushes.{kind}")
    if package is None or package.submodule_search_locations is None:
        raise LookupError(f"rushes has no folder {kind!r}")
    files = {module.name for module in pkgutil.iter_modules(package.submodule_search_locations)} - {"base"}
    return sorted(files | {point.name for point in entry_points(group=f"rushes.{kind}")})


def find(kind: str, name: str, base: type[Base]) -> type[Base]:
    """The class called `name`: the one subclass of `base` that its file defines.

    `name` may be a path ending in .py: a stranger's file needs no installation. LookupError lists what there is.

    >>> from rushes.methods.base import Method
    >>> find("methods", "wti", Method).__name__
    'WTI'
    """
    if name.endswith(".py"):
        return _only_class(_module_from(Path(name)), base, name)
    for point in entry_points(group=f"rushes.{kind}", name=name):
        loaded = point.load()
        if isinstance(loaded, ModuleType):
            return _only_class(loaded, base, name)
        return loaded
    if name not in names(kind) or not name.isidentifier():
        raise LookupError(
            f"rushes.{kind} has no {name!r}; it has {', '.join(names(kind))}, or give a path ending in .py"
        )
    return _only_class(importlib.import_module(f"rushes.{kind}.{name}"), base, name)


def _module_from(path: Path) -> ModuleType:
    if not path.is_file():
        raise LookupError(f"there is no file {path}; give the path of a Python file that defines one class")
    name = f"rushes_file_{path.resolve().stem}_{abs(hash(path.resolve()))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # a .py file always has both
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # a half-run file must not be found by the next call
        raise
    return module


def _only_class(module: ModuleType, base: type[Base], name: str) -> type[Base]:
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(own) != 1:
        found = ", ".join(value.__name__ for value in own) or "none"
        raise LookupError(f"{name} must define exactly one complete subclass of {base.__name__}; found {found}")
    return own[0]
