"""Who lets the answer in is caught by the test that is meant for it; who does not is clean."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from rushes import registry
from rushes.backbones.base import Frames
from rushes.cli import app
from rushes.evaluate.leaks import BAND, CHANCE, TESTS, at_chance, binomial_band, find_leaks
from rushes.evaluate.run import PADDING
from rushes.evaluate.subjects import of_file, of_method, random_features
from rushes.methods.base import Method
from rushes.methods.wti import WTI
from rushes.methods.xpool import XPool
from rushes.model import Model
from rushes.scoring import score_all
from rushes.types import Tokens
from tests.tiny import tiny_clip

SIZE, DIM = 40, 16
NAMES = registry.names("methods")


def texts_and_videos(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Unrelated, of unit length; a video has three frames."""
    draw = np.random.default_rng(1)
    texts, videos = draw.standard_normal((size, DIM)), draw.standard_normal((size, 3, DIM))
    return texts / np.linalg.norm(texts, axis=-1, keepdims=True), videos / np.linalg.norm(
        videos, axis=-1, keepdims=True
    )


def leaking(scorer, chance: bool = True, **options) -> set[str]:
    texts, videos = texts_and_videos()
    return {found.test for found in find_leaks(scorer, texts, videos, chance=chance, **options) if found.leaks}


# --- scorers that leak ------------------------------------------------------------------------------------------------


def plain(texts, videos):
    return texts @ videos.mean(axis=1).T


def pooled_by_query(texts, videos):
    """X-Pool's way: each video is pooled anew for every text."""
    attention = np.exp(5 * np.einsum("td,vfd->tvf", texts, videos))
    attention /= attention.sum(axis=2, keepdims=True)
    return np.einsum("tvf,vfd,td->tv", attention, videos, texts)


def pooled_by_own_caption(texts, videos):
    """T-MASS's published test: each video is pooled by the caption of its own row, whoever asks."""
    own = texts[np.arange(len(videos)) % len(texts)]
    attention = np.exp(5 * np.einsum("vd,vfd->vf", own, videos))
    attention /= attention.sum(axis=1, keepdims=True)
    return texts @ np.einsum("vf,vfd->vd", attention, videos).T


def dual_softmax_inside(texts, videos):
    scores = plain(texts, videos)
    prior = np.exp(20 * scores)
    return scores * prior / prior.sum(axis=0)


def softmax_over_the_gallery(texts, videos):
    prior = np.exp(20 * plain(texts, videos))
    return prior / prior.sum(axis=1, keepdims=True)


def norm_of(texts: bool):
    """Batch norm that was left in train mode, over texts or over videos."""

    def score(some_texts, videos):
        norm = nn.BatchNorm1d(DIM).train()
        left, right = torch.tensor(some_texts), torch.tensor(videos.mean(axis=1))
        norm = norm.double()
        if texts:
            left = norm(left)
        else:
            right = norm(right)
        return left @ right.T

    return score


def a_favourite_place(texts, videos):
    scores = plain(texts, videos)
    scores[:, 0] += 0.3
    return scores


