"""Confidence: a probability that never falls with the score, fitted to truth, and tied to the weights."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rushes.backbones.base import Frames, Words
from rushes.cli import app
from rushes.data.features import folder_of
from rushes.index.exact import ExactIndex
from rushes.index.lance import LanceIndex
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.model import Model, load
from rushes.search.calibrate import (
    FEATURES,
    FILE,
    FORMAT,
    GOOD,
    RISING,
    Background,
    Calibration,
    Curve,
    Fit,
    Searches,
    Standing,
    calibration_error,
    draw_searches,
    fit,
    scorer,
)
from rushes.types import Segment, Tokens
from tests.tiny import tiny_clip

DIM = 16


def tokens_of(method: MeanPool | WTI, count: int, seed: int = 1) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(1 + number % 3, DIM, generator=draw) for number in range(count)]
    spans = [torch.arange(len(vector) + 1.0).unfold(0, 2, 1).double() for vector in vectors]
    with torch.no_grad():
        return method.encode_video(Frames.pack(vectors, spans))


def segments_of(count: int) -> list[Segment]:
    return [Segment(f"s{number:04d}", f"v{number // 4}", 3.0 * number, 3.0 * number + 3) for number in range(count)]


def index_of(method: MeanPool | WTI, count: int) -> ExactIndex:
    index = ExactIndex(DIM)
    if count:
        tokens = tokens_of(method, count)
        index.add(segments_of(count), method.summary(tokens).detach(), tokens)
    return index


def a_text(method: MeanPool | WTI, seed: int = 3) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(1, 4, DIM, generator=draw)
    with torch.no_grad():
        return method.encode_text(Words(vectors, torch.ones(1, 4, dtype=torch.bool), vectors.mean(dim=1)))


@pytest.fixture(params=[MeanPool, WTI])
def method(request) -> MeanPool | WTI:
    return request.param(DIM).eval()


def curve(**changes) -> Curve:
    weights = dict.fromkeys(FEATURES, 0.0) | {"score in a small library": 4.0, "score in a large library": 2.0}
    weights |= {"standing": 0.7, "size": -0.4, "centre": -1.0, "tail": -0.2} | changes
    return Curve(-1.0, tuple(weights.values()), (1.0, -0.2, 0.05, 0.5), (8.0, 0.2, 0.3, 5.0))


def calibration(method: MeanPool | WTI, **of) -> Calibration:
    fits = {"text": Fit(curve(), GOOD, 0.1, {"hits": 9}), "image": Fit(curve(standing=2.0), GOOD, 0.2)}
    elsewhere = replace(tokens_of(method, 40, seed=9), spans=None)
    about = {"digest": "d", "method": "wti", "switches": method.settings()} | of
    return Calibration(fits=fits, elsewhere=elsewhere, **about)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- confidence


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_it_is_a_probability_that_rises_with_the_score(method, count, kind):
    known, background = calibration(method), Background.of(method, index_of(method, count))
    scores = torch.linspace(-3, 3, 61)
    query = a_text(method)
    near = torch.arange(0.25, 0.2501, 1e-8, dtype=torch.float64)  # neighbours, as rounding would turn them round
    assert (known.confidence(method, query, near, background, kind=kind).diff() >= 0).all()
    found = known.confidence(method, query, scores, background, kind=kind)
    assert found.shape == scores.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert (found.diff() >= 0).all()
    assert (found[25:36].diff() > 0).all()
    assert torch.equal(known.confidence(method, query, scores.flip(0), background, kind=kind), found.flip(0))
    assert known.confidence(method, query, scores[:0], background, kind=kind).shape == (0,)


def test_where_all_scores_are_equal_it_is_one_number(method):
    tokens = tokens_of(method, 1)
    index = ExactIndex(DIM)
    every = Tokens.cat([tokens] * 8)
    index.add(segments_of(8), method.summary(every).detach(), every)
    query = a_text(method)
    scores = method.score(query, every)[0].detach()
    found = calibration(method).confidence(method, query, scores, Background.of(method, index))
    assert torch.isfinite(found).all()
    assert found.unique().numel() == 1


def test_a_score_that_stands_out_is_worth_more_than_the_same_score_that_does_not(method):
    """Two queries: one gets much everywhere. The same score is more of a find for the other."""
    known = calibration(method)
    near = Standing(0.1, 0.1, 2.0)
    far = Standing(-0.1, 0.1, 2.0)
    one, other = (known.fits["text"].curve(np.array([0.3]), standing, 100)[0] for standing in (near, far))
    assert other > one + 0.1


def test_the_own_library_counts_more_the_larger_it_is():
    own, elsewhere = np.linspace(1, 2, 11), np.linspace(-1, 0, 101)
    centres = [Standing.of(np.tile(own, times), elsewhere).centre for times in (1, 5, 100)]
    assert -0.5 < centres[0] < centres[1] < centres[2] < 1.5
    assert Standing.of(np.tile(own, 100), elsewhere, trust=0.0).centre == pytest.approx(1.5)


def test_a_filtered_search_is_a_search_in_fewer_segments(method):
    known, background = calibration(method), Background.of(method, index_of(method, 300))
    score, query = torch.tensor([0.2]), a_text(method)
    whole = known.confidence(method, query, score, background)
    assert float(known.confidence(method, query, score, background, segments=4)) > float(whole)
    assert float(known.confidence(method, query, score, background, segments=300)) == float(whole)


def test_what_the_fit_has_not_seen_of_a_query_changes_nothing_more():
    """Library sizes, centres and spreads beyond the fit's are taken as its last."""
    known = curve()
    score = np.array([0.2])
    usual = Standing(0.0, 0.1, 2.0)
    assert known(score, usual, 10**4) == known(score, usual, 10**9)
    assert known(score, replace(usual, centre=0.2), 10) == known(score, replace(usual, centre=5.0), 10)
    assert known(score, replace(usual, spread=0.05), 10) == known(score, replace(usual, spread=1e-9), 10)


