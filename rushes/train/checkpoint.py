"""A training run on disk, from where it goes on as if nothing had happened.

    checkpoints/step-0000500/weights.safetensors, optimizer.safetensors, state.json

Random states are not among it: everything that training draws depends on the run's seed and the step's number alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

FORMAT = 1  # raise it when an older reader would go wrong
KEPT = 2  # newest checkpoints, beside those that are asked for


def save(
    folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: AdamW, state: dict[str, Any], names: Mapping
) -> Path:
    """Write a checkpoint that is there as a whole or not at all; `names` of the weights that the optimizer moves."""
    target = folder / f"step-{step:07d}"
    if target.is_dir():
        return target  # the same step of the same run: the same bytes
    aside = folder / f".{target.name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, aside / "weights.safetensors")
    moments = {
        f"{kind}/{names[weight]}": tensor.contiguous()
        for weight, kinds in optimizer.state.items()
        for kind, tensor in kinds.items()
    }
    save_file(moments, aside / "optimizer.safetensors")
    groups = [{key: value for key, value in one.items() if key != "params"} for one in optimizer.param_groups]
    plain = {"format": FORMAT, "step": step, **state, "groups": groups}
    (aside / "state.json").write_text(json.dumps(plain, indent=2) + "\n")
    for file in aside.iterdir():
        _flush(file)
    _flush(aside)
    aside.rename(target)
    _flush(folder)
    return target


def restore(path: Path, model: nn.Module, optimizer: AdamW, names: Mapping[nn.Parameter, str]) -> dict[str, Any]:
    """Put weights and the optimizer's state back, and return what was saved beside them."""
    state = read(path)
    weights(path, model)
    saved = load_file(path / "optimizer.safetensors")
    kinds: dict[str, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        kind, _, name = key.partition("/")
        kinds.setdefault(name, {})[kind] = tensor
    order = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = optimizer.state_dict()["param_groups"]
    groups = [{**one, **old, "betas": tuple(old["betas"])} for one, old in zip(numbers, state["groups"], strict=True)]
    places = {number: kinds[names[weight]] for number, weight in enumerate(order) if names[weight] in kinds}
    optimizer.load_state_dict({"state": places, "param_groups": groups})
    return state


def weights(path: Path, model: nn.Module) -> None:
    """Put the weights back that the checkpoint has; those that do not learn are not in it."""
    found = load_file(path / "weights.safetensors")
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name in found}
    if missing := sorted(set(found) - set(wanted)):
        raise ValueError(f"{path} has weights that this model lacks, as {missing[0]}: it is another model's")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def read(path: Path) -> dict[str, Any]:
    """Counters, history and configuration of a checkpoint."""
    state = json.loads((path / "state.json").read_text())
    if state["format"] > FORMAT:
        raise ValueError(f"{path} has format {state['format']}, this Rushes reads {FORMAT}; update Rushes")
    return state


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from; what a kill left half-written has another name and is not looked at."""
    return max(folder.glob("step-*"), default=None)


def prune(folder: Path, steps: Iterable[int]) -> None:
    """Remove all but the newest checkpoints and those of the given steps."""
    asked = {f"step-{step:07d}" for step in steps}
    for path in sorted(folder.glob("step-*"))[:-KEPT]:
        if path.name not in asked:
            shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Have the disk hold what was written, a file's bytes or a folder's names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
