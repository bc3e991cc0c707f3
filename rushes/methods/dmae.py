"""DMAE with TPM-CL (Jiang et al. 2023, arXiv 2309.11082): sharper token scores, and negatives cut out of positives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from rushes.backbones.base import Backbone, Frames, Words
from rushes.layers import TemporalTransformer, TokenWeights
from rushes.losses import info_nce, neg_nce, partial_order
from rushes.methods.base import Method, with_whole
from rushes.similarity import INFINITY, dot, equal_weights, fp32, masked_mean, neighbour_interaction, unit
from rushes.types import Tokens


class DMAE(Method):
    """Sentence and words against frames; content words count double, the best frame brings its neighbour.

        s(t, v) = 1/2 [ S(sentence, frames) + S(words, frames) ],    S = `similarity.neighbour_interaction`

    A word's weight is u / sum u, with u = 2 for tokens of content words and 1 for others (textual attention). Its best
    frame brings half of what the frame most like that one says (visual attention). Training pushes down the negatives
    that score above a positive (`losses.neg_nce`), and cuts harder negatives out of each pair (TPM-CL, `triplets`): a
    text or video without the tokens that matter most to the other side must match less well than the whole.

    Of the paper we know the abstract and its figure; formulas and constants are those of the authors' code, which runs
    on another backbone: docs/papers/dmae.md. The summaries are the sentence and the mean of unit frames, whose product
    is, but for that mean's length, half of S(sentence, frames) without neighbours; they have a loss of their own.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        # "the code" is the authors'

        # --- the score

        # "att": words are scored beside the sentence, as in the code's README and scripts; its configuration files say
        # "wti", which is the sentence alone. "wti": token weights are learnt, on unit vectors
        interaction: Literal["att_ti", "att_wti", "ti", "wti"] = "att_ti"
        hidden: Literal[0, 1, 2] = 1  # layers before the last of learnt token weights; 1 as in DRL, 0 in the code
        header: Literal["none", "seqtransf"] = "none"  # what frames go through first; the code's default ("meanP")
        layers: int = 4  # of seqtransf, as in the code
        # frames are made unit before seqtransf and not after it, as in the code: its "cosines" reach 50
        unit_first: bool = False
        textual: bool = True  # textual attention: content words count double; the code's scripts
        # how content words are told (rushes/tagging.py); the code's tagger is spaCy's, but what it finds is mapped to
        # tokens letter by letter, as suits Chinese, and nearly never reaches an English one
        tagger: Literal["closed-class", "spacy"] = "closed-class"
        neighbour: float = 0.5  # factor of visual attention, the code's constant; 0: none
        masked: bool = True  # padding wins no maximum, and asks and gets nothing in the triplets; it does in the code

        # --- the losses on scores

        loss: Literal["neg_nce", "info_nce"] = "neg_nce"  # the code's default
        scale: float = 100.0  # inverse temperature; fixed, as in the code
        negative: float = 0.5  # weight of the negatives above a positive, the code's constant
        clamped: bool = False  # the code's clamp of probabilities, which takes the gradient from the hardest positives
        summary: float = 0.5  # weight of InfoNCE on the summaries; 0 in the code, which has no first stage

        # --- the triplets of TPM-CL

        # which: the code's l3_partial_type 4, 2, 3, -1; 4 in the file that its scripts load
        partial: Literal["all", "video", "text", "off"] = "all"
        # the triplet of pooled frames, which the code computes and never uses: without it frame weights learn nothing,
        # and what is cut out of a video is random
        fourth: bool = True
        # what is left of a text is made unit, and what is cut out of a video is no frame; in the code vectors stay
        # short and cut frames count as zeros, so that what is left loses by its length
        normalised: bool = True
        always: bool = True  # one token at least is cut out of two or more; in the code none, if one alone holds `mass`
        mass: float = 0.6  # the heaviest tokens that hold less than this share are cut out; the code's constant
        margin: float = 0.1  # of the triplets; 0.6 in the code, more than matched CLIP features have to lose
        tpm: float = 1.0  # weight of the triplets, as in the code
        words: int = 77  # the most word tokens in training: the weight predictors' size; 30 in the code
        frames: int = 77  # the most frames there, and behind seqtransf always; 8 and an end mark in the code

        def __post_init__(self) -> None:
            if not 0 < self.mass < 1:
                raise ValueError(f"mass is {self.mass}; give a share between 0 and 1, or partial='off' to cut nothing")

        @classmethod
        def released(cls) -> DMAE.Config:
            """The authors' code with the switches of its README and scripts, defects included, at CLIP's usual sizes.

            With seqtransf its triplets differ from these: docs/papers/dmae.md.
            """
            return cls(
                hidden=0,
                unit_first=True,
                masked=False,
                clamped=True,
                summary=0.0,
                fourth=False,
                normalised=False,
                always=False,
                margin=0.6,
                words=32,
                frames=12,
            )

        @classmethod
        def paper(cls) -> DMAE.Config:
            """The modules that the abstract and its figure show, with the code's constants for want of others.

            Without our additions, and without the code's slips: docs/papers/dmae.md tells which is which.
            """
            return cls(hidden=0, summary=0.0, always=False, margin=0.6, words=32, frames=12)

        def breaks(self) -> dict[str, str]:
            """The laws that padding that wins maxima breaks, and those that unused weights do."""
            broken = {}
            if not self.masked:
                reason = "padding scores 0 in the authors' code, and wins where every real token scores below"
                broken["padding changes nothing"] = reason
                broken["two processes learn as one"] = f"{reason}, of which each process has its own width"
            if self.partial in ("all", "video") and not self.fourth:
                reason = "frame weights serve a hard choice alone in the authors' code, and stay as they were drawn"
                broken["gradients reach every parameter"] = reason
            return broken

    blocked = True

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__(dim, config)
        switches = self.config
        self.textual = switches.textual and switches.interaction.startswith("att")  # else words are not scored at all
        self.tagger = switches.tagger if self.textual else None
        self.temporal = None
        if switches.header == "seqtransf":
            self.temporal = TemporalTransformer(dim, switches.layers, switches.frames)
        self.word_weights = self.frame_weights = None
        if switches.interaction.endswith("wti"):
            self.frame_weights = TokenWeights(dim, switches.hidden)
            if switches.interaction == "att_wti":  # of one sentence every weight is 1
                self.word_weights = TokenWeights(dim, switches.hidden)
        self.word_importance = self.frame_importance = None
        if switches.partial != "off":
            self.word_importance = Importance(dim, asking=switches.frames, asked=switches.words)
        if switches.partial in ("all", "video"):
            self.frame_importance = Importance(dim, asking=1, asked=switches.frames)

    def start_from(self, backbone: Backbone) -> None:
        """The temporal blocks start as the first of CLIP's text tower, where the backbone has such."""
        if self.temporal is not None:
            self.temporal.take(backbone.text_blocks(self.config.layers))

    def encode_text(self, words: Words) -> Tokens:
        vectors = unit(words.vectors)
        counts = words.mask.to(fp32(vectors[:0]).dtype)  # u: 0 for padding, 2 for content words, 1 for others
        if self.textual:
            if words.content is None:
                raise ValueError(
                    "textual attention needs to know which words are content words, and `Words.content` is None: read "
                    f"texts with Backbone.read(texts, tagger={self.tagger!r}), as Model does, or set textual=False"
                )
            counts = counts + (words.content & words.mask)
        if self.word_weights is None:
            weights = counts / counts.sum(dim=1, keepdim=True)
        else:
            weights = counts * self.word_weights(vectors, words.mask)  # as in the code they sum to between 1 and 2
        return with_whole(unit(words.sentence), Tokens(vectors, words.mask, weights=weights))

    def encode_video(self, frames: Frames) -> Tokens:
        vectors = frames.vectors
        if self.temporal is not None:
            vectors = self.temporal(unit(vectors) if self.config.unit_first else vectors, frames.mask)
        if self.temporal is None or not self.config.unit_first:
            vectors = unit(vectors)
        if self.frame_weights is None:
            weights = equal_weights(frames.mask, vectors)
        else:
            weights = self.frame_weights(vectors, frames.mask)
        whole = unit(masked_mean(vectors, frames.mask))
        return with_whole(whole, Tokens(vectors, frames.mask, frames.spans, weights=weights))

    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        scores = self._branch(text, slice(0, 1), video)
        if self.config.interaction.startswith("att"):
            scores = (scores + self._branch(text, slice(1, None), video)) / 2
        return scores

    def _branch(self, text: Tokens, words: slice, video: Tokens) -> Float[Tensor, "text video"]:
        """The interaction of some text tokens, the sentence or the words, with all frames."""
        if text.weights is None or video.weights is None:
            raise ValueError("dmae scores tokens with weights, these have none: they were encoded by another method")
        of_text, of_video = (text.vectors[:, words], text.mask[:, words]), (video.vectors[:, 1:], video.mask[:, 1:])
        if not self.config.masked:
            of_text, of_video = _zeros_for_padding(*of_text), _zeros_for_padding(*of_video)
        return neighbour_interaction(
            of_text[0],
            of_video[0],
            of_text[1],
            of_video[1],
            text.weights[:, words],
            video.weights[:, 1:],
            self.config.neighbour,
        )

    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.vectors[:, 0]

    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        """NegNCE on the scores, InfoNCE on the summaries, and in training the triplets of TPM-CL on matched pairs."""
        config, scores = self.config, self.score(text, video)
        if config.loss == "neg_nce":
            main = neg_nce(scores, positives, config.scale, weight=config.negative, clamped=config.clamped)
        else:
            main = info_nce(scores, positives, config.scale)
        terms = {"nce": main}
        if config.summary:
            summaries = dot(self.summary(text), self.summary(video))
            terms["summary"] = config.summary * info_nce(summaries, positives, config.scale)
        if self.training and config.partial != "off":
            rows, columns = positives.nonzero(as_tuple=True)
            triplets = self.triplets(text[rows], video[columns])
            terms |= {name: config.tpm * partial_order(*pair, config.margin) for name, pair in triplets.items()}
        return terms

    def triplets(self, text: Tokens, video: Tokens) -> dict[str, tuple[Float[Tensor, "pair"], Float[Tensor, "pair"]]]:
        """How well the whole matches, and how well what is left of it does, of matched pairs, row by row.

        t is the sentence, w its words, f the frames; omega weighs words for these frames, nu frames for this sentence
        (`Importance`); ' is what is left without the `most_telling`. Four triplets, of which the code has three:

            words      s(t_g, f) > s(t_g', f)      t_g = unit(sum omega w)
            frames     s(t, f)   > s(t, f')
            by_words   s(t_g, f) > s(t_g, f')
            pooled     <t, v_g>  > <t, v_g'>       v_g = unit(sum nu f)      s(x, f) = 1/2 [ max <x, f> + mean <x, f> ]

        Neither neighbours nor content words count here, as in the code.
        """
        config, found = self.config, {}
        sentence, words, word_mask = fp32(text.vectors[:, 0]), fp32(text.vectors[:, 1:]), text.mask[:, 1:]
        frames, frame_mask = fp32(video.vectors[:, 1:]), video.mask[:, 1:]
        of_words, of_frames = word_mask, frame_mask  # which tokens ask and are asked how much others matter
        if not config.masked:  # in the code padding does too, with whatever features it has
            of_words, of_frames = torch.ones_like(word_mask), torch.ones_like(frame_mask)

        def pooled(tokens: Tensor, weights: Tensor) -> Tensor:
            return einsum(tokens, weights, "pair token dim, pair token -> pair dim")

        def without(cut: Tensor) -> tuple[Tensor, Tensor]:
            """The frames that are left. What was cut out is no frame any more; in the code it is one, of zeros."""
            if config.normalised:
                return frames, frame_mask & ~cut
            return frames.masked_fill(cut[..., None], 0), frame_mask

        def likeness(one: Tensor, these: Tensor = frames, real: Tensor = frame_mask) -> Tensor:
            return _likeness(one, these, real, config.masked)

        assert self.word_importance is not None  # it is there unless `partial` is "off"
        omega = self.word_importance(frames, of_frames, words, of_words)
        by_words = unit(pooled(words, omega))
        if config.partial in ("all", "text"):
            kept = omega.masked_fill(most_telling(omega, config.mass, config.always), 0)
            left = unit(pooled(words, kept)) if config.normalised else pooled(words, kept)
            found["words"] = likeness(by_words), likeness(left)
        if config.partial in ("all", "video"):
            assert self.frame_importance is not None
            nu = self.frame_importance(sentence[:, None], text.mask[:, :1], frames, of_frames)
            cut = most_telling(nu, config.mass, config.always)
            rest, real = without(cut)
            found["frames"] = likeness(sentence), likeness(sentence, rest, real)
            found["by_words"] = likeness(by_words), likeness(by_words, rest, real)
            if config.fourth:
                left = pooled(frames, nu.masked_fill(cut, 0))
                left = unit(left) if config.normalised else left
                found["pooled"] = _dots(sentence, unit(pooled(frames, nu))), _dots(sentence, left)
        return found


