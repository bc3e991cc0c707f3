"""Scores made of scores, against hubs: videos that too many texts find.

A function that looks at the other queries of a test set is **transductive**: it assumes that they are all there at once
and that each wants another video. That is no search, and its numbers stand apart from plain ones. An **inductive** one
(`Bank`) learns how much of a hub each video is from captions of the training set, after which a query alone gets what
it gets among others.

Rows are queries, columns the gallery: texts by videos for text-to-video, the transposed matrix for video-to-text. All
is computed and returned in float64. `beta` is the inverse temperature; `choose` picks it on a validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from rushes.evaluate.metrics import LOWER_IS_BETTER, Positives, Ties, rank

Kind = Literal["transductive", "inductive"]
KINDS: dict[str, Kind] = {  # of every function here
    "dual_softmax": "transductive",
    "sinkhorn": "transductive",
    "qb_norm": "inductive",
    "inverted_softmax": "inductive",
    "sinkhorn_bank": "inductive",
}
ROWS = 512  # of a block: what is held at once beside the scores and the result


# --- transductive -----------------------------------------------------------------------------------------------------


def dual_softmax(scores: Float[np.ndarray, "query video"], beta: float) -> Float[np.ndarray, "query video"]:
    """Transductive: each score times how much of its gallery entry's softmax over all queries it holds.

        s'(q, v) = s(q, v) * Q * e^{beta s(q, v)} / sum_q' e^{beta s(q', v)}          Q queries

    Cheng et al. 2021 (CAMoE, arXiv 2109.04290), DSL at test time, as its released code has it (which divides by a
    temperature). The prior multiplies the raw score, so it turns around where scores are negative: a negative score
    that is likely falls below one that is not. Scores so far apart that a prior would be 0 in float64 are an error.

    >>> dual_softmax(np.array([[1.0, 1.0], [1.0, 0.0]]), beta=1.0).round(4)
    array([[1.    , 1.4621],
           [1.    , 0.    ]])
    """
    again = _scores(scores, beta, copy=True)
    reach = again.max() - again.min()
    if beta * reach > 700:
        raise ValueError(
            f"scores that reach over {reach:.4g} leave priors of 0 at beta {beta:g}, whose order is lost; take a beta "
            f"below {700 / reach:.3g}"
        )
    mean = _log_sum(again, beta) - np.log(len(again))
    for start in range(0, len(again), ROWS):
        rows = again[start : start + ROWS]
        rows *= np.exp(beta * rows - mean)
    return again


def sinkhorn(
    scores: Float[np.ndarray, "query video"], beta: float, iterations: int = 10
) -> Float[np.ndarray, "query video"]:
    """Transductive: the transport plan in which each query, and each gallery entry, has an equal share.

        s'(q, v) = s(q, v) + f(q) + g(v)   such that e^{beta s'} has rows that sum to 1/Q and columns that sum to 1/V

    Sinkhorn's iterations in log space (Cuturi 2013, arXiv 1306.0895); for retrieval: Yakovlev et al. 2023 (arXiv
    2311.08143). Rows first, columns last, so that columns are exact and rows as near as the iterations come. The units
    are those of the scores.

    >>> plan = np.exp(sinkhorn(np.array([[2.0, 1.0], [1.0, 3.0]]), beta=1.0, iterations=50))
    >>> plan.sum(axis=0), plan.sum(axis=1).round(4)
    (array([0.5, 0.5]), array([0.5, 0.5]))
    """
    again = _scores(scores, beta, copy=True)
    of_query, of_video = _potentials(again, beta, iterations)
    again += of_query[:, None]
    again += of_video
    return again


# --- inductive --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bank:
    """What a bank of training captions says of each gallery entry; all that a later query needs.

        s'(q, v) = s(q, v) - hubness(v)      for the queries whose best entry is `activated`; others keep their scores

    hubness has the units of the scores, so a re-scored and a plain query remain comparable. `choose` its beta.

    >>> bank = inverted_softmax(np.array([[1.0, 0.0], [1.0, 0.0]]), beta=10.0)
    >>> bank.apply(np.array([[0.9, 0.8]]))  # the first is everybody's darling
    array([[-0.1,  0.8]])
    """

    name: str
    beta: float
    queries: int  # of the bank
    hubness: Float[np.ndarray, "video"]
    activated: Bool[np.ndarray, "video"]
    kind: Kind = "inductive"

    def apply(self, scores: Float[np.ndarray, "query video"]) -> Float[np.ndarray, "query video"]:
        """Re-score any number of queries; each gets what it would get alone.

        A query whose best score is shared by several entries is re-scored if one of them is activated.
        """
        scores = _scores(scores, self.beta)
        if scores.shape[1] != len(self.hubness):
            raise ValueError(f"scores of {scores.shape[1]} videos, but the bank has seen {len(self.hubness)}")
        best = scores == scores.max(axis=1, keepdims=True)
        chosen = (best & self.activated).any(axis=1)
        return np.where(chosen[:, None], scores - self.hubness, scores)

    def take(self, videos: Int[np.ndarray, "candidate"]) -> Bank:
        """The bank for some of the gallery, in the order given: the candidates of a search."""
        return replace(self, hubness=self.hubness[videos], activated=self.activated[videos])


def qb_norm(bank: Float[np.ndarray, "caption video"], beta: float, k: int = 1) -> Bank:
    """QB-Norm with the dynamic inverted softmax: queries drawn to a known hub are re-scored, others left alone.

        s'(q, v) ~ e^{beta s(q, v)} / sum_b e^{beta s(b, v)}      b: captions of the bank

    Bogolin et al. 2022 (arXiv 2112.12777). A gallery entry is activated if it is among the k best of a caption of the
    bank (with all that share the k-th score); a query is re-scored if its best entry is. Taken as a logarithm over
    beta, less that of the bank's size: ranks stay, nothing overflows, and a video that the bank scores 0 throughout
    keeps its scores.
    """
    bank = _scores(bank, beta, "the bank")
    if not 1 <= k <= bank.shape[1]:
        raise ValueError(f"the {k} best of {bank.shape[1]} videos; k lies between 1 and {bank.shape[1]}")
    activated = np.zeros(bank.shape[1], bool)
    for start in range(0, len(bank), ROWS):
        rows = bank[start : start + ROWS]
        least = np.partition(rows, -k, axis=1)[:, -k, None]
        activated |= (rows >= least).any(axis=0)
    return replace(inverted_softmax(bank, beta), name="qb_norm", activated=activated)


def inverted_softmax(bank: Float[np.ndarray, "caption video"], beta: float) -> Bank:
    """The inverted softmax over a bank, for every query: Smith et al. 2017 (arXiv 1702.03859), with a bank.

    hubness(v) = 1/beta log mean_b e^{beta s(b, v)}
    """
    bank = _scores(bank, beta, "the bank")
    hubness = (_log_sum(bank, beta) - np.log(len(bank))) / beta
    return Bank("inverted_softmax", beta, len(bank), hubness, np.ones(len(hubness), bool))


def sinkhorn_bank(bank: Float[np.ndarray, "caption video"], beta: float, iterations: int = 10) -> Bank:
    """Sinkhorn's potentials of the gallery, found with a bank in place of the test queries.

    The setting for single queries of Yakovlev et al. 2023 (arXiv 2311.08143): the bank takes all the transport, and
    the query, which is no part of it, is scored with what each video then costs. One iteration is not the inverted
    softmax, as rows are normalised before.
    """
    bank = _scores(bank, beta, "the bank")
    _, of_video = _potentials(bank, beta, iterations)
    return Bank("sinkhorn_bank", beta, len(bank), of_video.mean() - of_video, np.ones(len(of_video), bool))


# --- temperature ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The beta that did best on a validation split, with what every candidate did there."""

    beta: float
    metric: str
    table: Mapping[float, float]  # beta -> the metric, recall in [0, 1]


