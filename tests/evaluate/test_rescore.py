"""Re-scoring: what a query gets alone, what each function claims of its sums, and published numbers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rushes.cli import app
from rushes.evaluate import rescore
from rushes.evaluate.metrics import Positives, rank, ranks, summarise
from rushes.evaluate.rescore import (
    KINDS,
    Bank,
    choose,
    dual_softmax,
    inverted_softmax,
    qb_norm,
    sinkhorn,
    sinkhorn_bank,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "oracles"
BANKS = [qb_norm, inverted_softmax, sinkhorn_bank]


def random(seed: int, *shape: int) -> np.ndarray:
    """Like cosines of a model that has learnt something: the diagonal is higher."""
    return np.random.default_rng(seed).normal(0.2, 0.1, shape) + 0.15 * np.eye(*shape)


def oracle(file: str) -> np.ndarray:
    if not (DATA / file).is_file():
        pytest.skip(f"no oracle {file} beside the repository")
    return np.load(DATA / file, allow_pickle=False)


# --- what each is -----------------------------------------------------------------------------------------------------


def test_every_function_says_which_kind_it_is():
    public = {
        name
        for name, found in vars(rescore).items()
        if inspect.isfunction(found) and found.__module__ == rescore.__name__ and name[0] != "_"
    }
    assert public - {"choose"} == set(KINDS)
    for name in KINDS:
        assert (inspect.signature(getattr(rescore, name)).return_annotation == "Bank") == (KINDS[name] == "inductive")


@pytest.mark.parametrize("build", BANKS)
def test_with_a_bank_a_query_alone_gets_what_it_gets_among_others(build):
    bank, scores = build(random(0, 200, 30), 20.0), random(1, 40, 30)
    whole = bank.apply(scores)
    assert bank.kind == KINDS[build.__name__] == "inductive"
    for number, row in enumerate(scores):
        assert (bank.apply(row[None]) == whole[number]).all()
    others = np.concatenate([scores[:1], -scores[1:]])
    assert (bank.apply(others)[0] == whole[0]).all()


@pytest.mark.parametrize("function", [dual_softmax, sinkhorn])
def test_without_a_bank_other_queries_decide(function):
    """The same query in other company gets another order of the gallery: no search can do that."""
    assert KINDS[function.__name__] == "transductive"
    scores = random(2, 40, 30)
    alone, among = function(scores[:1], 20.0)[0], function(scores, 20.0)[0]
    assert (np.argsort(alone) != np.argsort(among)).any()
    if function is dual_softmax:
        np.testing.assert_allclose(alone, scores[0])  # alone it has nothing to learn from
    else:
        np.testing.assert_allclose(alone, alone[0])  # alone it must give each video an equal share


@pytest.mark.parametrize("function", [dual_softmax, sinkhorn, *BANKS])
def test_scores_are_left_alone_and_halves_become_doubles(function):
    scores = random(3, 20, 10).astype(np.float16)
    scores.setflags(write=False)
    found = function(scores, 10.0)
    result = found.apply(scores) if isinstance(found, Bank) else found
    assert result.dtype == np.float64
    exact = function(scores.astype(np.float64), 10.0)
    exact = exact.apply(scores.astype(np.float64)) if isinstance(exact, Bank) else exact
    assert (result == exact).all()


@pytest.mark.parametrize("function", [dual_softmax, sinkhorn])
def test_permuting_queries_and_gallery_permutes_the_scores(function):
    generator = np.random.default_rng(4)
    scores, rows, columns = random(4, 12, 9), generator.permutation(12), generator.permutation(9)
    np.testing.assert_allclose(
        function(scores[rows][:, columns], 20.0), function(scores, 20.0)[rows][:, columns], rtol=1e-9
    )


@pytest.mark.parametrize("build", BANKS)
def test_permuting_the_bank_or_the_gallery_permutes_the_scores(build):
    """Rounded scores, so that ties at the top are there too: none is broken by position."""
    generator = np.random.default_rng(5)
    bank, scores = random(5, 700, 9).round(1), random(6, 12, 9).round(1)
    rows, columns = generator.permutation(700), generator.permutation(9)
    np.testing.assert_allclose(
        build(bank[rows][:, columns], 20.0).apply(scores[:, columns]),
        build(bank, 20.0).apply(scores)[:, columns],
        atol=1e-12,
    )


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("function", [dual_softmax, sinkhorn, *BANKS])
def test_blocks_change_nothing(monkeypatch, function, rows):
    scores, queries = random(7, 50, 20), random(8, 5, 20)
    wanted = function(scores, 20.0)
    monkeypatch.setattr(rescore, "ROWS", rows)
    found = function(scores, 20.0)
    if isinstance(found, Bank):
        assert (found.activated == wanted.activated).all()
        found, wanted = found.apply(queries), wanted.apply(queries)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


# --- formulas ---------------------------------------------------------------------------------------------------------


def test_dual_softmax_is_the_released_codes():
    """sim * softmax(sim / temperature, dim=0) * len(sim)."""
    scores = random(9, 8, 6)
    prior = np.exp(scores / 0.05) / np.exp(scores / 0.05).sum(axis=0)
    np.testing.assert_allclose(dual_softmax(scores, 20.0), scores * prior * 8, rtol=1e-12)


def test_dual_softmax_refuses_what_would_round_to_nothing():
    with pytest.raises(
        ValueError, match="reach over 100 leave priors of 0 at beta 20, whose order is lost; take a beta below 7"
    ):
        dual_softmax(100 * np.eye(3), 20.0)
    assert np.isfinite(sinkhorn(100 * np.eye(3), 20.0)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000), st.sampled_from([0.1, 1.0, 20.0]))
def test_sinkhorn_gives_every_query_and_video_its_share(queries, videos, seed, beta):
    scores = np.random.default_rng(seed).uniform(-0.3, 0.3, (queries, videos))
    plan = np.exp(beta * sinkhorn(scores, beta, iterations=2000))
    np.testing.assert_allclose(plan.sum(axis=0), 1 / videos, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / queries, rtol=1e-3)
    change = sinkhorn(scores, beta) - scores  # a number a query plus a number a video
    np.testing.assert_allclose(change, change[:, :1] + change[:1] - change[0, 0], atol=1e-9)


def test_a_sinkhorn_bank_of_the_queries_themselves_ranks_as_sinkhorn_does():
    scores = random(10, 30, 30)
    assert (ranks(sinkhorn_bank(scores, 20.0).apply(scores)) == ranks(sinkhorn(scores, 20.0))).all()


def test_qb_norm_is_the_published_formula():
    """e^(beta s) over the bank's sum, where the best video is one that a caption of the bank finds first."""
    bank, scores, beta = random(11, 8, 12), random(12, 25, 12), 15.0
    learnt = qb_norm(bank, beta)
    hubs = set(bank.argmax(axis=1).tolist())
    assert 0 < len(hubs) < 12
    assert set(np.flatnonzero(learnt.activated)) == hubs
    theirs = scores.copy()
    for row in theirs:
        if row.argmax() in hubs:
            row[:] = np.exp(beta * row) / np.exp(beta * bank).sum(axis=0)
    ours = learnt.apply(scores)
    assert (np.argsort(theirs, axis=1) == np.argsort(ours, axis=1)).all()
    untouched = ~np.isin(scores.argmax(axis=1), list(hubs))
    assert untouched.any()
    assert (ours[untouched] == scores[untouched]).all()
    every = inverted_softmax(bank, beta).apply(scores)
    assert (every[~untouched] == ours[~untouched]).all()
    assert (every[untouched] != ours[untouched]).any()


