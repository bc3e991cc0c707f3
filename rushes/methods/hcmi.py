"""HCMI, or HunYuan_tvr (Jiang et al. 2022, arXiv 2204.03382): frames, clips, video against words, phrases, sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Backbone, Frames, Words
from rushes.layers import SlotAggregation, TemporalTransformer, TokenWeights
from rushes.losses import hardest_negative_triplet, info_nce, potential_positives, scale_of
from rushes.methods.base import ALONE, CLIP, FRAME, Batch, Gather, Method, seen
from rushes.similarity import dot, equal_weights, unit, weighted_token_interaction
from rushes.types import Tokens

LEVELS = ("frame_word", "clip_phrase", "video_sentence")


class HCMI(Method):
    """Three similarities, of tokens that are merged from level to level, each with a contrastive loss of its own.

        frames -> clips -> video, words -> phrases -> sentence      (`layers.SlotAggregation`)
        s(t, v) = sum_l w_l s_l(t, v)
        s_fw, s_cp   weighted token interaction            s_vs   <sentence, video>, which is the summary too

    Training adds two things. Label denoising: two random views are drawn of each video, and another video that is as
    alike as the two views are to each other counts as a positive too, at all levels (`losses.potential_positives`).
    Marginal samples: the hardest negative of each video and sentence is kept `margin` below the pair.

    The paper's text and code are not public. Denoising, marginal samples and the three pairs are from the authors' own
    write-up; how tokens are merged and scored is our reading: docs/papers/hcmi.md has every choice and its source.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        layers: int = 4  # of the temporal transformer before aggregation, as CLIP4Clip; 0: none. The paper speaks of
        # self-attention between frames, without saying where
        positions: int = 77  # the most frames a video may have
        clips: int = 4  # recommended for 12 frames; 16 for 64. The paper's numbers are not known
        phrases: int = 8  # recommended for 32 words; 16 for 64. The paper's numbers are not known
        expansion: int = 4  # of the aggregation's feed-forward layer, which the paper calls higher-dimensional
        interaction: Literal["weighted", "mean"] = "weighted"  # of fw and cp: DRL's, which the authors name as the best
        # of its time; "mean" counts tokens alike
        weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)  # of fw, cp, vs in the score; ours: not stated
        denoise: bool = True  # label denoising; takes two views of each video
        potential: Literal["positives", "excluded"] = "positives"  # what potential positives become: the paper calls
        # them positives; "excluded" leaves them out of the denominators
        mutual: bool = False  # both videos must find each other alike; the formula asks one
        second: bool = (
            True  # the second view is trained too; False: it only tells potential positives, which saves memory
        )
        marginal: float = 1.0  # weight of the marginal-sample loss; not stated
        margin: float = 0.1  # its theta, on cosines; not stated
        scale: float = 100.0  # temperature's inverse at the start, one for all levels; CLIP's own end value

        def __post_init__(self) -> None:
            object.__setattr__(self, "weights", tuple(self.weights))  # a list, if it was read from a file
            if len(self.weights) != len(LEVELS):
                raise ValueError(f"weights are {self.weights}; give one for each of {', '.join(LEVELS)}")

        @classmethod
        def paper(cls) -> HCMI.Config:
            """What is public of the paper; where it is silent, the default."""
            return cls()

        @classmethod
        def released(cls) -> HCMI.Config:
            """No code was ever released: the same as `paper`."""
            return cls.paper()

        @property
        def views(self) -> int:
            return 2 if self.denoise else 1

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        config = self.config
        self.temporal = TemporalTransformer(dim, config.layers, config.positions) if config.layers else None
        self.to_clips = SlotAggregation(dim, config.clips, config.expansion)
        self.to_video = SlotAggregation(dim, 1, config.expansion)
        self.to_phrases = SlotAggregation(dim, config.phrases, config.expansion)
        self.to_sentence = SlotAggregation(dim, 1, config.expansion)
        self.gate = nn.Parameter(torch.zeros(()))  # of what phrases add to the backbone's own sentence
        self.token_weights = None
        if config.interaction == "weighted":
            sides = ("frame", "clip", "word", "phrase")
            self.token_weights = nn.ModuleDict({side: TokenWeights(dim, hidden=1) for side in sides})
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        if self.temporal is not None:
            self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        phrases, _ = self.to_phrases(words.vectors, words.mask)
        real = torch.ones_like(phrases[..., 0], dtype=torch.bool)
        sentence = words.sentence[:, None] + self.gate * self.to_sentence(phrases, real)[0]
        return self._stacked((sentence, phrases, words.vectors), words.mask, ("phrase", "word"))

    def encode_video(self, frames: Frames) -> Tokens:
        each = frames.vectors if self.temporal is None else self.temporal(frames.vectors, frames.mask)
        clips, shares = self.to_clips(each, frames.mask)
        video, _ = self.to_video(clips, torch.ones_like(clips[..., 0], dtype=torch.bool))
        # a clip saw the frames that have at least half of its largest share
        picked = (shares >= shares.amax(dim=1, keepdim=True) / 2).unbind(dim=2)
        merged = [seen(frames.spans, frames.mask & frames_of_clip) for frames_of_clip in picked]
        spans = torch.stack([seen(frames.spans, frames.mask), *merged], dim=1)
        tokens = self._stacked((video, clips, each), frames.mask, ("clip", "frame"))
        return replace(tokens, spans=torch.cat([spans, frames.spans], dim=1))

    def _stacked(
        self,
        vectors: tuple[Float[Tensor, "batch 1 dim"], Float[Tensor, "batch slot dim"], Float[Tensor, "batch token dim"]],
        mask: Bool[Tensor, "batch token"],
        names: tuple[str, str],
    ) -> Tokens:
        """Unit tokens of the whole, the merged and the single ones, with weights that sum to one in each level."""
        real = torch.ones_like(vectors[1][..., 0], dtype=torch.bool)
        masks = (real[:, :1], real, mask)
        weights = [equal_weights(mask, vectors[0]) for mask in masks]
        if self.token_weights is not None:
            for level, name in zip((CLIP, FRAME), names, strict=True):
                weights[level] = self.token_weights[name](vectors[level], masks[level])
        levels = [torch.full_like(mask, level, dtype=torch.long) for level, mask in enumerate(masks)]
        return Tokens(
            unit(torch.cat(vectors, dim=1)),
            torch.cat(masks, dim=1),
            level=torch.cat(levels, dim=1),
            weights=torch.cat(weights, dim=1),
        )

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        found = self.levels(text, video)
        return torch.stack([share * found[name] for name, share in zip(LEVELS, self.config.weights, strict=True)]).sum(
            0
        )

    def levels(self, text: Tokens, video: Tokens) -> dict[str, Float[Tensor, "text video"]]:
        """The similarity of each level by itself."""
        words, phrases = slice(1 + self.config.phrases, None), slice(1, 1 + self.config.phrases)
        frames, clips = slice(1 + self.config.clips, None), slice(1, 1 + self.config.clips)
        return {
            "frame_word": _interaction(text, words, video, frames),
            "clip_phrase": _interaction(text, phrases, video, clips),
            "video_sentence": dot(text.vectors[:, 0], video.vectors[:, 0]),
        }

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def step(self, batch: Batch, gather: Gather = ALONE) -> dict[str, Float[Tensor, ""]]:
        """The losses of both views, averaged; potential positives are found between them."""
        text = gather.tokens(self.encode_text(batch.words))
        first = gather.tokens(self.encode_video(batch.frames))
        positives = gather.numbers(batch.video_of_text)[:, None] == gather.numbers(batch.video)[None, :]
        if not self.config.denoise:
            return self.loss(text, first, positives)
        if batch.second is None:
            raise ValueError("label denoising takes two views of each video: fill Batch.second, or set denoise=False")
        with torch.set_grad_enabled(self.config.second and torch.is_grad_enabled()):
            second = gather.tokens(self.encode_video(batch.second))
        alike = potential_positives(first.vectors[:, 0], second.vectors[:, 0])
        if self.config.mutual:
            alike = alike & alike.T
        self.statistics = _counted(alike, positives)
        losses = [
            self._loss(text, view, positives, alike) for view in ((first, second) if self.config.second else (first,))
        ]
        return {name: torch.stack([terms[name] for terms in losses]).mean() for name in losses[0]}

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        """Without denoising: InfoNCE at every level, and the marginal samples."""
        return self._loss(text, video, positives, positives.new_zeros(len(video), len(video)))

    def _loss(
        self,
        text: Tokens,
        video: Tokens,
        positives: Bool[Tensor, "text video"],
        alike: Bool[Tensor, "video video"],
    ) -> dict[str, Float[Tensor, ""]]:
        """A text of video i takes row i of `alike`, and so does video i: the relation need not be symmetric."""
        own = positives.float()
        of_text, of_video = own @ alike.float() > 0, own @ alike.T.float() > 0
        found, scale = self.levels(text, video), scale_of(self.log_scale)
        terms = {}
        for name in LEVELS:
            if self.config.potential == "positives":
                terms[name] = info_nce(
                    found[name],
                    positives | of_text,
                    scale,
                    several="uniform",
                    positives_of_video=positives | of_video,
                )
            else:
                terms[name] = info_nce(found[name], positives, scale, several="uniform", excluded=(of_text, of_video))
        if self.config.marginal:
            triplets = hardest_negative_triplet(
                found["video_sentence"], positives, self.config.margin, of_text | of_video
            )
            terms["marginal"] = self.config.marginal * triplets
        return terms


def _interaction(text: Tokens, words: slice, video: Tokens, frames: slice) -> Float[Tensor, "text video"]:
    if text.weights is None or video.weights is None:
        raise ValueError("hcmi scores tokens with weights, these have none: they were encoded by another method")
    return weighted_token_interaction(
        text.vectors[:, words],
        video.vectors[:, frames],
        text.mask[:, words],
        video.mask[:, frames],
        text.weights[:, words],
        video.weights[:, frames],
    )


@torch.no_grad()
def _counted(alike: Bool[Tensor, "video video"], positives: Bool[Tensor, "text video"]) -> dict[str, float]:
    """How many pairs of videos denoising found, and how well it found videos that share a text."""
    same = positives.T.float() @ positives.float() > 0
    others = ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    known, strangers = same & others, ~same & others
    told = {"potential positives": float(alike[strangers].float().mean()) if strangers.any() else 0.0}
    if known.any():
        told["recall"] = float((alike & known).sum()) / float(known.sum())
        told["precision"] = float((alike & known).sum()) / max(1.0, float(alike.sum()))
    return told
