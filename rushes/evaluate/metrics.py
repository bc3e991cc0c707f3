"""Ranks of the right answers, from which every retrieval metric is a function.

A positive whose score others share has no single rank: it lies anywhere in its block of equal scores. `Ranks` keeps
that block for every positive, and three policies read it: "optimistic" (positives first), "pessimistic" (positives
last) and "expected" (the default): the exact expectation over a random order of equal scores, for every metric but the
median, which is taken of the expected ranks. Optimistic and pessimistic bracket it; without ties all three agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy.typing import ArrayLike

Ties = Literal["expected", "optimistic", "pessimistic"]
Median = Literal["ordinary", "lower"]
Direction = Literal["t2v", "v2t"]
Tile = tuple[int, int, Num[np.ndarray, "text video"]]  # number of its first text, of its first video, its scores
Tiles = Callable[[], Iterable[Tile]]

RECALL_AT = (1, 5, 10, 50)
NDCG_AT = 10
METRICS = (*(f"R@{k}" for k in RECALL_AT), "MdR", "MnR", "MRR", f"nDCG@{NDCG_AT}", "mAP")
LOWER_IS_BETTER = ("MdR", "MnR")
SIDE = 512  # texts and videos of the pieces that are counted at once: 1 MB in fp32, what a core's cache holds


# --- which belong together --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Positives:
    """Which texts and videos belong together: a relation, many to many, as pairs of row and column numbers.

    Pairs are unique and sorted by text; sizes are those of the score matrix.

    >>> Positives.of_videos([0, 0, 1], videos=2).video.tolist()  # two texts of video 0, one of video 1
    [0, 0, 1]
    """

    texts: int
    videos: int
    text: Int[np.ndarray, "pair"]
    video: Int[np.ndarray, "pair"]

    def __post_init__(self) -> None:
        if self.texts < 1 or self.videos < 1:
            raise ValueError(f"{self.texts} texts x {self.videos} videos: there is nothing to rank")
        for what, numbers, size in (("text", self.text, self.texts), ("video", self.video, self.videos)):
            outside = np.flatnonzero((numbers < 0) | (numbers >= size))
            if len(outside):
                raise ValueError(
                    f"{len(outside)} of {len(numbers)} positive pairs lie outside the scores; the first, pair "
                    f"{outside[0]}, names {what} {numbers[outside[0]]} of {size} (numbers start at 0)"
                )

    @staticmethod
    def diagonal(size: int) -> Positives:
        """Text i belongs to video i and to no other."""
        return Positives(size, size, np.arange(size), np.arange(size))

    @staticmethod
    def of_pairs(pairs: ArrayLike, texts: int, videos: int) -> Positives:
        """From rows (text, video), in any order; a pair given twice counts once."""
        array = np.asarray(pairs)
        if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
            raise ValueError(f"pairs are integers of shape (n, 2): text, video; not {array.dtype} {array.shape}")
        unique = np.unique(array.astype(np.int64), axis=0)
        return Positives(texts, videos, unique[:, 0], unique[:, 1])

    @staticmethod
    def of_matrix(matrix: ArrayLike) -> Positives:
        """From a text by video matrix of bool, or of 0 and 1."""
        array = np.asarray(matrix)
        if array.ndim != 2 or array.dtype.kind not in "biu":
            raise ValueError(f"a positives matrix is bool or 0/1, text by video; not {array.dtype} {array.shape}")
        if array.dtype.kind != "b" and len(other := np.setdiff1d(array, [0, 1])):
            raise ValueError(f"a positives matrix holds 0 and 1 only; it has {other[:5].tolist()}")
        text, video = np.nonzero(array)
        return Positives(array.shape[0], array.shape[1], text, video)

    @staticmethod
    def of_videos(video_of_text: ArrayLike, videos: int) -> Positives:
        """One video a text: the number of the video of each text."""
        numbers = np.asarray(video_of_text)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise ValueError(f"videos of texts are integers, one a text; not {numbers.dtype} {numbers.shape}")
        return Positives(len(numbers), videos, np.arange(len(numbers)), numbers.astype(np.int64))

    @cached_property
    def by_video(self) -> Int[np.ndarray, "pair"]:
        """The order that sorts the pairs by video, texts ascending within a video."""
        return np.argsort(self.video, kind="stable")

    @property
    def groups_texts(self) -> bool:
        """Whether every text has one video and some video has several texts, so that texts form groups."""
        return len(self.text) == self.texts == len(np.unique(self.text)) and len(np.unique(self.video)) < len(self.text)


def positives_of(positives: Positives | ArrayLike | None, shape: tuple[int, ...]) -> Positives:
    """The relation, whatever it came as: nothing (a square's diagonal), a matrix of bool or 0/1, (text, video) pairs.

    An integer array of the scores' shape is a matrix, any other of shape (n, 2) is pairs; the one case that could be
    both (two videos, as many pairs as texts, only 0 and 1) is an error.

    >>> positives_of([[0, 2], [1, 0]], (2, 3)).video.tolist()
    [2, 0]
    """
    if len(shape) != 2:
        raise ValueError(f"scores are text by video; not of shape {shape}")
    texts, videos = shape
    if positives is None:
        if texts != videos:
            raise ValueError(f"{texts} texts x {videos} videos have no diagonal of positives; pass `positives`")
        return Positives.diagonal(texts)
    if isinstance(positives, Positives):
        if (positives.texts, positives.videos) != (texts, videos):
            raise ValueError(
                f"positives are for {positives.texts} texts x {positives.videos} videos, scores for {texts} x {videos}"
            )
        return positives
    array = np.asarray(positives)
    as_pairs = array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind in "iu"
    if array.shape == (texts, videos):
        if not as_pairs:
            return Positives.of_matrix(array)
        if np.isin(array, [0, 1]).all():
            raise ValueError(f"integers of shape {array.shape} are a matrix or pairs; a matrix as bool leaves no doubt")
    if as_pairs:
        return Positives.of_pairs(array, texts, videos)
    raise ValueError(
        f"positives are a {texts} x {videos} matrix of bool or 0/1, or integer pairs of shape (n, 2); "
        f"not {array.dtype} {array.shape}"
    )


# --- ranks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where each positive of each query lies in the gallery: from rank `above + 1` to rank `above + tied`.

    Pairs are sorted by query, and best positive first within a query. Per-query numbers (`best`, `recall`, ...) come in
    the order of queries, always one each.

    >>> ranks = rank(np.array([[0.5, 0.9, 0.5]]), [[True, False, False]], directions=["t2v"]).t2v
    >>> ranks.best("optimistic"), ranks.best(), ranks.best("pessimistic")
    (array([2.]), array([2.5]), array([3.]))
    >>> ranks.recall(2)  # second or third, and who knows which
    array([0.5])
    """

    queries: int
    gallery: int
    query: Int[np.ndarray, "pair"]
    above: Int[np.ndarray, "pair"]  # entries of the gallery that score higher
    tied: Int[np.ndarray, "pair"]  # entries that score the same, itself among them
    own_above: Int[np.ndarray, "pair"]  # of those above, the query's own positives
    own_tied: Int[np.ndarray, "pair"]  # of those tied, the query's own positives, itself among them
    convention: Literal["captions", "groups"] | None = None  # of video-to-text; None for text-to-video

    def __post_init__(self) -> None:
        assert len(np.unique(self.query)) == self.queries, "every query has a rank"
        assert (self.above + self.tied <= self.gallery).all()
        assert (self.own_above <= self.above).all()
        assert ((self.own_tied >= 1) & (self.own_tied <= self.tied)).all()

    @cached_property
    def _first(self) -> Int[np.ndarray, "query"]:
        return np.flatnonzero(np.diff(self.query, prepend=-1))

    @cached_property
    def _ordinal(self) -> Int[np.ndarray, "pair"]:
        """1 for the best positive of a query, 2 for the next, ..."""
        return np.arange(len(self.query)) - self._first[self.query] + 1

    @cached_property
    def _mixed(self) -> Bool[np.ndarray, "pair"]:
        """Whether a negative shares the positive's score."""
        return self.tied > self.own_tied

    @cached_property
    def _harmonic(self) -> Float[np.ndarray, "rank"]:
        return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, self.gallery + 1))])

    def _positions(self, ties: Ties) -> Int[np.ndarray, "pair"]:
        """Where each positive stands if ties go for it or against it; for "expected" only unmixed ones are right."""
        _known(ties)
        start = self.above + (self.tied - self.own_tied if ties == "pessimistic" else 0)
        return start + self._ordinal - self.own_above

    def _sum(self, of_pairs: Float[np.ndarray, "pair"]) -> Float[np.ndarray, "query"]:
        return np.add.reduceat(of_pairs, self._first)

    def tied_queries(self) -> Bool[np.ndarray, "query"]:
        """Whether a positive of the query has the same score as a negative: only there do the policies differ."""
        return np.logical_or.reduceat(self._mixed, self._first)

    def best(self, ties: Ties = "expected") -> Float[np.ndarray, "query"]:
        """The rank of the best-ranked positive.

        With g entries above it, a block of e equal scores and m positives among them:
            optimistic g + 1      expected g + (e + 1) / (m + 1)      pessimistic g + e - m + 1
        The expected one is the mean of the least of m positions drawn from e; with m = 1 it is 1 + g + (e - 1) / 2.
        """
        g, e, m = self._best_block(ties)
        if ties == "expected":
            return g + (e + 1) / (m + 1)
        return g + (1.0 if ties == "optimistic" else e - m + 1.0)

    def recall(self, k: int, ties: Ties = "expected") -> Float[np.ndarray, "query"]:
        """The probability that a positive is among the first k: 0 or 1 wherever no negative shares its score.

        Expected: 1 - C(e - j, m) / C(e, m), with j = k - g places left for the block; not the indicator of the
        expected rank, which would call a coin toss between ranks 1 and 2 a certain miss. The field calls this recall;
        with several positives a text it is the hit rate.
        """
        if k < 1:
            raise ValueError(f"recall at {k}: ranks start at 1")
        if ties != "expected":
            return (self.best(ties) <= k).astype(float)
        g, e, m = self._best_block(ties)
        open_places = np.clip(k - g, 0, e)
        miss = np.ones(self.queries)
        for drawn in range(int(m.max())):
            left = m > drawn
            miss[left] *= np.maximum(e - open_places - drawn, 0)[left] / (e - drawn)[left]
        return 1 - miss

    def reciprocal(self, ties: Ties = "expected") -> Float[np.ndarray, "query"]:
        """1 / rank of the best-ranked positive; expected: the mean of 1 / rank, not 1 / the mean rank."""
        if ties != "expected":
            return 1 / self.best(ties)
        g, e, m = self._best_block(ties)
        reciprocal = 1 / (g + 1.0)
        one = (m == 1) & (e > 1)
        reciprocal[one] = (self._harmonic[g + e] - self._harmonic[g])[one] / e[one]
        several = (m > 1) & (e > m)
        blocks, number = np.unique(np.stack([g, e, m])[:, several], axis=1, return_inverse=True)
        reciprocal[several] = np.array([_mean_reciprocal(*block) for block in blocks.T.tolist()])[number.reshape(-1)]
        return reciprocal

    def ndcg(self, k: int = NDCG_AT, ties: Ties = "expected") -> Float[np.ndarray, "query"]:
        """sum over positives of 1 / log2(1 + rank), up to rank k, over the same sum of the ideal order.

        Jarvelin and Kekalainen 2002, gains 0 or 1. Expected: each place of a block of equal scores holds a positive
        with the same probability, McSherry and Najork 2008.
        """
        if k < 1:
            raise ValueError(f"nDCG at {k}: ranks start at 1")
        discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))])
        position = np.minimum(self._positions(ties), k + 1)
        gain = np.where(position <= k, 1 / np.log2(1 + position), 0.0)
        if ties == "expected":
            low, high = np.minimum(self.above, k), np.minimum(self.above + self.tied, k)
            gain = np.where(self._mixed, (discounts[high] - discounts[low]) / self.tied, gain)
        positives = np.diff(self._first, append=len(self.query))
        return self._sum(gain) / discounts[np.minimum(positives, k)]

    def average_precision(self, ties: Ties = "expected") -> Float[np.ndarray, "query"]:
        """Mean over positives of the precision at their rank; the mean of it over queries is mAP.

        Expected, for m positives in a block of e equal scores, r positives and g entries above it (McSherry and Najork
        2008):  1/e sum_i=1..e [ r + 1 + (i - 1)(m - 1)/(e - 1) ] / (g + i)  for each of them.
        """
        precision = self._ordinal / self._positions(ties)
        if ties == "expected" and self._mixed.any():
            g, e, r, m = (part[self._mixed] for part in (self.above, self.tied, self.own_above, self.own_tied))
            harmonic = self._harmonic[g + e] - self._harmonic[g]
            precision[self._mixed] = ((r + 1) * harmonic + (m - 1) / (e - 1) * (e - (g + 1) * harmonic)) / e
        return self._sum(precision) / np.diff(self._first, append=len(self.query))

    def per_query(self, metric: str, ties: Ties = "expected") -> Float[np.ndarray, "query"]:
        """The numbers whose mean (for MdR: median) is the metric, by its printed name.

        >>> rank(np.eye(3)).t2v.per_query("R@1")
        array([1., 1., 1.])
        """
        name, _, k = metric.partition("@")
        if name in ("R", "nDCG") and k.isdecimal():
            return (self.recall if name == "R" else self.ndcg)(int(k), ties)
        if metric in ("MdR", "MnR"):
            return self.best(ties)
        if metric == "MRR":
            return self.reciprocal(ties)
        if metric == "mAP":
            return self.average_precision(ties)
        raise LookupError(f"no metric {metric!r}; there are {', '.join(METRICS)}, and R@k and nDCG@k of any k")

    def _best_block(self, ties: Ties) -> tuple[Int[np.ndarray, "query"], ...]:
        _known(ties)
        return self.above[self._first], self.tied[self._first], self.own_tied[self._first]


