"""What an evaluation leaves can be read by others, says what the number is, and shows in a browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from rushes.data.base import Caption, Video, make_split
from rushes.evaluate.metrics import METRICS
from rushes.evaluate.page import false_negatives, hardest, shown_videos
from rushes.evaluate.recorded import read
from rushes.evaluate.report import COLUMNS, UNKNOWN, Setting, answers, over_seeds, write
from rushes.evaluate.run import Evaluation, of_scores
from tests import chromium

SETTING = Setting(
    benchmark="reels",
    protocol="shot",
    model="runs/mine",
    method="wti",
    switches={"hidden": 1},
    backbone="small",
    frames="12 at most",
    decoder="PyAV 17",
    seeds=(3,),
    selection="best R@1 on val",
)


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("evaluated") / "run"
    pixels = np.full((60, 80, 3), (40, 120, 220), np.uint8)
    jpeg, png = (cv2.imencode(ending, pixels)[1].tobytes() for ending in (".jpg", ".png"))
    pictures = {name: png if n % 2 else jpeg for n, name in enumerate(shown_videos(evaluation))}
    write(evaluation, SETTING, place, thumbnails=pictures)
    return place


# --- the card ---------------------------------------------------------------------------------------------------------


def test_a_card_has_all_that_is_asked_of_a_number(folder, split, evaluation):
    card = json.loads((folder / "card.json").read_text())
    assert card["data"]["digest"] == split.digest()
    assert (card["data"]["queries"], card["data"]["gallery"], card["data"]["protocol"]) == (60, 30, "shot")
    assert (card["model"]["backbone"], card["input"]["frames"], card["input"]["decoder"]) == (
        "small",
        "12 at most",
        "PyAV 17",
    )
    assert card["training"] == {"seeds": [3], "selection": "best R@1 on val"}
    assert card["post_processing"] is None
    assert card["metrics"] == card["raw_metrics"]
    assert card["metrics"]["t2v"]["R@1"] == pytest.approx(100 * evaluation.metrics()["t2v"].recall[1])
    low, high = card["intervals"]["t2v"]["R@1"]
    assert low < card["metrics"]["t2v"]["R@1"] < high
    assert card["interval"] == {"level": 0.95, "over": "videos", "groups": 30, "repetitions": 200, "seed": 0}
    assert card["over_seeds"] is None


def test_post_processing_stands_beside_the_raw_numbers(split, scores, tmp_path):
    found = of_scores(split, scores, rescore="dsl", beta=5.0, repetitions=200)
    card = write(found, SETTING, tmp_path, page=False)
    assert card["post_processing"]["kind"] == "transductive"
    assert card["post_processing"]["beta"] == 5.0
    assert card["metrics"] != card["raw_metrics"]
    after, before = read(tmp_path), read(tmp_path, raw=True)
    assert 100 * after.run("t2v", "R@1").values.mean() == pytest.approx(card["metrics"]["t2v"]["R@1"])
    assert 100 * before.run("t2v", "R@1").values.mean() == pytest.approx(card["raw_metrics"]["t2v"]["R@1"])
    assert not (tmp_path / "report.html").exists()
    write(of_scores(split, scores, repetitions=200), SETTING, tmp_path, page=False)
    assert not (tmp_path / "ranks_raw.csv").exists(), "an older run's files are not left beside a new card"


@pytest.mark.parametrize("rule", ["best R@1 on test", "the Test split's best epoch"])
def test_a_model_chosen_on_the_test_set_has_no_card(rule):
    with pytest.raises(ValueError, match="names the test set"):
        Setting(benchmark="b", protocol="p", selection=rule)
    assert Setting(benchmark="b", protocol="p").selection == UNKNOWN


def test_seeds_have_mean_and_deviation(split, scores, tmp_path):
    draw = np.random.default_rng(0)
    cards = []
    for seed in range(3):
        found = of_scores(split, scores + draw.standard_normal(scores.shape), repetitions=100)
        setting = Setting(**{**vars(SETTING), "seeds": (seed,), "model": f"m{seed}"})
        cards.append(write(found, setting, tmp_path / str(seed), page=False))
    together = over_seeds(cards)
    values = [card["metrics"]["t2v"]["R@1"] for card in cards]
    assert together["metrics"]["t2v"]["R@1"] == pytest.approx(np.mean(values))
    assert together["over_seeds"]["metrics"]["t2v"]["R@1"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert together["training"]["seeds"] == [0, 1, 2]
    with pytest.raises(ValueError, match="the seeds 0, 0; each counts once"):
        over_seeds([cards[0], cards[0]])
    other = {**cards[1], "data": {**cards[1]["data"], "digest": "ffff"}}
    with pytest.raises(ValueError, match=r"differ in data\.digest .*ffff"):
        over_seeds([cards[0], other])
    with pytest.raises(ValueError, match="two seeds or more"):
        over_seeds(cards[:1])


# --- ranks and the TREC run -------------------------------------------------------------------------------------------


def test_ranks_give_back_every_number_of_the_card(folder):
    found = read(folder)
    card = found.card
    for name, metrics in card["metrics"].items():
        for metric in METRICS:
            if metric.startswith(("nDCG", "mAP")) and name == "v2t":
                with pytest.raises(LookupError, match="keeps the best of each query only"):
                    found.run(name, metric)
                continue
            values = found.run(name, metric).values
            value = np.median(values) if metric == "MdR" else values.mean()
            assert value * (100 if metric.startswith("R@") else 1) == pytest.approx(metrics[metric]), (name, metric)


def test_ranks_name_what_came_first(folder, scores, split):
    with (folder / "ranks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 60 + 30 + 30
    for text, row in enumerate(rows[:60]):
        own = split.pairs[text, 1]
        assert row["query"] == split.captions[text].id
        assert row["group"] == split.videos[own].id
        assert np.float32(row["score"]) == scores[text, own]
        assert np.float32(row["top_score"]) == scores[text].max()
        assert row["top"] == split.videos[scores[text].argmax()].id
        higher, same = (scores[text] > scores[text, own]).sum(), (scores[text] == scores[text, own]).sum()
        assert float(row["rank"]) == 1 + higher + (same - 1) / 2
    groups = [row for row in rows if row["direction"] == "v2t_groups"]
    best = scores.reshape(30, 2, 30).max(axis=1)
    assert [row["top"] for row in groups] == [split.videos[one].id for one in best.argmax(axis=0)]


def by_hand(folder: Path) -> tuple[dict[str, list[tuple[float, str]]], dict[str, set[str]]]:
    """The two files as trec_eval reads them: by blanks, ordered by score alone."""
    run, relevant = defaultdict(list), defaultdict(set)
    for line in (folder / "run.trec").read_text().splitlines():
        query, q0, document, place, score, tag = line.split()
        assert q0 == "Q0"
        assert int(place) == len(run[query]) + 1
        assert tag == "rushes-wti"
        run[query].append((float(score), document))
    for line in (folder / "qrels.txt").read_text().splitlines():
        query, zero, document, grade = line.split()
        assert (zero, grade) == ("0", "1")
        relevant[query].add(document)
    return run, relevant


def test_the_trec_run_gives_the_same_numbers_to_others(split, tmp_path):
    draw = np.random.default_rng(8)
    scores = draw.standard_normal((60, 30)).astype(np.float32)  # no ties, which others break in their own way
    card = write(of_scores(split, scores, repetitions=100), SETTING, tmp_path, page=False)
    run, relevant = by_hand(tmp_path)
    assert set(run) == set(relevant)
    assert "clip%200.mp4#0" in run, "blanks would be columns"
    ranks = []
    for query, listed in run.items():
        assert len(listed) == 30
        assert listed == sorted(listed, key=lambda one: -one[0])
        ranks.append(1 + [document in relevant[query] for _, document in listed].index(True))
    assert 100 * np.mean(np.array(ranks) <= 5) == pytest.approx(card["metrics"]["t2v"]["R@5"])
    assert np.mean(1 / np.array(ranks)) == pytest.approx(card["metrics"]["t2v"]["MRR"])
    row = [score for score, _ in run["clip%200.mp4#0"]]
    assert np.array_equal(np.float32(row), np.sort(scores[0])[::-1]), "every bit"


def test_a_run_is_cut_where_it_is_told(evaluation, tmp_path):
    write(evaluation, SETTING, tmp_path, page=False, depth=4)
    run, _ = by_hand(tmp_path)
    assert {len(listed) for listed in run.values()} == {4}
    whole = np.sort(evaluation.scores["t2v"], axis=1)[:, ::-1][:, :4]
    assert np.allclose([[score for score, _ in listed] for listed in run.values()], whole)
    with pytest.raises(ValueError, match="a depth of 0"):
        write(evaluation, SETTING, tmp_path, page=False, depth=0)


# --- edges ------------------------------------------------------------------------------------------------------------


def test_results_are_not_mixed_with_other_files(evaluation, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds 'notes\.txt' and no card\.json of an evaluation"):
        write(evaluation, SETTING, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "report.html").write_text("half")
    write(evaluation, SETTING, begun, page=False)
    assert (begun / "card.json").is_file()
    with pytest.raises(FileExistsError, match="is a file"):
        write(evaluation, SETTING, tmp_path / "notes.txt")


def test_a_folder_that_is_none_says_so(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no card\.json"):
        read(tmp_path)
    shutil.copytree(folder, tmp_path / "run")
    table = tmp_path / "run" / "ranks.csv"
    table.write_text(table.read_text().replace("t2v,clip 3.mp4#0,clip 3.mp4", "t2v,clip 3.mp4#0", 1))
    with pytest.raises(ValueError, match=r"ranks\.csv, line 8 is no row of ranks"):
        read(tmp_path / "run")
    (tmp_path / "run" / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="is no card of an evaluation"):
        read(tmp_path / "run")
    (tmp_path / "run" / "card.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99"):
        read(tmp_path / "run")


def test_thumbnails_are_pictures(evaluation, tmp_path):
    with pytest.raises(ValueError, match="neither JPEG nor PNG"):
        write(evaluation, SETTING, tmp_path, thumbnails={"clip 0.mp4": b"<svg onload=alert(1)>"})


# --- the page ---------------------------------------------------------------------------------------------------------


def tricky(texts: list[str], scores: list[list[float]]) -> Evaluation:
    items = [(Video(f"v{n}", f"v{n}"), [Caption(f"v{n}#0", text)]) for n, text in enumerate(texts)]
    return of_scores(make_split("test", items, "here"), np.array(scores, np.float32), repetitions=100)


def test_likely_false_negatives_are_those_with_the_same_words_and_those_that_are_surer_than_usual():
    texts = ["A dog runs.", "a dog  runs", "snow", "rain", "a cat"]
    scores = np.full((5, 5), 0.1)
    scores[0, [0, 1]] = 0.5, 0.6  # its twin came first, by little
    scores[1, 1] = 0.6
    scores[2, 2] = 0.6
    scores[3, [3, 4]] = 0.1, 0.9  # far ahead
    scores[4, [4, 0]] = 0.5, 0.6  # wrong, by little
    found = tricky(texts, scores.tolist())
    (first,) = answers(found)[:1]
    suspects = false_negatives(found, first)
    assert [(one.query, one.top) for one in suspects] == [("v0#0", "v1"), ("v3#0", "v4")]
    assert "has its words" in suspects[0].why
    assert "ahead by 0.8" in suspects[1].why
    assert [one.query for one in hardest(found, first)] == ["v3#0", "v0#0", "v4#0"]


def test_a_perfect_run_has_nothing_hard(tmp_path):
    found = tricky(["a", "b", "c"], np.eye(3).tolist())
    write(found, SETTING, tmp_path)
    assert "every text has a right video first" in (tmp_path / "report.html").read_text()
    assert shown_videos(found) == []


def test_what_came_from_data_is_escaped_and_nothing_is_loaded(tmp_path):
    evil = '<script>alert("x")</script>'
    found = tricky([evil, "b", "c"], [[0.1, 0.9, 0.2], [0.3, 0.1, 0.2], [0.9, 0.1, 0.3]])
    write(found, Setting(benchmark=evil, protocol=evil, model=evil, switches={evil: evil}), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "url(" not in re.sub(r"url\(#", "", html)


def test_the_page_is_the_same_for_the_same_numbers(evaluation, folder, tmp_path):
    pages = []
    for name in ("one", "two"):
        write(evaluation, SETTING, tmp_path / name)
        pages.append(re.sub(r"<dt>made</dt>.*", "", (tmp_path / name / "report.html").read_text()))
    assert pages[0] == pages[1]


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_in_a_browser(browser, folder, scheme, tmp_path):
    page = browser.new_page(color_scheme=scheme, viewport={"width": 900, "height": 800})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto((folder / "report.html").as_uri())
    assert said == []
    for name in ("Histogram of ranks", "Recall by k"):
        plot = page.locator(f'svg[aria-label^="{name}"]')
        assert plot.is_visible()
        box = plot.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
        shot = cv2.imdecode(np.frombuffer(plot.screenshot(), np.uint8), cv2.IMREAD_COLOR).astype(int)
        back = shot[2, 2]
        assert (back.mean() > 200) == (scheme == "light")
        drawn = np.abs(shot - back).sum(axis=2) > 120
        coloured = np.ptp(shot, axis=2) > 60
        assert drawn.mean() > 0.005, "no axes"
        assert coloured.sum() > 100, "no bars or lines"
    loaded = page.eval_on_selector_all("img", "all => all.map(one => one.complete && one.naturalWidth)")
    assert loaded
    assert all(loaded)
    assert page.locator("h1").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("table").count() == page.locator("thead th[scope=col]:first-child").count()
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page is wider than the window"
    )
    page.close()
