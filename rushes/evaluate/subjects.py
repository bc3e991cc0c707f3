"""Scorers to test for leaks, with what to score: methods, strangers' files, saved models."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.evaluate.leaks import TOLERANCE, Finding, Scorer, find_leaks
from rushes.evaluate.run import PADDING
from rushes.methods.base import Method
from rushes.model import Model
from rushes.scoring import score_all


@dataclass(frozen=True)
class Subject:
    """A scorer with what to score, as `find_leaks` wants them. `name` says which configuration of the subject it is."""

    name: str
    scorer: Scorer
    texts: Any
    videos: Any
    own: Int[np.ndarray, "text"] | None = None
    chance: bool = False
    again: tuple[Scorer, ...] = ()
    notes: tuple[str, ...] = ()

    def leaks(self, tolerance: float = TOLERANCE, seed: int = 0) -> list[Finding]:
        return find_leaks(
            self.scorer,
            self.texts,
            self.videos,
            self.own,
            chance=self.chance,
            again=self.again,
            tolerance=tolerance,
            seed=seed,
        )


def of_method(method_class: type[Method], *, dim: int = 64, size: int = 64, seed: int = 0) -> Iterator[Subject]:
    """A method with random weights on random features, in its default configuration and its presets.

    All features of a side have one width, as in a benchmark whose frames are padded to a number: a preset that counts
    padding, as its authors' code does, is wrong there but leaks nothing.
    """
    words, frames = random_features(size, dim, seed)
    for name, config in _presets(method_class):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            method = method_class(dim, config).eval()
        small = _scorer_of(method, budget_bytes=1 << 14)
        yield Subject(name, _scorer_of(method), words, frames, chance=True, again=(small,))


def of_file(path: Path, *, dim: int = 64, size: int = 64, seed: int = 0) -> Iterator[Subject]:
    """A stranger's file: a function `score(texts, videos)`, or else one subclass of `Method`.

    `score` takes lists of any number of texts and videos and gives an array (or tensor) of as many rows and columns. A
    text is a float32 array [word dim], a video one of [frame dim]; they are random, of unequal lengths, and none has
    anything to do with another. `DIM` in the file is their dim (64). A file that scores something else (strings, paths)
    defines `inputs()` too, which returns texts, videos, and where text i does not belong to video i also the number of
    each text's video; whether unrelated things score at chance is not tested then.
    """
    module = _module(path)
    score = getattr(module, "score", None)
    if not callable(score):
        yield from of_method(registry.find("methods", str(path), Method), dim=dim, size=size, seed=seed)
        return
    inputs = getattr(module, "inputs", None)
    if callable(inputs):
        given = inputs()
        if not isinstance(given, tuple) or len(given) not in (2, 3):
            raise ValueError(f"{path}: inputs() must return (texts, videos) or (texts, videos, own), a tuple")
        yield Subject(f"score of {path.name}", score, *given)
        return
    words, frames = random_features(size, getattr(module, "DIM", dim), seed)
    yield Subject(f"score of {path.name}", score, _arrays(words), _arrays(frames), chance=True)


def of_model(model: Model, seed: int = 0) -> Iterator[Subject]:
    """A model on real texts and drawn pictures, all the way from characters and pixels in each call."""
    videos = list(drawn_videos(6, frames=2, side=model.backbone.image_size, seed=seed))
    spans = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    method = model.method
    names, notes = list(SENTENCES), ()
    texts: Any = names
    read = model.words
    if PADDING in method.config.breaks():
        # its scores depend on how far a batch is padded, which is bad, and known; all texts get the same padding here
        words = model.words(names)
        texts, read = words, lambda some: some
        notes = (f"texts are padded alike, since this configuration breaks the law that {PADDING}",)

    def score(some_texts: Any, some_videos: Sequence[UInt8[np.ndarray, "frame 3 side side"]]) -> Tensor:
        pixels = torch.from_numpy(np.concatenate(some_videos))
        vectors = model.frames(pixels).split([len(video) for video in some_videos])
        frames = Frames.pack(list(vectors), [spans.to(vectors[0].device)] * len(vectors))
        return score_all(method, method.encode_text(read(some_texts)), model.videos(frames))

    own = np.arange(len(names)) % len(videos)  # who belongs to whom is drawn, too: only that ranks stay is tested
    yield Subject(model.name, torch.inference_mode()(score), texts, videos, own, notes=notes)


def random_features(size: int, dim: int, seed: int, most: tuple[int, int] = (7, 6)) -> tuple[Words, Frames]:
    """As many unrelated texts as videos, of one to `most` words and frames; what is behind them is noise, not zeros."""
    draw = torch.Generator().manual_seed(seed)
    sides = []
    for longest in most:
        counts = torch.randint(1, longest + 1, (size,), generator=draw)
        counts[0] = longest
        mask = torch.arange(longest) < counts[:, None]
        sides.append((torch.randn(size, longest, dim, generator=draw), mask))
    (words, word_mask), (frames, frame_mask) = sides
    content = (torch.rand(word_mask.shape, generator=draw) < 0.5) & word_mask
    ends = torch.arange(1.0, most[1] + 1).expand(size, -1)
    return (
        Words(words, word_mask, torch.randn(size, dim, generator=draw), content),
        Frames(frames, frame_mask, torch.stack([ends - 1, ends], dim=-1)),
    )


def drawn_videos(count: int, *, frames: int, side: int, seed: int) -> Iterator[UInt8[np.ndarray, "frame 3 side side"]]:
    """Still lifes of a few soft coloured waves, no two alike, which move a little from frame to frame."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(side) / side, np.arange(side) / side)
    for _ in range(count):
        picture = np.empty((3, side, side))
        for colour in range(3):
            x, y, phase = random.integers(1, 5), random.integers(1, 5), random.uniform(0, 6)
            wave = np.sin(2 * np.pi * (x * across + y * down) + phase)
            picture[colour] = random.uniform(60, 200) + 50 * wave
        moved = [np.roll(picture, 7 * number, axis=2) for number in range(frames)]
        yield np.stack(moved).clip(0, 255).astype(np.uint8)


