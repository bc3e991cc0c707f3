"""A method in one file of a stranger's: it keeps the laws, is trained, evaluated, saved, and searched with."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import rushes
from rushes import registry
from rushes.backbones.base import Frames
from rushes.evaluate.metrics import rank, summarise
from rushes.methods.base import Batch, Method
from rushes.model import Model
from rushes.scoring import score_all
from rushes.train.laws import check
from tests.library.conftest import drawn, reels  # noqa: F401  fixtures
from tests.tiny import tiny_clip

SOFTPOOL = str(Path(__file__).parents[1] / "examples" / "softpool.py")
TEXTS = [f"a {noun}" for noun in ("dog", "cat", "man", "woman", "ball", "beach")]


@pytest.fixture(scope="module")
def model() -> Model:
    """Trained on six texts and videos of one to three frames, until the loss has halved."""
    backbone = copy.deepcopy(tiny_clip())
    torch.manual_seed(0)
    trained = Model(backbone, registry.find("methods", SOFTPOOL, Method)(backbone.dim))
    optimizer, numbers = torch.optim.AdamW(trained.parameters(), lr=1e-3), torch.arange(6)
    losses = []
    while len(losses) < 100 and (not losses or losses[-1] > losses[0] / 2):
        words, frames = backbone.read(TEXTS), films()
        loss = torch.stack(list(trained.method.step(Batch(words, frames, numbers, numbers)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] <= losses[0] / 2
    return trained.eval()


def films() -> Frames:
    draw = torch.Generator().manual_seed(0)
    vectors = [torch.randn(1 + number % 3, 24, generator=draw) for number in range(6)]
    spans = [torch.arange(len(video) + 1.0).unfold(0, 2, 1) for video in vectors]
    return Frames.pack(vectors, spans)


def test_it_is_under_40_lines_and_keeps_every_law():
    assert len(Path(SOFTPOOL).read_text().splitlines()) < 40
    assert [f"{found.law}: {found.detail}" for found in check(SOFTPOOL, dim=32, seeds=(0,)) if not found.kept] == []


def test_it_is_trained_and_evaluated(model):
    texts = model.texts(TEXTS)
    found = rank(score_all(model.method, texts, model.videos(films())).numpy())
    assert summarise(found.t2v).recall[1] > 1 / 6


def test_it_is_saved_and_searched_with(model, reels, tmp_path):  # noqa: F811
    model.save(tmp_path / "model")
    library = rushes.open(reels, store=tmp_path / "store")
    library.refresh(model=str(tmp_path / "model"))
    hits = library.search("a dog on the beach", k=3)
    assert len(hits) == 3
    assert all(hit.moments and hit.start <= hit.moments[0].start < hit.moments[0].end <= hit.end for hit in hits)
