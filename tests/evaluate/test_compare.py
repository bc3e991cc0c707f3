"""Intervals cover as often as they say, tests reject as seldom as they say, and groups stay together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rushes.evaluate import compare
from rushes.evaluate.compare import Run, bootstrap, over_seeds, paired_bootstrap, paired_randomisation
from rushes.evaluate.metrics import rank


def run(values, groups=None, statistic="mean") -> Run:
    return Run(range(len(values)), np.asarray(values), groups, statistic)


def clustered(generator: np.random.Generator, groups: int, captions: int, mean: float = 0.0) -> np.ndarray:
    """Queries of a group share most of what they get."""
    return mean + np.repeat(generator.standard_normal(groups), captions) + generator.normal(0, 0.5, groups * captions)


# --- calibration ------------------------------------------------------------------------------------------------------


def test_intervals_over_groups_cover_as_they_say_and_those_over_queries_do_not():
    generator, trials, groups = np.random.default_rng(5), 300, 60
    video = np.repeat(np.arange(groups), 8)
    covered = np.zeros(2)
    for trial in range(trials):
        values = clustered(generator, groups, 8)
        for number, labels in enumerate((video, None)):
            found = bootstrap(run(values, labels), repetitions=400, seed=trial)
            covered[number] += found.low <= 0 <= found.high
    assert 0.90 < covered[0] / trials < 0.98  # 0.946 in 3,000 trials; one deviation is 0.013 in 300
    assert covered[1] / trials < 0.65  # some 0.5


@pytest.mark.parametrize("test", [paired_randomisation, paired_bootstrap])
def test_equal_runs_are_told_apart_as_seldom_as_p_says(test):
    generator, trials = np.random.default_rng(1), 300
    video = np.repeat(np.arange(60), 4)
    wrong = 0
    for trial in range(trials):
        hard = clustered(generator, 60, 4)
        first, second = (hard + clustered(generator, 60, 4) for _ in range(2))
        wrong += test(run(first, video), run(second, video), repetitions=300, seed=trial).p <= 0.05
    assert 0.01 < wrong / trials < 0.10


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("test", [paired_randomisation, paired_bootstrap])
def test_different_runs_are_told_apart(test, statistic):
    generator = np.random.default_rng(2)
    hard = generator.standard_normal(200)
    first, second = hard + generator.normal(0, 0.3, 200), hard + generator.normal(0.3, 0.3, 200)
    found = test(run(first, None, statistic), run(second, None, statistic), repetitions=1000)
    assert found.p < 0.02
    assert found.difference == found.second - found.first > 0
    back = test(run(second, None, statistic), run(first, None, statistic), repetitions=1000)
    assert back.difference == -found.difference
    assert back.p < 0.02
    # unpaired the difference drowns in what all queries share
    assert bootstrap(run(first)).high > bootstrap(run(second)).low


# --- an independent reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_randomisation_comes_near_the_exact_test(statistic):
    """All 2^8 ways of swapping groups, one by one."""
    generator = np.random.default_rng(3)
    video = np.repeat(np.arange(8), [1, 2, 3, 1, 2, 3, 1, 2])
    first = generator.integers(0, 9, len(video)).astype(float)
    second = first + generator.integers(-2, 5, len(video))
    of = np.mean if statistic == "mean" else np.median
    observed = abs(of(second) - of(first))
    extreme = 0
    for swap in itertools.product([False, True], repeat=8):
        swapped = np.array(swap)[video]
        difference = of(np.where(swapped, first, second)) - of(np.where(swapped, second, first))
        extreme += abs(difference) >= observed - 1e-12
    found = paired_randomisation(run(first, video, statistic), run(second, video, statistic), repetitions=20_000)
    assert found.p == pytest.approx(extreme / 256, abs=0.02)
    assert 0 < extreme / 256 < 0.9


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_the_bootstrap_is_drawing_groups_and_computing_again(statistic):
    """The same interval from copies of the queries themselves, one repetition at a time."""
    generator = np.random.default_rng(4)
    video = generator.permutation(np.repeat(np.arange(12), [1, 2, 3, 4] * 3))
    values = generator.integers(1, 40, 30)
    found = bootstrap(run(values, video, statistic), repetitions=8000, level=0.8)
    slow = []
    for _ in range(8000):
        drawn = generator.integers(12, size=12)
        copies = np.concatenate([values[video == group] for group in drawn])
        slow.append(copies.mean() if statistic == "mean" else np.median(copies))
    low, high = np.quantile(slow, [0.1, 0.9])
    assert found.low == pytest.approx(low, abs=0.5)
    assert found.high == pytest.approx(high, abs=0.5)
    assert found.estimate == (values.mean() if statistic == "mean" else np.median(values))
    assert (found.queries, found.groups, found.repetitions, found.level) == (30, 12, 8000, 0.8)


def test_medians_of_copies_are_numpys():
    generator = np.random.default_rng(5)
    values = np.sort(generator.integers(0, 9, 15)).astype(float)
    weights = generator.integers(0, 3, (50, 15))
    wanted = [np.median(np.repeat(values, row)) for row in weights]
    assert compare._medians(values, weights).tolist() == wanted


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("bytes_", [1, 100_000])
def test_results_depend_on_the_seed_and_not_on_blocks(monkeypatch, bytes_, statistic):
    generator = np.random.default_rng(6)
    video = np.repeat(np.arange(25), 4)
    first, second = (run(clustered(generator, 25, 4), video, statistic) for _ in range(2))

    def all_three(seed: int):
        return [
            bootstrap(first, repetitions=300, seed=seed),
            paired_bootstrap(first, second, repetitions=300, seed=seed),
            paired_randomisation(first, second, repetitions=300, seed=seed),
        ]

    wanted = all_three(0)
    assert all_three(1) != wanted
    monkeypatch.setattr(compare, "BLOCK_BYTES", bytes_)
    for one, other in zip(all_three(0), wanted, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high)) if hasattr(one, "estimate") else True
        assert getattr(one, "p", 0) == getattr(other, "p", 0)


def test_queries_are_matched_by_id_and_order_is_nothing():
    generator = np.random.default_rng(7)
    values, others, video = generator.random(30), generator.random(30), np.repeat(np.arange(10), 3)
    order = generator.permutation(30)
    first = Run([f"q{n}" for n in range(30)], values, video)
    second = Run([f"q{n}" for n in range(30)], others, video)
    moved = Run([f"q{n}" for n in order], others[order], video[order])
    assert paired_bootstrap(first, second, repetitions=99) == paired_bootstrap(first, moved, repetitions=99)
    assert paired_randomisation(first, second, repetitions=99) == paired_randomisation(first, moved, repetitions=99)


def test_one_group_tells_nothing_and_equal_runs_do_not_differ():
    values = np.arange(6.0)
    single = bootstrap(run(values, ["v"] * 6))
    assert single.low == single.high == single.estimate == 2.5
    assert paired_randomisation(run(values, ["v"] * 6), run(values + 1, ["v"] * 6)).p == 1
    for test in (paired_randomisation, paired_bootstrap):
        assert test(run(values), run(values)).p == 1
        assert test(run(values), run(values)).difference == 0


def test_p_is_never_zero_and_lies_where_the_interval_does():
    first, second = run(np.zeros(50)), run(np.ones(50))
    assert paired_randomisation(first, second, repetitions=999).p == 1 / 1000
    found = paired_bootstrap(first, second, repetitions=999)
    assert found.p == 2 / 1000
    assert (found.low, found.high, found.level, found.test) == (1, 1, 0.95, "paired bootstrap")
    assert paired_randomisation(first, second, repetitions=9).low is None


def test_from_a_score_matrix_to_an_interval():
    scores = np.random.default_rng(8).standard_normal((40, 40)) + np.eye(40)
    found = rank(scores).t2v
    assert found is not None
    recall = bootstrap(run(found.per_query("R@5")))
    assert recall.estimate == found.recall(5).mean()
    assert 0 <= recall.low < recall.estimate < recall.high <= 1
    median = bootstrap(run(found.per_query("MdR"), statistic="median"))
    assert median.estimate == np.median(found.best())


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "one number a query, at least one"),
        (("ab", np.ones((2, 1))), "one number a query"),
        (("ab", [1.0, np.nan]), "1 of 2 queries have NaN"),
        (("abc", [1.0, 2.0]), "3 ids for 2 queries"),
        (("ab", [1.0, 2.0], "v"), "1 groups for 2 queries"),
        (("aa", [1.0, 2.0]), "1 of 2 query ids are repeated"),
        (("ab", [1.0, 2.0], None, "mode"), "no statistic 'mode'"),
    ],
)
def test_runs_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Run(*arguments)


@pytest.mark.parametrize("test", [paired_bootstrap, paired_randomisation])
def test_runs_that_are_no_pair(test):
    first = Run("abc", np.zeros(3), "xyz")
    for second, message in (
        (Run("abd", np.zeros(3), "xyz"), "1 queries are in the first run only, 1 in the second only .*'c'"),
        (Run("ab", np.zeros(2), "xy"), "1 queries are in the first run only, 0 in the second"),
        (Run("abcd", np.zeros(4), "xyzz"), "0 queries are in the first run only, 1 in the second"),
        (Run("abc", np.zeros(3), "xyy"), "1 of 3 queries are in another group in the second run; the first is 'c'"),
        (Run("abc", np.zeros(3)), "one run has groups, the other none"),
        (Run("abc", np.zeros(3), "xyz", "median"), "one run is a mean, the other a median"),
    ):
        with pytest.raises(ValueError, match=message):
            test(first, second)
    with pytest.raises(ValueError, match="0 repetitions"):
        test(first, first, repetitions=0)
    with pytest.raises(ValueError, match="level 95 must lie between 0 and 1"):
        bootstrap(first, level=95)


def test_seeds():
    found = over_seeds([44.8, 47.0, 45.1, 46.2, 45.9])
    assert found.mean == pytest.approx(45.8)
    assert found.deviation == pytest.approx(np.sqrt(np.square([-1, 1.2, -0.7, 0.4, 0.1]).sum() / 4))
    assert found.seeds == 5
    for values in ([45.0], [[44.0, 45.0]], []):
        with pytest.raises(ValueError, match="at least two seeds"):
            over_seeds(values)
    with pytest.raises(ValueError, match="1 of 2 seeds"):
        over_seeds([1.0, np.nan])
