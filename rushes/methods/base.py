"""What a method is: features become tokens, tokens become scores, scores become losses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rushes.backbones.base import Backbone, Frames, Words
from rushes.similarity import fp32
from rushes.types import Tokens

WHOLE, CLIP, FRAME = 0, 1, 2  # levels of video tokens; PHRASE and WORD are their twins for texts
PHRASE, WORD = CLIP, FRAME


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one training step sees. A text and a video belong together where their numbers are equal.

    A text of several videos has a row of numbers, filled up with -1. In end-to-end training words and frames are what
    the backbone has still to read; a step hands them to `Gather.encoded` and looks at nothing of them but their number.
    """

    words: Words | Any
    frames: Frames | Any
    video_of_text: Int[Tensor, "text *several"]
    video: Int[Tensor, "video"]
    second: Frames | Any | None = None  # another random view of the same videos, where `Config.views` is 2

    def positives(self, gather: Gather) -> Bool[Tensor, "all_texts all_videos"]:
        """Which of everybody's texts and videos belong together."""
        texts, videos = gather.numbers(self.video_of_text), gather.numbers(self.video)
        return (texts.reshape(len(texts), -1, 1) == videos).any(dim=1)


@dataclass(frozen=True, slots=True)
class Gather:
    """How a step encodes, and sees the other processes' share of the batch; the default is a single process.

    tokens, numbers   everybody's, from one's own
    encode            calls an encoder on features: training may hand them over in parts, or read them first
    """

    tokens: Callable[[Tokens], Tokens] = lambda tokens: tokens
    numbers: Callable[[Int[Tensor, "item *rest"]], Int[Tensor, "all_items *rest"]] = lambda numbers: numbers
    encode: Callable[[Callable[[Any], Tokens], Any], Tokens] = lambda encoder, features: encoder(features)

    def encoded(self, encoder: Callable[[Any], Tokens], features: Any) -> Tokens:
        """Everybody's tokens of the features that each process has a share of."""
        return self.tokens(self.encode(encoder, features))


ALONE = Gather()


