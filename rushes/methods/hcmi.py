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
from rushes.methods.base import ALONE, CLIP, FRAME, WHOLE, Batch, Gather, Method, seen
from rushes.similarity import dot, equal_weights, fp32, unit, weighted_token_interaction
from rushes.types import Tokens

LEVELS = ("frame_word", "clip_phrase", "video_sentence")


class HCMI(Method):
    """Three similarities, of tokens that are merged from level to level, each with a contrastive loss of its own.

        frames -> clips -> video          words -> phrases -> sentence          each arrow is `layers.SlotAggregation`
        s(t, v) = sum_l w_l s_l(t, v)     s_fw, s_cp: weighted token interaction     s_vs = <sentence, video>

    Training adds two things. Label denoising: two random views are drawn of each video, and another video that is as
    alike as the two views are to each other counts as a positive too, at all levels (`losses.potential_positives`).
    Marginal samples: the hardest negative of each video and of each sentence is kept `margin` below the pair.

    The summaries are video and sentence, which have a loss of their own in the paper already. The paper's text and code
    are not public. Denoising, marginal samples and the three pairs are from the authors' own write-up; how tokens are
    merged and scored is our reading: docs/papers/hcmi.md has every choice and its source.

    One word at (0.6, 0.8), a sentence and one frame at (1, 0) score 0.6 as word, 0.6 as phrase and 1 as sentence:

    >>> one, seconds = torch.tensor([[True]]), torch.tensor([[[0.0, 1.0]]])
    >>> words = Words(torch.tensor([[[0.6, 0.8]]]), one, torch.tensor([[1.0, 0.0]]))
    >>> frames = Frames(torch.tensor([[[1.0, 0.0]]]), one, seconds)
    >>> new = HCMI(2, HCMI.Config(layers=0))
    >>> round(new.score(new.encode_text(words), new.encode_video(frames)).item(), 4)
    0.7333
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Nothing public states a number. "Stated" is from the authors' write-up, "ours" is a choice made here."""

        layers: int = 4  # of a temporal transformer before aggregation; 0: none. CLIP4Clip's; that frames attend to
        # each other is stated, where is not
        positions: int = 77  # the most frames a video may have; CLIP4Clip's
        clips: int = 4  # ours, for 12 frames; 16 for 64. Stated: fewer than frames
        phrases: int = 8  # ours, for 32 words; 16 for 64
        expansion: int = 4  # of aggregation's feed-forward layer, CLIP's; stated: into a space of more dimensions
        interaction: Literal["weighted", "mean"] = "weighted"  # of fw and cp: DRL's, which the write-up names as best
        # of its time; "mean" counts a side's tokens alike
        weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)  # of fw, cp, vs in the score; ours
        denoise: bool = True  # label denoising, which takes two views of each video; stated
        potential: Literal["positives", "excluded"] = "positives"  # what denoising makes of what it finds: positives is
        # stated; "excluded" only leaves them out of the denominators
        mutual: bool = False  # both videos must find each other alike; stated: one is enough
        second: bool = True  # the second view is trained too, ours; False: it only tells potential positives, and the
        # method keeps no graph of it
        marginal: float = 1.0  # weight of the marginal-sample loss; ours. 0: none
        margin: float = 0.1  # theta of the marginal-sample loss, on cosines; ours
        scale: float = 100.0  # temperature's inverse at the start, one for all levels; CLIP's own end value

        def __post_init__(self) -> None:
            object.__setattr__(self, "weights", tuple(self.weights))  # a list, if it was read from a file
            if len(self.weights) != len(LEVELS):
                raise ValueError(f"weights are {self.weights}; give one for each of {', '.join(LEVELS)}")
            if min(self.clips, self.phrases) < 1:
                raise ValueError(f"{self.clips} clips and {self.phrases} phrases; each level needs at least one token")

        @classmethod
        def paper(cls) -> HCMI.Config:
            """What is stated in public, which the default does, and ours where nothing is."""
            return cls()

        @classmethod
        def released(cls) -> HCMI.Config:
            """The authors released no code: the same as `paper`."""
            return cls.paper()

        @property
        def views(self) -> int:
            return 2 if self.denoise else 1

    blocked = True

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        self.temporal = None
        if self.config.layers:
            self.temporal = TemporalTransformer(dim, self.config.layers, self.config.positions)
        self.to_clips = SlotAggregation(dim, self.config.clips, self.config.expansion)
        self.to_video = SlotAggregation(dim, 1, self.config.expansion)
        self.to_phrases = SlotAggregation(dim, self.config.phrases, self.config.expansion)
        self.to_sentence = SlotAggregation(dim, 1, self.config.expansion)
        self.gate = nn.Parameter(torch.zeros(()))  # of what phrases add to the backbone's own sentence
        self.token_weights = None
        if self.config.interaction == "weighted":
            names = ("frame", "clip", "word", "phrase")
            self.token_weights = nn.ModuleDict({name: TokenWeights(dim, hidden=1) for name in names})
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        if self.temporal is not None:
            self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        phrases, _ = self.to_phrases(words.vectors, words.mask)
        added, _ = self.to_sentence(phrases, _all_real(phrases))
        sentence = words.sentence[:, None] + self.gate * added
        return self._tokens(sentence, phrases, words.vectors, words.mask, ("phrase", "word"))

    def encode_video(self, frames: Frames) -> Tokens:
        each = frames.vectors if self.temporal is None else self.temporal(frames.vectors, frames.mask)
        clips, shares = self.to_clips(each, frames.mask)
        video, _ = self.to_video(clips, _all_real(clips))
        whole = seen(frames.spans, frames.mask)[:, None]
        spans = torch.cat([whole, _seconds(shares, frames.spans), frames.spans], dim=1)
        return replace(self._tokens(video, clips, each, frames.mask, ("clip", "frame")), spans=spans)

    def _tokens(
        self,
        whole: Float[Tensor, "batch 1 dim"],
        merged: Float[Tensor, "batch slot dim"],
        single: Float[Tensor, "batch token dim"],
        mask: Bool[Tensor, "batch token"],
        names: tuple[str, str],
    ) -> Tokens:
        """All three levels in one row, unit vectors, the whole first; the weights of each level sum to one."""
        masks = (_all_real(whole), _all_real(merged), mask)
        weights = [equal_weights(real, whole) for real in masks]
        if self.token_weights is not None:
            weights[CLIP] = self.token_weights[names[0]](merged, masks[CLIP])
            weights[FRAME] = self.token_weights[names[1]](single, mask)
        level = [torch.full_like(masks[level], level, dtype=torch.long) for level in (WHOLE, CLIP, FRAME)]
        return Tokens(
            unit(torch.cat([whole, merged, single], dim=1)),
            torch.cat(masks, dim=1),
            level=torch.cat(level, dim=1),
            weights=torch.cat(weights, dim=1),
        )

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        frame_word, clip_phrase, video_sentence = self.config.weights
        found = self.levels(text, video)
        return (
            frame_word * found["frame_word"]
            + clip_phrase * found["clip_phrase"]
            + video_sentence * found["video_sentence"]
        )

    def levels(self, text: Tokens, video: Tokens) -> dict[str, Float[Tensor, "text video"]]:
        """The similarity of each level by itself, so that weights can be chosen on a validation split."""
        words, phrases = slice(1 + self.config.phrases, None), slice(1, 1 + self.config.phrases)
        frames, clips = slice(1 + self.config.clips, None), slice(1, 1 + self.config.clips)
        return {
            "frame_word": _interaction(text, words, video, frames),
            "clip_phrase": _interaction(text, phrases, video, clips),
            "video_sentence": dot(self.summary(text), self.summary(video)),
        }

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def step(self, batch: Batch, gather: Gather = ALONE) -> dict[str, Float[Tensor, ""]]:
        """The losses of both views, averaged; potential positives are found between them."""
        text = gather.encoded(self.encode_text, batch.words)
        first = gather.encoded(self.encode_video, batch.frames)
        positives = batch.positives(gather)
        self.statistics = {
            f"cosine between {name}": _cosine_between(tokens.vectors[:, 1 : 1 + count])
            for name, tokens, count in (("clips", first, self.config.clips), ("phrases", text, self.config.phrases))
            if count > 1
        }
        if not self.config.denoise:
            return self.loss(text, first, positives)
        if batch.second is None:
            raise ValueError("label denoising takes two views of each video: fill Batch.second, or set denoise=False")
        with torch.set_grad_enabled(self.config.second and torch.is_grad_enabled()):
            second = gather.encoded(self.encode_video, batch.second)
        alike = potential_positives(self.summary(first), self.summary(second))
        if self.config.mutual:
            alike = alike & alike.T
        self.statistics |= _counted(alike, positives)
        trained = (first, second) if self.config.second else (first,)
        losses = [self._losses(text, view, positives, alike) for view in trained]
        return {name: torch.stack([terms[name] for terms in losses]).mean() for name in losses[0]}

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        """Without denoising: InfoNCE at every level, and the marginal samples."""
        return self._losses(text, video, positives, positives.new_zeros(len(video), len(video)))

    def _losses(
        self,
        text: Tokens,
        video: Tokens,
        positives: Bool[Tensor, "text video"],
        alike: Bool[Tensor, "video video"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Row i of `alike` is what video i finds alike; it holds for video i and for its texts. It may be asymmetric.

        A pair that is a potential positive in either direction is a marginal sample in none: what one term pulls
        together the other must not push apart. (Read literally, each direction leaves out its own.)
        """
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
                found["video_sentence"], positives, self.config.margin, ignored=of_text | of_video
            )
            terms["marginal"] = self.config.marginal * triplets
        return terms


def _all_real(vectors: Float[Tensor, "batch token dim"]) -> Bool[Tensor, "batch token"]:
    return torch.ones_like(vectors[..., 0], dtype=torch.bool)


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


def _seconds(
    shares: Float[Tensor, "video frame clip"], spans: Float[Tensor, "video frame 2"]
) -> Float[Tensor, "video clip 2"]:
    """What each clip saw: from the first to the last frame that has at least half of the clip's largest share.

    Padding, whose share is 0, is never among them.

    >>> shares = torch.tensor([[[0.7, 0.1], [0.2, 0.4], [0.1, 0.5]]])
    >>> _seconds(shares, torch.tensor([[[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]])).tolist()
    [[[0.0, 1.0], [1.0, 3.0]]]
    """
    mostly = shares >= shares.amax(dim=1, keepdim=True) / 2
    return torch.stack([seen(spans, of_clip) for of_clip in mostly.unbind(dim=2)], dim=1)


@torch.no_grad()
def _cosine_between(slots: Float[Tensor, "item slot dim"]) -> float:
    """The mean cosine of two different slots of an item; slots near 1 have not learnt to differ. They must be unit.

        1 / (M (M - 1))  sum_{m != n} <y_m, y_n>

    >>> round(_cosine_between(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])), 4)
    0.6
    """
    slots, count = fp32(slots), slots.shape[1]
    pairs = slots.sum(dim=1).square().sum(dim=1) - slots.square().sum(dim=(1, 2))
    return float(pairs.mean()) / (count * (count - 1))


@torch.no_grad()
def _counted(alike: Bool[Tensor, "video video"], positives: Bool[Tensor, "text video"]) -> dict[str, float]:
    """How often denoising finds two videos alike that share no text, and how well it finds those that do.

    Recall needs videos that share a text (two rows of one number), precision needs anything found.

    >>> alike = torch.tensor([[False, True, True], [False, False, False], [False, False, False]])
    >>> same = torch.tensor([[True, True, False], [False, False, True]])  # the first two are rows of one video
    >>> _counted(alike, same)  # (0, 1) and (1, 0) are known, and four pairs of strangers are left
    {'potential positives among strangers': 0.25, 'recall of known pairs': 0.5, 'precision by known pairs': 0.5}
    """
    known = positives.T.float() @ positives.float() > 0
    others = ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    known, strangers = known & others, ~known & others
    found, right = float(alike.sum()), float((alike & known).sum())
    told = {"potential positives among strangers": (found - right) / max(1.0, float(strangers.sum()))}
    if known.any():
        told["recall of known pairs"] = right / float(known.sum())
        if found:
            told["precision by known pairs"] = right / found
    return told
