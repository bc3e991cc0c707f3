"""X-Pool (Gorti et al. 2022, arXiv 2203.15086): each text pools the frames of each video by its own attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Frames, Words
from rushes.layers import CrossAttentionPool
from rushes.losses import info_nce, scale_of
from rushes.methods.base import FRAME, WHOLE, Method
from rushes.similarity import INFINITY, dot, fp32, masked_mean, unit
from rushes.types import Tokens


class XPool(Method):
    """A sentence is a query on a video's frames; what it pools from them is compared with the sentence.

        s(t, v) = cos( t, O(t, v) ),   O the cross-attention pooling of the frames by t (`layers.CrossAttentionPool`)

    Gorti et al. 2022, section 3. Tokens are the raw features of the backbone: their lengths matter to the first norm's
    input only by rounding, so they are stored as they are, as the authors pool them. The summary is the mean of unit
    frames, trained by a loss of its own: in the paper every pair is pooled, there is no first stage.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        heads: int = 1  # the authors' default, for all their results
        dropout: float = 0.3  # the authors' default; of LSMDC 0.3 too, of MSVD 0.4
        scale: float = 100.0  # temperature's inverse at the start; CLIP's own end value, as the authors take it
        summary: float = 0.5  # weight of the summary's own loss; 0 in `released`: the authors have no first stage

        @classmethod
        def released(cls) -> XPool.Config:
            """The authors' code, whose frames have no mask: videos are sampled to equal numbers of frames there."""
            return cls(summary=0.0)

        @classmethod
        def paper(cls) -> XPool.Config:
            """What the paper's text says, which is what the code does."""
            return cls.released()

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.pool = CrossAttentionPool(dim, self.config.heads, self.config.dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def encode_text(self, words: Words) -> Tokens:
        mask = torch.ones_like(words.mask[:, :1])
        return Tokens(words.sentence[:, None], mask, level=torch.full_like(mask, WHOLE, dtype=torch.long))

    def encode_video(self, frames: Frames) -> Tokens:
        level = torch.full_like(frames.mask, FRAME, dtype=torch.long)
        return Tokens(frames.vectors, frames.mask, frames.spans, level)

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return self.score_within(text, video, 32 << 20)

    def score_within(self, text: Tokens, video: Tokens, budget_bytes: int) -> Float[Tensor, "text video"]:
        return self.pool.cosines(text.vectors[:, 0], video.vectors, video.mask, budget_bytes=budget_bytes)

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return unit(masked_mean(unit(fp32(tokens.vectors)), tokens.mask))

    def evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video token"]:
        """Cosine of the sentence with each frame: raw features differ in length for no reason of the query's."""
        if len(text) != 1:
            raise ValueError(f"evidence is for one text, got {len(text)}; call it for each")
        found = unit(fp32(video.vectors)) @ unit(fp32(text.vectors[0, 0]))
        return found.masked_fill(~video.mask, -INFINITY)

    def token_evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video word token"]:
        return self.evidence(text, video)[:, None].expand(-1, text.mask.shape[1], -1)

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        scale = scale_of(self.log_scale)
        terms = {"nce": info_nce(self.score(text, video), positives, scale)}
        if self.config.summary:
            summaries = dot(self.summary(text), self.summary(video))
            terms["summary"] = self.config.summary * info_nce(summaries, positives, scale)
        return terms
