"""Losses for retrieval: pure functions of score matrices."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.similarity import fp32


def scale_of(log_scale: nn.Parameter, most: float = 100.0) -> Float[Tensor, ""]:
    """The learnt inverse temperature k = exp(log_scale), at most `most`.

    The parameter itself is set back to ln `most` when a step took it beyond, as CLIP and its descendants do: it is the
    one argument of this module that a function changes. Clamping the value instead would stop its gradient, and for
    ever: ln 100 in fp32 gives 100.00001, so a start at 100 would never move.

    >>> parameter = nn.Parameter(torch.tensor(9.0))
    >>> round(scale_of(parameter).item(), 3), round(parameter.item(), 3)
    (100.0, 4.605)
    """
    with torch.no_grad():
        log_scale.clamp_(max=math.log(most))
    return log_scale.exp()


def info_nce(
    scores: Float[Tensor, "text video"],
    positives: Bool[Tensor, "text video"] | None = None,
    scale: float | Float[Tensor, ""] = 1.0,
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss in which a row may have several positives.

        L = 1/2 [ mean_t -log( sum_{v in P(t)} e^{k s_tv} / sum_v e^{k s_tv} )  +  the same over columns ]

    With one positive each (the diagonal, the default) this is the usual InfoNCE (van den Oord et al. 2018). Rows and
    columns without a positive are left out of their mean; a matrix without any positive is an error.

    >>> info_nce(torch.zeros(4, 4))  # no preference: log 4
    tensor(1.3863)
    >>> info_nce(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))  # everything is right
    tensor(0.)
    """
    logits = fp32(scores) * scale
    if positives is None:
        if logits.shape[0] != logits.shape[1]:
            raise ValueError(f"{tuple(logits.shape)} scores have no diagonal of positives; pass `positives`")
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if not bool(positives.any()):
        raise ValueError(f"no positive among {tuple(logits.shape)} pairs; the loss would be infinite")
    return (_one_way(logits, positives) + _one_way(logits.T, positives.T)) / 2


def _one_way(logits: Float[Tensor, "row column"], positives: Bool[Tensor, "row column"]) -> Float[Tensor, ""]:
    rows = positives.any(dim=1)
    right = logits[rows].masked_fill(~positives[rows], -float("inf")).logsumexp(dim=1)
    return (logits[rows].logsumexp(dim=1) - right).mean()