def test_wrong_questions_are_errors(method):
    known, background = calibration(method), Background.of(method, index_of(method, 5))
    query = a_text(method)
    with pytest.raises(ValueError, match="one query, got 2"):
        known.confidence(method, Tokens.cat([query, query]), torch.zeros(1), background)
    alone = replace(known, fits={"text": known.fits["text"]})
    with pytest.raises(LookupError, match="'image' queries was not fitted; text was"):
        alone.confidence(method, query, torch.zeros(1), background, kind="image")


def test_match_is_told_by_the_best_hit(method):
    known = calibration(method)
    assert [known.match(best) for best in (None, 0.0, 0.09, 0.1, 0.49, 0.5, 1.0)] == [
        *["none"] * 3,
        *["weak"] * 2,
        *["good"] * 2,
    ]
    assert known.match(0.15, kind="image") == "none"


# ---------------------------------------------------------------------------------------------------- background


def test_the_sample_does_not_depend_on_the_order_of_indexing(method):
    tokens, segments = tokens_of(method, 60), segments_of(60)
    samples = []
    for order in (list(range(60)), list(range(59, -1, -1))):
        index = ExactIndex(DIM)
        for place in order:
            one = tokens[place : place + 1]
            index.add([segments[place]], method.summary(one).detach(), one)
        samples.append(Background.of(method, index, rows=20))
    assert [sample.segments for sample in samples] == [60, 60]
    assert torch.equal(samples[0].tokens.vectors, samples[1].tokens.vectors)
    assert len(samples[0].tokens) == 20


def test_it_is_kept_until_the_index_changes(method, tmp_path):
    tokens, segments = tokens_of(method, 12), segments_of(12)
    for index in (ExactIndex(DIM), LanceIndex(tmp_path, DIM, create=True)):
        index.add(segments[:8], method.summary(tokens[:8]).detach(), tokens[:8])
        first = Background.of(method, index)
        assert Background.of(method, index) is first
        assert len(Background.of(method, index, rows=3).tokens) == 3
        index.add(segments[8:], method.summary(tokens[8:]).detach(), tokens[8:])
        second = Background.of(method, index)
        assert (first.segments, second.segments, len(second.tokens)) == (8, 12, 12)
        index.remove(["v0"])
        assert Background.of(method, index).segments == 8


def test_a_background_of_nothing_is_an_error_unless_the_index_is_empty(method):
    empty = Background.of(method, ExactIndex(DIM))
    assert (len(empty.tokens), empty.segments) == (0, 0)
    with pytest.raises(ValueError, match="background of 0"):
        Background.of(method, ExactIndex(DIM), rows=0)
    with pytest.raises(ValueError, match="17 numbers, the method scores 16"):
        Background.of(method, ExactIndex(17))


# ----------------------------------------------------------------------------------------------------------- fit