def choose(
    rescore: Callable[[Float[np.ndarray, "query video"], float], Float[np.ndarray, "query video"]],
    betas: Sequence[float],
    *,
    validation_scores: Float[np.ndarray, "query video"],
    validation_positives: Positives | ArrayLike | None = None,
    metric: str = "R@1",
    ties: Ties = "expected",
) -> Choice:
    """The beta with the best `metric` on a validation split; of equals the smallest, which changes least.

    Never pass scores of the test set: a temperature chosen there is fitted to it. A bank must be one of the same
    split's gallery, for instance captions by videos of the training set, of which a part is held out as validation.

    >>> bank, validation = np.array([[1.0, 0.0]] * 3), np.array([[0.9, 0.8], [0.7, 0.8]])
    >>> choose(dual_softmax, [1.0, 10.0], validation_scores=validation).beta
    1.0
    >>> choose(lambda s, beta: qb_norm(bank, beta).apply(s), [5.0], validation_scores=validation).table
    {5.0: 0.5}
    """
    if not betas:
        raise ValueError("no beta to choose from")
    table = {}
    for beta in sorted(betas):
        found = rank(rescore(validation_scores, beta), validation_positives, ["t2v"]).t2v
        assert found is not None
        values = found.per_query(metric, ties)
        table[beta] = float(np.median(values) if metric == "MdR" else values.mean())
    best = (min if metric in LOWER_IS_BETTER else max)(table.values())
    return Choice(next(beta for beta, value in table.items() if value == best), metric, table)


