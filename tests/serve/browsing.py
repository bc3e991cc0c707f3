"""A library of drawn videos, a real server beside the test, and a browser that watches what the page does."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rushes.data.compose import Reel, Shot, render

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
WHOLE = ((0.5, 0.5, 1.0), (0.5, 0.5, 0.9))  # the view moves in a little
MANY = 26  # shots of the long video, more than a page of results
REELS: dict[str, tuple[tuple[str, float], ...]] = {
    "cat and coffee.mp4": (("coffee.png", 3.0), ("chelsea.png", 4.0), ("rocket.jpg", 3.0)),
    "beach/people.mp4": (("astronaut.png", 3.0), ("motorcycle_left.png", 3.0), ("camera.png", 4.0)),
    HOSTILE: (("moon.png", 3.0), ("page.png", 3.0)),
}
LONG = (
    "brick.png",
    "hubble_deep_field.jpg",
    "horse.png",
    "retina.jpg",
    "phantom.png",
    "ihc.png",
    "moon.png",
    "color.png",
)
SUBTITLES = "1\n00:00:03,500 --> 00:00:06,000\nGood morning, little tiger!\n"


def reel(name: str, shots: tuple[tuple[str, float], ...]) -> Reel:
    """Pictures one after another, each so many seconds, with hard cuts."""
    drawn, start = [], 0.0
    for picture, seconds in shots:
        drawn.append(Shot(picture, start, start + seconds, *WHOLE))
        start += seconds
    return Reel(name, tuple(drawn))


def pictures() -> Path:
    """The pictures that scikit-image carries."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("no scikit-image: `pip install -e '.[demo]'`")
    return Path(spec.origin).parent / "data"


def draw(folder: Path, names: tuple[str, ...]) -> None:
    """These of REELS as mp4 files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        render(reel(name, REELS[name]), folder / name, root=pictures())


def draw_library(folder: Path) -> None:
    """Three videos with names nice and nasty, one that browsers do not play, a long one, subtitles, a broken file."""
    draw(folder, tuple(REELS))
    (folder / "cat and coffee.srt").write_text(SUBTITLES)
    render(
        reel("old", (("chelsea.png", 3.0), ("rocket.jpg", 3.0))),
        folder / "old film.avi",
        root=pictures(),
        codec="mpeg4",
    )
    draw_long(folder / "long.mp4")
    (folder / "broken.mp4").write_text("not a video at all")


def draw_long(file: Path, first: int = 0) -> None:
    """A video of MANY short shots, beginning with another picture for another `first`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shots = tuple((LONG[(first + n) % len(LONG)], 1.2) for n in range(MANY))
    render(reel("long", shots), file, root=pictures())


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`rushes serve FOLDER` on a free port: its address, token and all, and the process."""
    command = [sys.executable, "-m", "rushes", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r" at (http://\S+)", said)
        assert found, said + process.stderr.read()
        wait_for(f"{found[1].split('?')[0]}healthz")
        yield found[1], process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def wait_ready(address: str) -> None:
    """Until the model is loaded."""
    wait_for(f"{address}readyz")


def wait_for(address: str, seconds: float = 120.0) -> None:
    """Until this address answers with success."""
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                told = error.read().decode() if isinstance(error, urllib.error.HTTPError) else str(error)
                raise TimeoutError(f"{address} does not answer after {seconds} s: {told}") from None
            time.sleep(0.3)


@dataclass
class Watch:
    """What a page said, asked for and opened while it was looked at."""

    address: str
    said: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def on(self, page: Any) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", self._request)
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def clean(self) -> None:
        """Nothing was complained of, no other place was asked, nothing popped up."""
        assert (self.elsewhere, self.dialogs, self.said) == ([], [], []), (self.elsewhere, self.dialogs, self.said)


def accessible(page: Any) -> None:
    """axe finds nothing serious in what the page shows now."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    bad = [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert bad == [], "\n".join(bad)
