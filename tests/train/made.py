"""Splits and features made up on the spot, a tiny model to learn from them, and runs of both in other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from rushes.backbones.base import Frames, Words
from rushes.data.base import Caption, Split, Video, captions, make_split
from rushes.methods.meanpool import MeanPool
from rushes.model import Model
from rushes.train.features import stretches
from rushes.train.loop import Progress, train
from rushes.train.material import Material, start
from rushes.train.run import Run
from rushes.train.source import Pool
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]


class Made:
    """Random features of a split, the same for the same seed; those of a video and of its captions point alike."""

    def __init__(self, split: Split, dim: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        random = np.random.default_rng(seed)
        themes = random.normal(size=(len(split.videos), dim))
        counts = random.integers(1, 9, len(split.videos))
        self.videos = [themes[row] + random.normal(size=(count, dim)) for row, count in enumerate(counts)]
        self.texts = [
            themes[split.pairs[split.pairs[:, 0] == row, 1][0]] + random.normal(size=(random.integers(2, 7), dim))
            for row in range(len(split.captions))
        ]
        self.dtype = dtype

    def frames(self, rows, most=None, draw=None) -> Frames:
        vectors, spans = [], []
        for row in rows:
            count = len(self.videos[row])
            chosen = stretches(count, most, draw) if most is not None and count > most else np.arange(count)
            vectors.append(torch.tensor(self.videos[row][chosen], dtype=self.dtype))
            spans.append(torch.tensor(np.stack([chosen, chosen + 1], axis=1), dtype=torch.float32))
        return Frames.pack(vectors, spans)

    def words(self, rows) -> Words:
        texts = [torch.tensor(self.texts[row], dtype=self.dtype) for row in rows]
        vectors = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        counts = torch.tensor([len(text) for text in texts])
        mask = torch.arange(vectors.shape[1]) < counts[:, None]
        content = mask & (torch.arange(vectors.shape[1]) % 2 == 0)
        return Words(vectors, mask, torch.stack([text.mean(dim=0) for text in texts]), content)


def split(name: str = "train", videos: int = 12, each: int = 2) -> Split:
    items = [
        (Video(f"{name}{n}", f"{name}{n}"), captions(f"{name}{n}", [f"{n} {i}" for i in range(each)]))
        for n in range(videos)
    ]
    return make_split(name, items, "memory")


def many_to_many() -> Split:
    """Three videos; the second caption belongs to two of them."""
    told = tuple(Caption(str(n), f"text {n}") for n in range(4))
    films = tuple(Video(name, name) for name in "abc")
    return Split("train", films, told, np.array([[0, 0], [1, 0], [1, 2], [2, 1], [3, 2]]))


@cache
def backbone() -> str:
    """The folder of a tiny model, whose backbone runs start from."""
    folder, towers = tempfile.mkdtemp(prefix="tiny-model-"), tiny.tiny_clip()
    Model(towers, MeanPool(towers.dim)).save(folder)
    return folder


def run_of(method: str, **choices) -> Run:
    """A run of seconds on the made-up splits: twelve videos in batches of four, so three steps an epoch."""
    usual = dict(
        data="folder", backbone=backbone(), epochs=3, batch=4, frames=5, rate=1e-3, tracker="none", save_every=2
    )
    return Run(method=method, **(usual | choices))  # type: ignore[arg-type]


def made(run: Run, _=None, dtype: torch.dtype = torch.float32, noise: float = 0.0) -> Material:
    """As `material.prepared`, of nothing on disk."""
    model = start(run).to(dtype)
    parts = {name: split(name, videos) for name, videos in (("train", 12), ("val", 6))}
    pools = {
        name: Pool(part, Made(part, model.backbone.dim, seed, dtype)) for seed, (name, part) in enumerate(parts.items())
    }
    pools["train"].reader.videos[5] += noise  # type: ignore[attr-defined]
    return Material(model, pools["train"], pools["val"], " ".join(part.digest() for part in parts.values()))


def exact(run: Run, _=None) -> Material:
    """In float64."""
    return made(run, dtype=torch.float64)


def killed_at(step: int):
    def on_progress(now: Progress) -> None:
        if now.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress


def stopped_at(step: int):
    def on_progress(now: Progress) -> None:
        if now.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_progress


def work(order: str) -> None:
    """A run in a process of its own; `kill` is the step after which it is killed."""
    task = json.loads(order)
    torch.set_num_threads(1)
    train(
        Run.of(task["run"]),
        task["out"],
        resume=task["resume"],
        on_progress=killed_at(task["kill"]) if task["kill"] else None,
        prepare=exact if task["exact"] else made,
    )
    os._exit(0)  # all is written, and torch's own threads now and then abort an interpreter that takes itself down


def started(
    run: Run, out: Path, *, resume: bool = False, kill: int = 0, exact: bool = False, environment: dict | None = None
) -> subprocess.Popen[bytes]:
    order = json.dumps({"run": run.plain(), "out": str(out), "resume": resume, "kill": kill, "exact": exact})
    program = "import sys; from tests.train.made import work; work(sys.argv[1])"
    return subprocess.Popen(
        [sys.executable, "-c", program, order],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | (environment or {}),
        cwd=ROOT,
    )
