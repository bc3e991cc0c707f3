"""A backbone of a few numbers that needs no checkpoint: pixels are averaged, words are hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rushes.backbones.base import Backbone, TextBatch, Words, checked_texts

BUCKETS = 97


class Toy(Backbone):
    """Frames of 16 pixels, texts of at most 12 words; every number depends on what was shown."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Backbone.Config):
        squash: bool = True
        offsets: bool = True

    dim, image_size, max_words = 6, 16, 12

    def __init__(self, config: Config | None = None, seed: int = 0):
        super().__init__()
        self.config = config if config is not None else Toy.Config()
        self.squash = self.config.squash
        draw = torch.Generator().manual_seed(seed)
        self.eye = nn.Parameter(torch.randn(48, self.dim, generator=draw))
        self.table = nn.Parameter(torch.randn(BUCKETS, self.dim, generator=draw))

    @classmethod
    def build(cls, config: dict[str, Any], folder: str | None) -> Toy:
        return cls(cls.Config(**config))

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        ids, offsets = [], []
        for text in checked_texts(texts):
            spans, at = [], 0
            for word in text.split()[: self.max_words]:
                at = text.index(word, at)
                spans.append((at, at + len(word)))
                at += len(word)
            ids.append(torch.tensor([1 + sum(text[a:b].encode()) % (BUCKETS - 1) for a, b in spans]))
            offsets.append(torch.tensor(spans))
        pad = nn.utils.rnn.pad_sequence
        padded = pad(ids, batch_first=True)
        told = pad(offsets, batch_first=True) if self.config.offsets else None
        return TextBatch(padded, padded > 0, told)

    def words(self, batch: TextBatch) -> Words:
        vectors = self.table[batch.ids]
        return Words(vectors, batch.mask, (vectors * batch.mask[..., None]).sum(dim=1))

    def frames(self, pixels: torch.Tensor) -> torch.Tensor:
        small = nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 4).flatten(1)
        return small @ self.eye
