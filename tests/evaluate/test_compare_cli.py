"""`rushes evaluate` from files to a folder, and `rushes compare` of two such folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rushes.cli import app
from rushes.data.base import Caption, Split, Video, make_split
from rushes.evaluate.report import Setting, write
from rushes.evaluate.run import of_scores
from rushes.methods.wti import WTI
from rushes.model import Model
from tests.tiny import WORDS, tiny_clip
from tests.video.films import film

SETTING = Setting(benchmark="folder", protocol="videos", model="m", method="wti")


def rushes(*words: object, fails: type[Exception] | None = None) -> str:
    """What a verb prints; or the message of what it raises."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if fails is not None:
        assert isinstance(done.exception, fails), done.output
        return str(done.exception)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.stdout


def run_of(split: Split, scores: np.ndarray, folder: Path, **options) -> Path:
    write(of_scores(split, scores, repetitions=100, **options), SETTING, folder, page=False)
    return folder


@pytest.fixture(scope="module")
def runs(split, scores, tmp_path_factory) -> tuple[Path, Path]:
    """The second finds more, and lies in another order."""
    place = tmp_path_factory.mktemp("runs")
    better = scores.copy()
    better[split.pairs[:, 0], split.pairs[:, 1]] += 1.0
    return run_of(split, scores, place / "a"), run_of(split, better, place / "b")


# --- compare ----------------------------------------------------------------------------------------------------------


def test_the_second_less_the_first(runs):
    cards = [json.loads((run / "card.json").read_text())["metrics"]["t2v"]["R@1"] for run in runs]
    told = json.loads(rushes("compare", *runs, "--json", "--repetitions", 2000))
    assert (told["first"], told["second"]) == pytest.approx(tuple(cards))
    assert told["difference"] == pytest.approx(cards[1] - cards[0])
    assert 0 < told["low"] < told["difference"] < told["high"]
    assert told["p_randomisation"] < 0.05
    assert (told["queries"], told["groups"], told["metric"]) == (60, 30, "R@1")
    back = json.loads(rushes("compare", *runs[::-1], "--json", "--repetitions", 2000))
    assert back["difference"] == pytest.approx(-told["difference"])


def test_equal_runs_do_not_differ(runs):
    told = json.loads(rushes("compare", runs[0], runs[0], "--json", "--repetitions", 200))
    assert (told["difference"], told["p_randomisation"], told["low"], told["high"]) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    ("metric", "direction"), [("MdR", "t2v"), ("MnR", "v2t"), ("R@5", "v2t_groups"), ("MRR", "t2v")]
)
def test_other_metrics_and_directions(runs, metric, direction):
    text = rushes("compare", *runs, "--metric", metric, "--direction", direction, "--repetitions", 200)
    assert text.startswith(f"{metric} {direction}{', lower is better' if metric in ('MdR', 'MnR') else ''}: ")
    assert "paired randomisation, two-sided" in text


def test_what_cannot_be_compared_says_why(runs, split, scores, tmp_path):
    assert "no metric 'R1'" in rushes("compare", *runs, "--metric", "R1", fails=LookupError)
    assert "keeps the best of each query only" in rushes(
        "compare", *runs, "--metric", "mAP", "--direction", "v2t", fails=LookupError
    )
    fewer = make_split("test", [(video, [split.captions[2 * n]]) for n, video in enumerate(split.videos)], "here")
    other = run_of(fewer, scores[::2], tmp_path / "fewer")
    told = rushes("compare", runs[0], other, fails=ValueError)
    assert "30 queries are in the first run only, 0 in the second only (the first: 'clip 0.mp4#1')" in told
    items = [
        (Video(v.id, v.file), [Caption(c.id, "other words") for c in split.captions[2 * n : 2 * n + 2]])
        for n, v in enumerate(split.videos)
    ]
    renamed = run_of(make_split("test", items, "here"), scores, tmp_path / "renamed")
    assert "their texts, their videos or the gallery differ" in rushes("compare", runs[0], renamed, fails=ValueError)
    lucky = run_of(split, scores, tmp_path / "lucky", ties="optimistic")
    assert "counts ties as expected" in rushes("compare", runs[0], lucky, fails=ValueError)


def test_post_processing_is_said_and_can_be_left_out(runs, split, scores, tmp_path):
    again = run_of(split, scores, tmp_path / "dsl", rescore="dsl", beta=5.0)
    done = CliRunner().invoke(app, ["compare", str(runs[0]), str(again), "--repetitions", "200"])
    assert "post-processing differs: none and transductive" in done.stderr
    raw = json.loads(rushes("compare", runs[0], again, "--raw", "--json", "--repetitions", 200))
    assert raw["difference"] == 0
    assert raw["post_processing"] == [None, None]


