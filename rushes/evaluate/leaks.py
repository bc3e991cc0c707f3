"""Whether a scorer lets the answer leak into the scores: tests of any function of texts and videos, each with its cure.

A score of retrieval is a function of one text and one video. Whatever else it looks at (the other queries, the place in
the gallery, the caption that a video came with) is not there when somebody searches, and often tells which is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from rushes.evaluate.metrics import Positives, rank

Scorer = Callable[[Any, Any], Any]  # texts and videos, any number of each, to scores [text video], higher is better

TOLERANCE = 1e-3  # of the spread of the scores: sums in another order are far below, even in TF32; leaks far above
ALONE = 8  # queries that are scored by themselves, and replaced; spread evenly
BAND = 0.999  # of the binomial distribution: what is outside is no chance


@dataclass(frozen=True)
class Finding:
    """What one test saw; `advice` says what to do about it, and is empty where nothing leaks."""

    test: str
    leaks: bool
    detail: str
    advice: str = ""


class Leak(Exception):
    """A score depends on more than its text and its video; the message says by how much and where."""


def find_leaks(
    scorer: Scorer,
    texts: Any,
    videos: Any,
    own: ArrayLike | None = None,
    *,
    chance: bool = False,
    again: Sequence[Scorer] = (),
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> list[Finding]:
    """Try every test of `TESTS` on a scorer, and with `chance` also whether it finds what cannot be found.

    texts, videos  whatever the scorer takes: anything with a length that is indexed by a list of numbers (Tokens,
                   Words, Frames, arrays, tensors), or a list or tuple of anything; 4 of each at least, better 10
    own            the number of each text's video; None where text i belongs to video i
    chance         texts and videos are drawn independently of each other, so that R@1 above 1 / gallery is a leak
    again          the same scorer with other block sizes of its own, whose scores must be the same
    tolerance      what scores may differ by, as a share of their standard deviation; raise it for half precision

    Where scores of the whole set cannot be had (an exception, a wrong shape, NaN) one finding says so.

    >>> vectors = np.random.default_rng(0).standard_normal((12, 8))
    >>> def diagonal(texts, videos):  # each video is told what it shows by its own caption
    ...     return texts @ (videos + texts).T
    >>> [found.test for found in find_leaks(diagonal, vectors, vectors[::-1]) if found.leaks]
    ['unequal counts', 'a query alone', "the gallery's order", "the queries' order", 'another caption', 'block size']
    """
    if len(texts) < 4 or len(videos) < 4:
        raise ValueError(f"{len(texts)} texts and {len(videos)} videos are too few to tell; give 4 of each at least")
    if not 0 < tolerance < 1:
        raise ValueError(f"a tolerance of {tolerance:g} must lie between 0 and 1, a share of the scores' deviation")
    numbers = _own(own, len(texts), len(videos))
    try:
        scores = _scored(scorer, texts, videos)
    except Exception as error:
        detail = f"{len(texts)} texts x {len(videos)} videos: {_told(error)}"
        advice = "The scorer must give a number for every text with every video before anything can be tested."
        return [Finding("scores at all", True, detail, advice)]
    trial = _Trial(scorer, texts, videos, numbers, tuple(again), scores, tolerance, np.random.default_rng(seed))
    tests = TESTS | ({CHANCE: (at_chance, CHANCE_ADVICE)} if chance else {})
    return [_finding(name, test, advice, trial) for name, (test, advice) in tests.items()]


# --- the tests: each raises Leak, or says in words what it saw --------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Trial:
    scorer: Scorer
    texts: Any
    videos: Any
    own: Int[np.ndarray, "text"]
    again: tuple[Scorer, ...]
    scores: Float[np.ndarray, "text video"]
    tolerance: float
    random: np.random.Generator
    worst: list[float] = field(default_factory=lambda: [0.0])

    @property
    def all_texts(self) -> Int[np.ndarray, "text"]:
        return np.arange(len(self.texts))

    @property
    def all_videos(self) -> Int[np.ndarray, "video"]:
        return np.arange(len(self.videos))

    @property
    def some(self) -> Int[np.ndarray, "some"]:
        """Text numbers, spread evenly."""
        return np.unique(np.linspace(0, len(self.texts) - 1, ALONE).astype(int))

    def score(self, rows: np.ndarray, columns: np.ndarray) -> Float[np.ndarray, "row column"]:
        return _scored(self.scorer, _take(self.texts, rows), _take(self.videos, columns))

    def same(
        self,
        found: Float[np.ndarray, "row column"],
        wanted: Float[np.ndarray, "row column"],
        rows: np.ndarray,
        columns: np.ndarray,
        what: str,
    ) -> None:
        """That scores are as they were, up to the tolerance, and that no text's own video changed its rank."""
        spread = self.scores.std() or np.abs(self.scores).max() or 1.0
        apart = np.abs(found - wanted) / spread
        row, column = np.unravel_index(apart.argmax(), apart.shape)
        pair = f"text {rows[row]} with video {columns[column]} scored {wanted[row, column]:.6g}"
        if apart[row, column] > self.tolerance:
            raise Leak(
                f"{what}: {pair}, then {found[row, column]:.6g}, which is {apart[row, column]:.2g} standard deviations "
                f"of all scores ({self.tolerance:g} allowed); {(apart > self.tolerance).mean():.0%} of scores differ so"
            )
        moved = [
            (rows[line], before, after)
            for line in range(len(rows))
            if len(place := np.flatnonzero(columns == self.own[rows[line]]))
            and not _overlap(
                before := _places(wanted[line], int(place[0]), self.tolerance),
                after := _places(found[line], int(place[0]), self.tolerance),
            )
        ]
        if moved:
            text, before, after = moved[0]
            raise Leak(
                f"{what}: the own video of {len(moved)} of {len(rows)} texts changed its rank, of text {text} from "
                f"{before[0]} to {after[0]}"
            )
        self.worst[0] = max(self.worst[0], float(apart[row, column]))


