"""How a training step sees the other processes' share of the batch, with gradients as exact as on one process.

Every process computes the loss L of the whole batch, from tokens gathered of all P processes; then gradients are
averaged over processes, as DistributedDataParallel does. That average is the single process's gradient exactly when the
gather's backward *sums* over processes what they want of each one's tokens x_q:

  behind the gather (a temperature, a scorer's weights):  every process has dL/dw already; the mean of P equals is dL/dw
  before it (encoders):  process q receives sum_p dL/dx_q = P dL/dx_q, hence P (dL/dx_q)(dx_q/dw);
                         the mean over q is sum_q (dL/dx_q)(dx_q/dw) = dL/dw

A backward that kept only its own share would leave encoders 1/P of their gradient, but temperatures all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from rushes.methods.base import ALONE, Gather
from rushes.types import Tokens


def distributed() -> Gather:
    """The gather of the running process group, or `ALONE` where there is none or only one process."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Gather(tokens=gather_tokens, numbers=gather_numbers)


def gather_tokens(tokens: Tokens) -> Tokens:
    """All processes' tokens in the order of their ranks; batch sizes and token counts may differ between them.

    Every process must call this, in the same order, and have the same fields.
    """
    shapes = _shapes(tokens.mask)
    wide = tokens.padded(max(token for _, token in shapes))
    batches = [batch for batch, _ in shapes]
    return wide._each(lambda tensor: _rows(tensor, batches))


def gather_numbers(numbers: Int[Tensor, "item *rest"]) -> Int[Tensor, "all_items *rest"]:
    """All processes' integers in the order of their ranks."""
    return _rows(numbers, [shape[0] for shape in _shapes(numbers)])


def _shapes(tensor: Shaped[Tensor, "*shape"]) -> list[list[int]]:
    """The shape of each process's tensor, all of which have the same number of axes."""
    own = torch.tensor(tensor.shape, dtype=torch.long, device=tensor.device)
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own)
    return [shape.tolist() for shape in everyone]


def _rows(tensor: Shaped[Tensor, "row *rest"], counts: Sequence[int]) -> Shaped[Tensor, "all_rows *rest"]:
    """The rows of all processes, of which number p has counts[p]; they are sent padded and stripped on arrival."""
    most = max(counts)
    sent = torch.cat([tensor, tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
    carried = torch.uint8 if tensor.dtype == torch.bool else tensor.dtype  # not every transport carries bools
    arrived = _AllGather.apply(sent.to(carried)).to(tensor.dtype)
    return torch.cat([arrived[most * p : most * p + count] for p, count in enumerate(counts)])


class _AllGather(torch.autograd.Function):
    """Equal shares of all processes, one after another; backward sums what all processes want of one's share."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        parts = [torch.empty_like(share) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, share.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()  # a reduce-scatter would send less, but gloo has none
        dist.all_reduce(total)
        share = len(total) // dist.get_world_size()
        return total[share * dist.get_rank() :][:share]
