"""Content words are found where they stand in the caption; what is dropped from it are the words of all captions."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.tagging import CLOSED_CLASS, Corpus, content_words, drop_common_words

FLICKR8K = Path(__file__).parents[2] / "shared" / "data" / "flickr8k" / "captions.txt"
HAS_SPACY = importlib.util.find_spec("spacy") is not None


def content(text: str, tagger: str = "closed-class") -> list[str]:
    return [text[start:end] for start, end in content_words(text, tagger)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man is playing the guitar on a stage .", "man playing guitar stage"),
        ("Two little dogs run through the SNOW!", "little dogs run SNOW"),
        ("a woman in front of another woman", "woman woman"),
        ("someone has been cooking while they're talking", "cooking talking"),
        ("the boy isn't catching it, can't he?", "boy catching"),
        ("the boy isn’t catching the girls’ ball, he’s not", "boy catching girls ball"),
        ("a boy is n't near the man 's dog", "boy man dog"),  # as a treebank splits them, and Flickr8k
        ("he won the race; she won't", "won race"),
        ("black-and-white t-shirt", "black white t shirt"),
        ("  café\tnaïve  cafe\u0301 ", "café naïve cafe\u0301"),
        ("a ☃ and 👩‍🚀 at 10:30 in 3D with 2 dogs", "3D dogs"),
        ("under_the_bridge", "under_the_bridge"),  # a name, of a file perhaps, not three words
        ("собака ловит мяч", "собака ловит мяч"),  # the list is English: elsewhere every word counts
    ],
)
def test_content_words_by_hand(text, words):
    assert content(text) == words.split()


def test_a_text_may_have_no_content():
    assert content_words("") == content_words("there it is, over here: 2!") == []


@given(st.text(max_size=60))
def test_spans_lie_in_the_text_one_after_another(text):
    spans = content_words(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    for start, end in spans:
        word = text[start:end]
        assert word == word.strip()
        assert any(letter.isalpha() for letter in word)
        assert word.lower() not in CLOSED_CLASS
        assert content_words(text[:end])[-1] == (start, end)  # what follows a word does not change it


def test_the_list_is_a_part_of_the_models_trained_with_it():
    """A changed list is another tagger: give it another name, and keep this one for the models that know it."""
    assert len(CLOSED_CLASS) == 333
    assert hashlib.sha256(" ".join(sorted(CLOSED_CLASS)).encode()).hexdigest()[:16] == "43818c094a1c4cc8"


def test_a_tagger_is_named_and_never_guessed():
    with pytest.raises(LookupError, match="no tagger 'nltk'; there are closed-class, spacy"):
        content_words("a dog", "nltk")


def test_a_tagger_that_is_missing_says_how_to_install_it():
    if HAS_SPACY:
        pytest.skip("spaCy is installed")
    with pytest.raises(LookupError, match=r"'spacy' is not installed; `pip install 'rushes\[tagger\]'`"):
        content_words("a dog", "spacy")


def test_tagging_imports_neither_torch_nor_a_tagger():
    program = (
        "import sys, rushes.tagging as t; t.content_words('a dog'); sys.exit(bool({'torch', 'spacy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_both_taggers_mostly_agree():
    pytest.importorskip("spacy")
    assert content("A man doesn't catch the red balls.", "spacy") == ["man", "catch", "red", "balls"]
    if not FLICKR8K.is_file():
        pytest.skip("Flickr8k is not here: put it into ../shared/data/flickr8k")
    lines = FLICKR8K.read_text().splitlines()[1:]
    captions = [line.split(",", 1)[1] for line in random.Random(1).sample(lines, 200)]
    same = total = 0
    for caption in captions:
        spans, others = (set(content_words(caption, tagger)) for tagger in ("closed-class", "spacy"))
        same, total = same + len(spans & others), total + len(spans | others)
    assert same / total > 0.93  # of content words, not of all; 0.97 measured


# --- words that a caption can spare ----------------------------------------------------------------------------------

VIDEO = ["A man rides a horse on the beach .", "a man on a horse", "the horse walks on a beach"]
CORPUS = Corpus.of([VIDEO, ["a dog on the grass"], ["the man cooks on a stove"], ["a cat", "a cat on the bed"]])


def texts(captions: list[str], which: int, corpus: Corpus = CORPUS, draws: int = 400) -> Counter[str]:
    draw = random.Random(0)
    return Counter(drop_common_words(captions, which, corpus, draw) for _ in range(draws))


def test_documents_are_videos_and_words_are_bare():
    assert (CORPUS.videos, CORPUS.holding["a"], CORPUS.holding["man"], CORPUS.holding["beach"]) == (4, 4, 2, 1)
    assert "." not in CORPUS.holding
    assert CORPUS.rarity("a") == 0
    assert CORPUS.rarity("man") == pytest.approx(math.log(5 / 3))
    assert CORPUS.rarity("zebra") == pytest.approx(math.log(5))
    with pytest.raises(ValueError, match="no captions to count"):
        Corpus.of([])


def test_the_lightest_words_go_and_the_telling_ones_stay():
    """Of 19 words, by hand: a 0, on 0, the 0; man 2/19 ln(5/3) = 0.054; rides 1/19 ln(5/2) = 0.048; beach 0.096.

    horse 3/19 ln(5/2) = 0.145 is too heavy. The five lightest: a, a, on, the, rides; at most four of eight words go.
    """
    found = texts(VIDEO, 0)
    assert all(("man" in text) and ("horse" in text) and text.endswith("beach .") for text in found)
    assert {word for text in found for word in VIDEO[0].split() if word not in text.split()} == {
        "A",
        "a",
        "on",
        "the",
        "rides",
    }


def test_how_many_go_is_uniform_and_which_ones_too():
    gone = Counter[int]()
    each = Counter[str]()
    for text, times in texts(VIDEO, 0, draws=5000).items():
        gone[8 - len(text.split()) + 1] += times
        each.update(dict.fromkeys(set(VIDEO[0].split()) - set(text.split()), times))
    assert sorted(gone) == [0, 1, 2, 3, 4]
    assert all(abs(times - 1000) < 120 for times in gone.values())  # four standard deviations
    assert all(abs(times - 2000) < 140 for times in each.values())  # each of 5 goes in E[r] / 5 = 2/5 of the draws


@given(st.lists(st.text(alphabet="abc. \n", max_size=30), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 9))
def test_what_is_left_is_the_caption_in_order_and_at_least_half_of_it(captions, which, seed):
    which %= len(captions)
    before = list(captions)
    text = drop_common_words(captions, which, Corpus.of([captions, ["a"], ["b"]]), random.Random(seed))
    words, left = captions[which].split(), text.split(" ") if text else []
    place = iter(words)
    assert all(word in place for word in left)  # a subsequence
    real = sum(bool(word.strip(".")) for word in words)
    gone = len(words) - len(left)
    assert gone <= min(5, real // 2)
    assert [word for word in left if not word.strip(".")] == [word for word in words if not word.strip(".")]
    assert captions == before


def test_it_is_drawn_anew_at_each_call_and_again_from_the_same_seed():
    assert len(texts(VIDEO, 2)) > 5
    one, two = (random.Random(7) for _ in range(2))
    assert [drop_common_words(VIDEO, 2, CORPUS, one) for _ in range(9)] == [
        drop_common_words(VIDEO, 2, CORPUS, two) for _ in range(9)
    ]


def test_captions_that_can_spare_nothing():
    assert set(texts(["a"], 0)) == {"a"}  # one word stays, however common
    assert set(texts(["zebra  crossing"], 0)) == {"zebra crossing"}  # two, too heavy; blanks become single
    assert set(texts(["..."], 0)) == {"..."}
    assert set(texts(["  "], 0)) == {""}