def the_same_twice(trial: _Trial) -> str:
    """The same call gives the same scores."""
    texts, videos = trial.all_texts, trial.all_videos
    trial.same(trial.score(texts, videos), trial.scores, texts, videos, "the same call again")
    return f"{trial.scores.size} scores"


def unequal_counts(trial: _Trial) -> str:
    """More texts than videos and fewer give as many rows and columns, all numbers."""
    texts, videos = trial.all_texts, trial.all_videos
    for rows, columns in ((texts, videos[: len(texts) // 2]), (texts[: len(videos) // 2], videos)):
        trial.score(rows, columns)
    return f"{len(texts)} x {min(len(videos), len(texts) // 2)} and {min(len(texts), len(videos) // 2)} x {len(videos)}"


def a_query_alone(trial: _Trial) -> str:
    """A text by itself scores as it does among others."""
    for text in trial.some:
        row = np.array([text])
        found = trial.score(row, trial.all_videos)
        trial.same(found, trial.scores[row], row, trial.all_videos, "a text alone and among others")
    return f"{len(trial.some)} texts"


def the_gallery_order(trial: _Trial) -> str:
    """Videos in another order, put back, have the same scores and ranks; the texts stay where they are."""
    videos = trial.all_videos
    for order in (videos[::-1], trial.random.permutation(videos), np.roll(videos, 1)):
        found = np.empty_like(trial.scores)
        found[:, order] = trial.score(trial.all_texts, order)
        trial.same(found, trial.scores, trial.all_texts, videos, "videos in another order")
    return "three orders"


def the_queries_order(trial: _Trial) -> str:
    """Texts in another order, put back, have the same scores; the videos stay where they are."""
    texts = trial.all_texts
    for order in (texts[::-1], trial.random.permutation(texts), np.roll(texts, 1)):
        found = np.empty_like(trial.scores)
        found[order] = trial.score(order, trial.all_videos)
        trial.same(found, trial.scores, texts, trial.all_videos, "texts in another order")
    return "three orders"


def another_video(trial: _Trial) -> str:
    """A stranger in the place of a text's own video changes no score of any other video."""
    rows, columns = _without_the_last(trial)
    stranger = len(trial.videos) - 1
    before = trial.score(rows, columns)
    replaced = [int(video) for video in dict.fromkeys(trial.own[trial.some]) if video != stranger]
    for video in replaced:
        place = columns == video
        after = trial.score(rows, np.where(place, stranger, columns))
        trial.same(
            after[:, ~place], before[:, ~place], rows, columns[~place], f"video {stranger} in the place of {video}"
        )
    return f"{len(replaced)} videos replaced"


def another_caption(trial: _Trial) -> str:
    """A stranger in the place of a video's own text changes no score of any other text."""
    rows, columns = _without_the_last(trial)
    stranger = len(trial.texts) - 1
    before = trial.score(rows, columns)
    replaced = [int(text) for text in trial.some if text != stranger and text in rows]
    for text in replaced:
        place = rows == text
        after = trial.score(np.where(place, stranger, rows), columns)
        trial.same(after[~place], before[~place], rows[~place], columns, f"text {stranger} in the place of {text}")
    return f"{len(replaced)} texts replaced"


def block_size(trial: _Trial) -> str:
    """Scores in blocks, put together, are those of one call; so are those of `again`."""
    texts, videos = trial.all_texts, trial.all_videos
    sizes = {
        (len(texts) // 3 + 1, len(videos) // 2 + 1),
        (len(texts) // 2 + 1, len(videos) // 3 + 1),
        (max(2, len(texts) // 2 - 1), len(videos)),
        (len(texts), max(2, len(videos) // 2 - 1)),
    }
    for height, width in sorted(sizes):
        found = np.empty_like(trial.scores)
        for top in range(0, len(texts), height):
            for left in range(0, len(videos), width):
                rows, columns = texts[top : top + height], videos[left : left + width]
                found[np.ix_(rows, columns)] = trial.score(rows, columns)
        trial.same(found, trial.scores, texts, videos, f"blocks of {height} texts x {width} videos")
    for other in trial.again:
        found = _scored(other, trial.texts, trial.videos)
        trial.same(found, trial.scores, texts, videos, "the scorer with another block size of its own")
    own = f", {len(trial.again)} of its own" if trial.again else ""
    return f"{len(sizes)} sizes{own}"


def at_chance(trial: _Trial) -> str:
    """Texts and videos that have nothing to do with each other: R@1 lies in the band of 1 / gallery."""
    relation = Positives.of_videos(trial.own, len(trial.videos))
    found = rank(trial.scores, relation, ["t2v"]).t2v
    assert found is not None
    hits, queries, gallery = float(found.recall(1).sum()), len(trial.texts), len(trial.videos)
    low, high = binomial_band(queries, 1 / gallery, BAND)
    told = (
        f"{hits:.4g} of {queries} unrelated texts have their own video first among {gallery}; chance gives {low} to "
        f"{high} ({BAND:.1%})"
    )
    if not low <= hits <= high:
        raise Leak(told)
    return told


CHANCE = "chance"
CHANCE_ADVICE = (
    "Texts and videos were drawn independently, so nothing can be found: the scorer knows the answer from somewhere "
    "else. Look for the text's number used as the video's number (a diagonal, a pair's own caption, labels)."
)
TESTS: dict[str, tuple[Callable[[_Trial], str], str]] = {
    "the same twice": (
        the_same_twice,
        "Scores are drawn anew in each call (dropout in train mode: call eval(); noise added at test time: take its "
        "mean), or something is remembered from call to call. Mend this first: the other tests compare calls.",
    ),
    "unequal counts": (
        unequal_counts,
        "The scorer counts on as many texts as videos, which is how a video gets paired with the text of its own row. "
        "Score every text with every video: [texts, videos], for any two numbers.",
    ),
    "a query alone": (
        a_query_alone,
        "A text's scores depend on the other texts. Usual reasons: a softmax or norm over the batch of texts (dual or "
        "inverted softmax inside the scorer: take it out, and give --rescore dsl, which is labelled transductive), "
        "batch norm in train mode (call eval()), padding that is not masked, videos pooled by the batch's captions.",
    ),
    "the gallery's order": (
        the_gallery_order,
        "A score depends on the video's place in the gallery. Usual reasons: video i is pooled by text i (use the "
        "query that is scored, for all videos), something indexed by the place in the batch, a bonus for a "
        "row or column. A benchmark's videos lie in the order of its queries, so the place tells the answer.",
    ),
    "the queries' order": (
        the_queries_order,
        "A score depends on the text's place in the batch. Usual reasons: video i is pooled by text i, something "
        "indexed by the row.",
    ),
    "another video": (
        another_video,
        "What a video scores depends on which other videos are in the gallery. Usual reasons: a softmax or mean over "
        "the gallery, batch norm over videos in train mode (call eval()), clusters made of the test set. Normalise "
        "each video by itself, or with statistics of the training set.",
    ),
    "another caption": (
        another_caption,
        "What a text scores depends on which captions are beside it, so a video carries what its own caption says. "
        "Usual reasons: each video is pooled by the caption of the same row instead of the query that is scored (the "
        "diagonal of a text x video x dim tensor), a softmax or norm over texts. Pool every video anew for every text.",
    ),
    "block size": (
        block_size,
        "The same pair scores otherwise in another block: something is computed over the block (a norm, a maximum, a "
        "softmax), or what is left over behind the last whole block is dropped or padded. Compute per pair, and cut "
        "padding off.",
    ),
}


def binomial_band(trials: int, chance: float, level: float) -> tuple[int, int]:
    """The least and the most successes that lie inside the `level` band, half of the rest on each side.

    >>> binomial_band(100, 0.5, 0.95)
    (40, 60)
    """
    tail = (1 - level) / 2
    reached, low, high = 0.0, None, trials
    for successes in range(trials + 1):
        log = (
            math.lgamma(trials + 1)
            - math.lgamma(successes + 1)
            - math.lgamma(trials - successes + 1)
            + (successes * math.log(chance) if successes else 0.0)
            + ((trials - successes) * math.log1p(-chance) if successes < trials else 0.0)
        )
        reached += math.exp(log)
        if low is None and reached > tail:
            low = successes
        if reached >= 1 - tail:
            high = successes
            break
    assert low is not None
    return low, high


# --- small parts ------------------------------------------------------------------------------------------------------


def _finding(name: str, test: Callable[[_Trial], str], advice: str, trial: _Trial) -> Finding:
    trial.worst[0] = 0.0
    try:
        seen = test(trial)
    except Leak as leak:
        return Finding(name, True, str(leak), advice)
    except Exception as error:  # whatever a scorer raises is a finding about it
        return Finding(name, True, f"it could not be scored: {_told(error)}", advice)
    apart = f", at most {trial.worst[0]:.1g} standard deviations apart" if trial.worst[0] else ""
    return Finding(name, False, seen + apart)


def _scored(scorer: Scorer, texts: Any, videos: Any) -> Float[np.ndarray, "text video"]:
    found = scorer(texts, videos)
    if isinstance(found, Tensor):
        found = found.detach().float().cpu().numpy()
    scores = np.array(found, np.float64)  # a copy: the scorer may write into what it gave
    if scores.shape != (len(texts), len(videos)):
        raise ValueError(f"{len(texts)} texts and {len(videos)} videos gave scores of shape {scores.shape}")
    if broken := int((~np.isfinite(scores)).any(axis=1).sum()):
        raise ValueError(f"{broken} of {len(texts)} texts have NaN or infinite scores")
    return scores


def _take(items: Any, rows: np.ndarray) -> Any:
    """Some of them, in the order given, in the same kind of thing."""
    numbers = [int(row) for row in rows]
    if isinstance(items, (list, tuple)):
        return type(items)([items[row] for row in numbers])
    return items[numbers]


def _own(own: ArrayLike | None, texts: int, videos: int) -> Int[np.ndarray, "text"]:
    if own is None:
        if texts != videos:
            raise ValueError(f"{texts} texts and {videos} videos: say with `own` the number of each text's video")
        return np.arange(texts)
    numbers = np.asarray(own)
    if numbers.shape != (texts,) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"`own` is the number of each text's video, {texts} integers; not {numbers.dtype} {numbers.shape}"
        )
    outside = np.flatnonzero((numbers < 0) | (numbers >= videos))
    if len(outside):
        raise ValueError(f"text {outside[0]} has the own video {numbers[outside[0]]}; numbers are 0 to {videos - 1}")
    return numbers.astype(int)


def _without_the_last(trial: _Trial) -> tuple[np.ndarray, np.ndarray]:
    """All but the last text and video, which are the strangers; of both, so that equal counts stay equal."""
    return trial.all_texts[:-1], trial.all_videos[:-1]


def _places(scores: Float[np.ndarray, "video"], own: int, tolerance: float) -> tuple[int, int]:
    """The best and the worst rank of a video if scores may be wrong by a small share of what is usual in the row."""
    usual = float(np.median(np.abs(scores - np.median(scores))))
    slack = max(2 * tolerance * usual, 1e-6 * float(np.abs(scores).max()))
    return int((scores > scores[own] + slack).sum()) + 1, int((scores >= scores[own] - slack).sum())


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
