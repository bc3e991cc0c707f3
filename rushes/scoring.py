"""All texts against all videos, in blocks that fit a memory budget."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rushes.methods.base import Method
from rushes.types import Tokens

BUDGET = 256 << 20  # bytes


@torch.no_grad()
def score_all(method: Method, texts: Tokens, videos: Tokens, budget_bytes: int = BUDGET) -> Float[Tensor, "text video"]:
    """`method.score` of every text with every video, equal to the one call up to the order of sums.

    Beside the tokens and the result some `budget_bytes` are held at most: never a tensor of text x video x word x
    frame, or of text x video x dim, for the whole set. What a method does for one text or one video before it pairs
    them is done once an item. ValueError for a budget below 1 MiB, or tokens of unequal size.

    >>> from rushes.methods.meanpool import MeanPool
    >>> one = Tokens(torch.eye(3)[:, None], torch.ones(3, 1).bool())
    >>> score_all(MeanPool(3), one, one[:2])
    tensor([[1., 0.],
            [0., 1.],
            [0., 0.]])
    """
    if budget_bytes < 1 << 20:
        raise ValueError(f"a budget of {budget_bytes} bytes is too small to score in; give 1 MiB or more")
    if texts.vectors.shape[2] != videos.vectors.shape[2]:
        raise ValueError(
            f"text tokens have {texts.vectors.shape[2]} numbers, video tokens {videos.vectors.shape[2]}: "
            "they come from different models"
        )
    training = method.training
    method.eval()  # dropout would make the scores of a pair depend on its block
    try:
        return method.score_within(texts, videos, budget_bytes)
    finally:
        method.train(training)
