"""Ranks and what is made of them: laws, hand values, a slow reference, and numbers of published code."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rushes.cli import app
from rushes.evaluate.metrics import METRICS, Positives, Ranks, positives_of, rank, ranks, summarise

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
POLICIES = ("optimistic", "expected", "pessimistic")


def t2v(scores, positives=None) -> Ranks:
    found = rank(scores, positives, ["t2v"]).t2v
    assert found is not None
    return found


# --- a slow reference: every order of equal scores, one by one -------------------------------------------------------


def orders_of(line: np.ndarray) -> list[tuple[int, ...]]:
    """Every order of a gallery that has higher scores first."""
    blocks = [np.flatnonzero(line == value).tolist() for value in sorted(set(line.tolist()), reverse=True)]
    return [tuple(itertools.chain(*order)) for order in itertools.product(*map(itertools.permutations, blocks))]


def of_order(order: tuple[int, ...], right: set[int], metric: str) -> Fraction | float:
    """One metric of one query whose gallery stands in this order."""
    at = [place for place, item in enumerate(order, start=1) if item in right]
    name, _, k = metric.partition("@")
    if name == "R":
        return Fraction(int(at[0] <= int(k)))
    if name in ("MdR", "MnR"):
        return Fraction(at[0])
    if name == "MRR":
        return Fraction(1, at[0])
    if name == "mAP":
        return sum((Fraction(number, place) for number, place in enumerate(at, start=1)), Fraction(0)) / len(at)
    gain = sum(1 / np.log2(1 + place) for place in at if place <= int(k))
    return gain / sum(1 / np.log2(1 + place) for place in range(1, min(len(at), int(k)) + 1))


def slow(scores: np.ndarray, positives: np.ndarray, metric: str, ties: str) -> list[float]:
    found = []
    for line, mask in zip(scores, positives, strict=True):
        right = set(np.flatnonzero(mask).tolist())
        values = [of_order(order, right, metric) for order in orders_of(line)]
        if ties == "expected":
            found.append(float(sum(values) / len(values)))
        else:
            lower_is_better = metric in ("MdR", "MnR")
            found.append(float(min(values) if (ties == "optimistic") == lower_is_better else max(values)))
    return found


@st.composite
def small_cases(draw) -> tuple[np.ndarray, np.ndarray]:
    """A small matrix full of ties, with a positive in every row and column."""
    texts, videos = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    values = st.lists(st.integers(0, 3), min_size=texts * videos, max_size=texts * videos)
    scores = np.array(draw(values), np.float32).reshape(texts, videos) / 4
    bits = st.lists(st.booleans(), min_size=texts * videos, max_size=texts * videos)
    positives = np.array(draw(bits)).reshape(texts, videos)
    for number in range(max(texts, videos)):
        positives[number % texts, number % videos] = True
    return scores, positives


@settings(deadline=None, max_examples=60)
@given(small_cases())
def test_every_metric_under_every_policy_is_what_all_orders_of_ties_give(case):
    scores, positives = case
    ranking = rank(scores, positives)
    for found, s, p in ((ranking.t2v, scores, positives), (ranking.v2t, scores.T, positives.T)):
        assert found is not None
        for metric, ties in itertools.product((*METRICS, "R@2", "R@3", "nDCG@1", "nDCG@3"), POLICIES):
            np.testing.assert_allclose(
                found.per_query(metric, ties), slow(s, p, metric, ties), rtol=1e-12, err_msg=metric
            )


def test_positives_that_tie_among_themselves_by_hand():
    """Scores 3 2 2 2 1, positives at one 2 and another 2: the better of two of three places after the first."""
    found = t2v(np.array([[3.0, 2, 2, 2, 1]]), [[False, True, True, False, False]])
    assert found.best("optimistic").tolist() == [2]
    assert found.best("pessimistic").tolist() == [3]
    assert found.best().tolist() == [1 + 4 / 3]  # the least of 2 draws from 1, 2, 3 is 1, 1 or 2
    np.testing.assert_allclose(found.recall(2), [2 / 3])
    np.testing.assert_allclose(found.reciprocal(), [2 / 3 * 1 / 2 + 1 / 3 * 1 / 3])
    average = [(1 / 2 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2, (1 / 3 + 2 / 4) / 2]
    np.testing.assert_allclose(found.average_precision(), [sum(average) / 3])


# --- laws ------------------------------------------------------------------------------------------------------------


def test_policies_agree_without_ties_and_bracket_with_them():
    generator = np.random.default_rng(0)
    free, positives = generator.permutation(600).reshape(20, 30).astype(float), generator.random((20, 30)) < 0.2
    positives[np.arange(20), np.arange(20)] = True
    tied = np.floor(free / 100)
    for metric in METRICS:
        low, middle, high = (t2v(free, positives).per_query(metric, ties) for ties in POLICIES)
        np.testing.assert_allclose(low, middle, rtol=1e-12)
        np.testing.assert_allclose(high, middle, rtol=1e-12)
        low, middle, high = (t2v(tied, positives).per_query(metric, ties) for ties in POLICIES)
        sign = 1 if metric in ("MdR", "MnR") else -1
        assert (sign * (middle - low) >= -1e-12).all()
        assert (sign * (high - middle) >= -1e-12).all()
        assert metric == "R@50" or (low != high).any()  # 30 videos
    assert not t2v(free, positives).tied_queries().any()


def test_rank_is_one_plus_what_scores_strictly_higher():
    scores = np.random.default_rng(0).standard_normal((50, 50))
    assert ranks(scores).tolist() == [1 + int((row > row[i]).sum()) for i, row in enumerate(scores)]


def test_permuting_texts_and_videos_permutes_the_ranks():
    generator = np.random.default_rng(1)
    scores, positives = generator.integers(0, 9, (40, 30)).astype(np.float32), generator.random((40, 30)) < 0.1
    positives[np.arange(40), np.arange(40) % 30] = True
    rows, columns = generator.permutation(40), generator.permutation(30)
    plain, moved = rank(scores, positives), rank(scores[rows][:, columns], positives[rows][:, columns])
    for metric in METRICS:
        np.testing.assert_array_equal(moved.t2v.per_query(metric), plain.t2v.per_query(metric)[rows])
        np.testing.assert_array_equal(moved.v2t.per_query(metric), plain.v2t.per_query(metric)[columns])


def test_video_to_text_is_text_to_video_of_the_transpose():
    generator = np.random.default_rng(2)
    scores, positives = generator.integers(0, 9, (40, 30)).astype(float), generator.random((40, 30)) < 0.2
    positives[np.arange(40), np.arange(40) % 30] = True
    one, other = rank(scores, positives), rank(scores.T, positives.T)
    for metric in METRICS:
        np.testing.assert_array_equal(one.v2t.per_query(metric), other.t2v.per_query(metric))
    assert one.v2t.convention == "captions"
    assert one.t2v.convention is None


def test_another_score_for_one_text_moves_no_other_text():
    scores = np.random.default_rng(3).standard_normal((20, 20))
    changed = scores.copy()
    changed[7] = -scores[7]
    assert (np.delete(ranks(changed), 7) == np.delete(ranks(scores), 7)).all()
    assert ranks(changed)[7] == 21 - ranks(scores)[7]


def test_scores_are_left_alone():
    scores = np.random.default_rng(4).standard_normal((600, 5)).astype(np.float16)
    before, positives = scores.copy(), Positives.of_videos(np.arange(600) % 5, 5)
    scores.setflags(write=False)
    rank(scores, positives)
    assert scores.dtype == np.float16
    assert (scores == before).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_counting_is_exact_in_every_type(dtype):
    """float64 scores that fp32 cannot tell apart stay apart; fp16 ones are compared as they are."""
    scores = np.array([[1.0, 1.0 + 1e-12, 0]]) if dtype is np.float64 else np.array([[1, 2, 0]], dtype)
    assert t2v(scores, [[True, False, False]]).best().tolist() == [2]
    assert t2v(scores.astype(np.float32), [[True, False, False]]).best()[0] == (1.5 if dtype is np.float64 else 2)


# --- defects of the field ---------------------------------------------------------------------------------------------


def test_half_precision_changes_no_number_of_queries():
    """Public code finds the rank where the sorted line equals the diagonal: a tie becomes another query, NaN none."""
    generator = np.random.default_rng(5)
    scores = generator.normal(0.6, 0.02, (400, 400)) + 0.05 * np.eye(400)
    half = scores.astype(np.float16)
    descending = -np.sort(-half.astype(np.float32), axis=1)
    theirs = np.nonzero(descending == np.diag(half).astype(np.float32)[:, None])[1]
    assert len(theirs) > 500  # the defect is there to be had
    for stored in (scores, scores.astype(np.float32), half):
        assert len(ranks(stored)) == 400
    exact, rounded = summarise(t2v(scores)), summarise(t2v(half))
    assert rounded.tied > 0.1
    assert exact.tied == 0
    assert abs(exact.recall[1] - rounded.recall[1]) < 0.01
    assert abs(exact.recall[1] - (theirs == 0).mean()) > 0.05


def test_a_coin_toss_is_half_a_hit():
    """The indicator of the expected rank would say R@1 = 0 for a pair of duplicates in the gallery."""
    pairs = np.repeat(np.eye(50), 2, axis=1)
    summary = summarise(t2v(pairs, Positives.of_videos(2 * np.arange(50), 100)))
    assert summary.recall[1] == 0.5
    assert summary.tied == 1


def test_padding_rows_cannot_enter():
    """1,000 texts on 8 processes are 1,008 rows; their last 8 are the first again."""
    generator = np.random.default_rng(6)
    scores = generator.standard_normal((1000, 20))
    positives = Positives.of_videos(np.arange(1000) % 20, 20)
    padded = np.concatenate([scores, scores[:8]])
    share = len(padded) // 8
    with pytest.raises(ValueError, match="sticks out of 1000 texts x 20 videos: cut padding off"):
        rank(lambda: ((share * i, 0, padded[share * i : share * (i + 1)]) for i in range(8)), positives)
    with pytest.raises(ValueError, match="positives are for 1000 texts x 20 videos, scores for 1008 x 20"):
        rank(padded, positives)
    with pytest.raises(ValueError, match="at text 992"):
        rank(lambda: ((124 * i, 0, scores[124 * i : 124 * (i + 1)]) for i in range(8)), positives)


def test_a_pair_twice_or_never_is_noticed():
    scores, positives = np.random.default_rng(7).standard_normal((4, 4)), Positives.diagonal(4)

    def tiles(*corners):
        return lambda: ((row, column, scores[row : row + 2, column : column + 2]) for row, column in corners)

    whole = rank(tiles((0, 0), (0, 2), (2, 0), (2, 2)), positives)
    assert (whole.t2v.best() == ranks(scores)).all()
    for corners in (
        [(0, 0), (0, 2), (2, 0)],
        [(0, 0), (0, 2), (0, 2), (2, 2)],
        [(0, 0), (2, 0), (0, 2), (2, 2)],
        [(0, 0), (0, 2), (2, 0), (2, 2), (2, 2)],
    ):
        with pytest.raises(ValueError, match=r"due|end at|sticks out"):
            rank(tiles(*corners), positives)


def test_scores_that_change_between_the_passes_are_noticed():
    generator = np.random.default_rng(8)
    with pytest.raises(ValueError, match="changed between two passes"):
        rank(lambda: [(0, 0, generator.standard_normal((3, 3)))], Positives.diagonal(3))


def test_a_scorer_that_cheats_with_the_diagonal_is_noticed_where_sizes_differ():
    with pytest.raises(ValueError, match="3 texts x 2 videos have no diagonal"):
        rank(np.zeros((3, 2)))


# --- adversarial matrices ---------------------------------------------------------------------------------------------


def test_all_tied():
    summary = summarise(t2v(np.zeros((10, 10))))
    assert summary.recall[1] == pytest.approx(0.1)
    assert summary.recall[5] == pytest.approx(0.5)
    assert summary.recall[10] == summary.recall[50] == 1
    assert summary.mean_rank == summary.median_rank == 5.5
    assert summary.mrr == pytest.approx(sum(1 / n for n in range(1, 11)) / 10)
    assert summary.tied == 1
    assert summarise(t2v(np.zeros((10, 10))), "optimistic").recall[1] == 1
    assert summarise(t2v(np.zeros((10, 10))), "pessimistic").mean_rank == 10


def test_one_pair():
    ranking = rank(np.array([[-3.0]]))
    for found in (ranking.t2v, ranking.v2t):
        summary = summarise(found)
        assert (summary.recall[1], summary.mean_rank, summary.mrr, summary.ndcg) == (1, 1, 1, 1)
        assert (summary.queries, summary.gallery, summary.tied) == (1, 1, 0)
    assert ranking.v2t_groups is None


def test_everything_is_right():
    summary = summarise(t2v(np.zeros((3, 4)), np.ones((3, 4), bool)))
    assert summary.recall[1] == summary.mrr == summary.ndcg == summary.mean_average_precision == 1
    assert summary.tied == 0


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_rank_is_an_error(shape):
    with pytest.raises(ValueError, match="nothing to rank"):
        rank(np.zeros(shape), np.zeros(shape, bool))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "3 of 4 texts have NaN scores, the first is text 1"), (-np.inf, "3 of 4 texts have infinite scores")],
)
def test_what_is_no_number_is_counted(value, message):
    scores = np.zeros((4, 4))
    scores[[1, 2, 2, 3], [0, 1, 2, 3]] = value
    with pytest.raises(ValueError, match=message):
        rank(scores)


def test_nan_and_infinity_are_told_apart():
    scores = np.zeros((4, 4), np.float16)
    scores[1, 1], scores[2, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="1 of 4 texts have NaN scores and 1 of 4 texts have infinite scores"):
        rank(scores)


def test_queries_without_positives_are_counted():
    positives = np.eye(4, dtype=bool)
    positives[1, 1] = positives[2, 2] = False
    with pytest.raises(ValueError, match="2 of 4 texts have no positive, so no rank; the first is text 1"):
        rank(np.zeros((4, 4)), positives)
    with pytest.raises(ValueError, match=r"1 of 5 videos have no positive.* video 4"):
        rank(np.zeros((4, 5)), np.eye(4, 5, dtype=bool))
    assert summarise(t2v(np.eye(4, 5), np.eye(4, 5, dtype=bool))).gallery == 5  # a distractor is fine in the gallery


@pytest.mark.parametrize(
    ("positives", "message"),
    [
        ([[0, 5]], "names video 5 of 3"),
        ([[-1, 0]], "names text -1 of 3"),
        (np.eye(2, dtype=bool), "are a 3 x 3 matrix of bool or 0/1, or integer pairs"),
        (np.eye(3, dtype=int) * 2, "holds 0 and 1 only; it has \\[2\\]"),
        (np.eye(3), "is bool or 0/1"),
    ],
)
def test_relations_that_make_no_sense(positives, message):
    with pytest.raises(ValueError, match=message):
        positives_of(positives, (3, 3))


def test_a_relation_is_the_same_however_it_is_given():
    video = [0, 0, 1, 2, 2]
    matrix = np.arange(3) == np.array(video)[:, None]
    pairs = np.array([[4, 2], [0, 0], [1, 0], [3, 2], [2, 1], [2, 1]])
    wanted = Positives.of_videos(video, 3)
    for given_as in (matrix, matrix.astype(int), pairs, wanted):
        found = positives_of(given_as, (5, 3))
        assert (found.text.tolist(), found.video.tolist()) == (wanted.text.tolist(), wanted.video.tolist())
    with pytest.raises(ValueError, match="as bool leaves no doubt"):
        positives_of([[0, 1], [1, 0]], (2, 2))


def test_unknown_names():
    with pytest.raises(LookupError, match="no metric 'R1'; there are R@1, "):
        t2v(np.eye(2)).per_query("R1")
    for metric in METRICS:
        with pytest.raises(ValueError, match="no policy 'random'"):
            t2v(np.eye(2)).per_query(metric, "random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no direction 'v2v'"):
        rank(np.eye(2), directions=["v2v"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="no median 'upper'"):
        summarise(t2v(np.eye(2)), median="upper")  # type: ignore[arg-type]


# --- several captions -------------------------------------------------------------------------------------------------


def test_both_conventions_by_hand():
    """Two captions of video 0, one of video 1. Video 1 likes both captions of video 0 better than its own."""
    scores = np.array([[0.9, 0.8], [0.1, 0.7], [0.5, 0.6]])
    ranking = rank(scores, Positives.of_videos([0, 0, 1], 2))
    assert ranking.v2t.best().tolist() == [1, 3]
    assert ranking.v2t_groups.best().tolist() == [1, 2]
    assert (ranking.v2t.gallery, ranking.v2t_groups.gallery) == (3, 2)
    assert (ranking.v2t.convention, ranking.v2t_groups.convention) == ("captions", "groups")


def test_with_one_caption_each_there_is_one_convention():
    """Grouping by ones changes nothing, whatever the order of texts."""
    scores = np.random.default_rng(9).standard_normal((30, 30))
    order = np.random.default_rng(10).permutation(30)
    ranking = rank(scores, Positives.of_videos(order, 30))
    assert ranking.v2t_groups is None
    by_group = np.empty_like(scores)
    by_group[order] = scores
    assert (ranking.v2t.best() == rank(by_group).v2t.best()).all()


def test_texts_of_two_videos_form_no_groups():
    ranking = rank(np.eye(3), np.ones((3, 3), bool))
    assert ranking.v2t is not None
    assert ranking.v2t_groups is None


@pytest.mark.parametrize("height", [1, 7, 90])
def test_groups_do_not_depend_on_blocks(height):
    generator = np.random.default_rng(11)
    video = generator.permutation(np.arange(90) % 20)
    scores, positives = generator.integers(0, 50, (90, 20)).astype(np.float32), Positives.of_videos(video, 20)
    slow_groups = np.stack([scores[video == v].max(axis=0) for v in range(20)])
    wanted = 1 + np.array([(slow_groups[:, v] > slow_groups[v, v]).sum() for v in range(20)])
    found = rank(lambda: ((row, 0, scores[row : row + height]) for row in range(0, 90, height)), positives)
    assert (found.v2t_groups.best("optimistic") == wanted).all()


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1100, 600), (512, 512), (513, 1), (700, 1025)])
def test_tiles_of_any_size_give_what_the_matrix_gives(shape):
    generator = np.random.default_rng(12)
    scores = generator.integers(0, 200, shape).astype(np.float32)
    numbers = np.arange(max(shape))
    relation = Positives.of_pairs(np.stack([numbers % shape[0], numbers % shape[1]], axis=1), *shape)
    whole = rank(scores, relation)

    def tiles():
        rows = [0, *np.sort(generator.choice(np.arange(1, shape[0]), 3, replace=False)), shape[0]]
        for top, bottom in itertools.pairwise(map(int, rows)):
            columns = sorted({0, shape[1] // 3, shape[1] // 2, shape[1]})
            for left, right in itertools.pairwise(columns):
                yield top, left, scores[top:bottom, left:right]

    state = generator.bit_generator.state

    def same_each_time():
        generator.bit_generator.state = state
        return tiles()

    streamed = rank(same_each_time, relation)
    for one, other in ((whole.t2v, streamed.t2v), (whole.v2t, streamed.v2t)):
        for field in ("query", "above", "tied", "own_above", "own_tied"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    positives = np.zeros(shape, bool)
    positives[relation.text, relation.video] = True
    for found, s, p in ((whole.t2v, scores, positives), (whole.v2t, scores.T, positives.T)):
        best = np.where(p, s, -1).max(axis=1, keepdims=True)
        np.testing.assert_array_equal(found.best("optimistic"), 1 + (s > best).sum(axis=1))


def test_ranking_takes_a_fraction_of_the_scores_memory():
    """As a share of MSR-VTT full: 6,000 texts of 300 videos; scores come tile by tile, and are never held."""
    texts, videos = 6000, 1500
    positives = Positives.of_videos(np.arange(texts) % videos, videos)

    def tiles():
        for row in range(0, texts, 100):
            yield row, 0, np.random.default_rng(row).standard_normal((100, videos), dtype=np.float32)

    tracemalloc.start()
    rank(tiles, positives)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20  # the scores are 36 MB, the groups' 9


def test_tiles_need_to_be_of_one_type_and_shape():
    positives = Positives.diagonal(4)
    scores = np.eye(4)
    with pytest.raises(ValueError, match="some tiles are float64, some float32"):
        rank(lambda: [(0, 0, scores[:2]), (2, 0, scores[2:].astype(np.float16))], positives)
    with pytest.raises(ValueError, match="no block of scores"):
        rank(lambda: [(0, 0, scores[0])], positives)
    with pytest.raises(ValueError, match="need `Positives`"):
        rank(lambda: [(0, 0, scores)])
    with pytest.raises(ValueError, match="scores are numbers, not bool"):
        rank(np.eye(2, dtype=bool))


# --- numbers of others ------------------------------------------------------------------------------------------------


def arrays(file: str) -> dict[str, np.ndarray]:
    path = DATA / "golden" / file
    if not path.is_file():
        pytest.skip(f"no golden values {file} beside the repository")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def agrees(found: Ranks, golden: dict[str, np.ndarray], case: str, median="ordinary", within=1e-9) -> None:
    summary = summarise(found, median=median)
    names = {"R1": 1, "R5": 5, "R10": 10, "R50": 50}
    for name, k in names.items():
        if f"{case}.{name}" in golden:
            assert 100 * found.recall(k).mean() == pytest.approx(float(golden[f"{case}.{name}"]), abs=within)
    theirs = golden[f"{case}.MedianR" if f"{case}.MedianR" in golden else f"{case}.MedR"]
    assert summary.median_rank == float(theirs)
    assert summary.mean_rank == pytest.approx(float(golden[f"{case}.MeanR"]), abs=1e-9)
    if f"{case}.rank_from_zero" in golden:
        assert (found.best() - 1 == golden[f"{case}.rank_from_zero"]).all()


@pytest.mark.parametrize("matrix", ["matrix0", "matrix1", "matrix2"])
def test_ranks_are_clip4clips(matrix):
    golden = arrays("metrics.npz")
    ranking = rank(golden[f"{matrix}.similarity"])
    agrees(ranking.t2v, golden, f"{matrix}.t2v")
    agrees(ranking.v2t, golden, f"{matrix}.v2t")


def test_where_clip4clip_makes_99_queries_of_50_there_are_50():
    golden = arrays("metrics.npz")
    assert len(golden["ties.rank_from_zero_released"]) == 99
    found = t2v(golden["ties.similarity"])
    assert len(found.best()) == 50
    assert found.tied_queries().any()
    # their ranks are all the places of each block of ties: ours lie at both ends and in the middle
    wanted = np.concatenate([np.arange(g, g + e) for g, e in zip(found.above, found.tied, strict=True)])
    assert sorted(golden["ties.rank_from_zero_released"].tolist()) == sorted(wanted.tolist())


def test_several_captions_are_counted_as_clip4clip_counts_them():
    """Their median over captions is the lower of the two middle ranks: 2 where the ordinary one is 2.5."""
    golden = arrays("metrics.npz")
    video = golden["many_captions.video_of_caption"]
    ranking = rank(golden["many_captions.similarity_caption_by_video"], Positives.of_videos(video, 12))
    agrees(ranking.t2v, golden, "many_captions.t2v", median="lower", within=1e-5)  # percentages are fp32
    assert summarise(ranking.t2v).median_rank == 2.5
    agrees(ranking.v2t_groups, golden, "many_captions.v2t")
    assert (ranking.v2t.best() >= ranking.v2t_groups.best()).all()
    assert (ranking.v2t.best() > ranking.v2t_groups.best()).any()


def test_several_captions_are_counted_as_xpool_counts_them():
    golden = arrays("xpool.npz")
    video = golden["many_captions.input.video_of_caption"]
    ranking = rank(golden["many_captions.similarity_caption_by_video.f64"], Positives.of_videos(video, 8))
    agrees(ranking.t2v, golden, "many_captions.metrics.t2v")
    agrees(ranking.v2t_groups, golden, "many_captions.metrics.v2t")


def oracle(file: str) -> np.ndarray:
    path = DATA / "oracles" / file
    if not path.is_file():
        pytest.skip(f"no oracle {file} beside the repository")
    return np.load(path, allow_pickle=False)


def test_the_small_models_matrix_gives_what_published_code_gives():
    scores = oracle("sims_test1k_first_caption.npy")
    for stored in (scores, scores.astype(np.float64)):
        printed = summarise(t2v(stored)).printed()
        found = [round(printed[name], 1) for name in ("R@1", "R@5", "R@10", "R@50", "MdR", "MnR")]
        assert found == [17.8, 44.9, 58.7, 85.4, 8, 32.0]


def test_agrees_with_ranx_without_ties():
    """ranx has no policy for ties, and drops nothing; its `ndcg` has gains 0 or 1 as ours, its map all positives."""
    ranx = pytest.importorskip("ranx", reason="ranx is not installed")
    generator = np.random.default_rng(13)
    scores, positives = generator.standard_normal((60, 80)), generator.random((60, 80)) < 0.05
    positives[np.arange(60), np.arange(60)] = True
    qrels = ranx.Qrels({f"t{t}": {f"v{v}": 1 for v in np.flatnonzero(row)} for t, row in enumerate(positives)})
    run = ranx.Run({f"t{t}": {f"v{v}": float(s) for v, s in enumerate(row)} for t, row in enumerate(scores)})
    names = {"R@1": "hit_rate@1", "R@5": "hit_rate@5", "MRR": "mrr", "nDCG@10": "ndcg@10", "mAP": "map"}
    theirs = ranx.evaluate(qrels, run, list(names.values()))
    for ours, name in names.items():
        assert t2v(scores, positives).per_query(ours).mean() == pytest.approx(theirs[name], abs=1e-9)


# --- the command ------------------------------------------------------------------------------------------------------


def call(*arguments: object, fails: bool = False):
    result = CliRunner().invoke(app, ["metrics", *map(str, arguments)])
    assert (result.exit_code != 0) == fails, result.output
    return result


@pytest.fixture
def saved(tmp_path):
    def save(name: str, array: np.ndarray) -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    return save


def test_the_command_prints_what_the_functions_say(saved):
    scores = np.random.default_rng(14).integers(0, 9, (12, 12)) / 8
    data = json.loads(call(saved("s.npy", scores), "--json").stdout)
    ranking = rank(scores)
    for name, found in (("t2v", ranking.t2v), ("v2t", ranking.v2t)):
        for metric in METRICS:
            values = found.per_query(metric)
            wanted = np.median(values) if metric == "MdR" else values.mean()
            assert data[name][metric] == pytest.approx((100 if metric[:2] == "R@" else 1) * wanted)
    assert (data["queries"], data["gallery"], data["ties"]) == (12, 12, "expected")
    assert data["tied"] == ranking.t2v.tied_queries().mean() > 0
    assert data["v2t"]["convention"] == "captions"
    assert "v2t_groups" not in data
    table = call(saved("s.npy", scores)).stdout.splitlines()
    assert table[0].split() == [*METRICS, "tied"]
    assert [line.split()[0] for line in table[1:]] == ["t2v", "v2t"]


@pytest.mark.parametrize("ties", POLICIES)
def test_the_command_knows_the_policies(saved, ties):
    data = json.loads(call(saved("s.npy", np.zeros((4, 4))), "--ties", ties, "--json").stdout)
    assert data["t2v"]["MnR"] == {"optimistic": 1, "expected": 2.5, "pessimistic": 4}[ties]
    assert data["tied"] == 1


def test_groups_may_be_ids_or_columns_and_positives_pairs_or_a_matrix(saved, tmp_path):
    scores = np.random.default_rng(15).standard_normal((6, 3))
    video = np.array([0, 1, 1, 0, 2, 2])
    (tmp_path / "ids.txt").write_text("".join(f"video{'abc'[v]}\n" for v in video))
    (tmp_path / "columns.txt").write_text("\n".join(map(str, video)))
    path, matrix = saved("s.npy", scores), np.arange(3) == video[:, None]
    outputs = {
        call(path, "--groups", tmp_path / "ids.txt", "--json").stdout,
        call(path, "--groups", tmp_path / "columns.txt", "--json").stdout,
        call(path, "--positives", saved("m.npy", matrix), "--json").stdout,
        call(path, "--positives", saved("i.npy", matrix.astype(np.int8)), "--json").stdout,
        call(path, "--positives", saved("p.npy", np.stack([np.arange(6), video], axis=1)), "--json").stdout,
    }
    assert len(outputs) == 1
    data = json.loads(outputs.pop())
    assert data["v2t"]["convention"] == "captions"
    assert data["v2t_groups"]["convention"] == "groups"
    assert (data["v2t"]["gallery"], data["v2t_groups"]["gallery"], data["queries"], data["gallery"]) == (6, 3, 6, 3)


def test_what_the_command_refuses(saved, tmp_path):
    square, wide = saved("square.npy", np.eye(3)), saved("wide.npy", np.eye(2, 3))
    broken = np.eye(3)
    broken[1, 2] = np.nan
    (tmp_path / "groups.txt").write_text("a\nb\n")
    (tmp_path / "high.txt").write_text("0\n1\n3\n")
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.eye(2))
    for arguments, message in (
        ([wide], "wide.npy has 2 texts and 3 videos, so no diagonal: say with --groups or --positives"),
        ([wide, "--positives", saved("p.npy", np.eye(2, 3, dtype=bool))], "1 of 3 videos have no positive"),
        ([saved("broken.npy", broken)], "broken.npy: 1 of 3 texts have NaN scores, the first is text 1"),
        ([saved("empty.npy", np.zeros((0, 0)))], "nothing to rank"),
        ([saved("flat.npy", np.zeros(3))], "flat.npy holds float64 of shape"),
        ([square, "--groups", tmp_path / "groups.txt"], "groups.txt has 2 lines, .*square.npy 3 texts"),
        ([square, "--groups", tmp_path / "high.txt"], "high.txt, line 3: no column 3 in .*0 to 2"),
        ([square, "--groups", tmp_path / "gap.txt"], "gap.txt, line 2 is empty"),
        ([square, "--positives", saved("q.npy", np.array([[0, 7]]))], "q.npy: .* names video 7 of 3"),
        ([tmp_path / "text.npy"], "text.npy is no .npy array"),
        ([tmp_path / "objects.npy"], "objects.npy is no .npy array that can be read without pickle"),
        ([tmp_path / "several.npz"], "several.npz holds several arrays"),
    ):
        error = call(*arguments, fails=True).exception
        assert isinstance(error, ValueError), arguments
        with pytest.raises(ValueError, match=message):
            raise error
    only = json.loads(call(wide, "--positives", tmp_path / "p.npy", "--only", "t2v", "--json").stdout)
    assert only["t2v"]["R@1"] == 100
    assert "v2t" not in only


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rescore", "qbnorm"], "qbnorm takes --bank"),
        (["--rescore", "dsl", "--bank", "s.npy"], "dsl looks at SCORES only"),
        (["--beta", "20"], "is for --rescore"),
        (["--rescore", "dsl", "--beta", "0"], "0 must be a positive number"),
        (["--positives", "s.npy", "--groups", "s.npy"], "not both"),
        (["--rescore", "sinkhorn", "--bank", "s.npy", "--only", "v2t"], "left out"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(saved, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = call(saved("s.npy", np.eye(2)), *arguments, fails=True)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
