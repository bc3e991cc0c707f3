"""CLIP4Clip's temporal transformer (Luo et al. 2021, arXiv 2104.08860): frames see each other, then are pooled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Backbone, Frames, Words
from rushes.layers import TemporalTransformer
from rushes.losses import info_nce, scale_of
from rushes.methods.base import Method, with_whole
from rushes.similarity import dot, masked_mean, unit
from rushes.types import Tokens


class SeqTransf(Method):
    """The sentence against the mean of frames that have seen each other.

        z = temporal(f) (which adds f again)     v = unit( mean_j unit(z_j) )     s(t, v) = <unit(t), v>

    Luo et al. 2021, section 3.3, sequential type. Of a video the first token is the pooled one, which alone is scored;
    the frames follow it, so that a moment can be found inside a segment.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        layers: int = 4  # the authors' default
        positions: int = 77  # the most frames a video may have; as many as CLIP's text tower has places, as theirs
        scale: float = 100.0  # temperature's inverse at the start; CLIP's own end value, as CLIP4Clip takes it

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.temporal = TemporalTransformer(dim, self.config.layers, self.config.positions)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        sentence = unit(words.sentence)[:, None]
        return Tokens(sentence, torch.ones_like(sentence[..., 0], dtype=torch.bool))

    def encode_video(self, frames: Frames) -> Tokens:
        each = unit(self.temporal(frames.vectors, frames.mask))
        return with_whole(unit(masked_mean(each, frames.mask)), Tokens(each, frames.mask, frames.spans))

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return dot(self.summary(text), self.summary(video))

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        return {"nce": info_nce(self.score(text, video), positives, scale_of(self.log_scale))}
