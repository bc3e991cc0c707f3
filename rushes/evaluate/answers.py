"""What each query got: where its right answer came, what came first, and by which scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rushes.evaluate.metrics import RECALL_AT, Ranks, Ties
from rushes.evaluate.run import Evaluation, directions_of

ROWS = 512  # queries that are looked at together


@dataclass(frozen=True, eq=False)
class Answers:
    """One direction, a query each: ranks, the score of its best positive, and the entry that came first."""

    name: str  # "t2v", "v2t", "v2t_groups"
    ranks: Ranks
    queries: Sequence[str]  # ids
    gallery: Sequence[str]
    groups: Sequence[str]
    own: Float[np.ndarray, "query"]
    top: Int[np.ndarray, "query"]  # number in the gallery; of equals the first
    top_score: Float[np.ndarray, "query"]


def answers(evaluation: Evaluation, with_scores: bool = True) -> list[Answers]:
    """What each query got, by direction. Without scores they are NaN, and the first entry is number 0."""
    split, positives = evaluation.split, evaluation.positives
    texts, videos = [one.id for one in split.captions], [one.id for one in split.videos]
    of_text = [videos[number] for number in evaluation.group_of_text]
    of_video = [videos[number] for number in evaluation.group_of_video]
    found = []
    for name, ranks in directions_of(evaluation.ranking):
        own = np.full(ranks.queries, np.nan)
        top, top_score = np.zeros(ranks.queries, int), own.copy()
        if with_scores:
            matrix = evaluation.scores["t2v" if name == "t2v" else "v2t"]
            own[:] = -np.inf
            query = positives.text if name == "t2v" else positives.video
            np.maximum.at(own, query, matrix[positives.text, positives.video])
            for start, block in blocks(evaluation, name):
                top[start : start + len(block)] = block.argmax(axis=1)
                top_score[start : start + len(block)] = block.max(axis=1)
        queries, gallery, groups = (texts, videos, of_text) if name == "t2v" else (videos, texts, of_video)
        gallery = videos if name == "v2t_groups" else gallery
        found.append(Answers(name, ranks, queries, gallery, groups, own, top, top_score))
    return found


def blocks(evaluation: Evaluation, name: str) -> Iterator[tuple[int, Float[np.ndarray, "query entry"]]]:
    """Scores as rows of queries by what they rank, some rows at a time, each with the number of its first."""
    matrix = evaluation.scores["t2v" if name == "t2v" else "v2t"]
    if name == "t2v":
        for start in range(0, len(matrix), ROWS):
            yield start, matrix[start : start + ROWS]
        return
    order = np.argsort(evaluation.positives.video, kind="stable")  # texts by video; pairs are sorted by text
    starts = np.flatnonzero(np.diff(evaluation.positives.video[order], prepend=-1))
    for start in range(0, matrix.shape[1], ROWS):
        block = np.ascontiguousarray(matrix[:, start : start + ROWS].T)
        yield start, np.maximum.reduceat(block[:, order], starts, axis=1) if name == "v2t_groups" else block


def recall_curve(ranks: Ranks, ties: Ties) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """R@k at some 40 numbers from 1 to the size of the gallery, those of the tables among them."""
    ks = np.unique(np.concatenate([np.geomspace(1, ranks.gallery, 40).astype(int), RECALL_AT]))
    ks = ks[ks <= ranks.gallery]
    return ks, np.array([ranks.recall(int(k), ties).mean() for k in ks])
