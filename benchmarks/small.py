"""The numbers of rushes-small's model card, with intervals: by words, by sentence, by summary; on photos and reels.

python benchmarks/small.py dev          # or test, once, when everything is chosen
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from rushes.model import installed, load
from rushes.similarity import dot, unit
from rushes.train.recipes.small import CAPTIONS, measured_from_files, pixels_of, split, videos_of
from rushes.types import Tokens

FLICKR8K = Path("../shared/data/flickr8k")
DRAWS = 2000


def main(name: str) -> None:
    model = load("small")
    photos, captions = split(FLICKR8K, name, 1000)
    with torch.inference_mode():
        seen = torch.cat([model.frames(pixels_of(FLICKR8K / "images" / photo)[None]) for photo in photos])
        words = [model.words(captions[start : start + 250]) for start in range(0, len(captions), 250)]
        text = Tokens.cat([model.method.encode_text(part) for part in words])
        video = videos_of(model.method, seen[:, None])
        scores = {
            "words": model.method.score(text, video),
            "sentence": dot(unit(torch.cat([part.sentence for part in words])), unit(seen)),
            "summary": dot(model.method.summary(text), model.method.summary(video)),
        }
    draw = torch.randint(len(photos), (DRAWS, len(photos)), generator=torch.Generator().manual_seed(0))
    for k in (1, 5, 10):
        found = {way: hits(table, k) for way, table in scores.items()}
        for way, shares in found.items():
            against = shares - found["sentence"]
            print(f"{name} R@{k} {way:<9}{shown(shares, draw)}   minus sentence {shown(against, draw)}", flush=True)
    print(measured_from_files(installed()["small"], FLICKR8K / "images", photos, captions))


def hits(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Per cent of each photo's captions that find it among the first k; a tie counts against us."""
    photo = torch.arange(scores.shape[1]).repeat_interleave(CAPTIONS)
    own = scores.gather(1, photo[:, None])
    return 100 * ((scores >= own).sum(dim=1) <= k).float().view(-1, CAPTIONS).mean(dim=1)


def shown(shares: torch.Tensor, draw: torch.Tensor) -> str:
    """Mean, and where 95 % of bootstrap draws of photos lie."""
    low, high = shares[draw].mean(dim=1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{shares.mean():6.2f} [{low:6.2f}, {high:6.2f}]"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "dev")
