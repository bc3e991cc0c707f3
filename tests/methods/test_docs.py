"""The example of docs/methods.md is a method, and the page names every law."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rushes import registry
from rushes.train.laws import BUILT, LAWS, TWO_PROCESSES, check

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text()


@pytest.fixture
def late(tmp_path) -> str:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    file = tmp_path / "late.py"
    file.write_text(example)
    return str(file)


def test_the_example_keeps_every_law(late):
    verdicts = check(late)
    assert [verdict.law for verdict in verdicts] == [BUILT, *LAWS, TWO_PROCESSES]
    assert [f"{verdict.law}: {verdict.detail}" for verdict in verdicts if not verdict.kept] == []


def test_the_page_names_every_law():
    laws = PAGE.partition("## The laws")[2].partition("\n## ")[0]
    told = re.findall(r"^\| ([^|]+?) \|", laws, flags=re.MULTILINE)[1:]
    assert [law for law in told if law != "---"] == [*LAWS, TWO_PROCESSES]


def test_the_page_names_every_method():
    there = PAGE.partition("## What there is")[2].partition("What scoring")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", there, flags=re.MULTILINE)) == registry.names("methods")
