"""A checkpoint is whole or not there, and gives every bit back."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from rushes.train import checkpoint


def learner(seed: int = 0) -> tuple[nn.Module, AdamW, dict[nn.Parameter, str]]:
    """Two layers, one of which does not learn, in two groups."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    groups = [{"params": [model[0].weight], "weight_decay": 0.1}, {"params": [model[0].bias, *model[1].parameters()]}]
    names = {weight: name for name, weight in model.named_parameters() if weight.requires_grad}
    return model, AdamW(groups, lr=0.01, betas=(0.9, 0.98)), names


def learn(model: nn.Module, optimizer: AdamW, seed: int) -> None:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def save(folder, step: int = 1, seed: int = 0):
    model, optimizer, names = learner(seed)
    learn(model, optimizer, 1)
    return checkpoint.save(folder, step, model.state_dict(), optimizer, {"best": None}, names)


def test_it_goes_on_bit_by_bit(tmp_path):
    model, optimizer, names = learner()
    learn(model, optimizer, 1)
    optimizer.param_groups[1]["lr"] = 0.1 + 0.2  # a number that decimals must not cut
    path = checkpoint.save(tmp_path, 1, model.state_dict(), optimizer, {"sums": {"nce": 1 / 3}}, names)
    other, again, others = learner(seed=9)
    learn(other, again, 5)
    state = checkpoint.restore(path, other, again, others)
    assert state["sums"] == {"nce": 1 / 3}
    assert state["step"] == 1
    for seed in (2, 3):
        learn(model, optimizer, seed)
        learn(other, again, seed)
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_only_safetensors_and_json_are_written(tmp_path):
    path = save(tmp_path)
    assert {file.name for file in path.iterdir()} == {"weights.safetensors", "optimizer.safetensors", "state.json"}
    json.loads((path / "state.json").read_text())
    for file in path.glob("*.safetensors"):
        size = int.from_bytes(file.read_bytes()[:8], "little")
        json.loads(file.read_bytes()[8 : 8 + size])  # the header, so no pickle


def test_what_was_written_half_is_not_seen(tmp_path, monkeypatch):
    first = save(tmp_path, step=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_flush", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, step=2)
    assert checkpoint.newest(tmp_path) == first
    assert save(tmp_path, step=2).name == "step-0000002"  # what was left over is in nobody's way
    assert checkpoint.newest(tmp_path) == tmp_path / "step-0000002"


def test_a_step_that_is_there_stays(tmp_path):
    before = (save(tmp_path) / "weights.safetensors").read_bytes()
    assert (save(tmp_path, seed=1) / "weights.safetensors").read_bytes() == before


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for step in (2, 10, 100, 1000):
        save(tmp_path, step)
        checkpoint.prune(tmp_path, [2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000002", "step-0000100", "step-0001000"]


def test_none_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_another_models_weights_are_refused(tmp_path):
    path = save(tmp_path)
    with pytest.raises(ValueError, match="another model's"):
        checkpoint.weights(path, nn.Linear(4, 4))


def test_a_newer_format_is_refused(tmp_path):
    path = save(tmp_path)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(ValueError, match="update Rushes"):
        checkpoint.read(path)


def test_weights_that_do_not_learn_stay(tmp_path):
    model, optimizer, names = learner()
    learn(model, optimizer, 1)
    learnt = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("2.")}
    path = checkpoint.save(tmp_path, 1, learnt, optimizer, {}, names)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 1
    checkpoint.weights(path, other)
    assert torch.equal(other[0].weight, model[0].weight)
    assert torch.equal(other[2].weight, model[2].weight + 1)
