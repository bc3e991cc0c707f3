"""Debian's chromium, driven by playwright; a test without it is skipped with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def program() -> str:
    """The path of the browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium: `apt-get install chromium`")
    return found


@contextmanager
def running(*options: str) -> Iterator[Any]:
    """A browser of its own. Keep it no longer than a module: its event loop would be in the way of others' own."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = program()
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", *options])
        yield browser
        browser.close()