# --- evaluate ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    backbone = tiny_clip()
    place = tmp_path_factory.mktemp("models") / "mine"
    Model(backbone, WTI(backbone.dim)).save(place)
    return place


@pytest.fixture
def videos(tmp_path) -> Path:
    place = tmp_path / "my videos"
    place.mkdir()
    rows = []
    for number in range(7):
        film(place / f"film {number}.mp4", frames=12, rate=10, size=(64, 48), cuts=())
        split = "train" if number >= 5 else "test"
        rows += [(f"film {number}.mp4", f"{WORDS[number]} {word}", split) for word in ("on beach", "in snow")]
    with (place / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption", "split"), *rows])
    return place


def test_from_files_to_a_folder(model, videos, tmp_path):
    out = tmp_path / "out"
    text = rushes("evaluate", model, "--data", videos, "--out", out, "--selection", "last epoch", "--seed", 7)
    assert text.splitlines()[-1] == str(out)
    assert {path.name for path in out.iterdir()} == {"card.json", "ranks.csv", "run.trec", "qrels.txt", "report.html"}
    card = json.loads((out / "card.json").read_text())
    assert (card["data"]["benchmark"], card["data"]["queries"], card["data"]["gallery"]) == ("folder", 10, 5)
    assert card["training"] == {"seeds": [7], "selection": "last epoch"}
    assert card["input"]["decoder"].startswith("PyAV ")
    assert card["model"]["method"] == "wti"
    assert "data:image/jpeg;base64," in (out / "report.html").read_text()
    again = json.loads(rushes("evaluate", model, "--data", videos, "--out", out, "--no-page", "--json"))
    assert again["metrics"] == card["metrics"]
    assert not (out / "report.html").exists()


def test_a_bank_comes_from_training_captions(model, videos, tmp_path):
    out = tmp_path / "out"
    told = json.loads(
        rushes(
            "evaluate", model, "--data", videos, "--out", out, "--rescore", "qbnorm", "--bank", 3, "--no-page", "--json"
        )
    )
    done = told["post_processing"]
    assert (done["kind"], done["bank_size"], done["directions"]) == ("inductive", 3, ["t2v"])
    assert done["bank"].startswith("train ")
    assert told["raw_metrics"]["v2t"] == told["metrics"]["v2t"]


def test_missing_videos_stop_or_are_listed(model, videos, tmp_path):
    (videos / "film 2.mp4").unlink()
    assert "film 2.mp4" in rushes("evaluate", model, "--data", videos, "--out", tmp_path / "o", fails=FileNotFoundError)
    assert not (tmp_path / "o").exists()
    done = CliRunner().invoke(
        app,
        ["evaluate", str(model), "--data", str(videos), "--out", str(tmp_path / "o"), "--allow-missing", "--no-page"],
    )
    assert done.exit_code == 0, done.output
    assert "1 of 5 videos are left out, with them 2 captions: this is not the published split" in done.stderr
    card = json.loads((tmp_path / "o" / "card.json").read_text())
    assert card["data"]["missing"] == ["film 2.mp4"]
    assert (card["data"]["queries"], card["data"]["gallery"]) == (8, 4)


def test_several_seeds_have_one_card(model, videos, tmp_path):
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        backbone = tiny_clip()
        place = tmp_path / f"seed{seed}"
        Model(backbone, WTI(backbone.dim)).save(place)
        run = {"method": "wti", "data": "folder", "seed": seed, "frames": 1, "select": "best"}
        (place / "run.json").write_text(json.dumps(run))
        models.append(place)
    out = tmp_path / "out"
    told = json.loads(rushes("evaluate", *models, "--data", videos, "--out", out, "--no-page", "--json"))
    assert told["over_seeds"]["seeds"] == [0, 1]
    assert told["training"]["selection"] == "best t2v MRR on val"
    assert told["input"]["frames"].startswith("1 at most")
    assert (out / "1-seed0" / "ranks.csv").is_file()
    assert json.loads((out / "card.json").read_text()) == told
    text = rushes("compare", out / "1-seed0", out / "2-seed1", "--repetitions", 200)
    assert text.startswith("R@1 t2v: 10 queries of 5 videos")
    assert "holds the mean of 2 runs" in rushes("compare", out, out, fails=ValueError)


def test_wrong_use(model, videos, tmp_path):
    for words, told in (
        (["--data", "nonsense"], "no benchmark"),
        (["--data", videos, "--root", videos], "is the folder"),
        (["--data", videos, "--bank", 5], "is for --rescore qbnorm"),
    ):
        done = CliRunner().invoke(app, ["evaluate", str(model), *map(str, words)])
        assert done.exit_code == 2
        assert told in " ".join(done.output.split())
    told = rushes(
        "evaluate", model, "--data", videos, "--out", tmp_path / "o", "--selection", "best on test", fails=ValueError
    )
    assert "names the test set" in told