def a_favourite_row(texts, videos):
    scores = plain(texts, videos)
    scores[: len(scores) // 2] *= 1.5
    return scores


def square_only(texts, videos):
    return np.diag(np.ones(len(texts))) @ plain(texts, videos)[: len(texts)] @ np.eye(len(texts))


def the_diagonal(texts, videos):
    return plain(texts, videos) + np.eye(len(texts), len(videos))


def a_rest_that_is_dropped(texts, videos):
    scores = plain(texts, videos)
    scores[:, len(videos) - len(videos) % 8 :] = -1
    return scores


def a_norm_a_block(texts, videos):
    blocks = [plain(texts, videos[start : start + 8]) for start in range(0, len(videos), 8)]
    return np.concatenate([block / np.abs(block).max() for block in blocks], axis=1)


def noisy():
    draw = np.random.default_rng(0)
    return lambda texts, videos: plain(texts, videos) + 0.05 * draw.standard_normal((len(texts), len(videos)))


LEAKY = {
    "each video pooled by its own caption": (pooled_by_own_caption, "another caption"),
    "each video pooled by its own caption, by order": (pooled_by_own_caption, "the gallery's order"),
    "dual softmax inside": (dual_softmax_inside, "a query alone"),
    "softmax over the gallery": (softmax_over_the_gallery, "another video"),
    "batch norm over texts": (norm_of(texts=True), "a query alone"),
    "batch norm over videos": (norm_of(texts=False), "another video"),
    "a favourite place in the gallery": (a_favourite_place, "the gallery's order"),
    "a favourite place among the queries": (a_favourite_row, "the queries' order"),
    "square inputs only": (square_only, "unequal counts"),
    "the diagonal": (the_diagonal, CHANCE),
    "what is left of a block is dropped": (a_rest_that_is_dropped, "block size"),
    "a norm a block": (a_norm_a_block, "block size"),
    "noise": (noisy(), "the same twice"),
}


@pytest.mark.parametrize(("scorer", "test"), LEAKY.values(), ids=list(LEAKY))
def test_a_leak_is_found_by_the_test_that_is_meant_for_it_and_told_how_to_mend(scorer, test):
    texts, videos = texts_and_videos()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {one.test: one for one in find_leaks(scorer, texts, videos, chance=True)}
    assert found[test].leaks, found
    assert len(found[test].advice) > 60
    assert re.search(r"\d", found[test].detail)


def test_every_test_is_needed():
    """Each catches one of the above, and all that there are were tried."""
    assert {test for _, test in LEAKY.values()} == {*TESTS, CHANCE}


@pytest.mark.parametrize("scorer", [plain, pooled_by_query], ids=["mean", "pooled by the query"])
def test_who_pools_by_the_query_is_clean(scorer):
    assert leaking(scorer) == set()


def test_square_inputs_only_is_judged_by_what_it_is():
    """Tests whose calls have equal counts are not failed by a scorer that needs them."""
    found = leaking(lambda texts, videos: plain(texts, videos) if len(texts) == len(videos) else 1 / 0)
    assert found == {"unequal counts", "a query alone", "block size"}


def test_a_block_size_of_its_own_is_tried():
    texts, videos = texts_and_videos()

    def coarse(texts, videos):
        return np.round(plain(texts, videos), 2)

    found = {one.test for one in find_leaks(plain, texts, videos, again=[coarse]) if one.leaks}
    assert found == {"block size"}


def test_small_leaks_beside_large_scores_show_in_ranks():
    """One score of a million hides in no deviation what changes the ranks of all other rows."""

    def heavy(texts, videos):
        scores = plain(texts, videos) + plain(texts, videos).mean(axis=0)
        scores[np.abs(texts[:, 0] - TEXTS[3, 0]) < 1e-12] *= 1e7
        return scores

    TEXTS, _ = texts_and_videos()
    assert "a query alone" in leaking(heavy, chance=False)


def test_half_precision_passes_with_its_tolerance():
    def half(texts, videos):
        sums = np.random.default_rng(len(texts)).normal(0, 2e-4, (len(texts), len(videos)))  # in another order
        return plain(texts, videos) + sums

    assert leaking(half, chance=False) != set()
    assert leaking(half, chance=False, tolerance=2e-2) == set()


@pytest.mark.parametrize("kind", ["lists", "tensors", "tokens"])
def test_whatever_can_be_indexed_can_be_tested(kind):
    texts, videos = texts_and_videos(12)
    if kind == "lists":
        names, paths = [f"text {n}" for n in range(12)], [Path(f"{n}.mp4") for n in range(12)]

        def scorer(some, others):
            assert all(isinstance(one, str) for one in some)
            rows, columns = [int(one.split()[1]) for one in some], [int(one.stem) for one in others]
            return plain(texts[rows], videos[columns]).tolist()

        found = find_leaks(scorer, names, paths)
    elif kind == "tensors":
        found = find_leaks(lambda t, v: t @ v.mean(dim=1).T, torch.tensor(texts), torch.tensor(videos))
    else:
        words = Tokens(torch.tensor(texts)[:, None].float(), torch.ones(12, 1).bool(), weights=torch.ones(12, 1))
        frames = Tokens(torch.tensor(videos).float(), torch.ones(12, 3).bool(), weights=torch.ones(12, 3) / 3)
        method = WTI(DIM)
        found = find_leaks(lambda t, v: score_all(method, t, v), words, frames)
    assert [one.detail for one in found if one.leaks] == []


# --- edges ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_scored_at_all_is_one_finding():
    texts, videos = texts_and_videos()
    for scorer, told in (
        (lambda t, v: plain(t, v)[:, 1:], "shape"),
        (lambda t, v: plain(t, v) * np.nan, "40 of 40 texts have NaN"),
        (lambda t, v: [][0], "IndexError"),
    ):
        (found,) = find_leaks(scorer, texts, videos)
        assert found.leaks
        assert told in found.detail


def test_equal_scores_are_no_leak():
    assert leaking(lambda texts, videos: np.zeros((len(texts), len(videos)))) == set()


def test_wrong_use_is_an_error_that_says_so():
    texts, videos = texts_and_videos()
    with pytest.raises(ValueError, match="give 4 of each"):
        find_leaks(plain, texts[:3], videos)
    with pytest.raises(ValueError, match="say with `own`"):
        find_leaks(plain, texts, videos[:9])
    with pytest.raises(ValueError, match="text 1 has the own video 99; numbers are 0 to 8"):
        find_leaks(plain, texts[:4], videos[:9], [0, 99, 1, 2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        find_leaks(plain, texts, videos, tolerance=0)


def test_what_was_handed_over_is_left_alone():
    texts, videos = texts_and_videos()
    before = texts.copy(), videos.copy()

    def careless(texts, videos):
        scores = plain(texts, videos)
        texts *= 2
        return scores

    find_leaks(careless, texts.copy(), videos)
    assert np.array_equal(texts, before[0])
    assert np.array_equal(videos, before[1])


def test_the_band_is_the_binomial_one():
    for trials, chance in ((64, 1 / 64), (1000, 1 / 1000), (20, 0.3), (7, 0.5)):
        low, high = binomial_band(trials, chance, BAND)
        draws = np.random.default_rng(0).binomial(trials, chance, 400_000)
        assert (draws < low).mean() <= (1 - BAND) / 2 + 2e-4
        assert (draws > high).mean() <= (1 - BAND) / 2 + 2e-4
        assert (draws > high - 1).mean() > (1 - BAND) / 2 - 2e-4
    assert at_chance.__doc__


# --- ours, strangers', models -----------------------------------------------------------------------------------------


def test_there_are_methods():
    assert {"wti", "xpool", "dmae", "hcmi", "xmlnet"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_of_ours_is_clean(name):
    subjects = list(of_method(registry.find("methods", name, Method), size=12))
    assert subjects[0].name == "default"
    leaks = [(one.name, found) for one in subjects for found in one.leaks() if found.leaks]
    assert leaks == []


def test_a_method_that_pools_by_the_row_is_caught():
    words, frames = random_features(20, 64, seed=0)
    method = XPool(64).eval()

    @torch.inference_mode()
    def diagonal(some, others):
        text, video = method.encode_text(some), method.encode_video(others)
        own = [method.score(text[[row % len(text)]], video[[row]])[0, 0] for row in range(len(video))]
        return torch.stack(own).expand(len(text), -1)

    found = {one.test for one in find_leaks(diagonal, words, frames) if one.leaks}
    assert {"a query alone", "the gallery's order", "another caption"} <= found


FILES = {
    "plain.py": "import numpy as np\n\ndef score(texts, videos):\n"
    "    return (np.stack([t[0] for t in texts]) @ np.stack([v[0] for v in videos]).T).tolist()\n",
    "mine.py": "NAMES = [f'{n}.mp4' for n in range(12)]\n\ndef inputs():\n"
    "    return [f'a {n}' for n in range(6)], NAMES, [0, 2, 4, 6, 8, 10]\n\n"
    "def score(texts, videos):\n    return [[len(t) * 7 % 5 - int(v[:-4]) for v in videos] for t in texts]\n",
    "batch.py": "import numpy as np\nDIM = 8\n\ndef score(texts, videos):\n"
    "    s = np.stack([t.mean(axis=0) for t in texts]) @ np.stack([v.mean(axis=0) for v in videos]).T\n"
    "    return s - s.mean(axis=0)\n",
}


@pytest.mark.parametrize(("name", "leaks"), [("plain.py", 0), ("mine.py", 0), ("batch.py", 1)])
def test_a_strangers_file(name, leaks, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    done = CliRunner().invoke(app, ["leaks", str(tmp_path / name), "--json"])
    assert done.exit_code == leaks, done.output
    told = json.loads(done.stdout)
    assert told["leaks"] == bool(leaks)
    (tests,) = (one["tests"] for one in told["found"].values())
    assert {one["test"] for one in tests} == {*TESTS} | ({CHANCE} if name != "mine.py" else set())
    if leaks:
        text = CliRunner().invoke(app, ["leaks", str(tmp_path / name)]).stdout
        assert re.search(r"LEAKS  a query alone .*\n +A text's scores depend on the other texts", text)


def test_the_example_of_the_docs_is_clean(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (code,) = re.findall(r"```python\n(# mine\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    (subject,) = of_file(tmp_path / "mine.py")
    assert [found.detail for found in subject.leaks() if found.leaks] == []


def test_a_file_without_a_scorer_says_what_to_define(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(LookupError, match="must define exactly one complete subclass of Method"):
        list(of_file(tmp_path / "empty.py"))
    with pytest.raises(LookupError, match="there is no file"):
        list(of_file(tmp_path / "none.py"))


def test_a_saved_model_from_characters_and_pixels(tmp_path):
    torch.manual_seed(0)
    backbone = tiny_clip()
    Model(backbone, WTI(backbone.dim)).save(tmp_path / "model")
    done = CliRunner().invoke(app, ["leaks", str(tmp_path / "model")])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("clean") == len(TESTS)


def test_a_preset_that_counts_padding_leaks_nothing():
    counting = []
    for name in NAMES:
        config = registry.find("methods", name, Method).Config
        if hasattr(config, "released") and PADDING in config.released().breaks():
            counting.append(name)
    for name in counting[:1]:
        subject = next(
            one for one in of_method(registry.find("methods", name, Method), size=12) if one.name == "released"
        )
        assert [found for found in subject.leaks() if found.leaks] == []
    assert counting, "no preset counts padding any more: drop this test"


def test_nobody_knows_what_it_is():
    done = CliRunner().invoke(app, ["leaks", "nonsense"])
    assert isinstance(done.exception, LookupError)
    assert "methods are" in str(done.exception)
    assert isinstance(random_features(4, 8, 0)[1], Frames)
