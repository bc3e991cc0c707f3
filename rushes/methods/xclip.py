"""X-CLIP (Ma et al. 2022, arXiv 2207.07285): sentence and words against video and frames, four ways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Backbone, Frames, Words
from rushes.layers import TemporalTransformer
from rushes.losses import info_nce, scale_of
from rushes.methods.base import Method, mapped, with_whole
from rushes.similarity import attention_over_similarity, attention_over_tokens, dot, fp32, masked_mean, unit
from rushes.types import Tokens


class XCLIP(Method):
    """The mean of four similarities, each pooled by attention over itself (AOSM).

        s(t, v) = 1/4 [ s G v^T  +  words against v  +  s against frames  +  words A frames ]

    s, v unit vectors of sentence and video, G and A square matrices that start as the identity; of the products with
    several tokens each is a softmax-weighted mean of itself at temperature 0.01, its weights mixed by a matrix that
    starts as the identity too (`similarity.attention_over_tokens`, `attention_over_similarity`). v is the mean of the
    frames behind a temporal transformer, frame tokens are the backbone's own. Ma et al. 2022, sections 3.2 and 3.3.

    The summary is <s, v> without G, with a loss of its own: in the paper only the mean of the four is trained.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        header: Literal["seqtransf", "mean"] = (
            "seqtransf"  # the authors' scripts; "mean": frames are pooled as they are
        )
        layers: int = 4  # of the temporal transformer, the authors' default
        words: int = 77  # the most word tokens: the mixing matrices' size; 32 in `released`, 64 there for paragraphs
        frames: int = 77  # the most frames; 12 in `released`, 64 there for paragraphs
        temperature: float = 0.01  # of every attention, the authors' constant
        masked: bool = (
            True  # padding is not attended; False in `released`: only the video's mean knows of padding there
        )
        scale: float = 100.0  # temperature's inverse at the start; CLIP's own end value, as the authors take it
        summary: float = 0.5  # weight of the summary's own loss; 0 in `released`: the authors have no first stage

        @classmethod
        def released(cls) -> XCLIP.Config:
            """The authors' code, with the sizes of their scripts for MSR-VTT, MSVD and LSMDC."""
            return cls(words=32, frames=12, masked=False, summary=0.0)

        @classmethod
        def paper(cls) -> XCLIP.Config:
            """The paper's text, which does not speak of padding: tokens of the text are the tokens there are."""
            return cls(words=32, frames=12, summary=0.0)

        def breaks(self) -> dict[str, str]:
            """The laws that attending to padding breaks."""
            if self.masked:
                return {}
            reason = "the authors' attention has no mask: padding counts as words and frames"
            return {
                "padding changes nothing": reason,
                "stored tokens give the scores of the live model": f"{reason}, and is not stored",
                "two processes learn as one": f"{reason}, of which each process has its own width",
            }

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.temporal = None
        if self.config.header == "seqtransf":
            self.temporal = TemporalTransformer(dim, self.config.layers, self.config.frames)
        self.of_whole, self.of_tokens = (nn.Parameter(torch.eye(dim)) for _ in range(2))  # G, A
        words, frames = self.config.words, self.config.frames
        self.words_for_video, self.words_first, self.words_second = (nn.Parameter(torch.eye(words)) for _ in range(3))
        self.frames_for_sentence, self.frames_first, self.frames_second = (
            nn.Parameter(torch.eye(frames)) for _ in range(3)
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        if self.temporal is not None:
            self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        return with_whole(unit(words.sentence), Tokens(unit(words.vectors), words.mask))

    def encode_video(self, frames: Frames) -> Tokens:
        seen = frames.vectors if self.temporal is None else self.temporal(frames.vectors, frames.mask)
        whole = unit(masked_mean(unit(seen), frames.mask))
        return with_whole(whole, Tokens(unit(frames.vectors), frames.mask, frames.spans))

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return self.score_within(text, video, 32 << 20)

    def score_within(self, text: Tokens, video: Tokens, budget_bytes: int) -> Float[Tensor, "text video"]:
        word = text.vectors.shape[1] * self.dim * fp32(text.vectors[:0]).element_size()
        some = max(1, budget_bytes // 4 // word)  # words times A, of so many texts at a time
        rows = range(0, max(1, len(text)), some)
        return torch.cat([self._score(text[row : row + some], video, budget_bytes // 32) for row in rows])

    def _score(self, text: Tokens, video: Tokens, block_bytes: int) -> Float[Tensor, "text video"]:
        config = self.config
        if text.mask.device.type == "cpu":
            block_bytes = min(block_bytes, 2 << 20)  # what its cache holds
        sentence, words, word_mask = fp32(text.vectors[:, 0]), fp32(text.vectors[:, 1:]), text.mask[:, 1:]
        whole, frames, frame_mask = video.vectors[:, 0], video.vectors[:, 1:], video.mask[:, 1:]
        if not config.masked:
            word_mask, frame_mask = torch.ones_like(word_mask), torch.ones_like(frame_mask)
        cold = config.temperature
        of_video = attention_over_tokens(whole, words, word_mask, self.words_for_video, cold, block_bytes).T
        of_sentence = attention_over_tokens(sentence, frames, frame_mask, self.frames_for_sentence, cold, block_bytes)
        of_tokens = attention_over_similarity(
            words @ self.of_tokens,
            frames,
            word_mask,
            frame_mask,
            word_mixing=(self.words_first, self.words_second),
            frame_mixing=(self.frames_first, self.frames_second),
            temperature=cold,
            block_bytes=block_bytes,
        )
        return (dot(sentence @ self.of_whole, whole) + of_video + of_sentence + of_tokens) / 4

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video token"]:
        """Words meet frames through A, as they do in the score."""
        return super().evidence(mapped(text, self.of_tokens), video)

    def token_evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video word token"]:
        return super().token_evidence(mapped(text, self.of_tokens), video)

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        scale = scale_of(self.log_scale)
        terms = {"nce": info_nce(self.score(text, video), positives, scale)}
        if self.config.summary:
            summaries = dot(self.summary(text), self.summary(video))
            terms["summary"] = self.config.summary * info_nce(summaries, positives, scale)
        return terms