class Method(nn.Module, ABC):
    """A text-video retrieval method on features of `dim` numbers.

    Subclasses are final, one file a paper, and change nothing outside it. The laws that each keeps, and that
    `rushes check` runs: padding changes nothing; pairs are independent; permuting the gallery permutes the scores;
    save and load is exact; gradients reach every parameter; spans lie inside the segment; stored tokens give the
    scores of the live model; two processes learn exactly as one.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Switches of the method, each with its default and where it comes from."""

        def breaks(self) -> dict[str, str]:
            """The laws that this configuration breaks on purpose, as an author's code does, each with the reason."""
            return {}

        @property
        def paired(self) -> bool:
            """Whether training takes as many texts as videos only, text i belonging to video i."""
            return False

        @property
        def views(self) -> int:
            """Random views of each video that a step wants: 2 fills `Batch.second`."""
            return 1

    config: Any  # the subclass's own Config; `Any`, so that its switches need no cast
    needs_training: ClassVar[bool] = True  # False: scores are meaningful on a pre-trained backbone as it is
    blocked: ClassVar[bool] = False  # True: `score` itself takes pairs in small blocks, however many there are
    tagger: str | None = None  # how content words are told (rushes/tagging.py), if `Words.content` is looked at
    statistics: dict[str, float]  # of the last step, to be logged; no part of the loss

    def __init__(self, dim: int, config: Config | None = None):
        super().__init__()
        self.dim = dim
        self.config = config if config is not None else type(self).Config()
        self.statistics = {}

    @abstractmethod
    def encode_text(self, words: Words) -> Tokens:
        """What is kept of each text: vectors, mask, and the method's own weights."""

    @abstractmethod
    def encode_video(self, frames: Frames) -> Tokens:
        """What is kept of each video: the same, and for every token the seconds it saw."""

    @abstractmethod
    def score(self, text: Tokens, video: Tokens) -> Float[Tensor, "text video"]:
        """Every text against every video, in fp32, higher is better; from stored tokens alone."""

    @abstractmethod
    def summary(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        """The unit vector a side by which a first stage searches: <text, video> stands in for `score`."""

    @abstractmethod
    def loss(self, text: Tokens, video: Tokens, positives: Bool[Tensor, "text video"]) -> dict[str, Float[Tensor, ""]]:
        """Named terms, weighted already: what is minimised is their sum."""

    def step(self, batch: Batch, gather: Gather = ALONE) -> dict[str, Float[Tensor, ""]]:
        """The losses of one step. The one place to override for training that needs more than tokens."""
        text = gather.encoded(self.encode_text, batch.words)
        video = gather.encoded(self.encode_video, batch.frames)
        return self.loss(text, video, batch.positives(gather))

    def score_within(self, text: Tokens, video: Tokens, budget_bytes: int) -> Float[Tensor, "text video"]:
        """`score` of any number of texts and videos, holding at most some `budget_bytes` beside tokens and result.

        This default calls `score` on tiles: square ones, or if the method is `blocked`, of some texts with all videos.
        A method whose `score` does much for each side before it pairs them overrides it, so that this is done once.
        """
        texts, videos = len(text), len(video)
        dim, item = text.vectors.shape[2], fp32(text.vectors[:0]).element_size()
        if self.blocked and budget_bytes >= 64 << 20:  # blocks themselves hold half of that
            rows, columns = max(1, budget_bytes // (16 * item * max(1, videos))), max(1, videos)
        else:
            # all products of a pair, or a text-conditioned vector, and four of these alive at once
            pair = 4 * item * max(dim, text.mask.shape[1] * video.mask.shape[1])
            rows = columns = max(1, math.isqrt(budget_bytes // pair))
        scores = torch.empty(texts, videos, dtype=fp32(text.vectors[:0]).dtype, device=text.vectors.device)
        for top in range(0, texts, rows):
            for left in range(0, videos, columns):
                tile = self.score(text[top : top + rows], video[left : left + columns])
                scores[top : top + rows, left : left + columns] = tile
        return scores

    def start_from(self, backbone: Backbone) -> None:
        """Take over what a pre-trained backbone has to lend, before training begins. The default takes nothing."""

    def evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video token"]:
        """How well each stored token of each video matches one text: what a moment is read from.

            e(j) = sum_i a_i <t_i, v_j>,   a the text's own token weights (equal if the method has none)

        Padding is -inf. One text at a time: `text` must hold exactly one.
        """
        if len(text) != 1:
            raise ValueError(f"evidence is for one text, got {len(text)}; call it for each")
        query = self.shares(text) @ fp32(text.vectors[0])
        return (fp32(video.vectors) @ query).masked_fill(~video.mask, -float("inf"))

    def token_evidence(self, text: Tokens, video: Tokens) -> Float[Tensor, "video word token"]:
        """`evidence` by single tokens of one text: e(j) = sum_i shares_i e_ij. What words are shown by.

            e_ij = <t_i, v_j>

        Padding of the video is -inf, that of the text 0. A method with an evidence of its own has its own here, too.
        """
        if len(text) != 1:
            raise ValueError(f"evidence is for one text, got {len(text)}; call it for each")
        words = fp32(text.vectors[0]).masked_fill(~text.mask[0][:, None], 0)
        found = torch.einsum("wd,vtd->vwt", words, fp32(video.vectors))
        return found.masked_fill(~video.mask[:, None, :], -float("inf"))

    def shares(self, text: Tokens) -> Float[Tensor, "word"]:
        """How much each token of one text counts in its evidence: the method's weights made to sum to one, or equal."""
        weights = text.mask.to(fp32(text.vectors).dtype) if text.weights is None else fp32(text.weights)
        return weights[0] / weights.sum()

    def settings(self) -> dict[str, Any]:
        """`config` as plain data, for config.json."""
        return asdict(self.config)  # type: ignore[call-overload]

    @classmethod
    def configured(cls, **switches: Any) -> Config:
        """The default configuration with some switches set; an unknown switch is an error that lists the known.

        Lists, as JSON has them, become tuples where the default is one.

        Raises TypeError for an unknown name.
        """
        default = cls.Config()
        unknown = sorted(set(switches) - set(asdict(default)))  # type: ignore[call-overload]
        if unknown:
            known = ", ".join(asdict(default)) or "none"  # type: ignore[call-overload]
            raise TypeError(f"{cls.__name__} has no switch {', '.join(unknown)}; it has {known}")
        typed = {
            name: tuple(value) if isinstance(value, list) and isinstance(getattr(default, name), tuple) else value
            for name, value in switches.items()
        }
        return replace(default, **typed)


def with_whole(whole: Float[Tensor, "batch dim"], tokens: Tokens) -> Tokens:
    """The tokens behind one pooled vector a row, of level WHOLE, which saw all that its real tokens saw.

    >>> two = Tokens(torch.zeros(1, 2, 3), torch.tensor([[True, True]]), torch.tensor([[[0.0, 1.0], [1.0, 2.0]]]))
    >>> both = with_whole(torch.ones(1, 3), two)
    >>> both.vectors.shape, both.spans[0, 0].tolist(), both.level.tolist()
    (torch.Size([1, 3, 3]), [0.0, 2.0], [[0, 2, 2]])
    """
    one = torch.ones_like(tokens.mask[:, :1])
    level = torch.full_like(tokens.mask, FRAME, dtype=torch.long) if tokens.level is None else tokens.level
    spans = None
    if tokens.spans is not None:
        spans = torch.cat([seen(tokens.spans, tokens.mask)[:, None], tokens.spans], dim=1)
    weights = tokens.weights
    if weights is not None:
        weights = torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)
    return Tokens(
        vectors=torch.cat([whole[:, None], tokens.vectors], dim=1),
        mask=torch.cat([one, tokens.mask], dim=1),
        spans=spans,
        level=torch.cat([torch.full_like(one, WHOLE, dtype=torch.long), level], dim=1),
        weights=weights,
    )


def mapped(tokens: Tokens, by: Float[Tensor, "dim dim"]) -> Tokens:
    """Tokens `with_whole`, all but the whole one mapped by a matrix: t_i A.

    >>> tokens = Tokens(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[True, True]]))
    >>> mapped(tokens, torch.tensor([[0.0, 1.0], [1.0, 0.0]])).vectors.tolist()
    [[[1.0, 2.0], [4.0, 3.0]]]
    """
    parts = fp32(tokens.vectors[:, 1:]) @ by
    return replace(tokens, vectors=torch.cat([fp32(tokens.vectors[:, :1]), parts], dim=1))


def seen(spans: Float[Tensor, "batch token 2"], mask: Bool[Tensor, "batch token"]) -> Float[Tensor, "batch 2"]:
    """From the first start to the last end of the tokens that `mask` picks, in seconds.

    >>> seen(torch.tensor([[[0.0, 1.0], [1.0, 2.0], [9.0, 9.5]]]), torch.tensor([[True, True, False]]))
    tensor([[0., 2.]])
    """
    infinity = float("inf")
    start = spans[..., 0].masked_fill(~mask, infinity).amin(dim=1)
    return torch.stack([start, spans[..., 1].masked_fill(~mask, -infinity).amax(dim=1)], dim=1)