def searches(count: int, seed: int, truth: Curve) -> Searches:
    """Hits whose relevance is drawn from a curve that is known."""
    random = np.random.default_rng(seed)
    score, centre, spread = (
        random.normal(0, 0.3, count),
        random.normal(0, 0.05, count),
        random.uniform(0.08, 0.12, count),
    )
    tail, segments = random.uniform(1, 4, count), random.choice([5, 50, 500], count)
    rows = np.arange(count)
    blank = Searches(
        score, centre, spread, tail, segments * 1.0, score > 9, rows % 10 + 1.0, rows // 10 * 1.0, rows * 1.0, score < 9
    )
    return replace(blank, relevant=random.random(count) < truth.of(blank))


def test_a_fit_finds_the_probabilities_that_the_truth_was_drawn_from():
    truth = replace(curve(), highest=(float(np.log(500)), 0.2, 0.3, 5.0))
    made = fit(searches(40_000, 0, truth))
    fresh = searches(40_000, 1, truth)
    found = made.curve.of(fresh)
    assert np.abs(found - truth.of(fresh)).mean() < 0.01
    assert calibration_error(found, fresh.relevant) < 0.01
    flat = np.full(len(fresh), fresh.relevant.mean())
    assert np.mean((found - fresh.relevant) ** 2) < 0.9 * np.mean((flat - fresh.relevant) ** 2)


def test_a_fit_never_falls_with_the_score():
    """Even where truth does in large libraries, and more so with the standing."""
    truth = curve(**{"score in a large library": -2.0, "standing": -0.2})
    made = fit(searches(20_000, 0, truth))
    assert min(made.curve.weights[:RISING]) >= 0
    assert max(made.curve.weights[:RISING]) > 0


def test_scores_that_tell_nothing_are_an_error():
    against = curve(**{"score in a small library": -4.0, "score in a large library": -4.0, "standing": -1.0})
    with pytest.raises(ValueError, match="not more often relevant"):
        fit(searches(5_000, 0, against))
    some = searches(100, 0, curve())
    with pytest.raises(ValueError, match="100 of 100 hits are relevant"):
        fit(replace(some, relevant=np.ones(100, dtype=bool)))


def test_at_most_one_in_ten_right_answers_is_called_none():
    drawn = searches(20_000, 3, curve())
    made = fit(drawn)
    first = drawn[drawn.rank == 1]
    best = made.curve.of(first)
    assert 0.08 < (best[first.relevant] < made.weak).mean() <= 0.1
    assert made.good == GOOD >= made.weak


@pytest.mark.parametrize("present", [True, False])
def test_drawn_libraries_hold_an_answer_or_none(present):
    random = np.random.default_rng(0)
    scores, elsewhere = random.normal(size=(30, 80)), random.normal(size=(30, 20))
    judged = random.choice([1, 0, -1], size=(30, 80), p=[0.05, 0.9, 0.05])
    judged[0] = 0  # nothing is relevant to this one
    found = draw_searches(scores, elsewhere, judged, range(30), 10, present=present, hits=10)
    assert set(found.present) == {present}
    assert set(found.segments) == {10}
    for number in set(found.search):
        rows = found[found.search == number]
        query = int(rows.query[0])
        assert (np.diff(rows.score) <= 0).all()
        assert (rows.rank >= 1).all()
        assert np.isin(rows.score, scores[query]).all()
        assert bool(rows.relevant.any()) is present
        if not present:
            assert len(rows) == 10  # nothing unknown was let in
    assert (0 in found.query) is not present


def test_libraries_are_no_larger_than_what_there_is():
    scores = np.random.default_rng(0).normal(size=(1, 30))
    judged = np.array([[1] + [0] * 29])
    whole = draw_searches(scores, scores, judged, [0], 500, present=True, hits=50)
    assert (len(whole), whole.segments[0], int(whole.relevant.sum())) == (30, 30, 1)
    assert draw_searches(scores, scores, judged, [0], 500, present=False).segments[0] == 29


def test_searches_are_numbered_anew_when_joined():
    one = searches(30, 0, curve())
    both = Searches.join([one, one])
    assert len(set(both.search)) == 2 * len(set(one.search))


def test_pictures_are_scored_several_at_once_as_one_by_one(method):
    videos, queries = tokens_of(method, 7), tokens_of(method, 4, seed=5)
    score = scorer("image", method)
    assert torch.equal(score(queries, videos)[2], score(queries[2:3], videos)[0])


# ------------------------------------------------------------------------------------------------------- storage


