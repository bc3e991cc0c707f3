"""The page's pure functions, asked in a browser, and what must hold of its files whatever they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import chromium

PAGE = Path(__file__).parents[2] / "rushes/serve/page"
SCRIPTS = sorted(PAGE.glob("*.js"))
TYPES = {".js": "text/javascript", ".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml"}
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """`call("words.js", "clock", 75)`: a function of a module, called in a browser."""
    with chromium.running() as browser:
        page = browser.new_page()

        def serve(route):
            file = PAGE / route.request.url.rsplit("/", 1)[-1]
            if file.suffix == ".html":
                route.fulfill(body="<!doctype html><title>modules</title>", content_type="text/html")
            else:
                route.fulfill(body=file.read_text(), content_type=TYPES[file.suffix])

        page.route("http://page.test/**", serve)
        page.goto("http://page.test/empty.html")

        def ask(module: str, function: str, *given: Any) -> Any:
            return page.evaluate(
                "async ([module, name, given]) => {"
                "  const found = (await import(`/${module}`))[name];"
                "  return typeof found === 'function' ? found(...given) : found }",
                [module, function, list(given)],
            )

        yield ask


# --- what a person types ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "text", "avoid", "then"),
    [
        ("a dog on grass", "a dog on grass", [], ""),
        ("a dog on grass -beach", "a dog on grass", ["beach"], ""),
        ("-beach a dog -night on grass", "a dog on grass", ["beach", "night"], ""),
        ("a dog not beach", "a dog", ["beach"], ""),
        ("a dog not on the beach, running", "a dog running", ["on the beach"], ""),
        ("dog not beach not night", "dog", ["beach", "night"], ""),
        ("dog NOT beach -night", "dog", ["beach", "night"], ""),
        ('a "red ball" -"sandy beach"', "a red ball", ["sandy beach"], ""),
        ('"not a toy"', "not a toy", [], ""),
        ('"-x then y"', "-x then y", [], ""),
        ("a dog runs, then it jumps", "a dog runs", [], "it jumps"),
        ("a dog runs and then it jumps -cat", "a dog runs", ["cat"], "it jumps"),
        ("a then b then c", "a", [], "b then c"),
        ("a dog, a cat, a horse", "a dog, a cat, a horse", [], ""),
        ("half-open door - quiet", "half-open door - quiet", [], ""),
        ("then it jumps", "then it jumps", [], ""),
        ("a dog then", "a dog then", [], ""),
        ("why not", "why not", [], ""),
        ("not beach", "", ["beach"], ""),
        ('an "open quote then more', "an open quote then more", [], ""),
        ("notebook on a knot", "notebook on a knot", [], ""),
        ("  ,, ", "", [], ""),
        ("", "", [], ""),
    ],
)
def test_what_is_typed_is_understood(call, typed, text, avoid, then):
    found = call("query.js", "parse", typed)
    assert (found["text"], found["avoid"], found["then"]) == (text, avoid, then)


@pytest.mark.parametrize(
    ("typed", "kind", "rest"),
    [
        ("a dog on grass -beach", "avoid", "a dog on grass"),
        ("-beach a dog", "avoid", "a dog"),
        ("a dog not on the beach, running", "avoid", "a dog, running"),
        ("a dog runs, and then it jumps -cat", "then", "a dog runs, -cat"),
        ("a dog runs, then it jumps", "then", "a dog runs"),
        ('a -"sandy beach" dog', "avoid", "a dog"),
    ],
)
def test_a_part_can_be_taken_out_of_what_was_typed(call, typed, kind, rest):
    (piece,) = [piece for piece in call("query.js", "parse", typed)["pieces"] if piece["kind"] == kind][:1]
    assert call("query.js", "without", typed, piece) == rest


def test_the_server_is_asked_what_was_said_and_no_more(call):
    nothing = call("state.js", "NOTHING")
    assert call("query.js", "body", {**nothing, "q": "a dog"}) == {"text": "a dog"}
    said = {
        **nothing,
        "q": "a dog -cat, then it jumps",
        "avoid": "cat, night",
        "within": 12,
        "spoken": "only",
        "folder": "/beach",
        "least": 5,
        "most": 600,
        "after": "2024-01-01",
        "before": "2024-12-31",
        "tags": "x, y",
        "group": True,
        "sort": "time",
        "sure": True,
        "image": "I",
        "like": "S",
    }
    assert call("query.js", "body", said) == {
        "text": "a dog",
        "avoid": ["cat", "night"],
        "then": {"text": "it jumps", "within": 12},
        "spoken": "only",
        "where": {
            "folder": "beach",
            "min_seconds": 5,
            "max_seconds": 600,
            "after": "2024-01-01",
            "before": "2025-01-01",
            "tags": ["x", "y"],
        },
        "group": "video",
        "sort": "time",
        "min_confidence": 0.5,
        "image": "I",
        "like": "S",
    }
    assert not call("query.js", "asks", {**nothing, "q": "-cat", "folder": "beach"}), "only what narrows"
    assert call("query.js", "asks", {**nothing, "video": "V"})


def test_a_last_day_is_meant_to_be_in(call):
    assert [call("query.js", "dayAfter", day) for day in ("2024-02-28", "2023-02-28", "")] == [
        "2024-02-29",
        "2023-03-01",
        None,
    ]


def test_an_address_says_the_whole_state(call):
    nothing = call("state.js", "NOTHING")
    assert call("state.js", "write", nothing) == "#/search"
    for fragment in (
        "",
        "#",
        "#/",
        "#/search",
        "#/elsewhere",
        "#/search?unknown=1&sort=up&spoken=loud&within=-3&least=x",
    ):
        assert call("state.js", "read", fragment) == nothing, fragment
    state = {
        **nothing,
        "q": "a & b #c=d é",
        "within": 7,
        "least": 0,
        "group": True,
        "play": "ab",
        "segment": "ab:0",
        "from": 1.25,
    }
    assert call("state.js", "read", call("state.js", "write", state)) == state
    assert call("state.js", "read", "#/library")["tab"] == "library"


# --- numbers in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [
        ("clock", [0], "0:00"),
        ("clock", [75.9], "1:15"),
        ("clock", [3671], "1:01:11"),
        ("span", [3.2, 7.0], "0:03–0:07"),
        ("span", [3.2, 3.6], "0:03–0:04"),
        ("span", [3.0, 3.0], "0:03–0:04"),
        ("secondsOf", ["1:30"], 90),
        ("secondsOf", ["90"], 90),
        ("secondsOf", [" 1:00:01 "], 3601),
        ("secondsOf", [""], None),
        ("size", [999], "999 bytes"),
        ("size", [1500], "1.5 kB"),
        ("size", [2_900_000_000], "2.9 GB"),
        ("duration", [1], "1 second"),
        ("duration", [240], "4 minutes"),
        ("duration", [9000], "2.5 hours"),
        ("count", [1, "moment"], "1 moment"),
        ("count", [1200, "moment"], "1,200 moments"),
        ("sureness", [None], None),
        ("sureness", [0.9], "very likely"),
        ("sureness", [0.5], "likely"),
        ("sureness", [0.1], "perhaps"),
        ("sureness", [0.0], "unlikely"),
        ("steps", [0.0], 1),
        ("steps", [0.1], 2),
        ("steps", [0.8], 5),
    ],
)
def test_numbers_are_said_in_words(call, function, given, said):
    assert call("words.js", function, *given) == said


def test_every_code_of_a_failure_has_plain_words(call):
    from rushes.video.probe import VideoError

    codes = re.findall(r"^    ([a-z-]+(?:, [a-z-]+)*)   ", VideoError.__doc__ or "", re.MULTILINE)
    each = [code for line in codes for code in line.split(", ")]
    assert len(each) > 8
    for code in each:
        assert call("words.js", "reasonOf", code, "[raw]") != "[raw]", code
    assert call("words.js", "reasonOf", "a-new-code", "its own words") == "its own words"


# --- the strip and the table ------------------------------------------------------------------------------------------


def test_the_strip_marks_one_peak_a_run(call):
    matches = [
        {"start": n, "end": n + 1, "score": 0.0, "confidence": c} for n, c in enumerate([0.1, 0.7, 0.9, 0.2, 0.6, 0.1])
    ]
    heights = call("strip.js", "levels", matches)
    assert heights == [0.1, 0.7, 0.9, 0.2, 0.6, 0.1]
    assert call("strip.js", "peaks", matches, heights) == [2, 4]
    assert call("strip.js", "peaks", matches[:1], [0.1]) == [0]
    scored = [{"start": n, "score": s, "confidence": None} for n, s in enumerate([-1.0, 1.0, 0.0])]
    assert call("strip.js", "levels", scored) == [0, 1, 0.5]
    assert call("strip.js", "levels", scored[:1]) == [1]


def test_arrow_keys_go_to_the_next_match(call):
    times = [2, 10, 30]
    assert [call("strip.js", "nextOf", times, at, 1) for at in (0, 2, 9.9, 10, 30)] == [2, 10, 30, 30, None]
    assert [call("strip.js", "nextOf", times, at, -1) for at in (40, 30.5, 12, 2, 0)] == [30, 10, 10, None, None]


def test_the_table_says_its_levels_in_words(call):
    assert call("explain.js", "heat", [[0.0, 1.0], [0.5, 0.25]]) == [[0, 1], [0.5, 0.25]]
    assert call("explain.js", "heat", [[0.3, 0.3]]) == [[0.5, 0.5]]
    assert [call("explain.js", "strength", level) for level in (0, 0.3, 0.5, 0.7, 1)] == [
        "hardly",
        "a little",
        "some",
        "well",
        "very well",
    ]
    told = {"words": ["a", "dog"], "weights": [0.1, 0.9], "spans": [[0, 1], [1, 2]], "scores": [[0.9, 0.1], [0.1, 0.4]]}
    assert "“dog” counts most, and fits best at 0:01–0:02" in call("explain.js", "sentence", told)
    assert call("explain.js", "sentence", {**told, "whole": 1}).startswith("The sentence as a whole counts most")


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_builds_no_html_from_text_and_stays_small(script):
    text = script.read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"):
        assert way not in text, way
    assert "createContextualFragment" not in text
    assert not re.search(r"\bstyle:\s", text), "a style attribute is refused by the page's policy"
    assert text.count("\n") < 300
    for name in re.findall(r'from "\./([^"]+)"', text):
        assert (PAGE / name).is_file(), name


def test_the_page_asks_no_other_place():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file.name
        assert not re.search(r"url\(", text), file.name


def test_the_html_has_no_inline_script_or_style():
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    for name in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (PAGE / name.lstrip("/").removeprefix("page/")).is_file(), name
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_what_scripts_look_for_is_there():
    made = set(re.findall(r'\bid="([^"]+)"', (PAGE / "index.html").read_text()))
    made |= {name for script in SCRIPTS for name in re.findall(r'\bid: "([^"]+)"', script.read_text())}
    for script in SCRIPTS:
        for name in re.findall(r'byId\("([^"]+)"\)', script.read_text()):
            assert name in made, f"{script.name} looks for #{name}"
