"""Names become classes: from the folder, from a stranger's file, and with a clear word where there is none."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from rushes import registry
from rushes.backbones.base import Backbone
from rushes.methods.base import Method

MINE = """
from rushes.methods.meanpool import MeanPool

class Mine(MeanPool):
    pass
"""


def test_the_folder_is_the_registry():
    assert {"meanpool", "wti"} <= set(registry.names("methods"))
    assert "base" not in registry.names("methods")
    assert "clip" in registry.names("backbones")


@pytest.mark.parametrize("kind", ["methods", "backbones"])
def test_every_name_is_found(kind):
    base = Method if kind == "methods" else Backbone
    for name in registry.names(kind):
        found = registry.find(kind, name, base)
        assert issubclass(found, base)
        assert found.__module__ == f"rushes.{kind}.{name}"


@pytest.mark.parametrize("name", ["hcmi5", "base", "../wti", "wti.WTI", ""])
def test_what_nobody_has_is_told_with_what_there_is(name):
    with pytest.raises(LookupError, match=r"rushes.methods has no .*; it has .*wti"):
        registry.find("methods", name, Method)
    with pytest.raises(LookupError, match="no folder 'recipes'"):
        registry.names("recipes")


def test_a_strangers_file_needs_no_installation(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    found = registry.find("methods", str(file), Method)
    assert found.__name__ == "Mine"
    assert registry.find("methods", str(file), Method) is found
    with pytest.raises(LookupError, match="there is no file"):
        registry.find("methods", str(tmp_path / "yours.py"), Method)


def test_a_file_must_define_exactly_one(tmp_path):
    two = tmp_path / "two.py"
    two.write_text(MINE + "\nclass Other(MeanPool):\n    pass\n")
    with pytest.raises(LookupError, match="exactly one complete subclass of Method; found Mine, Other"):
        registry.find("methods", str(two), Method)
    half = tmp_path / "half.py"
    half.write_text("from rushes.methods.base import Method\n\nclass Half(Method):\n    pass\n")
    with pytest.raises(LookupError, match="found none"):
        registry.find("methods", str(half), Method)


def test_a_file_that_failed_is_read_again(tmp_path):
    file = tmp_path / "late.py"
    file.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        registry.find("methods", str(file), Method)
    file.write_text(MINE)
    assert registry.find("methods", str(file), Method).__name__ == "Mine"


def test_an_installed_package_adds_a_name(monkeypatch):
    point = EntryPoint("theirs", "rushes.methods.meanpool:MeanPool", "rushes.methods")
    original = registry.entry_points

    def with_theirs(group: str, **wanted: str):
        found = [point] if group == "rushes.methods" and wanted.get("name", "theirs") == "theirs" else []
        return [*original(group=group, **wanted), *found]

    monkeypatch.setattr(registry, "entry_points", with_theirs)
    assert "theirs" in registry.names("methods")
    assert registry.find("methods", "theirs", Method).__name__ == "MeanPool"


def test_listing_imports_nothing_heavy():
    program = "import sys; from rushes.registry import names; names('methods'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
