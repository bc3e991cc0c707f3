"""Subtitle lines are found by their words, before and after tidying; the lines of a source change all at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rushes.index.cues import MOST_TERMS, Cues, terms
from rushes.index.store import Store
from rushes.types import Cue


def said(*texts: str, video: str = "v") -> list[Cue]:
    return [Cue(video, 10.0 * row, 10.0 * row + 2, text) for row, text in enumerate(texts)]


@pytest.fixture
def cues(tmp_path) -> Cues:
    return Cues(Store(tmp_path))


def found(cues: Cues, text: str, **options) -> list[str]:
    return [cue.text for cue in cues.search(text, **options).cues]


def test_nothing_yet(cues):
    assert len(cues.search("a dog")) == 0
    assert cues.count() == 0
    assert cues.of("v") == []
    cues.replace({})
    cues.replace({"s": []})
    cues.optimize()
    assert len(cues.search("a dog")) == 0


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("The dogs are running", "dog"),
        ("A dog runs", "DOGS running"),
        ("Je l'aime, l'été", "ete"),
        ("Je l'aime, l'été", "AIME"),
        ("Über die Straße", "strasse uber"),
        ("собаки бегут", "Собаки"),
        ("犬が走っている", "犬"),
        ("hello", "hello!!! AND OR NOT \"'(*"),
    ],
)
def test_words_are_compared_without_case_accents_and_english_endings(cues, text, asked):
    cues.replace({"s": said("something else", text)})
    assert found(cues, asked)[:1] == [text]


@pytest.mark.parametrize("asked", ["", "  ", "?!", "_", "unheard", "'; DROP TABLE cues; --"])
def test_a_text_without_a_known_word_finds_nothing(cues, asked):
    cues.replace({"s": said("a dog")})
    assert found(cues, asked) == []


def test_new_lines_are_found_before_and_after_tidying(cues):
    cues.replace({"a": said("one dog")})
    cues.optimize()
    cues.replace({"b": said("two dogs", video="w")})
    before = cues.search("dog")
    cues.optimize()
    assert cues.search("dog") == before
    assert {cue.video for cue in before.cues} == {"v", "w"}


def test_a_score_is_the_share_of_the_query_that_is_said(cues):
    cues.replace({"s": said("a zebra in the snow", "a zebra", "snow", "in the a", "nothing")})
    heard = cues.search("the zebra in snow")
    scores = {cue.text: cue.score for cue in heard.cues}
    assert scores["a zebra in the snow"] == pytest.approx(1.0)
    assert sum(heard.weights) == pytest.approx(1.0)
    assert scores["a zebra"] == pytest.approx(heard.weights[terms("the zebra in snow").index("zebra")])
    assert scores["in the a"] < 0.1 < scores["snow"]  # small words tell little
    assert "nothing" not in scores
    assert [cue.score for cue in heard.cues] == sorted(scores.values(), reverse=True)
    assert found(cues, "the zebra in snow", least=0.3) == ["a zebra in the snow", "a zebra", "snow"]


def test_rare_words_tell_more(cues):
    cues.replace({"s": said(*["a dog"] * 50, "a zebra")})
    weights = dict(zip(terms("dog zebra"), cues.search("dog zebra").weights, strict=True))
    assert weights["zebra"] > weights["dog"]


def test_only_the_videos_asked_for(cues):
    cues.replace({"a": said("a dog"), "b": said("a dog", video="w's")})
    assert [cue.video for cue in cues.search("dog", ["w's"]).cues] == ["w's"]
    assert len(cues.search("dog", [])) == 0
    assert (cues.count(), cues.count(["w's"])) == (2, 1)


def test_a_source_is_replaced_as_a_whole_and_others_are_left_alone(cues):
    cues.replace({"a": said("a dog", "a cat"), "b": said("a horse", video="w")})
    cues.replace({"a": said("a cow")})
    assert [cue.text for cue in cues.of("v")] == ["a cow"]
    assert found(cues, "dog") == found(cues, "cat") == []
    assert found(cues, "horse") == ["a horse"]
    cues.replace({"a": []})
    assert cues.of("v") == []
    assert cues.count() == 1


def test_a_line_of_two_sources_is_found_once(cues):
    cues.replace({"a": said("a dog", "a cat"), "b": said("a dog")})
    assert found(cues, "dog") == ["a dog"]
    assert len(cues.of("v")) == 2
    assert found(cues, "dog cat", k=2) == ["a dog", "a cat"] or found(cues, "dog cat", k=2) == ["a cat", "a dog"]


def test_k_takes_the_best(cues):
    cues.replace({"s": said("a red dog", "a red cat", "a red red zebra")})
    assert found(cues, "red zebra", k=1) == ["a red red zebra"]


def test_a_long_query_is_cut_at_its_first_words(cues):
    cues.replace({"s": said("w40")})
    assert len(terms(" ".join(f"w{n}" for n in range(100)))) == MOST_TERMS
    assert found(cues, " ".join(f"w{n}" for n in range(100))) == []


KILLED = """
import sys
from rushes.index.cues import Cues
from rushes.index.store import Store
from rushes.types import Cue
cues, number = Cues(Store(sys.argv[1], create=True)), 0
while True:
    number += 1
    cues.replace({"s": [Cue("v", float(row), row + 1.0, f"turn {number}") for row in range(20)]})
    print(number, flush=True)
"""


def test_a_kill_leaves_the_lines_of_one_turn(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline()
        time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    left = Cues(Store(tmp_path)).of("v")
    assert len(left) == 20
    assert len({cue.text for cue in left}) == 1