@pytest.fixture
def saved(tmp_path):
    """A folder with a model and a calibration of it."""
    torch.manual_seed(0)
    backbone = copy.deepcopy(tiny_clip())
    model = Model(backbone, WTI(backbone.dim)).eval()
    folder = tmp_path / "model"
    model.save(folder)
    model = load(folder)
    elsewhere = model.videos(Frames.pack([torch.randn(2, 24)] * 3, [torch.tensor([[0.0, 1.0], [1.0, 2.0]])] * 3))
    about = {"digest": model.digest(), "method": "wti", "switches": model.method.settings()}
    known = Calibration(fits={"text": Fit(curve(), GOOD, 0.1, {"hits": 9})}, elsewhere=elsewhere, **about)  # type: ignore[arg-type]
    known.save(folder / FILE)
    return folder, known


def test_what_is_read_answers_as_what_was_written(saved):
    folder, known = saved
    model = load(folder)
    read = Calibration.of(model)
    assert read is not None
    assert (read.digest, read.method, read.switches, read.fits) == (
        known.digest,
        known.method,
        known.switches,
        known.fits,
    )
    index = ExactIndex(24)
    background, query = Background.of(model.method, index), model.texts(["a dog"])
    scores = torch.linspace(-1, 1, 9)
    one, other = (each.confidence(model.method, query, scores, background) for each in (read, known))
    torch.testing.assert_close(one, other, atol=2e-3, rtol=0)  # elsewhere is kept in half precision
    assert not list(folder.glob("*.part"))


def test_one_of_other_weights_is_ignored_and_says_so(saved):
    folder, _ = saved
    model = load(folder)
    with torch.no_grad():
        next(model.method.parameters()).add_(0.1)
    model.save(folder)
    again = load(folder)
    with pytest.warns(UserWarning, match="fitted to other weights.*`rushes calibrate"):
        assert Calibration.of(again) is None
    assert Calibration.read(again)[0] is None


def test_one_of_other_switches_is_ignored_and_says_so(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    config["method"]["config"]["scale"] = 50.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="other switches of wti"):
        assert Calibration.of(load(folder)) is None


def test_a_model_without_one_has_none_and_no_warning(saved):
    folder, _ = saved
    (folder / FILE).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Calibration.of(load(folder)) is None
        assert Calibration.of(Model(tiny_clip(), MeanPool(24))) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "no calibration"), ("[]", "no calibration"), ("{}", "rushes"), (f'{{"rushes": {FORMAT + 1}}}', "update")],
)
def test_a_broken_file_is_an_error_that_names_it(saved, text, why):
    folder, _ = saved
    (folder / FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{FILE} is no calibration.*{why}" if why != "no calibration" else FILE):
        Calibration.of(load(folder))


def test_the_shipped_model_is_calibrated_for_its_own_weights():
    known = Calibration.of(load("small"))
    assert known is not None
    assert set(known.fits) == {"text", "image"}
    assert all(fit.about["calibration error"] < 0.02 for fit in known.fits.values())


# ------------------------------------------------------------------------------------------------------- command


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Captioned pictures of blots, most of them of split val."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    lines = ["picture,caption,split"]
    nouns, places = ("dog", "cat", "man", "woman", "ball"), ("beach", "snow", "frisbee", "red")
    for number in range(190):
        small = random.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"{number:03d}.png"), cv2.resize(small, (60, 48), interpolation=cv2.INTER_NEAREST))
        split = "train" if number < 20 else "val"
        said = (f"a {nouns[number % 5]} on the {place}" for place in random.choice(places, 2))
        lines += [f"{number:03d}.png,{caption},{split}" for caption in said]
    (root / "captions.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_command_fits_a_model_and_leaves_other_features_alone(saved, pictures, tmp_path):
    folder, _ = saved
    (folder / FILE).unlink()
    said = ["calibrate", str(folder), "--root", str(pictures), "--features", str(tmp_path / "features")]
    done = CliRunner().invoke(app, [*said, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["file"] == str(folder / FILE)
    assert "image" in told["fits"]  # of random weights, likeness still tells pictures apart; texts tell nothing
    known = Calibration.of(load(folder))
    assert known is not None
    assert set(known.fits) == set(told["fits"])
    assert known.fits["image"].about["libraries"] == [5, 20, 100]
    assert known.fits["image"].about["calibration error"] < 0.05
    # features of a part of the training reels are not found as if they were those of the split
    assert folder_of(tmp_path / "features", "reels", "shot", "val").name.startswith("reels-shot-val")
    with pytest.raises(LookupError):
        folder_of(tmp_path / "features", "reels", "shot", "train")


def test_an_installed_model_is_not_written_to(pictures):
    done = CliRunner().invoke(app, ["calibrate", "small", "--root", str(pictures)])
    assert isinstance(done.exception, ValueError)
    assert "installed package" in str(done.exception)
