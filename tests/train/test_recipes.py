"""Every recipe is a run that can begin, and says what it costs and what to expect."""

from __future__ import annotations

import json

import pytest

from rushes import data
from rushes.train import recipes
from rushes.train.run import Run, differences

NAMES = recipes.names()


def test_each_paper_has_each_benchmark_and_reels_has_each_method():
    benchmarks = ("msrvtt", "msvd", "lsmdc", "didemo", "activitynet", "reels")
    assert {f"{paper}/{name}" for paper in ("xmlnet", "hcmi", "dmae") for name in benchmarks} <= set(NAMES)
    runs = [recipes.find(name)() for name in NAMES]
    on_reels = {run.method for run in runs if run.data == "reels"}
    assert on_reels == {"meanpool", "seqtransf", "xpool", "wti", "xclip", "xmlnet", "hcmi", "dmae"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_run_that_can_begin(name):
    run = recipes.find(name)()
    config = run.config()  # every switch is the method's
    assert run.protocol in data.find(run.data).PROTOCOLS
    counts = data.find(run.data).PROTOCOLS[run.protocol].counts
    assert run.data == "reels" or run.select == "last" or "val" in counts
    assert Run.of(json.loads(json.dumps(run.plain()))) == Run.of(run.plain())
    for limit in ("words", "frames"):  # what the method has room for
        assert getattr(config, limit, 77) >= getattr(run, limit)
    assert config.views == 1 or run.draw  # else two views would be one


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_tells_command_cost_and_what_to_expect(name):
    told = recipes.find(name).__doc__ or ""
    assert f"rushes train {name} --root " in told
    assert "Cost: " in told
    assert "Expect: " in told


def test_an_unknown_recipe_lists_what_there_is():
    with pytest.raises(LookupError, match=r"'dmae/vatex'; it has .*dmae/msrvtt"):
        recipes.find("dmae/vatex")


def test_a_run_survives_json_and_tells_differences(tmp_path):
    run = Run(method="xmlnet", data="reels", switches={"terms": ["global"], "terms_eval": ["global"]}, seed=3)
    run.save(tmp_path / "run.json")
    again = Run.load(tmp_path / "run.json")
    assert again == run
    assert again.config().terms == ("global",)
    assert differences(run.whole(), again.whole().plain()) == []
    assert differences(run, {**run.plain(), "seed": 4, "root": "/elsewhere"}) == ["seed 3, was 4"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"batch": 0}, "batch is 0; give 1 or more"),
        ({"micro": 0}, "micro is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"precision": "fp8"}, "precision is 'fp8'; give no or fp16 or bf16"),
        ({"metric": "R@3"}, "there are t2v R@1"),
        ({"captions": 2, "epoch_of": "captions"}, "leave it at 1"),
    ],
)
def test_a_choice_that_cannot_be_is_told(choices, message):
    with pytest.raises(ValueError, match=message):
        Run(method="wti", data="reels", **choices)


def test_an_unknown_field_is_told():
    with pytest.raises(ValueError, match="no colour; it has"):
        Run.of({"method": "wti", "data": "reels", "colour": "red"})
