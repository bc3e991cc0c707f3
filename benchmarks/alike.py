"""A clip cut out of a library's video, cropped and encoded again: is the video found, and at which second?

    python benchmarks/alike.py --pictures DIR [--reels 30] [--clips 40] [--segments shots windows]

Reels are rendered from photographs (a slow pan or zoom on each, cuts and fades), indexed by `small`; clips start
anywhere, last 3 to 10 s, lose 5 to 10 % of the width and of the height anywhere, and are encoded at crf 34, a fourth of
them at another frame rate; every fourth is asked again mirrored. Each is asked through `Library.ask`, child processes
included.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import torch

import rushes
from rushes.data.compose import Reel, compose, render
from rushes.data.excerpt import Cut, excerpt
from rushes.search.query import Query


def main() -> None:
    arguments = parse()
    torch.set_num_threads(2)
    pictures = sorted(path.name for path in arguments.pictures.glob("*.jpg"))
    random.Random(1).shuffle(pictures)
    reels = compose(pictures[: 5 * arguments.reels], count=arguments.reels, seed=3)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "reels")
        folder.mkdir()
        for reel in reels:
            render(reel, folder / f"{reel.id}.mp4", root=arguments.pictures, options={"crf": "18"})
        cuts = made(reels, folder, Path(place), arguments.clips)
        print(f"{len(reels)} reels, {sum(reel.length for reel in reels):.0f} s, {len(cuts)} clips")
        for segments in arguments.segments:
            library = rushes.open(folder, Path(place, segments))
            library.refresh(model=arguments.model, segments=segments)
            ask(library, [row for row in cuts if not row[1].mirrored], segments)
            ask(library, [row for row in cuts if row[1].mirrored], f"{segments}, mirrored")


def made(reels: list[Reel], folder: Path, out: Path, count: int) -> list[tuple[str, Cut, Path]]:
    draw, cuts = random.Random(7), []
    for number in range(count):
        reel = draw.choice(reels)
        seconds = min(draw.uniform(3.0, 10.0), reel.length - 0.5)
        across, down, left, top = (draw.uniform(0.05, 0.1), draw.uniform(0.05, 0.1), draw.random(), draw.random())
        plain = {
            "start": draw.uniform(0, reel.length - seconds - 0.1),
            "seconds": seconds,
            "crop": (across * left, down * top, 1 - across * (1 - left), 1 - down * (1 - top)),
        }
        wanted = [Cut(**plain, rate=draw.choice([None, None, None, 15]))]
        if number % 4 == 0:
            wanted.append(Cut(**plain, mirrored=True))
        for cut in wanted:
            path = out / f"clip{len(cuts):03d}.mp4"
            excerpt(folder / f"{reel.id}.mp4", path, cut)
            cuts.append((f"{reel.id}.mp4", cut, path))
    return cuts


def ask(library: rushes.Library, cuts: list[tuple[str, Cut, Path]], told: str) -> None:
    if not cuts:
        return
    right, verified, errors, taken, next_best = 0, 0, [], [], []
    for name, cut, path in cuts:
        began = time.perf_counter()
        hits = library.ask(Query(video=path)).hits
        taken.append(time.perf_counter() - began)
        best = hits[0]
        found = library.video(best.segment.video).name == name
        right += found
        verified += best.scores["same"] > 0
        errors.append(abs(best.start - best.of_query[0] - cut.start) if found else float("inf"))
        next_best.append(max((hit.score for hit in hits[1:]), default=0.0))
    count = len(cuts)
    print(
        f"{told:<18} right video {right / count:.3f}  within 1 s {share(errors, 1.0):.3f}  within 0.25 s "
        f"{share(errors, 0.25):.3f}  median error {statistics.median(errors):.3f} s, worst {max(errors):.3f} s  "
        f"verified {verified / count:.3f}  best score of the others {max(next_best):.2f}  seconds a query "
        f"{statistics.median(taken):.2f}"
    )


def share(errors: list[float], most: float) -> float:
    return sum(error <= most for error in errors) / len(errors)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/flickr8k/images"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--reels", type=int, default=30)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--segments", nargs="+", default=["shots", "windows"], choices=["shots", "windows"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
