"""CLIP4Clip's mean pooling (Luo et al. 2021, arXiv 2104.08860): one vector a text, one a video, their cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Frames, Words
from rushes.losses import info_nce, scale_of
from rushes.methods.base import Method, with_whole
from rushes.similarity import dot, masked_mean, unit
from rushes.types import Tokens


class MeanPool(Method):
    """The sentence against the mean of unit frames, made unit again.

        v = unit( mean_j unit(f_j) )        s(t, v) = <unit(t), v>          Luo et al. 2021, section 3.3, parameter-free

    Of a video the first token is the pooled one, which alone is scored; the frames follow it, so that a moment can be
    found inside a segment. Nothing is learnt but the temperature: on a pre-trained backbone it works as it is.

    >>> frames = Frames(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2).bool(), torch.zeros(1, 2, 2))
    >>> MeanPool(2).encode_video(frames).vectors[0, 0]
    tensor([0.7071, 0.7071])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        scale: float = 100.0  # temperature's inverse at the start; CLIP's own end value, as CLIP4Clip takes it

    needs_training = False

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def encode_text(self, words: Words) -> Tokens:
        sentence = unit(words.sentence)[:, None]
        return Tokens(sentence, torch.ones_like(sentence[..., 0], dtype=torch.bool))

    def encode_video(self, frames: Frames) -> Tokens:
        each = unit(frames.vectors)
        return with_whole(unit(masked_mean(each, frames.mask)), Tokens(each, frames.mask, frames.spans))

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return dot(self.summary(text), self.summary(video))

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        return {"nce": info_nce(self.score(text, video), positives, scale_of(self.log_scale))}
