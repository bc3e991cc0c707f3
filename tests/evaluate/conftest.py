"""A small split with scores whose ranks are known, and the evaluation of it."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.data.base import Caption, Split, Video, make_split
from rushes.evaluate.run import of_scores


def split_of(videos: int, captions: int, name: str = "test") -> Split:
    items = [
        (
            Video(f"clip {v}.mp4", f"clip {v}.mp4"),
            [Caption(f"clip {v}.mp4#{c}", f"text {v} {c}") for c in range(captions)],
        )
        for v in range(videos)
    ]
    return make_split(name, items, "here")


@pytest.fixture(scope="session")
def split() -> Split:
    return split_of(30, 2)


@pytest.fixture(scope="session")
def scores(split) -> np.ndarray:
    """Right answers a little ahead, in fp32, with some ties."""
    draw = np.random.default_rng(3)
    scores = draw.standard_normal((len(split.captions), len(split.videos)))
    scores[split.pairs[:, 0], split.pairs[:, 1]] += 2.0
    return scores.round(1).astype(np.float32)


@pytest.fixture(scope="session")
def evaluation(split, scores):
    return of_scores(split, scores, repetitions=200)