class Importance(nn.Module):
    """How much each token matters to the other modality: weights from 0 that sum to one over real tokens.

        q' = M q (one mixed query a token)     z = LN([q' ; k]), one mean and deviation for all tokens of a row
        w  = sigmoid(b . gelu(A z)),  over their sum

    DMAE's weight predictor as the authors' code has it, except that what the masks leave out counts for nothing (the
    code has no masks). `asking` and `asked` are the most tokens there may be; fewer take the first rows and columns.

    >>> ask = Importance(4, asking=2, asked=3)
    >>> _ = nn.init.zeros_(ask.last.weight)  # b = 0: nothing matters more than anything else
    >>> two, three = torch.ones(1, 2).bool(), torch.tensor([[True, True, False]])
    >>> ask(torch.randn(1, 2, 4), two, torch.randn(1, 3, 4), three).tolist()
    [[0.5, 0.5, 0.0]]
    """

    def __init__(self, dim: int, asking: int, asked: int):
        super().__init__()
        self.mixed = nn.Linear(asking, asked, bias=False)
        self.scale = nn.Parameter(torch.ones(asked, 2 * dim))
        self.shift = nn.Parameter(torch.zeros(asked, 2 * dim))
        self.hidden = nn.Linear(2 * dim, max(1, dim // 2), bias=False)
        self.last = nn.Linear(max(1, dim // 2), 1, bias=False)

    def forward(
        self,
        asking: Float[Tensor, "pair query dim"],
        asking_mask: Bool[Tensor, "pair query"],
        asked: Float[Tensor, "pair token dim"],
        asked_mask: Bool[Tensor, "pair token"],
    ) -> Float[Tensor, "pair token"]:
        most = self.mixed.weight.shape
        query, token = asking.shape[1], asked.shape[1]
        if token > most[0] or query > most[1]:
            raise ValueError(
                f"{query} tokens ask {token}, but the weight predictor was made for {most[1]} that ask {most[0]}: cut "
                "texts, sample fewer frames, or configure more `words` and `frames`"
            )
        asking = asking.masked_fill(~asking_mask[..., None], 0)
        mixed = einsum(self.mixed.weight[:token, :query], asking, "token query, pair query dim -> pair token dim")
        both = torch.cat([mixed, asked], dim=2).masked_fill(~asked_mask[..., None], 0)
        count = asked_mask.sum(dim=1)[:, None, None] * both.shape[2]
        centred = (both - both.sum(dim=(1, 2), keepdim=True) / count).masked_fill(~asked_mask[..., None], 0)
        variance = centred.square().sum(dim=(1, 2), keepdim=True) / count
        normed = centred / (variance + 1e-5).sqrt() * self.scale[:token] + self.shift[:token]
        worth = self.last(gelu(self.hidden(normed)))[..., 0].sigmoid().masked_fill(~asked_mask, 0)
        return worth / worth.sum(dim=1, keepdim=True)


@torch.no_grad()
def most_telling(
    weights: Float[Tensor, "row token"], mass: float = 0.6, at_least_one: bool = False
) -> Bool[Tensor, "row token"]:
    """The heaviest tokens that together hold less than `mass` of weights that sum to one; so never all of them.

    `at_least_one`: the heaviest one even if it holds more, in rows where another has weight too.

    >>> rows = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
    >>> most_telling(rows).tolist(), most_telling(rows, at_least_one=True)[1].tolist()
    ([[True, False, False], [False, False, False]], [False, True, False])
    """
    heaviest, order = weights.sort(dim=1, descending=True, stable=True)
    chosen = heaviest.cumsum(dim=1) < mass
    if at_least_one and weights.shape[1] > 1:
        chosen[:, 0] |= heaviest[:, 1] > 0
    return torch.zeros_like(chosen).scatter(1, order, chosen)


def _likeness(
    one: Float[Tensor, "pair dim"],
    frames: Float[Tensor, "pair frame dim"],
    mask: Bool[Tensor, "pair frame"],
    masked: bool,
) -> Float[Tensor, "pair"]:
    """Token interaction of one vector with the frames of its own row: 1/2 [ max_k <x, f_k> + mean_k <x, f_k> ].

    Not `masked`: padding scores 0 and may be the best, as in the authors' code; it does not count in the mean.
    """
    products = einsum(one, frames, "pair dim, pair frame dim -> pair frame").masked_fill(~mask, 0)
    best = (products.masked_fill(~mask, -INFINITY) if masked else products).amax(dim=1)
    mean = products.sum(dim=1) / mask.sum(dim=1).clamp_min(1)  # where padding has weight, all real ones may be cut out
    return (best + mean) / 2


def _dots(one: Float[Tensor, "pair dim"], other: Float[Tensor, "pair dim"]) -> Float[Tensor, "pair"]:
    return einsum(one, other, "pair dim, pair dim -> pair")


def _zeros_for_padding(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
) -> tuple[Float[Tensor, "batch token dim"], Bool[Tensor, "batch token"]]:
    """Padding as the authors' code has it: it scores 0 with everything, and may win."""
    return tokens.masked_fill(~mask[..., None], 0), torch.ones_like(mask)
