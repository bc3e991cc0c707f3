"""`rushes train` on a stranger's folder."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

import rushes
from rushes.cli import app
from rushes.train.run import Run
from tests.train.made import backbone
from tests.video.films import film


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten films and a csv without splits, two captions each."""
    root = tmp_path_factory.mktemp("stranger")
    rows = ["video,caption"]
    for number in range(10):
        film(root / f"clip{number}.mp4", frames=50, rate=25, size=(64, 48), pan=number)
        rows += [f"clip{number}.mp4,a dog and {number} cats", f"clip{number}.mp4,the red ball on beach {number}"]
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    return root


def run(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_smoke_on_ten_videos_with_a_csv(folder, tmp_path):
    """Features by the small model, gradient caching, checkpoints, validation, a tracker, a model: all in seconds."""
    before = (folder / "captions.csv").read_bytes()
    out = tmp_path / "out"
    done = run("dmae", "--data", "folder", "--root", folder, "--out", out, "--smoke", "--json")
    assert done.exception is None
    result = json.loads(done.stdout)
    assert result["model"] == str(out)
    assert result["epoch"] == 1
    assert 0 <= result["val"]["t2v R@1"] <= 100
    assert rushes.load(out).method_name == "dmae"
    assert list(out.glob("logs/rushes/events.out.tfevents.*"))
    card = (out / "README.md").read_text()
    assert "smoke run" in card
    assert "no split 'train'" in card
    assert "not looked at" not in card
    assert Run.load(out / "run.json").smoke
    assert (folder / "captions.csv").read_bytes() == before
    again = run("dmae", "--data", "folder", "--root", folder, "--out", out, "--smoke", "--json", "--tracker", "none")
    assert again.exception is None  # a smoke run may be run again
    assert json.loads(again.stdout)["loss"] == result["loss"]


def test_a_real_run_needs_a_split_to_train_on(folder, tmp_path):
    done = run("wti", "--data", "folder", "--root", folder, "--out", tmp_path / "out", "--tracker", "none")
    assert isinstance(done.exception, LookupError)
    assert "no split 'train'" in str(done.exception)
    assert "column `split`" in str(done.exception)


@pytest.fixture
def divided(folder, tmp_path):
    """The same with splits; one training film is missing, and the test film would be an error to read."""
    root = tmp_path / "divided"
    shutil.copytree(folder, root, ignore=shutil.ignore_patterns(".rushes"))
    rows = ["video,caption,split"]
    for number in range(10):
        split = "test" if number == 9 else "val" if number > 6 else "train"
        rows += [f"clip{number}.mp4,a dog and {number} cats,{split}"]
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    (root / "clip3.mp4").unlink()
    (root / "clip9.mp4").write_bytes(b"never opened")
    return root


def test_the_best_epoch_on_val_end_to_end_and_bf16(divided, tmp_path):
    out = tmp_path / "out"
    options = ["--data", "folder", "--root", divided, "--out", out, "--backbone", backbone(), "--end-to-end"]
    options += ["--precision", "bf16", "--epochs", 2, "--batch", 3, "--frames", 2, "--micro", 2, "--tracker", "none"]
    done = run("wti", *options, "--set", "hidden=0", "--backbone-rate", "1e-3", "--json")
    assert done.exception is None
    told = Run.load(out / "run.json")
    assert told.select == "best"  # where there is a val
    assert told.switches["hidden"] == 0
    card = (out / "README.md").read_text()
    assert "1 of 7 videos of split 'train' are missing" in card
    assert "trained too" in card
    before, after = rushes.load(backbone()), rushes.load(out)
    moved = [
        name
        for name, weight in after.backbone.state_dict().items()
        if not weight.equal(before.backbone.state_dict()[name])
    ]
    assert moved
    assert all(weight.dtype.itemsize == 4 for weight in after.state_dict().values() if weight.is_floating_point())


def test_best_without_a_val_is_refused(divided, tmp_path):
    captions = (divided / "captions.csv").read_text().replace(",val", ",test")
    (divided / "captions.csv").write_text(captions)
    done = run("wti", "--data", "folder", "--root", divided, "--out", tmp_path / "out", "--select", "best")
    assert isinstance(done.exception, LookupError)
    assert "no split 'val'" in str(done.exception)
    assert "--select last" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a recipe"),
        (("wti",), "what is wti to learn from"),
        (("dmae/msrvtt", "--data", "reels"), "has its data"),
        (("wti", "--data", "reels", "--select", "last", "--set", "hidden=7"), "give 0, 1"),
        (("wti", "--data", "reels", "--select", "last", "--set", "depth=7"), "there are hidden"),
        (("meanpool", "--data", "reels", "--select", "last", "--preset", "paper"), "no preset"),
    ],
)
def test_wrong_usage_says_what_is_right(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_recipes_are_listed():
    rows = json.loads(run("--list", "--json").stdout)
    assert {"name", "about"} == set(rows[0])
    assert "hcmi/activitynet" in {row["name"] for row in rows}
