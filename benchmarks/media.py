"""What thumbnails cost an indexing run, and how long a frame and a clip take.

    python benchmarks/media.py [--model small] [--length 240] [--size 1280x720] [--rounds 3]

A film is drawn from scikit-image's pictures. In turn, in one process: a whole `refresh` without thumbnails and one with
them, from file to stored tokens; in seconds of processor time, the decoder's included, which a busy machine does not
change. Then frames and clips of the indexed film at random seconds, each in a sandbox of its
own, and what the sandbox alone takes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import rushes
from rushes.data.reels import compose, render
from rushes.library import Library, ingest
from rushes.video.pixels import THUMBNAIL
from rushes.video.sandbox import run

PICTURES = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--length", type=int, default=240, help="seconds of film, about")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(tempfile.mkdtemp())
    try:
        for reel in compose(PICTURES, count=max(1, arguments.length // 14), seed=0, shots=(4, 5)):
            render(reel, folder / f"{reel.id}.mp4", root=Path(spec.origin).parent / "data", size=(width, height))
        indexed(folder, -1, arguments, 0)  # what the first of all loads and compiles is nobody's cost
        ratios = []
        for number in range(arguments.rounds):
            seconds = {}
            for pixels in (0, THUMBNAIL) if number % 2 else (THUMBNAIL, 0):
                library, seconds[pixels] = indexed(folder, number, arguments, pixels)
                if pixels:
                    kept = library
            ratios.append(seconds[THUMBNAIL] / seconds[0])
            print(f"without {seconds[0]:6.2f} s   with thumbnails {seconds[THUMBNAIL]:6.2f} s   ratio {ratios[-1]:.3f}")
        print(f"median ratio {statistics.median(ratios):.3f} at {arguments.size}, {arguments.policy}")
        sizes = [path.stat().st_size for path in (kept.store / "thumbnails").glob("??/*")]
        print(f"{statistics.mean(sizes):.0f} bytes a thumbnail, {max(sizes)} at most, {len(sizes)} of them")
        asked(kept)
    finally:
        shutil.rmtree(folder)


def indexed(folder: Path, number: int, arguments: argparse.Namespace, pixels: int) -> tuple[Library, float]:
    ingest.THUMBNAIL = pixels  # type: ignore[misc]  nobody but this comparison wants an index without
    library = rushes.open(folder, folder / f".store-{number}-{pixels}")
    began = spent()
    library.refresh(model=arguments.model, policy=arguments.policy)
    return library, spent() - began


def spent() -> float:
    """Seconds of processor time of this process and of the children that have ended."""
    return sum(os.times()[:4])


def asked(library: Library) -> None:
    clock = random.Random(0)
    moments = [(video.id, clock.uniform(0.0, video.length - 6.0)) for video in library.videos() if video.length > 7]

    def median(work: Callable[[str, float], object]) -> float:
        took = []
        for video, start in moments[:8]:
            began = time.perf_counter()
            work(video, start)
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    alone = median(lambda *_: run("rushes.video.sandbox:echo", {}))
    frame = median(lambda video, start: library.frame(video, start, 640))
    again = median(lambda video, start: library.frame(video, start, 640))
    clip = median(lambda video, start: library.clip(video, start, start + 5.0))
    print(f"the sandbox alone {alone * 1000:.0f} ms; a frame {frame * 1000:.0f} ms, again {again * 1000:.2f} ms")
    print(f"a clip of 5 s: {clip:.2f} s, {5 / clip:.1f} times as fast as it plays")


if __name__ == "__main__":
    main()
