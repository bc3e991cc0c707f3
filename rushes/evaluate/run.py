"""One evaluation: every text of a split against every video, ranked both ways, with intervals over videos."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushes.backbones.base import Frames, Words
from rushes.data.base import Split
from rushes.evaluate.compare import Interval, Run, bootstrap
from rushes.evaluate.metrics import METRICS, Direction, Metrics, Positives, Ranking, Ranks, Ties, rank, summarise
from rushes.evaluate.rescore import Bank, Kind, dual_softmax, qb_norm, sinkhorn, sinkhorn_bank
from rushes.methods.base import Method
from rushes.scoring import BUDGET, score_all
from rushes.types import Tokens

Rescore = Literal["dsl", "qbnorm", "sinkhorn"]
Say = Callable[[int, int, str], None]  # how many of how many are done, of what

VIDEOS = 64  # encoded at once
TEXTS = 512  # encoded, scored at once
HELD_BYTES = 1 << 30  # scores beyond this lie in a temporary file: MSR-VTT full, 59,800 x 2,990, has 0.7 GB
PADDING = "padding changes nothing"  # the law that presets after published code may break on purpose
REPETITIONS = 2000  # of the bootstrap: ends of an interval move by some 2 % of its width from seed to seed
WITH_INTERVAL = tuple(name for name in METRICS if name != "MdR")  # medians of resamples are slow, and move in steps


class HasWords(Protocol):
    """Word features of some captions."""

    def words(self, rows: Sequence[int]) -> Words: ...


class Features(HasWords, Protocol):
    """What an evaluation reads: a backbone's features of some rows of a split, computed or cached."""

    def frames(self, rows: Sequence[int], most: int | None = None) -> Frames: ...


@dataclass(frozen=True, eq=False)
class Held:
    """Features that are in memory already."""

    texts: Words
    videos: Frames

    def words(self, rows: Sequence[int]) -> Words:
        return self.texts[list(rows)]

    def frames(self, rows: Sequence[int], most: int | None = None) -> Frames:
        """ValueError where more frames are held than `most`: which of them to leave out was decided before."""
        if most is not None and self.videos.mask.shape[1] > most:
            raise ValueError(f"{self.videos.mask.shape[1]} frames a video are held, {most} at most are wanted")
        return self.videos[list(rows)]


@dataclass(frozen=True, eq=False)
class Captions:
    """A bank: some captions of the training split, never of the one that is evaluated."""

    features: HasWords
    rows: Sequence[int]
    origin: str  # "train, 1f2e3d4c5b6a": split and digest


