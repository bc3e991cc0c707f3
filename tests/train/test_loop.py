"""A killed run loses nothing, two processes learn as one, and what comes out is a model."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

import rushes
from rushes.train import checkpoint
from rushes.train.loop import Stopped, train
from rushes.train.run import Run
from tests.train.made import exact, made, run_of, started, stopped_at
from tests.video.films import film


def history(out) -> list[dict]:
    """What happened in each epoch, save how long it took."""
    epochs = json.loads((out / "history.json").read_text())["history"]
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def same(one, other) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_killed_run_that_goes_on_ends_bit_equal(tmp_path):
    """hcmi takes two views, and here both are encoded in parts."""
    run = run_of("hcmi", micro=3, switches={"layers": 1}, select="best")
    train(run, tmp_path / "undisturbed", prepare=made)
    killed = started(run, tmp_path / "killed", kill=5)
    assert killed.wait(timeout=100) == -9
    assert checkpoint.newest(tmp_path / "killed" / "checkpoints").name == "step-0000004"  # type: ignore[union-attr]
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    seen = []
    train(run, tmp_path / "killed", resume=True, on_progress=lambda now: seen.append(now.step), prepare=made)
    assert seen == [5, 6, 7, 8, 9]
    assert same(tmp_path / "undisturbed", tmp_path / "killed")
    assert history(tmp_path / "undisturbed") == history(tmp_path / "killed")


def test_an_interrupted_run_saves_and_says_how_to_go_on(tmp_path):
    run = run_of("xmlnet", save_every=100)  # it draws at random in its loss
    train(run, tmp_path / "undisturbed", prepare=made)
    with pytest.raises(Stopped, match=r"after step 2 of 9.*--resume"):
        train(run, tmp_path / "stopped", on_progress=stopped_at(1), prepare=made)  # the step under way is finished
    train(run, tmp_path / "stopped", resume=True, prepare=made)
    assert same(tmp_path / "undisturbed", tmp_path / "stopped")


def test_a_finished_run_that_goes_on_stays_as_it_is(tmp_path):
    run = run_of("wti", epochs=1)
    before = (train(run, tmp_path, prepare=made) / "model.safetensors").read_bytes()
    train(run, tmp_path, resume=True, prepare=made)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_what_would_not_be_the_same_run_is_refused(tmp_path):
    run = run_of("wti", epochs=1)
    train(run, tmp_path, prepare=made)
    with pytest.raises(FileExistsError, match="--resume"):
        train(run, tmp_path, prepare=made)
    with pytest.raises(ValueError, match=r"another run: .*rate 0.01, was 0.001"):
        train(replace(run, rate=0.01), tmp_path, resume=True, prepare=made)
    with pytest.raises(ValueError, match="switches"):
        train(replace(run, switches={"hidden": 0}), tmp_path, resume=True, prepare=made)
    other = lambda run, accelerator: replace(made(run), digest="other")  # noqa: E731
    with pytest.raises(ValueError, match="other data"):
        train(run, tmp_path, resume=True, prepare=other)
    train(replace(run, root="/elsewhere", workers=1), tmp_path, resume=True, prepare=made)  # places may change


def test_two_processes_learn_as_one(tmp_path):
    """Through the whole loop: hcmi, two views, each process's share in parts; five videos do not halve evenly."""
    run = run_of("hcmi", batch=5, micro=2, epochs=2, switches={"layers": 1})
    train(run, tmp_path / "one", prepare=exact)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    workers = [
        started(run, tmp_path / "two", exact=True, environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    try:
        assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    begun = exact(run).model.state_dict()
    moved = max(float((one[name] - begun[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-4
    assert apart < 1e-6 * moved
    assert history(tmp_path / "one")[0]["val"] == history(tmp_path / "two")[0]["val"]


def test_what_comes_out_is_a_model_that_is_loaded_and_searched_with(tmp_path):
    run = run_of("dmae", epochs=1)
    out = train(run, tmp_path / "model", prepare=made)
    model = rushes.load(out)
    assert model.method_name == "dmae"
    assert Run.load(out / "run.json") == run.whole()
    assert Run.load(out / "run.json").switches["partial"] == "all"
    card = (out / "README.md").read_text()
    assert "seed 0" in card
    assert "12 videos and 24 captions" in card
    assert "last epoch" in card
    films = tmp_path / "films"
    films.mkdir()
    film(films / "one.mp4", frames=50, rate=25, size=(64, 48))
    library = rushes.open(films)
    library.refresh(model=str(out))
    assert library.search("a dog", k=1)[0].segment.video == "one.mp4"


def test_training_learns(tmp_path):
    out = train(run_of("wti", epochs=20, rate=3e-3, switches={"scale": 10.0}), tmp_path, prepare=made)
    losses = [sum(epoch["loss"].values()) for epoch in history(out)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_best_epoch_is_the_best_on_val(tmp_path):
    """Rates that destroy what was there: an early epoch is the best, and its checkpoint outlives later ones."""
    run = run_of("xpool", select="best", metric="t2v MnR", rate=0.3, epochs=6, warmup=0.0)
    out = train(run, tmp_path, prepare=made)
    epochs = history(out)
    best = min(epochs, key=lambda epoch: epoch["val"]["t2v MnR"])  # the first of equal ones
    assert json.loads((out / "history.json").read_text())["selected"]["step"] == best["step"] < epochs[-1]["step"]
    kept = load_file(tmp_path / "checkpoints" / f"step-{best['step']:07d}" / "weights.safetensors")
    found = load_file(out / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in kept.items())
    assert "best t2v MnR" in (out / "README.md").read_text()


def test_a_loss_that_is_no_number_names_step_and_terms(tmp_path):
    with pytest.raises(FloatingPointError, match=r"step \d: nce is nan.*--rate"):
        train(run_of("wti"), tmp_path, prepare=partial(made, noise=float("nan")))


def test_the_same_seed_gives_the_same_and_another_another(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed)  # whatever was drawn before
        train(run_of("xpool", epochs=1, seed=seed), tmp_path / name, prepare=made)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_a_tracker_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(LookupError, match=r"no tracker 'abacus'.*tensorboard"):
        train(run_of("wti", tracker="abacus"), tmp_path, prepare=made)