@pytest.mark.parametrize("build", [qb_norm, inverted_softmax])
def test_hubness_has_the_units_of_scores(build):
    """A video that every caption of the bank scores h has hubness h, at any beta and whatever the size of the bank."""
    for size, beta in ((1, 20.0), (700, 3.0)):
        bank = np.tile([0.0, 0.3, -0.2], (size, 1))
        np.testing.assert_allclose(build(bank, beta).hubness, [0, 0.3, -0.2], atol=1e-12)


def test_qb_norm_activates_the_k_best():
    bank = np.array([[4.0, 3, 2, 1], [4.0, 2, 3, 3]])
    assert qb_norm(bank, 1.0).activated.tolist() == [True, False, False, False]
    assert qb_norm(bank, 1.0, k=2).activated.tolist() == [True, True, True, True]  # the last two share the second place
    assert qb_norm(bank[:1], 1.0, k=2).activated.tolist() == [True, True, False, False]
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"the {k} best of 4 videos"):
            qb_norm(bank, 1.0, k=k)


def test_nothing_overflows():
    bank, scores = random(13, 40, 12), random(14, 25, 12)
    plain, scaled = qb_norm(bank, 2000.0).apply(scores), qb_norm(100 * bank, 20.0).apply(100 * scores)
    assert np.isfinite(plain).all()
    assert (np.argsort(plain, axis=1) == np.argsort(scaled, axis=1)).all()
    assert np.isfinite(qb_norm(bank - 1000, 20.0).apply(scores)).all()


