"""X-MLNet (Kim and Lee 2025, doi 10.1007/s10489-025-06821-7): four levels of interaction, false negatives left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.backbones.base import Backbone, Frames, Words
from rushes.layers import CrossAttentionPool, TemporalTransformer, heads_of
from rushes.losses import connectivity, influential, info_nce, one_way, scale_of
from rushes.methods.base import Method, mapped, with_whole
from rushes.similarity import INFINITY, attention_over_similarity, dot, fp32, masked_mean, unit
from rushes.types import Tokens

Term = Literal["global", "frame_word", "sentence_frame", "video_word"]
TERMS: tuple[Term, ...] = get_args(Term)
BUDGET = 32 << 20  # bytes that a score may hold beside tokens and result


class XMLNet(Method):
    """Video and sentence, frames and words, sentence to frames, video to words.

        s(t, v) = 1/2 [ 1/2 (S_g + S_fw) + alpha S_sf + (1 - alpha) S_vw ]
        S_g   <s, v>: sentence and mean-pooled video, behind a temporal transformer
        S_fw  words A frames, pooled by attention, whose last factor is a maximum (SUMA) or the attended value (AOSM)
        S_sf  cos(s, what s pools from the frames)          S_vw  cos(v, what v pools from the words)

    v is the same for every text, so it can be indexed, and is the query on the words. Of the loss, see `loss`. The
    paper's text beyond its abstract is not public: the architecture is that of the authors' code, and where code and
    abstract disagree the default is ours. docs/papers/xmlnet.md has both, field by field.

    One word along the first axis, one frame at cosine 0.6; the cross-attention's layer norms turn the frame (0.6, 0.8)
    into (-1, 1) and the word (1, 0) into (1, -1), whose cosines with (1, 0) and with (0.6, 0.8) are -1 and -0.2 over
    the root of 2:

    >>> one = torch.ones(1, 1, dtype=torch.bool)
    >>> words = Words(torch.tensor([[[1.0, 0.0]]]), one, torch.tensor([[1.0, 0.0]]))
    >>> frames = Frames(torch.tensor([[[0.6, 0.8]]]), one, torch.tensor([[[0.0, 1.0]]]))
    >>> method = XMLNet(2).eval()
    >>> _ = nn.init.zeros_(method.temporal.positions)
    >>> text, video = method.encode_text(words), method.encode_video(frames)
    >>> {term: round(level.item(), 3) for term, level in method.levels(text, video, TERMS).items()}
    {'global': 0.6, 'frame_word': 0.6, 'sentence_frame': -0.707, 'video_word': -0.141}
    >>> round(method.score(text, video).item(), 3)  # 1/2 [0.6 - 0.8 * 0.707 - 0.2 * 0.141]
    0.003
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """`code` is what the authors' program runs; its values are those of `released`. `rec` is our recommendation."""

        # --- similarity
        # levels in training: all four in the code
        terms: tuple[Term, ...] = TERMS
        # levels in evaluation. code: global and frame_word; the cross-attention is computed there and thrown away,
        # while the abstract speaks of a similarity of all levels
        terms_eval: tuple[Term, ...] = TERMS
        # "mean": weights sum to one (rec). code: "sum", which with all levels is twice that, at a scale up to 200
        combine: Literal["mean", "sum"] = "mean"
        # of sentence_frame against video_word. The newer code's option; 0.9 where the older hard-codes it
        alpha: float = 0.8
        # last factor of frame_word: SUMA, as in most variants of the code; "attended" is X-CLIP's AOSM, in one of them
        pooled: Literal["max", "attended"] = "max"
        # of frame_word's attention: the code's constant
        temperature: float = 0.01
        # blocks of the temporal transformer: the code's default
        layers: int = 4
        # most word tokens and most frames, the sizes of the mixing matrices: 32 and 12 in the code
        words: int = 77
        frames: int = 77
        # in the cross-attention: the code's constant
        dropout: float = 0.3
        # cross-attention starts as the identity, as its block is written. code: False, since the block's parent then
        # draws all linear layers anew from N(0, 0.02^2)
        identity: bool = True
        # padding is not attended. code: False
        masked: bool = True
        # video_word is turned to text by video before it is added. code: False, so that every entry off the diagonal
        # mixes two pairs; that needs as many texts as videos
        transposed: bool = True

        # --- loss
        # inverse temperature at the start, at most 100: CLIP's own end value, as in the code
        scale: float = 100.0
        # weight of InfoNCE on <s, v>, by which a first stage searches (rec). code: 0
        summary: float = 0.5
        # weight of the loss on the bilinear global term: the newer code's option
        beta: float = 0.5
        # which probable false negatives are in no denominator: candidates that are connected to many, pairs alike in
        # one modality, nobody but others of the same video (known), or nobody (those then share a numerator). The
        # abstract leaves some out and does not say how; connectivity is the code's word. code: "none", but see `intra`
        fn_mode: Literal["connectivity", "pairwise", "known", "none"] = "connectivity"
        # whose modality tells, in connectivity mode: that of the anchor (a video goes by its texts), as in CrossCLR;
        # not in the code
        fn_side: Literal["anchor", "candidate", "either"] = "anchor"
        # the `prune` most connected (rec), or all above gamma times the most connected. code: "ratio", which takes
        # nearly all where features point alike
        gamma_mode: Literal["quantile", "ratio"] = "quantile"
        # ratio mode: 0.7 in the variant that runs, as in CrossCLR; 0.6 for texts and 0.8 for videos in others
        gamma_text: float = 0.7
        gamma_video: float = 0.7
        # quantile mode: share of a batch (rec, 0.1 to 0.2; measured by nobody)
        prune: float = 0.15
        # never more than this share of the candidates as connected (rec). code: no bound, 1
        most: float = 0.5
        # pairwise mode, which has no bound: cosine above which two texts, or two videos, are alike (ours)
        theta: float = 0.9
        # of connectivity: mean cosine, or weighed by the softmax of cosines as in the code's other variants
        statistic: Literal["mean", "softmax"] = "mean"
        # an item counts towards its own connectivity, and is its own negative in `intra`. code: True, and there it has
        # nearly all of the softmax's mass
        itself: bool = False
        # factor on the logits of negatives of the anchor's own modality, in the bilinear term; 0: there are none.
        # code: 0.8, as CrossCLR's, and to leave some of these out is the only use it makes of connectivity
        intra: float = 0.0

        def __post_init__(self) -> None:
            for field in ("terms", "terms_eval"):
                terms = getattr(self, field)
                if isinstance(terms, list):  # read from a file
                    object.__setattr__(self, field, terms := tuple(terms))
                if not isinstance(terms, tuple) or not terms or set(terms) - set(TERMS) or len(set(terms)) < len(terms):
                    raise ValueError(f"{field} is {terms!r}; give a tuple of some of {', '.join(TERMS)}, each once")
            for field, hint in get_type_hints(type(self)).items():
                if get_origin(hint) is Literal and getattr(self, field) not in get_args(hint):
                    raise ValueError(f"{field} is {getattr(self, field)!r}; it may be {', '.join(get_args(hint))}")
            for least, most, names in (
                (0, 1, ("alpha", "dropout", "prune", "most")),
                (0, INFINITY, ("summary", "beta", "intra")),
                (1, INFINITY, ("layers", "words", "frames")),
                (1e-6, INFINITY, ("temperature", "gamma_text", "gamma_video")),
                (1e-6, 100, ("scale",)),
                (-1, 1, ("theta",)),
            ):
                for field in names:
                    if not least <= getattr(self, field) <= most:
                        bounds = f"from {least} to {most}" if most < INFINITY else f"{least} or more"
                        raise ValueError(f"{field} is {getattr(self, field)}; it may be {bounds}")
            for field in ("terms", "terms_eval"):
                if not sum(self.weights(getattr(self, field)).values()):
                    raise ValueError(
                        f"with alpha {self.alpha} {field} {getattr(self, field)} weighs nothing; add a level"
                    )
            if untaught := set(self.terms_eval) - set(self.terms):
                raise ValueError(
                    f"terms_eval has {', '.join(sorted(untaught))}, not taught by terms: add it there, or take it out"
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
                most=1.0,
                itself=True,
                intra=0.8,
            )

        @classmethod
        def paper(cls) -> XMLNet.Config:
            """The abstract: the similarity of all levels, and false negatives left out of the loss on it.

            What it does not say is the code's, without its defects: threshold, negatives of one's own modality, sizes.
            """
            return cls(words=32, frames=12, summary=0.0, gamma_mode="ratio", intra=0.8)

        def weights(self, terms: tuple[Term, ...]) -> dict[Term, float]:
            """Of each level: 1 shared by global and frame_word, alpha of sentence_frame, 1 - alpha of video_word.

            >>> XMLNet.Config(alpha=0.75).weights(TERMS)
            {'global': 0.25, 'frame_word': 0.25, 'sentence_frame': 0.375, 'video_word': 0.125}
            >>> XMLNet.Config(alpha=0.75, combine="sum").weights(("global", "sentence_frame"))
            {'global': 1.0, 'sentence_frame': 0.75}
            """
            shared = 1 / max(1, len({"global", "frame_word"} & set(terms)))
            every = {
                "global": shared,
                "frame_word": shared,
                "sentence_frame": self.alpha,
                "video_word": 1 - self.alpha,
            }
            total = sum(every[term] for term in terms) if self.combine == "mean" else 1.0
            return {term: every[term] / (total or 1.0) for term in terms}

        def breaks(self) -> dict[str, str]:
            """The laws that attending to padding breaks, in training or in evaluation."""
            if self.masked or self.terms == ("global",):
                return {}
            reason = "the authors' attention has no mask: padding counts as words and frames"
            found = {
                "padding changes nothing": reason,
                "two processes learn as one": f"{reason}, of which each process has its own width",
            }
            if self.terms_eval != ("global",):
                found["stored tokens give the scores of the live model"] = f"{reason}, and is not stored"
            return found

        @property
        def paired(self) -> bool:
            return not self.transposed and "video_word" in self.terms

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        terms, words, frames = self.config.terms, self.config.words, self.config.frames
        self.temporal = TemporalTransformer(dim, self.config.layers, frames)
        if "frame_word" in terms:
            self.words_to_frames = nn.Parameter(torch.eye(dim))  # A
            self.words_first, self.words_second = (nn.Parameter(torch.eye(words)) for _ in range(2))
            self.frames_first, self.frames_second = (nn.Parameter(torch.eye(frames)) for _ in range(2))
        if "sentence_frame" in terms:
            self.sentence_frame = self._cross_attention()
        if "video_word" in terms:
            self.video_word = self._cross_attention()
        if self.config.beta:
            self.to_text, self.to_video = (nn.Parameter(torch.eye(dim)) for _ in range(2))  # G of v -> t, of t -> v
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def _cross_attention(self) -> CrossAttentionPool:
        pool = CrossAttentionPool(self.dim, heads_of(self.dim), self.config.dropout)
        if not self.config.identity:
            for layer in (pool.query, pool.key, pool.value, pool.pooled, pool.forth):
                nn.init.normal_(layer.weight, std=0.02)
        return pool

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        return with_whole(unit(words.sentence), Tokens(unit(words.vectors), words.mask))

    def encode_video(self, frames: Frames) -> Tokens:
        whole = unit(masked_mean(unit(self.temporal(frames.vectors, frames.mask)), frames.mask))
        return with_whole(whole, Tokens(unit(frames.vectors), frames.mask, frames.spans))

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        return self.score_within(text, video, BUDGET)

    def score_within(self, text: Tokens, video: Tokens, budget_bytes: int) -> Float[Tensor, "text video"]:
        return self.similarity(text, video, self.config.terms_eval, budget_bytes)

    def similarity(
        self, text: Tokens, video: Tokens, terms: tuple[Term, ...], budget_bytes: int = BUDGET
    ) -> Float[Tensor, "text video"]:
        """The weighed sum of the levels, one at a time: beside the sum it holds one more matrix of its size."""
        scores = torch.zeros((), dtype=fp32(text.vectors[:0]).dtype, device=text.vectors.device)
        for term, weight in self.config.weights(terms).items():
            scores = torch.add(scores, self.levels(text, video, (term,), budget_bytes)[term], alpha=weight)
        return scores

    def levels(
        self, text: Tokens, video: Tokens, terms: tuple[Term, ...], budget_bytes: int = BUDGET
    ) -> dict[Term, Float[Tensor, "text video"]]:
        """The similarity of each level by itself; with transposed=False video_word is video by text, of as many."""
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
            by_video = self.video_word.cosines(whole, words, word_mask, budget_bytes=budget_bytes)
            if not self.config.transposed and len(text) != len(video):
                raise ValueError(
                    f"transposed=False adds video by text to text by video: {len(text)} texts and {len(video)} videos "
                    "are not as many; train on pairs, text i with video i, or set transposed=True"
                )
            found["video_word"] = by_video.T if self.config.transposed else by_video
        return found

    def _frame_word(
        self, words: Tensor, word_mask: Tensor, frames: Tensor, frame_mask: Tensor, budget_bytes: int
    ) -> Float[Tensor, "text video"]:
        item = fp32(words[:0]).element_size()
        some = max(1, budget_bytes // 4 // (words.shape[1] * self.dim * item))  # texts whose words times A are held
        block = min(budget_bytes // 32, 2 << 20) if words.device.type == "cpu" else budget_bytes // 32
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
                block_bytes=block,
            )
            for part, real in zip(words.split(some), word_mask.split(some), strict=True)
        ]
        return torch.cat(parts)

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video token"]:
        """Words meet frames through A, as they do in the score, if frame_word is a level of it."""
        return super().evidence(self._through(text), video)

    def token_evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video word token"]:
        return super().token_evidence(self._through(text), video)

    def _through(self, text: Tokens) -> Tokens:
        return mapped(text, self.words_to_frames) if "frame_word" in self.config.terms_eval else text

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        """InfoNCE on all levels' scores, and beta of it on the bilinear global term; probable false negatives left out.

            nce       on s(t, v), in both directions
            bilinear  beta / 2 of: texts among <s G', v>, videos among <v G, s>
            summary   on <s, v>

        `intra` adds negatives of the anchor's own modality to the bilinear term, at `intra` times the scale, save the
        influential (in pairwise mode: those alike) and those of its own video. In the authors' code these are all that
        is ever left out (their L_clr), a batch is pairs, and whatever is not the pair is a negative.
        """
        config, scale = self.config, scale_of(self.log_scale)
        scores = self.similarity(text, video, config.terms)
        of_one_video = _share(positives), _share(positives.T)  # texts, and videos, whatever is learnt from that
        if config.paired and config.fn_mode == "none":
            positives = torch.eye(len(positives), dtype=torch.bool, device=positives.device)

        sentence, whole = sides = fp32(text.vectors[:, 0]), fp32(video.vectors[:, 0])
        connected = [connectivity(side, softmax=config.statistic == "softmax", itself=config.itself) for side in sides]
        gammas = config.gamma_text, config.gamma_video
        flagged = [self._flagged(*seen) for seen in zip(sides, connected, gammas, strict=True)]
        self.statistics = {
            f"{name} {what}": value
            for name, *seen in zip(("texts", "videos"), sides, flagged, of_one_video, strict=True)
            for what, value in _counted(*seen).items()
        }
        excluded = self._excluded(connected, flagged, positives)
        several = "joint" if config.fn_mode == "none" else "each"

        terms = {"nce": info_nce(scores, positives, scale, several=several, excluded=excluded)}
        if config.beta:
            of_text, of_video = (None, None) if excluded is None else (excluded[0], excluded[1].T)
            beside_text = beside_video = None
            if config.intra:
                beside_text, beside_video = (
                    self._own(*seen, scale) for seen in zip(sides, flagged, of_one_video, strict=True)
                )
            asked = scale * (sentence @ self.to_video @ whole.T)
            answered = scale * (whole @ self.to_text @ sentence.T)
            terms["bilinear"] = (config.beta / 2) * (
                one_way(asked, positives, several, of_text, beside_text)
                + one_way(answered, positives.T, several, of_video, beside_video)
            )
        if config.summary:
            alike = dot(sentence, whole)
            terms["summary"] = config.summary * info_nce(alike, positives, scale, several=several, excluded=excluded)
        return terms

    def _flagged(
        self, vectors: Float[Tensor, "item dim"], connected: Float[Tensor, "item"], gamma: float
    ) -> Bool[Tensor, "item item"]:
        """Which items of a modality (columns) are probably no negatives of which (rows), by that modality alone."""
        if self.config.fn_mode == "pairwise":
            return _cosines(vectors) > self.config.theta
        return self._influential(connected, gamma).expand(len(vectors), -1)

    def _influential(self, connected: Float[Tensor, "item"], gamma: float, parts: int = 1) -> Bool[Tensor, "item"]:
        """Where `parts` such sets are to be joined, each is as much smaller as `most` asks for."""
        most = self.config.most / parts
        if self.config.gamma_mode == "ratio":
            return influential(connected, ratio=gamma, most=most)
        return influential(connected, share=self.config.prune, most=most)

    def _excluded(
        self, connected: list[Tensor], flagged: list[Tensor], positives: Bool[Tensor, "text video"]
    ) -> tuple[Bool[Tensor, "text video"], Bool[Tensor, "text video"]] | None:
        """What is no negative of each text, and what of each video; the positives among them are the loss's business.

        To a text anchor the videos are candidates, which its own modality knows by the texts they have: a video is as
        connected as its texts are on average, so that however many there are, no more than `most` of the videos go.
        """
        config, (texts, videos) = self.config, connected
        if config.fn_mode == "pairwise":
            own = positives.float()
            alike = flagged[0].float() @ own + own @ flagged[1].float() > 0  # by the texts, by the videos
            return alike, alike
        if config.fn_mode != "connectivity":
            return None
        parts = 2 if config.fn_side == "either" else 1
        by_texts = self._influential(_of_partners(texts, positives), config.gamma_text, parts)
        by_videos = self._influential(_of_partners(videos, positives.T), config.gamma_video, parts)
        texts = self._influential(texts, config.gamma_text, parts)
        videos = self._influential(videos, config.gamma_video, parts)
        of_text, of_video = {
            "anchor": (by_texts, by_videos),
            "candidate": (videos, texts),
            "either": (by_texts | videos, by_videos | texts),
        }[config.fn_side]
        return of_text[None, :].expand(positives.shape), of_video[:, None].expand(positives.shape)

    def _own(
        self,
        vectors: Float[Tensor, "item dim"],
        flagged: Bool[Tensor, "item item"],
        same: Bool[Tensor, "item item"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, "item item"]:
        """Logits of the items of one's own modality that count as negatives; -inf for those that do not."""
        left_out = flagged if self.config.itself else flagged | same
        return (self.config.intra * scale * (vectors @ vectors.T)).masked_fill(left_out, -INFINITY)


def _share(positives: Bool[Tensor, "item other"]) -> Bool[Tensor, "item item"]:
    """Which items have a partner in common."""
    return positives.float() @ positives.T.float() > 0


def _of_partners(connected: Float[Tensor, "item"], positives: Bool[Tensor, "item other"]) -> Float[Tensor, "other"]:
    """The mean connectivity of each one's partners; -inf, the least of all, without any.

    >>> _of_partners(torch.tensor([0.1, 0.3, 0.8]), torch.tensor([[True, False], [True, False], [False, True]]))
    tensor([0.2000, 0.8000])
    """
    counts = positives.sum(dim=0)
    mean = connected @ positives.to(connected.dtype) / counts.clamp_min(1)
    return mean.masked_fill(counts == 0, -INFINITY)


@torch.no_grad()
def _cosines(vectors: Float[Tensor, "item dim"]) -> Float[Tensor, "item item"]:
    vectors = unit(vectors)
    return vectors @ vectors.T


def _counted(
    vectors: Float[Tensor, "item dim"], flagged: Bool[Tensor, "item item"], same: Bool[Tensor, "item item"]
) -> dict[str, float]:
    """What the detector finds in a batch, and how well it finds items of one video, known to be no negatives.

    >>> both = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])  # the first two are one
    >>> first = torch.tensor([True, False, False]).expand(3, 3)  # the first is flagged, of everybody
    >>> found = _counted(torch.eye(3), first, both)
    >>> {name: round(value, 2) for name, value in found.items()}
    {'pruned': 0.33, 'likeness': 0.0, 'recall': 0.5, 'precision': 0.5}
    """
    count = len(vectors)
    if count == 1:
        return {}  # nobody to be compared with
    others = ~torch.eye(count, dtype=torch.bool, device=vectors.device)
    known, pruned = same & others, flagged & others
    told = {"pruned": float(pruned.sum()) / (count * (count - 1)), "likeness": float(_cosines(vectors)[others].mean())}
    if known.any():
        hits = float((pruned & known).sum())
        told["recall"] = hits / float(known.sum())
        told["precision"] = hits / max(1.0, float(pruned.sum()))
    return told
