"""The list of problems in the manual is the list in the code, and each of them is raised somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rushes.serve.limits import MB, Limits
from rushes.serve.problems import KINDS, Refusal

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "serve.md").read_text()


def test_the_manual_lists_every_problem_as_it_is():
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.+?) \| (.+?) \|$", MANUAL, re.MULTILINE)
    assert {code: (int(status), title, hint) for code, status, title, hint in rows} == {
        code: (kind.status, kind.title, kind.hint) for code, kind in KINDS.items()
    }


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_is_used(code):
    sources = [path.read_text() for path in (ROOT / "rushes" / "serve").rglob("*.py") if path.name != "problems.py"]
    assert any(f'"{code}"' in source for source in sources)


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_says_what_it_is_and_a_way_out(code):
    response = Refusal(code, "a detail with \ud800 half a character").response()
    assert response.status_code == KINDS[code].status
    assert response.media_type == "application/problem+json"
    response.body.decode("ascii")


def test_the_manual_tells_the_limits_as_they_are():
    limits = Limits()
    for text in (
        f"a JSON body | {limits.json_bytes >> 10} KiB",
        f"{limits.upload_bytes // MB} MiB, {limits.upload_pixels // 10**6} million pixels, "
        f"{limits.upload_seconds:.0f} s",
        f"uploads held | {limits.uploads}, {limits.uploads_bytes >> 30} GiB in all, "
        f"{limits.upload_lifetime / 60:.0f} minutes each",
        f"as many as cores, {limits.waiting} |",
        f"{limits.search_seconds:.0f} s; {limits.media_seconds:.0f} s |",
        f"requests in progress | {limits.requests} |",
        f"{limits.rate:.0f} a second, {limits.burst:.0f} saved up",
        f"ranges in one request | {limits.ranges} |",
        f"streams of job events | {limits.watchers} |",
        f"whole answer, {limits.hits} hits at most",
    ):
        assert text in MANUAL, text
