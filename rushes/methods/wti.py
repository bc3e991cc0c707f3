"""DRL's weighted token interaction (Wang et al. 2022, arXiv 2203.07111): words and frames, each weighed by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Frames, Words
from rushes.layers import TokenWeights
from rushes.losses import info_nce, scale_of
from rushes.methods.base import FRAME, WORD, Method
from rushes.similarity import dot, fp32, unit, weighted_token_interaction
from rushes.types import Tokens


class WTI(Method):
    """Every word takes its best frame, every frame its best word, both weighed by a learnt head of their own side.

        s(t, v) = 1/2 [ sum_i a_i max_j <t_i, v_j>  +  sum_j b_j max_i <t_i, v_j> ]

    a, b: softmax over real tokens of a head on the un-normalised features. The summary is the weighted sum of a side's
    tokens made unit, and has a loss of its own: in the paper there is none, but a first stage that is not trained is
    the ceiling of everything behind it.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        hidden: Literal[0, 1] = 1  # layers before the weight head's last: the authors' arch 2 is their default
        scale: float = 100.0  # temperature's inverse at the start; CLIP's own end value, as the authors' code has it
        summary: float = 0.5  # weight of the summary's own loss; 0 in `released`: the authors have no first stage

        @classmethod
        def released(cls) -> WTI.Config:
            """The authors' code: two-layer weight heads and the interaction's loss alone."""
            return cls(summary=0.0)

        @classmethod
        def paper(cls) -> WTI.Config:
            """What the paper's text says, which for this part is what the code does."""
            return cls.released()

    blocked = True

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.word_weights = TokenWeights(dim, self.config.hidden)
        self.frame_weights = TokenWeights(dim, self.config.hidden)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def encode_text(self, words: Words) -> Tokens:
        weights = self.word_weights(words.vectors, words.mask)
        level = torch.full_like(words.mask, WORD, dtype=torch.long)
        return Tokens(unit(words.vectors), words.mask, level=level, weights=weights)

    def encode_video(self, frames: Frames) -> Tokens:
        weights = self.frame_weights(frames.vectors, frames.mask)
        level = torch.full_like(frames.mask, FRAME, dtype=torch.long)
        return Tokens(unit(frames.vectors), frames.mask, frames.spans, level, weights)

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return weighted_token_interaction(
            text.vectors, video.vectors, text.mask, video.mask, _weights(text), _weights(video)
        )

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return unit(einsum(fp32(tokens.vectors), fp32(_weights(tokens)), "batch token dim, batch token -> batch dim"))

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        scale = scale_of(self.log_scale)
        terms = {"nce": info_nce(self.score(text, video), positives, scale)}
        if self.config.summary:
            summaries = dot(self.summary(text), self.summary(video))
            terms["summary"] = self.config.summary * info_nce(summaries, positives, scale)
        return terms


def _weights(tokens: Tokens) -> Float[Tensor, "batch token"]:
    if tokens.weights is None:
        raise ValueError("wti scores tokens with weights, these have none: they were encoded by another method")
    return tokens.weights
