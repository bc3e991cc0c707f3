"""How weights move: AdamW in groups, a rate that rises and falls, gradients averaged over processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rushes.model import Model
from rushes.train.run import Run

BETAS, EPSILON = (0.9, 0.98), 1e-6  # CLIP's and its family's


def optimiser(model: Model, run: Run) -> AdamW:
    """AdamW on all that learns, in up to four groups: backbone or new modules, with decay or without.

    Biases, norms and scalars, all of one axis or none, have no decay. A group without weights is left out.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault((name.partition(".")[0], weight.ndim > 1), []).append(weight)
    if not groups:
        raise ValueError(
            f"{run.method} has no weights of its own: nothing learns; train end to end, or use it as it is"
        )
    rates = {"backbone": run.backbone_rate, "method": run.rate}
    return AdamW(
        [
            {"name": part, "params": weights, "lr": rates[part], "weight_decay": run.decay if decays else 0.0}
            for (part, decays), weights in groups.items()
        ],
        betas=BETAS,
        eps=EPSILON,
    )


def schedule(optimizer: AdamW, run: Run, steps: int) -> LambdaLR:
    """Linear warm-up, then half a cosine to zero, the same for all groups."""
    return LambdaLR(optimizer, lambda step: factor(step, round(run.warmup * steps), steps))


def factor(step: int, warm: int, steps: int) -> float:
    """Share of the highest rate at a step counted from 0.

        (s + 1) / w   for s < w,        (1 + cos(pi (s - w) / (n - w))) / 2   from there on

    >>> [round(factor(step, 2, 6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm)))) / 2


@torch.no_grad()
def average(weights: Sequence[nn.Parameter], stop: bool = False) -> bool:
    """Average the gradients over all processes, in one go after all of them are there; whether any process says stop.

    This is what DistributedDataParallel would do bucket by bucket in `backward`; gradient caching goes backward several
    times a step, and only the last sum is to be sent. A weight that has a gradient somewhere has one everywhere after.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return stop
    device = weights[0].device
    there = torch.tensor([weight.grad is not None for weight in weights] + [stop], dtype=torch.int32, device=device)
    dist.all_reduce(there)
    moved = [weight for weight, count in zip(weights, there[:-1].tolist(), strict=True) if count]
    for weight in moved:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    if moved:
        flat = torch.cat([_gradient(weight).reshape(-1) for weight in moved])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for weight, part in zip(moved, flat.split([weight.numel() for weight in moved]), strict=True):
            _gradient(weight).copy_(part.view_as(weight))
    return bool(there[-1])


def _gradient(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad
