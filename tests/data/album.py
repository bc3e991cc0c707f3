"""Draws small captioned pictures, each of its own colours."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def picture(file: Path, seed: int, side: int = 24) -> None:
    """A few coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    assert cv2.imwrite(str(file), cv2.resize(blocks, (side, side), interpolation=cv2.INTER_NEAREST))


def album(folder: Path, per_split: int = 8, captions: int = 2) -> Path:
    """A folder in the general layout, with splits in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("picture", "caption", "split"))
        for number in range(3 * per_split):
            name = f"p{number:03d}.png"
            picture(folder / name, number)
            for one in range(captions):
                rows.writerow((name, f"caption {one} of picture {number}", ("train", "val", "test")[number % 3]))
    return folder
