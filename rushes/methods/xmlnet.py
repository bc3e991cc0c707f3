"""X-MLNet (Kim and Lee 2025, doi 10.1007/s10489-025-06821-7): four levels of interaction, false negatives left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Backbone, Frames, Words
from rushes.layers import CrossAttentionPool, TemporalTransformer, heads_of
from rushes.losses import connectivity, influential, info_nce, one_way, scale_of
from rushes.methods.base import Method, with_whole
from rushes.similarity import INFINITY, attention_over_similarity, dot, fp32, masked_mean, unit
from rushes.types import Tokens

Term = Literal["global", "frame_word", "sentence_frame", "video_word"]
TERMS: tuple[Term, ...] = get_args(Term)


class XMLNet(Method):
    """Video and sentence, frames and words, sentence to frames, video to words.

        s(t, v) = 1/2 [ 1/2 (S_g + S_fw) + alpha S_sf + (1 - alpha) S_vw ]
        S_g   <s, v>: sentence and mean-pooled video, behind a temporal transformer
        S_fw  words A frames, pooled by attention, whose last factor is a maximum (SUMA) or the attended value (AOSM)
        S_sf  cos(s, what s pools from the frames)          S_vw  cos(v, what v pools from the words)

    v is the same for every text, so it can be indexed, and is the query on the words. Of the loss, see `loss`. The
    paper's text beyond its abstract is not public: the architecture is that of the authors' code, docs/papers/xmlnet.md
    tells what it does and what we decided.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        terms: tuple[Term, ...] = TERMS  # in training; all of them in the code
        terms_eval: tuple[Term, ...] = TERMS  # in evaluation: global and frame_word alone in the code, whose
        # cross-attention is computed and thrown away there; the abstract speaks of all levels
        combine: Literal["mean", "sum"] = "mean"  # weights sum to one; "sum" in the code: twice that
        alpha: float = (
            0.8  # of sentence_frame against video_word: default of the newer code's option (0.9 in the older)
        )
        pooled: Literal["max", "attended"] = "max"  # SUMA, as four of the code's variants; "attended" is X-CLIP's AOSM
        temperature: float = 0.01  # of the frame-word attention, the code's constant
        layers: int = 4  # of the temporal transformer, the code's default
        words: int = 77  # the most word tokens: the mixing matrices' size; 32 in the code
        frames: int = 77  # the most frames; 12 in the code
        dropout: float = 0.3  # in the cross-attention, the code's constant
        identity: bool = True  # cross-attention starts as the identity, as the block is written in the code; but its
        # parent then draws all linear layers from N(0, 0.02^2): False
        masked: bool = True  # padding is not attended; False in the code
        transposed: bool = (
            True  # video_word turned to text by video before it is added; False in the code: wrong but on
        )
        # the diagonal, and only possible with as many texts as videos
        scale: float = 100.0  # temperature's inverse at the start; CLIP's own end value, as in the code
        summary: float = 0.5  # weight of InfoNCE on <s, v>, which a first stage searches by; 0 in the code

        fn_mode: Literal["connectivity", "pairwise", "known", "none"] = (
            "connectivity"  # which negatives are left out of
        )
        # the denominators. The code leaves out none there: see `intra`
        fn_side: Literal["anchor", "candidate", "either"] = (
            "anchor"  # whose modality tells: as CrossCLR; not in the code
        )
        gamma_mode: Literal["quantile", "ratio"] = (
            "quantile"  # `prune` of the items, or those above `gamma` of the most
        )
        # connected: the code's, which takes all or nearly all where features point alike
        gamma_text: float = 0.7  # ratio mode: the code's running variant (0.6 in others)
        gamma_video: float = 0.7  # ratio mode: the code's running variant (0.8 in others)
        prune: float = 0.15  # quantile mode: share of the batch left out; a recommendation, not measured by the authors
        theta: float = 0.9  # pairwise mode: cosine above which a pair of texts or of videos is no negative; ours
        statistic: Literal["mean", "softmax"] = (
            "mean"  # of connectivity; "softmax" weighs by likeness, as some variants
        )
        itself: bool = (
            False  # an item counts towards its own connectivity, and is its own negative in `intra`: as in the
        )
        # code, where it then has nearly all of the softmax's mass
        beta: float = 0.5  # weight of the loss on the bilinear global term; the code's default
        most: float = 0.5  # never more than this share of a batch is left out as connected; no bound in the code
        intra: float = (
            0.0  # weight on logits of negatives of one's own modality in that loss; 0.8 in the code, whose only
        )
        # use of connectivity is to leave some of these out; 0: there are none

        def __post_init__(self) -> None:
            for field in ("terms", "terms_eval"):
                terms = tuple(getattr(self, field))  # a list, if it was read from a file
                object.__setattr__(self, field, terms)
                if not terms or set(terms) - set(TERMS) or len(set(terms)) < len(terms):
                    raise ValueError(
                        f"{field} is {', '.join(terms) or 'empty'}; give some of {', '.join(TERMS)}, each once"
                    )
            if not self.transposed and "video_word" in self.terms_eval:
                raise ValueError("transposed=False mixes pairs of texts and videos: take video_word out of terms_eval")

        @classmethod
        def released(cls) -> XMLNet.Config:
            """The variant that the authors' program runs, with its constants for MSR-VTT, defects included."""
            return cls(
                terms_eval=("global", "frame_word"),
                combine="sum",
                words=32,
                frames=12,
                identity=False,
                masked=False,
                transposed=False,
                summary=0.0,
                fn_mode="none",
                gamma_mode="ratio",
                itself=True,
                most=1.0,
                intra=0.8,
            )

        @classmethod
        def paper(cls) -> XMLNet.Config:
            """The abstract: the similarity of all levels, and false negatives left out of the loss on it."""
            return cls(words=32, frames=12, gamma_mode="ratio", summary=0.0, intra=0.8)

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

        @property
        def paired(self) -> bool:
            return not self.transposed

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        config = self.config
        used = {*config.terms, *config.terms_eval}
        self.temporal = TemporalTransformer(dim, config.layers, config.frames)
        if "frame_word" in used:
            self.words_to_frames = nn.Parameter(torch.eye(dim))  # A
            self.words_first, self.words_second = (nn.Parameter(torch.eye(config.words)) for _ in range(2))
            self.frames_first, self.frames_second = (nn.Parameter(torch.eye(config.frames)) for _ in range(2))
        for term in ("sentence_frame", "video_word"):
            if term in used:
                pool = CrossAttentionPool(dim, heads_of(dim), config.dropout)
                if not config.identity:
                    for layer in (pool.query, pool.key, pool.value, pool.pooled, pool.forth):
                        nn.init.normal_(layer.weight, std=0.02)
                self.add_module(term, pool)
        if config.beta:
            self.to_text, self.to_video = (nn.Parameter(torch.eye(dim)) for _ in range(2))  # G of v -> t, of t -> v
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        return with_whole(unit(words.sentence), Tokens(unit(words.vectors), words.mask))

    def encode_video(self, frames: Frames) -> Tokens:
        whole = unit(masked_mean(unit(self.temporal(frames.vectors, frames.mask)), frames.mask))
        return with_whole(whole, Tokens(unit(frames.vectors), frames.mask, frames.spans))

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return self.score_within(text, video, 32 << 20)

    def score_within(self, text: Tokens, video: Tokens, budget_bytes: int) -> Float[Tensor, "text video"]:
        return self._weighed(self.levels(text, video, self.config.terms_eval, budget_bytes))

    def levels(
        self, text: Tokens, video: Tokens, terms: tuple[Term, ...], budget_bytes: int = 32 << 20
    ) -> dict[Term, Float[Tensor, "text video"]]:
        """The similarity of each level by itself."""
        sentence, words, word_mask = text.vectors[:, 0], text.vectors[:, 1:], text.mask[:, 1:]
        whole, frames, frame_mask = video.vectors[:, 0], video.vectors[:, 1:], video.mask[:, 1:]
        if not self.config.masked:
            word_mask, frame_mask = torch.ones_like(word_mask), torch.ones_like(frame_mask)
        found: dict[Term, Tensor] = {}
        if "global" in terms:
            found["global"] = dot(sentence, whole)
        if "frame_word" in terms:
            found["frame_word"] = self._frame_word(words, word_mask, frames, frame_mask, budget_bytes)
        if "sentence_frame" in terms:
            found["sentence_frame"] = self.sentence_frame.cosines(
                sentence, frames, frame_mask, budget_bytes=budget_bytes
            )
        if "video_word" in terms:
            by_text = self.video_word.cosines(whole, words, word_mask, budget_bytes=budget_bytes)
            if not self.config.transposed and by_text.shape[0] != by_text.shape[1]:
                raise ValueError(
                    f"transposed=False adds video by text scores to text by video ones: {len(text)} texts and "
                    f"{len(video)} videos are not as many; train with pairs, or leave video_word out of terms_eval"
                )
            found["video_word"] = by_text.T if self.config.transposed else by_text
        return found

    def _frame_word(
        self, words: Tensor, word_mask: Tensor, frames: Tensor, frame_mask: Tensor, budget_bytes: int
    ) -> Float[Tensor, "text video"]:
        item = fp32(words[:0]).element_size()
        some = max(1, budget_bytes // 4 // (words.shape[1] * self.dim * item))  # texts whose words times A are held
        small = min(budget_bytes // 8, 2 << 20) if words.device.type == "cpu" else budget_bytes // 8
        parts = [
            attention_over_similarity(
                fp32(part) @ self.words_to_frames,
                frames,
                real,
                frame_mask,
                word_mixing=(self.words_first, self.words_second),
                frame_mixing=(self.frames_first, self.frames_second),
                pooled=self.config.pooled,
                temperature=self.config.temperature,
                block_bytes=small,
            )
            for part, real in zip(words.split(some), word_mask.split(some), strict=True)
        ]
        return torch.cat(parts)

    def _weighed(self, levels: dict[Term, Float[Tensor, "text video"]]) -> Float[Tensor, "text video"]:
        """1/2 global + 1/2 frame_word + alpha sentence_frame + (1 - alpha) video_word, of the levels there are."""
        alpha = self.config.alpha
        weights = {"global": 0.5, "frame_word": 0.5, "sentence_frame": alpha, "video_word": 1 - alpha}
        total = sum(weights[term] for term in levels) if self.config.combine == "mean" else 1.0
        return torch.stack([weights[term] / total * scores for term, scores in levels.items()]).sum(dim=0)

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        """InfoNCE on all levels' scores, and beta of it on the bilinear global term; probable false negatives left out.

            nce       on s(t, v), in both directions
            bilinear  beta / 2 of: texts among <s G', v>, videos among <v G, s>
            summary   on <s, v>

        `intra` adds negatives of an item's own modality to the bilinear term, at `intra` times the scale, save the
        influential ones and those of its own video. In the authors' code these are all that is ever left out (their
        L_clr), a batch is pairs, and whatever is not the pair is a negative.
        """
        config, scale = self.config, scale_of(self.log_scale)
        if config.paired and positives.shape[0] != positives.shape[1]:
            raise ValueError(
                f"transposed=False takes pairs, text i with video i; got {positives.shape[0]} texts and "
                f"{positives.shape[1]} videos"
            )
        same = positives  # of one video, whatever is learnt from that
        if config.paired and config.fn_mode == "none":
            positives = torch.eye(len(positives), dtype=torch.bool, device=positives.device)
        sentence, whole = fp32(text.vectors[:, 0]), fp32(video.vectors[:, 0])
        texts, videos = self._influential(sentence, config.gamma_text), self._influential(whole, config.gamma_video)
        excluded = self._excluded(sentence, whole, positives, texts, videos)
        several = "joint" if config.fn_mode == "none" else "each"
        self.statistics = _counted("texts", sentence, _share(same), texts, config.theta, config.fn_mode)
        self.statistics |= _counted("videos", whole, _share(same.T), videos, config.theta, config.fn_mode)

        scores = self._weighed(self.levels(text, video, config.terms))
        terms = {"nce": info_nce(scores, positives, scale, several=several, excluded=excluded)}
        if config.beta:
            of_text, of_video = excluded if excluded is not None else (None, None)
            asked = scale * (sentence @ self.to_video @ whole.T)
            answered = scale * (whole @ self.to_text @ sentence.T)
            beside_text = beside_video = None
            if config.intra:
                beside_text = self._own(sentence, _share(same), texts, scale)
                beside_video = self._own(whole, _share(same.T), videos, scale)
            terms["bilinear"] = (config.beta / 2) * (
                one_way(asked, positives, several, of_text, beside_text)
                + one_way(answered, positives.T, several, None if of_video is None else of_video.T, beside_video)
            )
        if config.summary:
            summaries = dot(sentence, whole)
            terms["summary"] = config.summary * info_nce(
                summaries, positives, scale, several=several, excluded=excluded
            )
        return terms

    def _influential(self, vectors: Float[Tensor, "item dim"], gamma: float) -> Bool[Tensor, "item"]:
        config = self.config
        found = connectivity(vectors, softmax=config.statistic == "softmax", itself=config.itself)
        if config.gamma_mode == "ratio":
            return influential(found, ratio=gamma, most=config.most)
        return influential(found, share=config.prune, most=config.most)

    def _excluded(
        self, sentence: Tensor, whole: Tensor, positives: Tensor, texts: Tensor, videos: Tensor
    ) -> tuple[Bool[Tensor, "text video"], Bool[Tensor, "text video"]] | None:
        """What is no negative of each text, and of each video; positives are the loss's own business."""
        config, own = self.config, positives.float()
        if config.fn_mode == "pairwise":
            alike = (_cosines(sentence) > config.theta).float() @ own + own @ (_cosines(whole) > config.theta).float()
            return alike > 0, alike > 0
        if config.fn_mode != "connectivity":
            return None
        video_by_text, text_by_video = texts.float() @ own > 0, own @ videos.float() > 0  # by their partners' modality
        if config.fn_side == "anchor":
            of_text, of_video = video_by_text, text_by_video
        elif config.fn_side == "candidate":
            of_text, of_video = videos, texts
        else:
            of_text, of_video = video_by_text | videos, text_by_video | texts
        return of_text[None, :].expand(positives.shape), of_video[:, None].expand(positives.shape)

    def _own(
        self,
        vectors: Float[Tensor, "item dim"],
        same: Bool[Tensor, "item item"],
        influential: Bool[Tensor, "item"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, "item item"]:
        """Logits of the items of one's own modality that count as negatives; -inf for those that do not."""
        left_out = influential[None, :] if self.config.itself else influential[None, :] | same
        return (self.config.intra * scale * (vectors @ vectors.T)).masked_fill(left_out, -INFINITY)


def _share(positives: Bool[Tensor, "item other"]) -> Bool[Tensor, "item item"]:
    """Which items have a partner in common."""
    return positives.float() @ positives.T.float() > 0


@torch.no_grad()
def _cosines(vectors: Float[Tensor, "item dim"]) -> Float[Tensor, "item item"]:
    vectors = unit(vectors)
    return vectors @ vectors.T


@torch.no_grad()
def _counted(
    side: str,
    vectors: Float[Tensor, "item dim"],
    same: Bool[Tensor, "item item"],
    pruned: Bool[Tensor, "item"],
    theta: float,
    mode: str,
) -> dict[str, float]:
    """What the detector left out of a batch, and how well it found items of one video, known to be no negatives."""
    count = len(vectors)
    others = ~torch.eye(count, dtype=torch.bool, device=vectors.device)
    alike = _cosines(vectors)
    told = {f"{side} pruned": float(pruned.float().mean()), f"{side} likeness": float(alike[others].mean())}
    flagged = (alike > theta if mode == "pairwise" else pruned[None, :].expand(count, count)) & others
    known = same & others
    if known.any():
        hits = float((flagged & known).sum())
        told[f"{side} recall"] = hits / float(known.sum())
        told[f"{side} precision"] = hits / max(1.0, float(flagged.sum()))
    return told