@dataclass(frozen=True)
class PostProcessing:
    """What was done to the scores before they were ranked."""

    name: Rescore
    kind: Kind  # "transductive": it looked at the other queries of the test set
    beta: float
    directions: tuple[Direction, ...]  # the others are raw
    bank: str | None = None  # where its captions come from
    bank_size: int | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came out. `scores` has the matrix that each direction was ranked by, texts by videos."""

    split: Split
    scores: dict[Direction, Float[np.ndarray, "text video"]]
    ranking: Ranking
    raw: Ranking  # before post-processing; the same where there is none
    post_processing: PostProcessing | None
    intervals: dict[str, dict[str, Interval]]  # "t2v", "v2t", "v2t_groups" -> "R@1" -> interval
    ties: Ties
    positives: Positives
    group_of_text: Int[np.ndarray, "text"]
    group_of_video: Int[np.ndarray, "video"]

    def metrics(self, raw: bool = False) -> dict[str, Metrics]:
        """By direction."""
        return {name: summarise(one, self.ties) for name, one in directions_of(self.raw if raw else self.ranking)}


@torch.inference_mode()
def evaluate(
    method: Method,
    split: Split,
    features: Features,
    *,
    frames: int | None = None,
    words: int | None = None,
    rescore: Rescore | None = None,
    beta: float = 20.0,
    bank: Captions | None = None,
    ties: Ties = "expected",
    repetitions: int = REPETITIONS,
    seed: int = 0,
    budget_bytes: int = BUDGET,
    on_progress: Say | None = None,
) -> Evaluation:
    """Rank all videos of a split for each of its captions, and the other way round.

    Of texts a few hundred are held at a time; of videos the tokens, and the scores (in a file where they are large).
    `frames` and `words` are the most that a video and a text may have; of a longer text the first. `rescore` "dsl" is
    transductive, "qbnorm" takes a `bank` and is inductive, "sinkhorn" is one or the other. `beta` is never chosen
    here: `rescore.choose` does it on a validation split. Video-to-text is left out where some video has no caption, as
    a distractor has none.
    """
    _demand_bank(rescore, bank is not None)
    training = method.training
    method.eval()
    try:
        videos = encode_videos(method, features, len(split.videos), frames, on_progress)
        rows = range(len(split.captions))
        scores = score_texts(method, features, rows, videos, words, budget_bytes, _named(on_progress, "texts"))
        of_bank = None
        if bank is not None:
            say = _named(on_progress, "bank captions")
            of_bank = score_texts(method, bank.features, bank.rows, videos, words, budget_bytes, say)
    finally:
        method.train(training)
    found = of_scores(
        split, scores, rescore=rescore, beta=beta, bank=of_bank, ties=ties, repetitions=repetitions, seed=seed
    )
    if bank is None or found.post_processing is None:
        return found
    return replace(found, post_processing=replace(found.post_processing, bank=bank.origin))


def of_scores(
    split: Split,
    scores: Float[np.ndarray, "text video"],
    *,
    rescore: Rescore | None = None,
    beta: float = 20.0,
    bank: Float[np.ndarray, "caption video"] | None = None,
    ties: Ties = "expected",
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Evaluation:
    """The same from scores that somebody else computed, rows and columns in the order of the split."""
    _demand_bank(rescore, bank is not None)
    positives = Positives.of_pairs(split.pairs, len(split.captions), len(split.videos))
    if scores.shape != (positives.texts, positives.videos):
        raise ValueError(
            f"scores of shape {scores.shape} for split {split.name!r}, which has {positives.texts} captions and "
            f"{positives.videos} videos"
        )
    directions: tuple[Direction, ...] = ("t2v",)
    if len(np.unique(positives.video)) == positives.videos:
        directions = get_args(Direction)
    raw = rank(scores, positives, directions)
    by_direction: dict[Direction, Float[np.ndarray, "text video"]] = dict.fromkeys(directions, scores)
    ranking, post_processing = raw, None
    if rescore is not None:
        changed = _rescored(scores, rescore, beta, bank, directions)
        by_direction |= changed
        for direction, matrix in changed.items():
            found = rank(matrix, positives, [direction])
            if direction == "t2v":
                ranking = replace(ranking, t2v=found.t2v)
            else:
                ranking = replace(ranking, v2t=found.v2t, v2t_groups=found.v2t_groups)
        kind: Kind = "transductive" if bank is None else "inductive"
        size = None if bank is None else len(bank)
        post_processing = PostProcessing(rescore, kind, beta, tuple(changed), bank_size=size)
    of_text, of_video = groups(positives)
    intervals = {
        name: {
            metric: bootstrap(
                Run(range(one.queries), one.per_query(metric, ties), of_text if name == "t2v" else of_video),
                repetitions=repetitions,
                seed=seed,
            )
            for metric in WITH_INTERVAL
        }
        for name, one in directions_of(ranking)
    }
    return Evaluation(split, by_direction, ranking, raw, post_processing, intervals, ties, positives, of_text, of_video)


def directions_of(ranking: Ranking) -> list[tuple[str, Ranks]]:
    """What there is, by the names of the card."""
    named = (("t2v", ranking.t2v), ("v2t", ranking.v2t), ("v2t_groups", ranking.v2t_groups))
    return [(name, one) for name, one in named if one is not None]


def groups(positives: Positives) -> tuple[Int[np.ndarray, "text"], Int[np.ndarray, "video"]]:
    """What succeeds and fails together: a video with its texts, and all that share a text with it.

    >>> groups(Positives.of_pairs([[0, 0], [1, 1], [2, 1], [2, 2]], texts=3, videos=4))
    (array([0, 1, 1]), array([0, 1, 1, 3]))
    """
    of_video = np.arange(positives.videos)
    while True:  # the least number spreads; chains of shared texts are short
        of_text = np.full(positives.texts, positives.videos)
        np.minimum.at(of_text, positives.text, of_video[positives.video])
        spread = of_video.copy()
        np.minimum.at(spread, positives.video, of_text[positives.text])
        if np.array_equal(spread, of_video):
            return of_text, of_video
        of_video = spread


def encode_videos(
    method: Method, features: Features, count: int, frames: int | None = None, on_progress: Say | None = None
) -> Tokens:
    """Tokens of the first `count` videos. ValueError for more than `frames` frames in any."""
    parts = []
    for start in range(0, count, VIDEOS):
        rows = range(start, min(start + VIDEOS, count))
        read = features.frames(rows) if frames is None else features.frames(rows, frames)
        parts.append(method.encode_video(_on(_as_published(read, frames, method), method)))
        if on_progress:
            on_progress(rows.stop, count, "videos")
    return Tokens.cat(parts)


def score_texts(
    method: Method,
    features: HasWords,
    rows: Sequence[int],
    videos: Tokens,
    words: int | None = None,
    budget_bytes: int = BUDGET,
    on_progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "text video"]:
    """Scores of some texts with all videos: in memory, or if they take more than `HELD_BYTES` in a temporary file."""
    scores = _room(len(rows), len(videos))
    for start in range(0, len(rows), TEXTS):
        part = rows[start : start + TEXTS]
        read = _as_published(_cut(features.words(part), words), words, method)
        texts = method.encode_text(_on(read, method))
        scores[start : start + len(part)] = score_all(method, texts, videos, budget_bytes).float().cpu().numpy()
        if on_progress:
            on_progress(start + len(part), len(rows))
    return scores


def _cut(words: Words, most: int | None) -> Words:
    if most is None or words.mask.shape[1] <= most:
        return words
    content = None if words.content is None else words.content[:, :most]
    return Words(words.vectors[:, :most], words.mask[:, :most], words.sentence, content)


def _as_published(features: Any, most: int | None, method: Method) -> Any:
    """Padded to `most` with zeros for a configuration that counts padding, so that its numbers depend on no block."""
    if most is None or PADDING not in method.config.breaks():
        return features
    extra = max(0, most - features.mask.shape[1])

    def longer(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return torch.cat([tensor, tensor.new_zeros(len(tensor), extra, *tensor.shape[2:])], dim=1)

    names = [one.name for one in fields(features) if one.name != "sentence"]
    return replace(features, **{name: longer(getattr(features, name)) for name in names})


def _room(texts: int, videos: int) -> Float[np.ndarray, "text video"]:
    if 4 * texts * videos <= HELD_BYTES:
        return np.empty((texts, videos), np.float32)
    return np.memmap(tempfile.TemporaryFile(), np.float32, "w+", shape=(texts, videos))


def _on(features: Any, method: Method) -> Any:
    """Words or frames on the device of the method."""
    weight = next(method.parameters(), None)
    if weight is None:
        return features
    tensors = {one.name: getattr(features, one.name) for one in fields(features)}
    return replace(
        features,
        **{name: one.to(weight.device) if isinstance(one, Tensor) else one for name, one in tensors.items()},
    )


def _named(say: Say | None, what: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: say(done, total, what)) if say else None


def _demand_bank(rescore: Rescore | None, given: bool) -> None:
    if rescore is not None and rescore not in get_args(Rescore):
        raise ValueError(f"no re-scoring {rescore!r}; there are {', '.join(get_args(Rescore))}")
    if rescore == "qbnorm" and not given:
        raise ValueError("qbnorm takes a bank: captions of the training split, never of the one that is evaluated")
    if given and rescore in (None, "dsl"):
        raise ValueError(f"a bank is for qbnorm and sinkhorn; re-scoring is {rescore or 'none'}")


def _rescored(
    scores: Float[np.ndarray, "text video"],
    rescore: Rescore,
    beta: float,
    bank: Float[np.ndarray, "caption video"] | None,
    directions: Sequence[Direction],
) -> dict[Direction, Float[np.ndarray, "text video"]]:
    """The matrices to rank by, of the directions that change: a bank of captions says nothing about texts."""
    if bank is not None:
        learnt: Bank = (qb_norm if rescore == "qbnorm" else sinkhorn_bank)(bank, beta)
        return {"t2v": learnt.apply(scores)}
    if rescore == "sinkhorn":
        return dict.fromkeys(directions, sinkhorn(scores, beta))
    # in video-to-text the queries are the videos
    found: dict[Direction, Float[np.ndarray, "text video"]] = {"t2v": dual_softmax(scores, beta)}
    if "v2t" in directions:
        found["v2t"] = dual_softmax(scores.T, beta).T
    return found