def test_some_of_the_gallery():
    """A search re-scores its candidates; the best of them decides, as it does of the gallery."""
    bank, scores = qb_norm(random(15, 40, 12), 15.0), random(16, 25, 12)
    some = np.array([7, 2, 11])
    assert (bank.take(np.arange(12)).apply(scores) == bank.apply(scores)).all()
    part = bank.take(some)
    assert (part.hubness == bank.hubness[some]).all()
    assert (part.activated == bank.activated[some]).all()
    best = scores.argmax(axis=1)[:, None]
    keeps = (best == some).any(axis=1)  # the best video is a candidate, so the same decision is made
    assert keeps.any()
    assert (part.apply(scores[keeps][:, some]) == bank.apply(scores[keeps])[:, some]).all()


@pytest.mark.parametrize("function", [dual_softmax, sinkhorn, *BANKS])
def test_what_is_refused(function):
    for beta in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="must be a positive number"):
            function(np.eye(3), beta)
    for scores in (np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), np.eye(3, dtype=bool)):
        with pytest.raises(ValueError, match="must be numbers, queries by videos"):
            function(scores, 1.0)
    with pytest.raises(ValueError, match=r"1 of 3 rows of .* have NaN or infinite"):
        function(np.diag([1.0, np.nan, 1.0]), 1.0)
    if function in (sinkhorn, sinkhorn_bank):
        with pytest.raises(ValueError, match="0 iterations"):
            function(np.eye(3), 1.0, iterations=0)


def test_another_gallery_is_refused():
    with pytest.raises(ValueError, match="scores of 4 videos, but the bank has seen 3"):
        qb_norm(np.eye(3), 1.0).apply(np.eye(4))


# --- temperature ------------------------------------------------------------------------------------------------------


def test_the_best_beta_of_a_validation_split_is_chosen():
    bank, scores = random(17, 300, 40), random(18, 40, 40)
    hub = np.zeros(40)
    hub[3] = 0.3
    bank, scores = bank + hub, scores + hub

    def function(scores, beta):
        return inverted_softmax(bank, beta).apply(scores)

    betas = [40.0, 0.01, 5.0, 20.0]
    for metric in ("R@1", "R@5", "MnR", "MdR", "MRR"):
        found = choose(function, betas, validation_scores=scores, metric=metric)
        assert list(found.table) == sorted(betas)
        for beta, value in found.table.items():
            summary = summarise(rank(function(scores, beta)).t2v)
            wanted = {
                "R@1": summary.recall[1],
                "R@5": summary.recall[5],
                "MnR": summary.mean_rank,
                "MdR": summary.median_rank,
                "MRR": summary.mrr,
            }
            assert value == wanted[metric]
        best = min(found.table.values()) if metric in ("MnR", "MdR") else max(found.table.values())
        assert found.beta == min(beta for beta, value in found.table.items() if value == best)
        assert metric != "MRR" or len(set(found.table.values())) == len(betas)


def test_choosing_takes_a_validation_split_by_name_and_betas():
    with pytest.raises(TypeError, match="positional"):
        choose(dual_softmax, [1.0], np.eye(3))  # type: ignore[misc]
    with pytest.raises(ValueError, match="no beta"):
        choose(dual_softmax, [], validation_scores=np.eye(3))
    relation = Positives.of_videos([0, 1, 0, 1], 2)
    found = choose(dual_softmax, [1.0], validation_scores=np.eye(4, 2) + 1, validation_positives=relation)
    assert found.table == {1.0: 0.75}  # texts 2 and 3 tie; their videos' priors do not


# --- published numbers ------------------------------------------------------------------------------------------------

PUBLISHED = {
    10: {"R@1": 19.9, "R@5": 47.0, "R@10": 60.1, "R@50": 86.2, "MdR": 7, "MnR": 28.7},
    20: {"R@1": 17.8, "R@5": 44.5, "R@10": 59.6, "R@50": 85.7},
    50: {"R@1": 16.3, "R@5": 42.8, "R@10": 57.9, "R@50": 85.1},
}


@pytest.mark.parametrize("beta", PUBLISHED)
def test_qb_norm_gives_what_its_authors_code_gives(beta):
    scores, bank = oracle("sims_test1k_first_caption.npy"), oracle("sims_querybank6k_x_test1k.npy")
    printed = summarise(rank(qb_norm(bank, beta).apply(scores)).t2v).printed()
    assert {name: round(printed[name], 1) for name in PUBLISHED[beta]} == PUBLISHED[beta]


