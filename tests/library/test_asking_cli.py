"""`rushes search` and `rushes tag`: what they print, and what they refuse."""

from __future__ import annotations

import json
import shutil
from unittest.mock import patch

import cv2
import pytest
import torch

import rushes as package
from rushes.search.query import Query
from tests.command import rushes

FIELDS = {"rank", "video", "start", "end", "score", "moments", "confidence", "scores", "cues", "then", "merged"}
FIELDS |= {"of_query", "segment", "id"}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def asked(folder, *words: object) -> list[dict]:
    done = rushes("search", folder, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(reels, tiny_model, tmp_path_factory):
    place = tmp_path_factory.mktemp("cli") / "my videos"
    (place / "beach").mkdir(parents=True)
    for name, target in (("reel00000", "a.mp4"), ("reel00001", "beach/b.mp4"), ("reel00002", "beach/c.mp4")):
        shutil.copyfile(reels / f"{name}.mp4", place / target)
    done = rushes("index", place, "--model", tiny_model, "--segments", "windows")
    assert done.returncode == 0, done.stderr
    return place


def test_json_has_every_field_of_a_hit(folder):
    hits = asked(folder, "a dog", "--then", "snow", "--within", 20, "--no-merge")
    assert hits
    for hit in hits:
        assert set(hit) == FIELDS
        assert set(hit["then"]) == {"start", "end", "score"}
        assert package.open(folder).video(hit["id"]).path == hit["video"]
        assert hit["segment"].startswith(hit["id"])


def test_pages_one_after_another_are_the_whole(folder):
    words = ("a dog", "--not", "snow", "--no-merge")
    whole = asked(folder, *words, "-k", 100)
    pages = [asked(folder, *words, "-k", 3, "--page", number) for number in range(1, len(whole) // 3 + 2)]
    assert [hit for page in pages for hit in page] == whole
    assert [hit["rank"] for hit in whole] == list(range(1, len(whole) + 1))
    beyond = rushes("search", folder, *words, "-k", 3, "--page", 99)
    assert (beyond.returncode, beyond.stdout) == (0, "")
    assert f"there are {len(whole)} hits" in beyond.stderr
    assert asked(folder, *words, "-k", 100, "--most", 100) == whole


def test_weights_and_what_is_avoided(folder):
    plain = asked(folder, "a dog")
    assert asked(folder, "a dog", "--not", "snow:0") == asked(folder, "a dog", "--also", "snow:0") == plain
    assert asked(folder, "--also", "a dog") == plain
    assert asked(folder, "a dog", "--also", "snow:0.5", "--not", "a man") == asked(
        folder, "--not", "a man", "--also", "snow:0.5", "--also", "a dog"
    )
    clock = asked(folder, "--also", "a clock at 10:30")
    assert clock == asked(folder, "a clock at 10:30")


def test_pictures_segments_and_clips(folder, tmp_path):
    capture = cv2.VideoCapture(str(folder / "a.mp4"))
    capture.set(cv2.CAP_PROP_POS_MSEC, 1500)  # in the middle of a shot, where indexing looked, too
    assert cv2.imwrite(str(tmp_path / "frame.png"), capture.read()[1])
    (hit, *_) = asked(folder, "--image", tmp_path / "frame.png", "--no-merge")
    assert hit["video"] == "a.mp4"
    assert hit["start"] <= 1.5 <= hit["end"]
    (other, *_) = asked(folder, "--like", hit["segment"])
    assert other["segment"] != hit["segment"]
    (found, *_) = asked(folder, "--video", folder / "beach/b.mp4")
    assert found["video"] == "beach/b.mp4"
    assert set(found["of_query"]) == {"start", "end"}


def test_filters(folder):
    assert {hit["video"] for hit in asked(folder, "a dog", "--in", "beach")} == {"beach/b.mp4", "beach/c.mp4"}
    assert {hit["video"] for hit in asked(folder, "a dog", "--only", "a.mp4")} == {"a.mp4"}
    length = package.open(folder).find("a.mp4").length
    assert {hit["video"] for hit in asked(folder, "a dog", "--longer", length, "--shorter", length)} >= {"a.mp4"}
    assert asked(folder, "a dog", "--after", "2001-01-01", "--before", "2100-01-01") == asked(folder, "a dog")
    done = rushes("search", folder, "a dog", "--before", "2001-01-01")
    assert (done.returncode, done.stdout) == (0, "")
    assert "No video passes the filter." in done.stderr
    grouped = asked(folder, "a dog", "--group", "video", "--sort", "time")
    assert [hit["video"] for hit in grouped] == [video.path for video in by_date(folder)]


def by_date(folder):
    return sorted(package.open(folder).videos(), key=lambda video: (video.date, video.path))


def test_a_line_a_hit(folder):
    lines = rushes("search", folder, "a dog", "-k", 2, "--then", "snow").stdout.splitlines()
    assert 1 <= len(lines) <= 2
    assert ".mp4  (best 0:" in lines[0]
    assert "  then 0:" in lines[0]


def test_tags(folder):
    assert [row["tags"] for row in json.loads(rushes("tag", folder, "--json").stdout)] == [[], [], []]
    done = rushes("tag", folder, "beach/b.mp4", "--add", "Holiday", "--add", "two words")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("beach/b.mp4  Holiday, two words")
    (row,) = json.loads(rushes("tag", folder, "beach/b.mp4", "--remove", "HOLIDAY", "--json").stdout)
    assert (row["video"], row["tags"], row["paths"]) == ("beach/b.mp4", ["two words"], ["beach/b.mp4"])
    assert {hit["video"] for hit in asked(folder, "a dog", "--tag", "Two Words")} == {"beach/b.mp4"}
    assert len(rushes("tag", folder).stdout.splitlines()) == 3
    rushes("tag", folder, row["id"], "--remove", "two words")
    assert asked(folder, "a dog", "--tag", "two words") == []


def test_wrong_usage_is_told(folder, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    for words, status in (
        ((), 2),
        (("--not", "a beach"), 2),
        (("a dog", "--video", folder / "a.mp4"), 2),
        (("a dog", "--spoken", "sometimes"), 2),
        (("--image", tmp_path / "nowhere.jpg"), 2),
        (("a dog", "--after", "yesterday"), 2),
        (("a dog", "--page", 0), 2),
        (("a dog", "--only", "nobody.mp4"), 2),
        (("--like", "nothing:0"), 2),
        (("a dog", "--longer", 9, "--shorter", 3), 1),
        (("--image", tmp_path / "a.jpg"), 1),
    ):
        done = rushes("search", folder, *words)
        assert done.returncode == status, (words, done.stderr)
        assert done.stdout == ""
        assert done.stderr
        assert "Traceback" not in done.stderr
    assert rushes("tag", folder, "nobody.mp4", "--add", "x").returncode == 2
    assert rushes("tag", folder, "--add", "x").returncode == 2
    assert rushes("tag", folder, "a.mp4", "--add", " ").returncode == 1
    assert rushes("tag", tmp_path).returncode == 1  # never indexed


def test_what_the_answer_is_worth_goes_to_stderr(folder):
    """The tiny model is not calibrated, so the calibration of the real one is put in its place by hand of its words."""
    library = package.open(folder)
    answer = library.ask(Query.of_text("a dog"))
    for match, told in (("none", "no good match"), ("weak", "a weak match"), ("good", ""), ("unknown", "")):
        changed = type(answer)(answer.hits, match, answer.seconds, answer.notes)
        with patch("rushes.library.Library.ask", return_value=changed):
            done = rushes("search", folder, "a dog")
        assert told in done.stderr
        assert bool(done.stderr) == bool(told)
        assert done.stdout