SENTENCES = (
    "a dog catches a frisbee",
    "two women talk at a table in a kitchen and laugh about something off screen",
    "rain",
    "a man in a red jacket skis down a steep slope",
    "children play football on a beach",
    "someone slices onions",
    "the camera flies over a city at night",
    "a cat sleeps on a keyboard while its owner tries to type a letter",
    "a band plays on a small stage",
    "a train leaves",
    "an old woman feeds pigeons in a park",
)


def _scorer_of(method: Method, budget_bytes: int | None = None) -> Scorer:
    @torch.inference_mode()
    def score(words: Words, frames: Frames) -> Tensor:
        text, video = method.encode_text(words), method.encode_video(frames)
        # below score_all's least budget: the sets are small, and blocks of a few pairs are what is to be tried
        return (
            score_all(method, text, video) if budget_bytes is None else method.score_within(text, video, budget_bytes)
        )

    return score


def _presets(method_class: type[Method]) -> list[tuple[str, Any]]:
    """The default configuration, and those of the authors' code and the paper's text where they are others."""
    found = [("default", method_class.Config())]
    for name in ("released", "paper"):
        preset = getattr(method_class.Config, name, None)
        if preset is not None and (config := preset()) not in [one for _, one in found]:
            found.append((name, config))
    return found


def _arrays(features: Words | Frames) -> list[Float[np.ndarray, "token dim"]]:
    rows = zip(features.vectors, features.mask, strict=True)
    return [vectors[mask].numpy() for vectors, mask in rows]


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise LookupError(f"there is no file {path}; give a Python file with a function score(texts, videos)")
    name = f"rushes_scorer_{path.stem}_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # a .py file always has both
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside a script is found by it when it is run, too
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
        del sys.modules[name]
    return module