@pytest.mark.parametrize("beta", PUBLISHED)
def test_the_command_gives_the_same(beta):
    oracle("sims_test1k_first_caption.npy"), oracle("sims_querybank6k_x_test1k.npy")
    result = call(
        DATA / "sims_test1k_first_caption.npy", "--rescore", "qbnorm",
        "--bank", DATA / "sims_querybank6k_x_test1k.npy", "--beta", beta, "--json",
    )  # fmt: skip
    assert {name: round(result["t2v"][name], 1) for name in PUBLISHED[beta]} == PUBLISHED[beta]
    assert round(result["raw"]["t2v"]["R@1"], 1) == 17.8


# --- the command ------------------------------------------------------------------------------------------------------


def call(*arguments: object) -> dict:
    result = CliRunner().invoke(app, ["metrics", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("name", "function"), [("dsl", lambda s: (dual_softmax(s, 5.0), dual_softmax(s.T, 5.0).T)), ("sinkhorn", None)]
)
def test_the_command_re_scores_both_directions_without_a_bank(tmp_path, name, function):
    scores, video = random(19, 24, 12), np.arange(24) % 12
    np.save(tmp_path / "s.npy", scores)
    (tmp_path / "g.txt").write_text("\n".join(map(str, video)))
    data = call(tmp_path / "s.npy", "--groups", tmp_path / "g.txt", "--rescore", name, "--beta", 5, "--json")
    to_video, to_text = function(scores) if function else [sinkhorn(scores, 5.0)] * 2
    relation = Positives.of_videos(video, 12)
    one, other, raw = rank(to_video, relation), rank(to_text, relation), rank(scores, relation)
    assert data["t2v"]["MnR"] == one.t2v.best().mean() != raw.t2v.best().mean()
    assert data["v2t"]["MnR"] == other.v2t.best().mean() != raw.v2t.best().mean()
    assert data["v2t_groups"]["MnR"] == other.v2t_groups.best().mean()
    assert data["raw"]["t2v"]["MnR"] == raw.t2v.best().mean()
    assert data["rescore"] == {"name": name, "kind": "transductive", "beta": 5.0, "directions": ["t2v", "v2t"]}


@pytest.mark.parametrize(("name", "build"), [("qbnorm", qb_norm), ("sinkhorn", sinkhorn_bank)])
def test_with_a_bank_the_command_leaves_video_to_text_raw_and_says_so(tmp_path, name, build):
    scores, bank = random(20, 600, 20), random(21, 100, 20)  # more texts than are re-scored at once
    for file, array in (("s", scores), ("b", bank), ("p", np.arange(600)[:, None] % 20 == np.arange(20))):
        np.save(tmp_path / f"{file}.npy", array)
    arguments = [tmp_path / "s.npy", "--positives", tmp_path / "p.npy", "--rescore", name, "--bank", tmp_path / "b.npy"]
    data = call(*arguments, "--json")
    relation = Positives.of_videos(np.arange(600) % 20, 20)
    wanted, raw = (ranks(one, relation).mean() for one in (build(bank, 20.0).apply(scores), scores))
    assert data["t2v"]["MnR"] == wanted != raw == data["raw"]["t2v"]["MnR"]
    assert data["v2t"] == data["raw"]["v2t"]
    assert data["rescore"] == {"name": name, "kind": "inductive", "beta": 20.0, "directions": ["t2v"]}
    result = CliRunner().invoke(app, ["metrics", *map(str, arguments)])
    assert f"t2v re-scored by {name}, which is inductive, at beta 20" in result.stderr
    labels = [line[:24].strip() for line in result.stdout.splitlines()]
    assert labels == ["", f"t2v {name}", "t2v", "v2t captions", "v2t groups"]


def test_a_bank_of_another_gallery_names_both_files(tmp_path):
    np.save(tmp_path / "s.npy", np.eye(3))
    np.save(tmp_path / "b.npy", np.ones((5, 4)))
    arguments = [tmp_path / "s.npy", "--rescore", "qbnorm", "--bank", tmp_path / "b.npy"]
    result = CliRunner().invoke(app, ["metrics", *map(str, arguments)])
    assert isinstance(result.exception, ValueError)
    assert "b.npy has 4 columns" in str(result.exception)
    assert "s.npy 3" in str(result.exception)