def _known(ties: str) -> None:
    if ties not in get_args(Ties):
        raise ValueError(f"no policy {ties!r} for ties; there are {', '.join(get_args(Ties))}")


def _mean_reciprocal(g: int, e: int, m: int) -> float:
    """Mean of 1 / (g + x), where x is the least of m positions drawn from 1..e."""
    x = np.arange(1, e - m + 1)
    chance = m / e * np.concatenate([[1.0], np.cumprod((e - x - m + 1) / (e - x))])
    return float((chance / (g + np.arange(1, e - m + 2))).sum())


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks in both directions; None where they were not asked for, or make no sense.

    `v2t` has the captions as its gallery: a video's best-ranked own caption counts. `v2t_groups` has one entry a video,
    scored by the best of its captions, as CLIP4Clip and X-Pool count; it is there only where every text has one video
    and some video several texts. The two differ by some 15 points on MSVD, so a number without its convention says
    nothing.
    """

    t2v: Ranks | None
    v2t: Ranks | None
    v2t_groups: Ranks | None


def rank(
    scores: Num[np.ndarray, "text video"] | Tiles,
    positives: Positives | ArrayLike | None = None,
    directions: Sequence[Direction] = get_args(Direction),
) -> Ranking:
    """Rank the gallery for every query, in blocks, without a copy of the scores.

        rank = 1 + #{ entries that score strictly higher } + what `ties` says of those that score the same

    `scores` is a matrix (an array in memory or mapped from a file, fp16 is counted in fp32), or a function that gives
    its tiles anew each time it is called: (first text, first video, scores), row by row and from left to right, each
    pair once. It is called twice, since the scores of all positives must be known before anything can be counted;
    tiles that overlap, leave a gap, stick out (padding rows) or change in between are errors. Tiles need `Positives`.
    Where a tile is dear to compute and the matrix fits (0.7 GB in fp32 for MSR-VTT full), fill a matrix once instead.

    NaN, infinity and queries without positives are errors that count them; a gallery without any query or entry too.

    >>> ranking = rank(np.array([[0.9, 0.1], [0.8, 0.7]]))
    >>> ranking.t2v.best(), ranking.v2t.best()
    (array([1., 2.]), array([1., 1.]))
    """
    if callable(scores):
        if not isinstance(positives, Positives):
            raise ValueError("scores that come in tiles need `Positives`, which have their size")
        relation = positives
    else:
        relation = positives_of(positives, np.shape(scores))
    tiles = scores if callable(scores) else lambda: [(0, 0, np.asarray(scores))]

    if unknown := set(directions) - set(get_args(Direction)):
        raise ValueError(f"no direction {sorted(unknown)[0]!r}; there are {', '.join(get_args(Direction))}")
    texts, videos = relation.texts, relation.videos
    to_video, to_text = "t2v" in directions, "v2t" in directions
    if to_video:
        _demand_positives("text", relation.text, texts)
    if to_text:
        _demand_positives("video", relation.video, videos)

    own = _scores_of_positives(tiles, relation)
    above, tied = np.zeros((2, 2, len(own)), np.int64)  # by direction and pair
    groups = np.full((videos, videos), -np.inf, own.dtype) if to_text and relation.groups_texts else None
    for first_text, first_video, piece in _pieces(tiles, relation):
        inside, row, column = _pairs_inside(relation, first_text, first_video, piece.shape)
        if not np.array_equal(piece[row, column], own[inside]):
            raise ValueError(f"scores from text {first_text}, video {first_video} on changed between two passes")
        here = slice(*np.searchsorted(relation.text, [first_text, first_text + piece.shape[0]]))
        if to_video:
            _count(piece, relation.text[here] - first_text, own[here], above[0, here], tied[0, here])
        if to_text:
            order = relation.by_video
            ends = np.searchsorted(relation.video, [first_video, first_video + piece.shape[1]], sorter=order)
            chosen = order[slice(*ends)]
            counts = np.zeros((2, len(chosen)), np.int64)
            turned = np.ascontiguousarray(piece.T)
            _count(turned, relation.video[chosen] - first_video, own[chosen], counts[0], counts[1])
            above[1, chosen] += counts[0]
            tied[1, chosen] += counts[1]
        if groups is not None:
            _best_of_groups(groups, piece, relation.video[here], first_video)

    by_group = None
    if groups is not None:
        found = rank(groups, directions=["v2t"]).v2t
        assert found is not None
        by_group = replace(found, convention="groups")
    return Ranking(
        _ranks(texts, videos, relation.text, own, above[0], tied[0], None) if to_video else None,
        _ranks(videos, texts, relation.video, own, above[1], tied[1], "captions") if to_text else None,
        by_group,
    )


def ranks(
    scores: Num[np.ndarray, "text video"] | Tiles,
    positives: Positives | ArrayLike | None = None,
    ties: Ties = "expected",
) -> Float[np.ndarray, "text"]:
    """The rank of each text's best-ranked video, from 1.

    >>> ranks(np.array([[0.9, 0.1], [0.9, 0.9]]))
    array([1. , 1.5])
    """
    found = rank(scores, positives, ["t2v"]).t2v
    assert found is not None
    return found.best(ties)


# --- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metrics:
    """What is published of one direction; recalls in [0, 1]."""

    recall: Mapping[int, float]  # by k
    median_rank: float
    mean_rank: float
    mrr: float
    ndcg: float
    mean_average_precision: float
    tied: float  # share of queries in which a positive has the score of a negative
    queries: int
    gallery: int
    ties: Ties
    convention: Literal["captions", "groups"] | None

    def printed(self) -> dict[str, Any]:
        """By the names of the field, recall in percent, all else as it is.

        >>> printed = summarise(rank(np.eye(3)).t2v).printed()
        >>> printed["R@1"], printed["MdR"], printed["nDCG@10"], "convention" in printed
        (100.0, 1.0, 1.0, False)
        """
        values = (self.median_rank, self.mean_rank, self.mrr, self.ndcg, self.mean_average_precision)
        printed: dict[str, Any] = {f"R@{k}": round(100 * share, 10) for k, share in self.recall.items()}
        printed |= dict(zip(METRICS[len(RECALL_AT) :], values, strict=True))
        printed |= {"queries": self.queries, "gallery": self.gallery, "tied": self.tied}
        return printed | ({"convention": self.convention} if self.convention else {})


def summarise(ranks: Ranks, ties: Ties = "expected", median: Median = "ordinary") -> Metrics:
    """Means over queries, and the median rank.

    `median="lower"` takes the lower of the two middle ranks where the number of queries is even, as public code does on
    its path for several captions (torch.median); the ordinary median is their mean.

    >>> summarise(rank(np.array([[0.9, 0.1], [0.8, 0.7]])).t2v).recall[1]
    0.5
    """
    if median not in get_args(Median):
        raise ValueError(f"no median {median!r}; there are {', '.join(get_args(Median))}")
    best = np.sort(ranks.best(ties))
    middle = best[(len(best) - 1) // 2] if median == "lower" else np.median(best)
    return Metrics(
        recall={k: float(ranks.recall(k, ties).mean()) for k in RECALL_AT},
        median_rank=float(middle),
        mean_rank=float(best.mean()),
        mrr=float(ranks.reciprocal(ties).mean()),
        ndcg=float(ranks.ndcg(NDCG_AT, ties).mean()),
        mean_average_precision=float(ranks.average_precision(ties).mean()),
        tied=float(ranks.tied_queries().mean()),
        queries=ranks.queries,
        gallery=ranks.gallery,
        ties=ties,
        convention=ranks.convention,
    )


# --- counting ---------------------------------------------------------------------------------------------------------


def _demand_positives(what: str, numbers: Int[np.ndarray, "pair"], size: int) -> None:
    missing = np.setdiff1d(np.arange(size), numbers)
    if len(missing):
        way_out = "" if what == "text" else "; without one it can be ranked (t2v), but not ask (v2t)"
        raise ValueError(
            f"{len(missing)} of {size} {what}s have no positive, so no rank; the first is {what} {missing[0]}{way_out}"
        )


def _floats(tile: np.ndarray) -> Float[np.ndarray, "text video"]:
    """fp32 at least: fp16 is raised, float64 stays; integers become float64."""
    if tile.dtype.kind not in "fiu":
        raise ValueError(f"scores are numbers, not {tile.dtype}")
    return tile.astype(np.float32 if tile.dtype in (np.float16, np.float32) else np.float64, copy=False)


def _pieces(tiles: Tiles, relation: Positives) -> Iterator[Tile]:
    """The tiles, checked to cover each pair once, cut so that what is counted at once stays in the cache."""
    band, row, column = 0, 0, 0
    for first_text, first_video, scores in tiles():
        tile = np.asarray(scores)
        at = f"a tile of shape {tile.shape} at text {first_text}, video {first_video}"
        if tile.ndim != 2 or 0 in tile.shape:
            raise ValueError(f"{at} is no block of scores")
        if (first_text, first_video) != (row, column) or (column and len(tile) != band):
            raise ValueError(f"{at} comes where text {row}, video {column} is due: each pair comes once, row by row")
        band, column = len(tile), column + tile.shape[1]
        if row + band > relation.texts or column > relation.videos:
            raise ValueError(
                f"{at} sticks out of {relation.texts} texts x {relation.videos} videos: cut padding off before ranking"
            )
        for top in range(0, band, SIDE):
            for left in range(0, tile.shape[1], SIDE):
                piece = _floats(tile[top : top + SIDE, left : left + SIDE])
                yield first_text + top, first_video + left, piece
        if column == relation.videos:
            row, column = row + band, 0
    if row != relation.texts:
        raise ValueError(f"the tiles end at text {row}, video {column} of {relation.texts} x {relation.videos}")


def _scores_of_positives(tiles: Tiles, relation: Positives) -> Float[np.ndarray, "pair"]:
    """First pass: the score of each positive pair; not a number and infinity are found here."""
    own = None
    bad = {"NaN": np.zeros(relation.texts, bool), "infinite": np.zeros(relation.texts, bool)}
    for first_text, first_video, piece in _pieces(tiles, relation):
        if own is None:
            own = np.empty(len(relation.text), piece.dtype)
        if own.dtype != piece.dtype:
            raise ValueError(f"some tiles are {own.dtype}, some {piece.dtype}: scores of one ranking have one type")
        if not np.isfinite(piece).all():
            rows = slice(first_text, first_text + len(piece))
            bad["NaN"][rows] |= np.isnan(piece).any(axis=1)
            bad["infinite"][rows] |= np.isinf(piece).any(axis=1)
        inside, row, column = _pairs_inside(relation, first_text, first_video, piece.shape)
        own[inside] = piece[row, column]
    found = [f"{n} of {relation.texts} texts have {what} scores" for what, rows in bad.items() if (n := rows.sum())]
    if found:
        first = np.flatnonzero(bad["NaN"] | bad["infinite"])[0]
        raise ValueError(
            f"{' and '.join(found)}, the first is text {first}; every score of a ranking is a finite number"
        )
    assert own is not None
    return own


def _pairs_inside(
    relation: Positives, first_text: int, first_video: int, shape: tuple[int, ...]
) -> tuple[Int[np.ndarray, "inside"], Int[np.ndarray, "inside"], Int[np.ndarray, "inside"]]:
    """The pairs in a piece: their numbers, their rows and their columns in it."""
    start, stop = np.searchsorted(relation.text, [first_text, first_text + shape[0]])
    video = relation.video[start:stop]
    inside = start + np.flatnonzero((video >= first_video) & (video < first_video + shape[1]))
    return inside, relation.text[inside] - first_text, relation.video[inside] - first_video


def _count(
    lines: Float[np.ndarray, "line entry"],
    line: Int[np.ndarray, "pair"],
    own: Float[np.ndarray, "pair"],
    above: Int[np.ndarray, "pair"],
    tied: Int[np.ndarray, "pair"],
) -> None:
    """Add to `above` and `tied` what each pair's line has above and beside the pair's own score."""
    step = max(1, SIDE * SIDE // lines.shape[1])
    for start in range(0, len(own), step):
        part = slice(start, start + step)
        entries, mine = lines[line[part]], own[part, None]
        above[part] += (entries > mine).sum(axis=1)
        tied[part] += (entries == mine).sum(axis=1)


def _best_of_groups(
    groups: Float[np.ndarray, "group video"],
    piece: Float[np.ndarray, "text some"],
    video: Int[np.ndarray, "text"],
    first_video: int,
) -> None:
    """Raise groups[u, v] to the best score that a text of video u in this piece gives video v."""
    order = np.argsort(video, kind="stable")
    starts = np.flatnonzero(np.diff(video[order], prepend=-1))
    rows, columns = video[order][starts], slice(first_video, first_video + piece.shape[1])
    groups[rows, columns] = np.maximum(groups[rows, columns], np.maximum.reduceat(piece[order], starts, axis=0))


def _ranks(
    queries: int,
    gallery: int,
    query: Int[np.ndarray, "pair"],
    own: Float[np.ndarray, "pair"],
    above: Int[np.ndarray, "pair"],
    tied: Int[np.ndarray, "pair"],
    convention: Literal["captions"] | None,
) -> Ranks:
    """Sort the pairs by query, best first, and count each query's own positives above and beside each of them."""
    order = np.lexsort((-own, query))
    query, own = query[order], own[order]
    new = np.ones(len(own), bool)
    new[1:] = (query[1:] != query[:-1]) | (own[1:] != own[:-1])
    starts, block = np.flatnonzero(new), np.cumsum(new) - 1
    own_above = starts[block] - np.searchsorted(query, query)
    own_tied = np.diff(starts, append=len(own))[block]
    return Ranks(queries, gallery, query, above[order], tied[order], own_above, own_tied, convention)
