"""A tiny model and a few reels, made once a session."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rushes.data.reels import Reel, compose, render
from rushes.methods.wti import WTI
from rushes.model import Model
from tests.tiny import tiny_clip


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A CLIP of a few thousand random weights with WTI on top, saved as a model folder."""
    folder = tmp_path_factory.mktemp("model")
    backbone = tiny_clip()
    Model(backbone, WTI(backbone.dim)).save(folder)
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> tuple[Path, list[Reel]]:
    """Six reels of coloured noise on disk; tests that change the folder copy it."""
    folder, random = tmp_path_factory.mktemp("reels"), np.random.default_rng(0)
    pictures = []
    for number in range(12):
        coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pictures.append(f".p{number}.png")
        cv2.imwrite(str(folder / pictures[-1]), cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_NEAREST))
    reels = compose(pictures, count=6, seed=0, fades=0.0)
    for reel in reels:
        render(reel, folder / f"{reel.id}.mp4", root=folder, size=(160, 120))
    return folder, reels


@pytest.fixture(scope="session")
def reels(drawn) -> Path:
    return drawn[0]
