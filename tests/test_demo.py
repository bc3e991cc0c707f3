"""What `make demo` runs: the right clip comes first, at a time when its picture is on screen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[1] / "examples/demo.py"


def seconds(clock: str) -> float:
    minutes, rest = clock.split(":")
    return 60 * int(minutes) + float(rest)


def test_the_demo(tmp_path):
    done = subprocess.run([sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = {
        picture: (video, float(start), float(end))
        for video, picture, start, end in re.findall(r"(\S+) shows (\S+) from (\S+) s to (\S+) s", done.stdout)
    }
    first = re.findall(r'"(.+)" -k 3\n\s+1 .+? (\S+\.mp4)  \(best (\S+)–(\S+)\)', done.stdout)
    assert len(first) == 3
    hits = {question: (video, seconds(start), seconds(end)) for question, video, start, end in first}
    for question, picture in (("a cat", "chelsea.png"), ("a rocket on its launch pad", "rocket.jpg")):
        video, start, end = hits[question]
        assert video == shown[picture][0]
        assert shown[picture][1] - 0.1 <= start < end <= shown[picture][2] + 0.1, question
    assert hits["people ride bicycles"][0] == "bikes.mp4"
