"""What the documents say is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from rushes.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/**/*.md")])
VERBS = typer.main.get_command(app)


def test_there_are_pages():
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page):
    for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?rushes (.+)$", page.read_text(), re.MULTILINE):
        verb = line.split()[0]
        command = VERBS.commands.get(verb)  # type: ignore[attr-defined]
        assert command is not None, f"{page.name} shows `rushes {verb}`"
        if hasattr(command, "commands"):  # a group, as `rushes data doctor`
            verb = " ".join(line.split()[:2])
            command = command.commands.get(line.split()[1])
            assert command is not None, f"{page.name} shows `rushes {verb}`"
        known = {option for parameter in command.params for option in parameter.opts}
        first = re.split(r"\s{3,}| · ", line)[0]
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r'"[^"]*"', "", first)):
            assert option in known, f"{page.name}: `rushes {verb}` has no {option}"


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for verb in VERBS.commands:  # type: ignore[attr-defined]
        assert re.search(rf"rushes {verb}\b", readme), f"README shows no `rushes {verb}`"
