"""Rushes: train, measure and use text-video retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Hit", "Moment", "Segment", "__version__", "load", "open"]

if TYPE_CHECKING:
    from rushes.library import open
    from rushes.model import load
    from rushes.types import Hit, Moment, Segment

_HOMES = {
    "open": "rushes.library",
    "load": "rushes.model",
    "Hit": "rushes.types",
    "Moment": "rushes.types",
    "Segment": "rushes.types",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import rushes` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rushes' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
