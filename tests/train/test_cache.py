"""Encoded in parts or at once: the same gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.losses import info_nce
from rushes.methods.base import ALONE, Batch, Method
from rushes.similarity import dot, masked_mean, unit
from rushes.train.cache import Encoder
from rushes.train.cases import cases, total
from rushes.train.pair import exact
from rushes.train.source import Pixels, Reading, Texts
from rushes.types import Tokens

METHODS = registry.names("methods")


def gradients(method: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    method.zero_grad(set_to_none=True)
    return found


def backward(method: Method, batch: Batch, encoder: Encoder) -> None:
    torch.manual_seed(7)  # of what losses draw
    total(method.step(batch, encoder.gather)).backward()
    encoder.finish()


def furthest(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference, as a share of the largest gradient."""
    assert found.keys() == wanted.keys() != set()
    largest = max(float(tensor.abs().max()) for tensor in wanted.values())
    assert largest > 0
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / largest


@pytest.mark.parametrize("name", METHODS)
def test_in_parts_gives_the_gradients_of_the_plain_step(name):
    """In every configuration, on five texts and four videos of unequal length, two at a time; float64."""
    for case in cases(registry.find("methods", name, Method), dim=8, seeds=(0,)):
        method, batch = case.method().double().train(), exact(case.batch())
        if not list(method.parameters()):
            continue  # dmae without TPM-CL: its backbone alone would learn
        torch.manual_seed(7)
        total(method.step(batch)).backward()
        plain = gradients(method)
        backward(method, batch, Encoder())
        assert furthest(gradients(method), plain) < 1e-10, f"{case.name}, all at once"
        backward(method, batch, Encoder(micro=2))
        assert furthest(gradients(method), plain) < 1e-10, case.name


class Forgetful(Method):
    """Drops half of what it encodes, on both sides."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        pass

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.through, self.dropout = nn.Linear(dim, dim), nn.Dropout(0.5)

    def encode_text(self, words: Words) -> Tokens:
        return self._tokens(words.sentence)

    def encode_video(self, frames: Frames) -> Tokens:
        return self._tokens(masked_mean(frames.vectors, frames.mask))

    def _tokens(self, vectors: torch.Tensor) -> Tokens:
        vectors = unit(self.dropout(self.through(vectors)))[:, None]
        return Tokens(vectors, torch.ones_like(vectors[..., 0], dtype=torch.bool))

    def score(self, text: Tokens, video: Tokens) -> torch.Tensor:
        return dot(text.vectors[:, 0], video.vectors[:, 0])

    def summary(self, tokens: Tokens) -> torch.Tensor:
        return tokens.vectors[:, 0]

    def loss(self, text: Tokens, video: Tokens, positives: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"nce": info_nce(self.score(text, video), positives, 5.0)}


def forgetful() -> tuple[Method, Batch]:
    case = cases(registry.find("methods", "wti", Method), dim=8, seeds=(0,))[0]
    return Forgetful(8).double().train(), exact(case.batch())


def test_what_encoders_draw_is_drawn_again():
    """Against parts that remember all they need, which draw the same."""
    method, batch = forgetful()
    remembering = Encoder(micro=2, seed=3)
    calls = iter((0, 1))
    gather = replace(
        ALONE, encode=lambda encode, features: Tokens.cat(list(remembering._parts(encode, features, next(calls))))
    )
    total(method.step(batch, gather)).backward()
    plain = gradients(method)
    backward(method, batch, Encoder(micro=2, seed=3))
    again = gradients(method)
    assert furthest(again, plain) < 1e-10
    backward(method, batch, Encoder(micro=2, seed=4))
    assert furthest(gradients(method), plain) > 1e-3  # it does draw


def test_what_encoders_draw_changes_nothing_outside():
    method, batch = forgetful()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    encoder = Encoder(micro=2)
    total(method.step(batch, encoder.gather)).backward()
    encoder.finish()
    assert torch.equal(torch.rand(3), wanted)


def test_a_step_that_encodes_by_itself_is_told(monkeypatch):
    method, batch = forgetful()
    monkeypatch.setattr(
        Forgetful,
        "step",
        lambda self, batch, gather: self.loss(
            self.encode_text(batch.words), self.encode_video(batch.frames), batch.positives(gather)
        ),
    )
    encoder = Encoder(micro=2)
    total(method.step(batch, encoder.gather)).backward()
    with pytest.raises(ValueError, match=r"gather\.encoded"):
        encoder.finish()


def test_gradients_reach_the_backbone_through_parts(tiny_clip):
    """End to end in float64: raw texts and pixels of unequal shapes, read in parts."""
    import copy

    towers = copy.deepcopy(tiny_clip).double()
    random = torch.Generator().manual_seed(0)
    shapes = [(2, 32, 48), (3, 32, 32), (1, 32, 48)]
    pixels = tuple(torch.randint(0, 256, (n, 3, h, w), generator=random, dtype=torch.uint8) for n, h, w in shapes)
    spans = tuple(torch.arange(2.0 * n).reshape(n, 2) for n, _, _ in shapes)
    numbers = torch.arange(3)
    batch = Batch(Texts(("a dog", "a red ball on the beach", "a man")), Pixels(pixels, spans), numbers, numbers)
    method = registry.find("methods", "wti", Method)(towers.dim).double()  # type: ignore[abstract]
    reading = Reading(towers, None, 77, torch.device("cpu"))
    found = []
    for micro in (None, 2, 1):
        backward(method, batch, Encoder(read=reading, micro=micro))
        found.append({**gradients(method), **gradients(towers)})
    assert len(found[0]) > 20
    assert furthest(found[1], found[0]) < 1e-9
    assert furthest(found[2], found[0]) < 1e-9
