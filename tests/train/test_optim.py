"""Which weights move how fast, and which decay."""

from __future__ import annotations

import pytest

from rushes.train.material import start
from rushes.train.optim import factor, optimiser, schedule
from tests.train.made import run_of


def groups(run) -> dict[str, dict]:
    model = start(run)
    names = {weight: name for name, weight in model.named_parameters()}
    return {names[weight]: group for group in optimiser(model, run).param_groups for weight in group["params"]}


def test_on_features_the_method_alone_learns():
    found = groups(run_of("wti", decay=0.3, rate=0.01))
    assert all(name.startswith("method.") for name in found)
    assert {group["lr"] for group in found.values()} == {0.01}
    decays = {name: group["weight_decay"] for name, group in found.items()}
    assert decays["method.log_scale"] == 0.0
    assert {decay for name, decay in decays.items() if name.endswith("bias")} == {0.0}
    assert {decay for name, decay in decays.items() if name.endswith("weight")} == {0.3}


def test_end_to_end_the_backbone_learns_at_its_own_rate_without_its_temperature():
    found = groups(run_of("seqtransf", end_to_end=True, backbone_rate=0.002, rate=0.01))
    for name, group in found.items():
        assert group["lr"] == (0.002 if name.startswith("backbone.") else 0.01), name
        norm_or_bias = name.endswith("bias") or "norm" in name.lower()
        assert not norm_or_bias or group["weight_decay"] == 0.0, name
    assert any(name.startswith("backbone.") for name in found)
    assert "backbone.towers.logit_scale" not in found


def test_a_rate_of_zero_leaves_the_backbone_out():
    assert all(name.startswith("method.") for name in groups(run_of("wti", end_to_end=True, backbone_rate=0.0)))


def test_nothing_to_learn_is_an_error():
    run = run_of("dmae", switches={"partial": "off"})
    with pytest.raises(ValueError, match="nothing learns"):
        optimiser(start(run), run)


def test_the_rate_rises_and_falls():
    run = run_of("meanpool", warmup=0.25, rate=0.01)
    optimizer = optimiser(start(run), run)
    rates = schedule(optimizer, run, steps=8)
    seen = []
    for _ in range(8):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()
    assert seen == [pytest.approx(0.01 * factor(step, 2, 8)) for step in range(8)]
    assert seen[:2] == [0.005, 0.01]
    assert seen[1:] == sorted(seen[1:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_the_same_seed_starts_the_same():
    one, other, third = (start(run_of("xmlnet", seed=seed)) for seed in (0, 0, 1))
    assert one.digest() == other.digest() != third.digest()
