"""How much of the encoder's own speed is left from file to stored tokens, decoding included.

    python benchmarks/ingest.py [--model small] [--length 240] [--size 640x360] [--rounds 3]

A film is drawn from scikit-image's pictures, then in turn: the encoder alone on ready pixels, in batches of the same
size; and a whole `refresh` of a folder that holds the film, from file to stored tokens. Both in one process, in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import torch

import rushes
from rushes.data.reels import compose, render
from rushes.library.encode import BATCH_FRAMES

PICTURES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "rocket.jpg",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--length", type=int, default=240, help="seconds of film")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    pictures = Path(spec.origin).parent / "data"
    folder = Path(tempfile.mkdtemp())
    try:
        shots = max(1, arguments.length // 40)
        for reel in compose(PICTURES, count=shots * 3, seed=0, shots=(4, 5)):
            render(reel, folder / f"{reel.id}.mp4", root=pictures, size=(width, height))
        model = rushes.load(arguments.model)
        size = model.backbone.image_size
        pixels = torch.randint(0, 256, (BATCH_FRAMES, 3, size, size), dtype=torch.uint8)
        model.frames(pixels)
        ratios = []
        for number in range(arguments.rounds):
            alone = encoder_alone(model, pixels)
            library = rushes.open(folder, folder / f"store{number}")
            report = library.refresh(model=arguments.model, policy=arguments.policy)
            ratios.append(report.frames_per_second / alone)
            print(
                f"encoder alone {alone:7.1f} frames/s   file to tokens {report.frames_per_second:7.1f} "
                f"({report.frames} frames)   ratio {ratios[-1]:.2f}"
            )
        how = f"{arguments.size}, {arguments.policy}, batches of {BATCH_FRAMES}"
        print(f"median ratio {statistics.median(ratios):.2f} at {how}")
    finally:
        shutil.rmtree(folder)


def encoder_alone(model: rushes.model.Model, pixels: torch.Tensor, batches: int = 6) -> float:  # type: ignore[name-defined]
    began = time.perf_counter()
    for _ in range(batches):
        model.frames(pixels)
    return batches * len(pixels) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
