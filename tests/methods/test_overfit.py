"""Every method, on a tiny CLIP that starts from random weights, learns 16 pairs by heart in both directions."""

from __future__ import annotations

import copy

import pytest
import torch

from rushes import registry
from rushes.backbones.base import Frames
from rushes.evaluate.metrics import ranks
from rushes.methods.base import Batch, Method
from rushes.model import Model
from rushes.scoring import score_all
from tests import tiny

PAIRS, FRAMES, STEPS = 16, 4, 200
NOUNS = ("dog", "cat", "man", "woman")


def texts() -> list[str]:
    """16 sentences of 4 to 5 words, no two alike."""
    places = ("on the beach", "on the snow", "catches a ball", "throws a frisbee")
    return [f"a {noun} {place}" for noun in NOUNS for place in places]


def pixels() -> torch.Tensor:
    """Videos of noise, each with frames of its own."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (PAIRS * FRAMES, 3, tiny.SIDE, tiny.SIDE), generator=draw, dtype=torch.uint8)


def view(model: Model, frames: torch.Tensor, picked: list[int]) -> Frames:
    spans = torch.arange(FRAMES + 1.0).unfold(0, 2, 1)[picked].expand(PAIRS, -1, -1)
    vectors = frames.unflatten(0, (PAIRS, FRAMES))[:, picked]
    return Frames(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool), spans)


def learnt(model: Model, films: torch.Tensor) -> bool:
    """Is every text's own video the first of all, and every video's own text?"""
    model.eval()
    with torch.inference_mode():
        video = model.videos(view(model, model.frames(films), list(range(FRAMES))))
        scores = score_all(model.method, model.texts(texts()), video).numpy()
    return all((ranks(side) == 1).all() for side in (scores, scores.T))


@pytest.mark.parametrize("name", registry.names("methods"))
def test_sixteen_pairs_are_learnt_by_heart(name):
    backbone = copy.deepcopy(tiny.tiny_clip())
    method_class = registry.find("methods", name, Method)
    torch.manual_seed(0)
    model = Model(backbone, method_class(backbone.dim, method_class.Config()))
    numbers, films = torch.arange(PAIRS), pixels()
    assert not learnt(model, films)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(1, STEPS + 1):
        model.train()
        words, frames = backbone.read(texts(), model.method.tagger), backbone.frames(films)
        second = view(model, frames, [0, 1, 3]) if model.method.config.views == 2 else None
        first = view(model, frames, list(range(FRAMES)))
        terms = model.method.step(Batch(words, first, numbers, numbers, second))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if step % 20 == 0 and learnt(model, films):
            return
    raise AssertionError(f"{name} has not learnt {PAIRS} pairs in {STEPS} steps")