# --- sums of exponentials ---------------------------------------------------------------------------------------------


def _scores(
    scores: ArrayLike, beta: float, what: str = "scores", copy: bool = False
) -> Float[np.ndarray, "query video"]:
    """As float64, after a look at what would silently give nonsense."""
    array = np.asarray(scores)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{what} must be numbers, queries by videos, at least one of each; not {array.dtype} {array.shape}"
        )
    if not (np.isfinite(beta) and beta > 0):
        raise ValueError(f"beta {beta} must be a positive number: higher is sharper")
    if broken := int((~np.isfinite(array).all(axis=1)).sum()):
        raise ValueError(f"{broken} of {len(array)} rows of {what} have NaN or infinite values")
    return array.astype(np.float64, copy=copy)


def _log_sum(
    scores: Float[np.ndarray, "query video"], beta: float, of_query: Float[np.ndarray, "query"] | float = 0.0
) -> Float[np.ndarray, "video"]:
    """log sum_q e^{beta (s(q, v) + f(q))}, in blocks of queries."""
    total = np.full(scores.shape[1], -np.inf)
    offset = np.broadcast_to(of_query, len(scores))
    for start in range(0, len(scores), ROWS):
        rows = slice(start, start + ROWS)
        logits = beta * (scores[rows] + offset[rows, None])
        most = logits.max(axis=0)
        total = np.logaddexp(total, most + np.log(np.exp(logits - most).sum(axis=0)))
    return total


def _potentials(
    scores: Float[np.ndarray, "query video"], beta: float, iterations: int
) -> tuple[Float[np.ndarray, "query"], Float[np.ndarray, "video"]]:
    """f and g of Sinkhorn, in the units of the scores."""
    if iterations < 1:
        raise ValueError(f"{iterations} iterations of Sinkhorn; at least 1")
    queries, videos = scores.shape
    of_query, of_video = np.zeros(queries), np.zeros(videos)
    for _ in range(iterations):
        for start in range(0, queries, ROWS):
            rows = slice(start, start + ROWS)
            of_query[rows] = -(_log_sum(scores[rows].T, beta, of_video) + np.log(queries)) / beta
        of_video = -(_log_sum(scores, beta, of_query) + np.log(videos)) / beta
    return of_query, of_video
