"""The page in a browser, against a real server with a real index: found, played, narrowed, uploaded, indexed.

Screenshots go to the folder that RUSHES_SCREENSHOTS names, else to pytest's own temporary folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rushes
from rushes.data.compose import render
from tests import chromium
from tests.serve.browsing import (
    HOSTILE,
    REELS,
    Watch,
    accessible,
    draw,
    draw_library,
    draw_long,
    pictures,
    reel,
    serving,
    wait_ready,
)

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
WAIT = 60_000  # milliseconds: the machine may be busy
PHONE = {"width": 360, "height": 740}
CARD = "#found .card:not(.ghost)"
PLAYING = (
    "() => { const v = document.querySelector('#video'); return !v.paused && v.readyState >= 2 && v.currentTime > 0 }"
)
Open = Callable[..., Any]


@pytest.fixture(scope="module")  # no longer: its event loop would be in the way of other modules' own
def browser() -> Iterator[Any]:
    with chromium.running("--autoplay-policy=user-gesture-required") as found:
        yield found


@pytest.fixture(scope="session")
def address(tmp_path_factory) -> Iterator[str]:
    """A server of an indexed library."""
    chromium.program()  # without a browser there is nothing to draw it for
    folder = tmp_path_factory.mktemp("films") / "films"
    draw_library(folder)
    report = rushes.open(folder).refresh(model="small")
    assert (report.videos, report.failed) == (6, 1)
    with serving(folder) as (address, _):
        wait_ready(address)
        yield address


@pytest.fixture
def opened(browser, address) -> Iterator[Open]:
    """`opened("#/search?q=a+cat")` is a page there; all are looked over at the end."""
    watches, contexts = [], []

    def open_page(fragment: str = "", at: str = "", **context: Any) -> Any:
        made = browser.new_context(
            **{"viewport": {"width": 1200, "height": 800}, "reduced_motion": "no-preference", **context}
        )
        made.set_default_timeout(WAIT)
        page = made.new_page()
        watch = Watch(at or address)
        watch.on(page)
        page.watch = watch
        watches.append(watch)
        contexts.append(made)
        page.goto((at or address) + fragment)
        return page

    yield open_page
    for watch in watches:
        watch.clean()
    for context in contexts:
        context.close()


@pytest.fixture
def shoot(tmp_path) -> Callable[[Any, str], None]:
    """Keep a picture of the page."""
    folder = Path(os.environ.get("RUSHES_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png")


def cards(page: Any) -> list[tuple[str, str]]:
    """Names and times of the results, in their order, once there are any."""
    page.locator(CARD).first.wait_for()
    found = page.eval_on_selector_all(
        CARD, "all => all.map(one => [one.querySelector('.name').textContent, one.querySelector('.time').textContent])"
    )
    return [(name, times) for name, times in found]


def ask(page: Any, text: str) -> None:
    page.fill("#q", text)
    page.press("#q", "Enter")
    settled(page)


def settled(page: Any) -> None:
    """The last question is answered."""
    page.wait_for_function("() => !document.querySelector('#found').hasAttribute('aria-busy')")


def span_of(name: str, picture: str) -> tuple[float, float]:
    """When a video of the library shows a picture."""
    shots = reel(name, REELS[name]).shots
    return next((shot.start, shot.end) for shot in shots if shot.picture == picture)


def playing(page: Any) -> float:
    """The second at which the player plays, once it does."""
    page.wait_for_function(PLAYING)
    return page.evaluate("document.querySelector('#video').currentTime")


def narrow(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"


# --- asking -----------------------------------------------------------------------------------------------------------


def test_nothing_typed_shows_what_can_be_asked(opened, shoot):
    page = opened()
    page.get_by_role("heading", name="For example").wait_for()
    assert page.evaluate("document.activeElement.id") == "q"
    assert page.get_by_role("search").count() == 1
    accessible(page)
    shoot(page, "idle")
    page.get_by_role("button", name="a red car -night").click()
    assert page.locator("#chips .chip").text_content() == "without night"
    cards(page)
    assert page.title() == "“a red car”, without “night” – Rushes"


def test_a_text_finds_its_moment(opened, shoot):
    page = opened()
    ask(page, "a motorcycle")
    start, end = span_of("beach/people.mp4", "motorcycle_left.png")
    assert cards(page)[0] == ("people.mp4", f"0:0{start:.0f}–0:0{end:.0f}")
    assert page.get_by_role("heading", name="No good match").count() == 0
    assert re.match("(very )?likely", page.locator(f"{CARD} .sure").first.inner_text())
    assert "moment" in page.locator("#said").inner_text()
    shown = page.locator(f"{CARD} .thumb img").first
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=shown.element_handle())
    accessible(page)
    shoot(page, "results")


def test_back_goes_back_to_the_question_before(opened):
    page = opened()
    ask(page, "a cat")
    first = cards(page)
    ask(page, "the moon")
    assert cards(page) != first
    page.go_back()
    page.wait_for_function("() => document.querySelector('#q').value === 'a cat'")
    settled(page)
    assert cards(page) == first
    page.go_back()
    page.get_by_role("heading", name="For example").wait_for()
    assert page.input_value("#q") == ""


def test_slash_leads_to_the_question(opened):
    page = opened("#/search?q=a+cat")
    cards(page)
    page.locator("body").click(position={"x": 5, "y": 300})
    assert page.evaluate("document.activeElement.id") != "q"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    assert page.input_value("#q") == "a cat"


def test_chips_take_parts_away(opened):
    page = opened("#/search?q=a+cat+-coffee&folder=beach&group=1")
    cards(page)
    assert page.locator("#chips .chip").count() == 3
    page.get_by_role("button", name="Remove: folder beach").click()
    page.get_by_role("button", name="Remove: show one result a video").click()
    page.get_by_role("button", name="Remove: without coffee").click()
    assert page.input_value("#q") == "a cat"
    assert page.evaluate("document.activeElement.id") == "q"
    assert page.url.endswith("#/search?q=a+cat")


def test_more_ways_to_ask_narrow_what_is_found(opened, shoot):
    page = opened("#/search?q=a+picture")
    everything = {name for name, _ in cards(page)}
    page.locator("#more summary").click()
    page.fill("[name=folder]", "beach")
    page.press("[name=folder]", "Enter")
    page.wait_for_function("() => location.hash.includes('folder=beach')")
    settled(page)
    assert {name for name, _ in cards(page)} == {"people.mp4"} < everything
    page.locator("#more summary").click()
    shoot(page, "more")
    accessible(page)
    page.get_by_role("button", name="Clear these").click()
    page.wait_for_function("() => !location.hash.includes('folder')")
    page.fill("[name=least]", "0:20")
    page.check("[name=group]")  # asks at once, with all that was typed
    page.wait_for_function("() => location.hash.includes('least=20') && location.hash.includes('group=1')")
    settled(page)
    assert [name for name, _ in cards(page)] == ["long.mp4"]
    page.fill("[name=least]", "soon")
    page.press("[name=least]", "Enter")
    assert not page.evaluate("document.querySelector('[name=least]').validity.valid")
    assert page.input_value("[name=least]") == "soon"


def test_there_is_more_than_one_page(opened):
    page = opened("#/search?q=a+pattern")
    before = cards(page)
    assert len(before) == 24
    more = page.locator("#show-more")
    more.click()
    page.wait_for_function("() => document.querySelectorAll('#found .card').length > 24")
    after = cards(page)
    assert after[:24] == before
    assert page.evaluate("document.activeElement.closest('.card').dataset.place") == "24"
    while more.count():
        count = len(cards(page))
        more.click()
        page.wait_for_function("count => document.querySelectorAll('#found .card').length > count", arg=count)
    said = page.locator("#said").inner_text()
    assert re.match(rf"(No good match\. Nearest: )?{len(cards(page))} moments", said), said


def test_what_is_not_there_is_said_plainly(opened, shoot):
    page = opened()
    ask(page, "ten surgeons operate on a giraffe under water")
    page.get_by_role("heading", name="No good match").wait_for()
    assert cards(page), "the nearest is shown anyway"
    assert "No good match" in page.locator("#said").inner_text()
    assert page.locator("#found .grid.dim").count() == 1
    accessible(page)
    shoot(page, "no-match")


def test_a_result_says_how_sure_it_is(opened):
    page = opened("#/search?q=a+cat")
    cards(page)
    sure = page.locator(f"{CARD} .sure")
    assert sure.count() == page.locator(CARD).count()
    assert re.match(r"(very likely|likely|perhaps|unlikely)", sure.first.inner_text())


def test_spoken_words_are_found_and_shown(opened):
    page = opened("#/search?q=good+morning+little+tiger&spoken=only")
    assert [name for name, _ in cards(page)] == ["cat and coffee.mp4"]
    assert "Good morning, little tiger!" in page.locator(f"{CARD} .cue").inner_text()
    page.locator(f"{CARD} .thumb").click()
    cue = page.locator("#player-cues button")
    assert "Good morning" in cue.inner_text()
    playing(page)
    cue.click()
    page.wait_for_function("() => Math.abs(document.querySelector('#video').currentTime - 3.5) < 2")


def test_more_like_this_asks_with_the_moment(opened):
    page = opened("#/search?q=a+cat")
    cards(page)
    page.locator(f"{CARD} .acts button", has_text="More like this").first.click()
    page.wait_for_function("() => location.hash.includes('like=')")
    settled(page)
    assert page.locator("#chips .chip .kind").inner_text() == "like"
    assert {"cat and coffee.mp4", "old film.avi"} & {name for name, _ in cards(page)[:2]}


# --- playing ----------------------------------------------------------------------------------------------------------


def test_a_click_plays_the_moment_and_goes_on_after_it(opened, shoot):
    page = opened("#/search?q=a+cat")
    names = [name for name, _ in cards(page)]
    page.locator(f"{CARD} .thumb").nth(names.index("cat and coffee.mp4")).click()
    start, end = span_of("cat and coffee.mp4", "chelsea.png")
    first = playing(page)
    assert start - 0.1 <= first <= end
    page.wait_for_function("first => document.querySelector('#video').currentTime > first + 0.3", arg=first)
    page.locator("#strip .strip rect.top").first.wait_for(state="attached")
    accessible(page)
    shoot(page, "player")
    page.wait_for_function("end => document.querySelector('#video').currentTime > end", arg=end + 0.2)
    assert not page.locator("#video").evaluate("video => video.muted"), "a click allows sound"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('#player').open")
    assert "play=" not in page.url
    assert page.evaluate("document.activeElement.matches('.thumb')")


def test_the_strip_leads_from_match_to_match(opened):
    page = opened("#/search?q=a+cat")
    names = [name for name, _ in cards(page)]
    page.locator(f"{CARD} .thumb").nth(names.index("cat and coffee.mp4")).click()
    playing(page)
    strip = page.get_by_role("slider", name="Where it matches")
    page.locator("#strip rect.top").first.wait_for(state="attached")
    page.evaluate("document.querySelector('#video').pause()")
    strip.focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#video').currentTime < 1")
    page.evaluate("document.querySelector('#video').pause()")
    page.keyboard.press("ArrowRight")
    start, end = span_of("cat and coffee.mp4", "chelsea.png")
    page.wait_for_function("start => document.querySelector('#video').currentTime >= start - 0.1", arg=start)
    assert page.evaluate("document.querySelector('#video').currentTime") <= end
    assert re.match(r"0:0\d of 0:10, ", strip.get_attribute("aria-valuetext"))
    box = strip.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    page.wait_for_function("() => Math.abs(document.querySelector('#video').currentTime - 9) < 1")


def test_the_player_says_why(opened, shoot):
    page = opened("#/search?q=a+cat+sleeps")
    cards(page)
    page.locator(f"{CARD} .thumb").first.click()
    playing(page)
    page.locator("#why summary").click()
    table = page.locator("#why table.heat")
    table.wait_for()
    words = table.locator("tbody th").all_inner_texts()
    assert any("cat" in word for word in words)
    cells = table.locator("tbody tr").first.locator("td")
    assert cells.count() == table.locator("thead th").count() - 1 > 0
    assert cells.first.text_content() in ("hardly", "a little", "some", "well", "very well")
    assert "counts most" in page.locator("#why-body").inner_text()
    accessible(page)
    shoot(page, "why")
    page.evaluate("document.querySelector('#video').pause()")
    table.locator("thead button").last.click()
    playing(page)


def test_arrow_keys_go_to_other_results(opened):
    page = opened("#/search?q=a+cat")
    found = cards(page)
    page.locator(f"{CARD} .thumb").first.click()
    assert page.locator("#previous").is_disabled()
    for key, place in (("ArrowRight", 1), ("j", 2), ("k", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        page.wait_for_function(
            "name => document.querySelector('#player-title').textContent === name", arg=found[place][0]
        )
        assert found[place][1] in page.locator("#player-about").inner_text()
    page.go_back()
    page.wait_for_function("() => !document.querySelector('#player').open")
    assert cards(page) == found, "back leaves the player at once"


def test_what_a_browser_does_not_play_is_played_in_clips(opened):
    page = opened("#/search?q=a+rocket&group=1")
    names = [name for name, _ in cards(page)]
    page.locator(f"{CARD} .thumb").nth(names.index("old film.avi")).click()
    playing(page)
    assert "/clip?" in page.evaluate("document.querySelector('#video').currentSrc")
    page.locator("#strip rect").first.wait_for(state="attached")
    strip = page.get_by_role("slider", name="Where it matches")
    strip.focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#video').currentSrc.includes('start=0.000')")
    playing(page)
    page.wait_for_function("() => document.querySelector('.strip').dataset.time > 0.2")


def test_a_card_plays_muted_while_it_is_pointed_at(opened):
    page = opened("#/search?q=a+cat")
    names = [name for name, _ in cards(page)]
    thumb = page.locator(f"{CARD} .thumb").nth(names.index("cat and coffee.mp4"))
    thumb.hover()
    video = thumb.locator("video.on")
    video.wait_for(state="attached")
    start, end = span_of("cat and coffee.mp4", "chelsea.png")
    assert video.evaluate("video => video.muted")
    assert start - 0.1 <= video.evaluate("video => video.currentTime") <= end + 1
    page.mouse.move(2, 2)
    page.wait_for_function("() => !document.querySelector('#found video')")


def test_a_card_stays_still_for_those_who_want_calm(opened):
    page = opened("#/search?q=a+cat", reduced_motion="reduce")
    cards(page)
    page.locator(f"{CARD} .thumb").first.hover()
    page.wait_for_timeout(1000)
    assert page.locator("#found video").count() == 0


def test_a_link_leads_to_the_moment(opened, browser):
    page = opened("#/search?q=a+cat", permissions=["clipboard-read", "clipboard-write"])
    names = [name for name, _ in cards(page)]
    card = page.locator(CARD).nth(names.index("cat and coffee.mp4"))
    card.locator("button", has_text="Copy link").click()
    card.locator("button", has_text="Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == card.locator("a.thumb").evaluate("link => link.href")
    other = opened(link.split("/", 3)[3])
    start, end = span_of("cat and coffee.mp4", "chelsea.png")
    assert start - 0.1 <= playing(other) <= end
    assert other.locator("#player-title").inner_text() == "cat and coffee.mp4"
    other.wait_for_function(
        "() => !document.querySelector('#next').disabled || !document.querySelector('#previous').disabled"
    )
    other.keyboard.press("Escape")
    other.wait_for_function("() => !document.querySelector('#player').open")
    assert [name for name, _ in cards(other)] == names, "behind it is what was asked"


def test_a_link_to_what_is_gone_says_so(opened):
    page = opened(f"#/search?play={'0' * 32}&from=1")
    page.get_by_role("heading", name="no longer in the library").wait_for()
    accessible(page)
    page.watch.said = [line for line in page.watch.said if "404" not in line]


def test_from_load_to_a_playing_moment_and_back_by_keys_alone(opened):
    page = opened()
    page.wait_for_function("() => document.activeElement.id === 'q'")
    page.keyboard.type("a cat")
    page.keyboard.press("Enter")
    settled(page)
    found = cards(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#found .thumb')"):
            break
    assert page.evaluate("document.activeElement.closest('.card').dataset.place") == "0"
    page.keyboard.press("Enter")
    playing(page)
    assert page.locator("#player-title").inner_text() == found[0][0]
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('#video').paused")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('#player').open")
    assert page.evaluate("document.activeElement.closest('.card').dataset.place") == "0"


# --- asking with pictures ---------------------------------------------------------------------------------------------


def test_an_image_finds_what_looks_like_it(opened, shoot):
    page = opened()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search with an image or a video clip").click()
    chooser.value.set_files(pictures() / "chelsea.png")
    page.wait_for_function("() => location.hash.includes('image=')")
    settled(page)
    assert cards(page)[0][0] in ("cat and coffee.mp4", "old film.avi")
    assert page.locator("#chips .chip").inner_text().startswith("image")
    assert "chelsea.png" in page.locator("#chips .chip").inner_text()
    assert page.locator("#chips canvas").count() == 1
    accessible(page)
    shoot(page, "image")
    ask(page, "coffee")
    assert "image=" in page.url, "a text stands beside it"
    page.get_by_role("button", name="Remove: image chelsea.png").click()
    settled(page)
    assert page.url.endswith("#/search?q=coffee")


def test_a_clip_finds_where_it_is_from(opened, tmp_path, shoot):
    name = "beach/people.mp4"
    clip = tmp_path / "from the beach.mp4"
    render(
        reel("clip", (("motorcycle_left.png", 3.0), ("camera.png", 3.0))), clip, root=pictures(), options={"crf": "30"}
    )
    page = opened()
    page.locator("#file").set_input_files(clip)
    page.wait_for_function("() => location.hash.includes('video=')")
    settled(page)
    first = cards(page)[0]
    assert first[0] == name.split("/")[1]
    assert re.search(r"like 0:0\d–0:0\d of your clip", page.locator(CARD).first.inner_text())
    assert "from the beach.mp4" in page.locator("#chips .chip").inner_text()
    shoot(page, "clip")
    page.locator(f"{CARD} .thumb").first.click()
    assert "of your clip" in page.locator("#player-about").inner_text()
    playing(page)


def test_a_pasted_picture_is_asked_with(opened):
    page = opened()
    page.get_by_role("heading", name="For example").wait_for()
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(64, 48);
          const brush = canvas.getContext("2d");
          brush.fillStyle = "green"; brush.fillRect(0, 0, 64, 48);
          const file = new File([await canvas.convertToBlob({type: "image/png"})], "", {type: "image/png"});
          const clipboardData = new DataTransfer();
          clipboardData.items.add(file);
          document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}));
        }"""
    )
    page.wait_for_function("() => location.hash.includes('image=')")
    settled(page)
    assert cards(page)


def test_a_dropped_file_that_is_no_picture_is_refused_in_plain_words(opened):
    page = opened()
    page.get_by_role("heading", name="For example").wait_for()
    data = page.evaluate_handle(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["hello"], "notes.png", {type: "image/png"}));
          return data;
        }"""
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    assert page.locator("#drop").is_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    page.locator("#notice").wait_for()
    assert "“notes.png”: This is neither an image nor a video." in page.locator("#notice").inner_text()
    assert not page.locator("#drop").is_visible()
    accessible(page)
    page.locator("#notice button").click()
    assert not page.locator("#notice").is_visible()
    page.watch.said = [line for line in page.watch.said if "415" not in line and "422" not in line]


def test_an_image_that_has_expired_is_said_to_have(opened):
    page = opened(f"#/search?q=a+cat&image={'0' * 32}")
    page.locator(".problem").wait_for()
    assert "no longer there" in page.locator(".problem").inner_text()
    page.get_by_role("button", name="Search without it").click()
    cards(page)
    assert page.url.endswith("#/search?q=a+cat")
    page.watch.said = [line for line in page.watch.said if not re.search(r"404|422", line)]


# --- the library ------------------------------------------------------------------------------------------------------


def test_the_library_tells_what_it_holds_and_what_it_lacks(opened, shoot):
    page = opened("#/library")
    page.locator(".videos > li").nth(4).wait_for()
    assert page.locator(".videos .name").all_inner_texts() == [
        HOSTILE,
        "people.mp4",
        "broken.mp4",
        "cat and coffee.mp4",
        "long.mp4",
        "old film.avi",
    ]
    failures = page.locator("#failures")
    assert "broken.mp4" in failures.inner_text()
    assert "This is no video" in failures.inner_text()
    facts = dict(
        zip(page.locator(".facts dt").all_inner_texts(), page.locator(".facts dd").all_inner_texts(), strict=True)
    )
    assert (facts["Videos"], facts["Model"]) == ("5", "small")
    accessible(page)
    shoot(page, "library")
    page.get_by_role("button", name="people.mp4", exact=True).click()
    playing(page)
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('#player').open")
    assert page.evaluate("document.activeElement.textContent") == "people.mp4"


def test_tags_are_put_on_and_taken_off(opened):
    page = opened("#/library")
    page.get_by_role("button", name="Add a tag to people.mp4").click()
    field = page.get_by_label("A tag for people.mp4")
    field.fill("holiday")
    field.press("Enter")
    page.get_by_role("button", name="Remove the tag holiday from people.mp4").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Add a tag to people.mp4"
    page.fill(".narrow [name=tag]", "holiday")
    page.press(".narrow [name=tag]", "Enter")
    page.wait_for_function("() => document.querySelectorAll('.videos > li').length === 1")
    page.goto(page.url.split("#")[0] + "#/search?q=a+face&tags=holiday")
    assert {name for name, _ in cards(page)} == {"people.mp4"}
    page.goto(page.url.split("#")[0] + "#/library")
    page.get_by_role("button", name="Remove the tag holiday from people.mp4").click()
    page.wait_for_function("() => !document.querySelector('.videos .chip')")


def test_a_name_is_never_read_as_html(opened):
    page = opened("#/search?q=the+moon+at+night")
    names = [name for name, _ in cards(page)]
    page.locator(f"{CARD} .thumb").nth(names.index(HOSTILE)).click()
    playing(page)
    assert page.locator("#player-title").inner_text() == HOSTILE
    page.locator("#player-like").click()
    page.wait_for_function("() => location.hash.includes('like=')")
    settled(page)
    assert HOSTILE in page.locator("#chips").inner_text()
    page.goto(page.url.split("#")[0] + "#/library")
    page.locator(".videos .name", has_text="onerror").wait_for()
    assert page.locator("img[src=x]").count() == 0
    hostile = "<script>alert(2)</script>"
    page.goto(page.url.split("#")[0] + "#/search?q=" + hostile + "&folder=" + hostile)
    settled(page)
    assert hostile in page.locator("#chips").inner_text()


@pytest.fixture(scope="module")
def unindexed(browser, tmp_path_factory) -> Iterator[str]:
    """A server of a folder that was never indexed."""
    folder = tmp_path_factory.mktemp("fresh") / "fresh"
    draw(folder, ("cat and coffee.mp4", "beach/people.mp4"))
    (folder / "broken.mp4").write_text("not a video at all")
    with serving(folder) as (address, _):
        yield address


def test_an_empty_library_is_indexed_from_the_page(opened, unindexed, shoot):
    page = opened(at=unindexed)
    page.get_by_role("heading", name="Nothing is indexed yet").wait_for()
    accessible(page)
    shoot(page, "empty")
    page.get_by_role("link", name="Index this folder").click()
    page.get_by_role("button", name="Start indexing").click()
    page.locator(".job-state", has_text="Indexing").wait_for()
    page.locator("#job-progress").wait_for()
    accessible(page)
    shoot(page, "indexing")
    page.locator(".job-state", has_text="Up to date").wait_for(timeout=2 * WAIT)
    assert (
        "2 videos indexed" in page.locator("#job-body").inner_text()
        or "3 videos" in page.locator("#job-body").inner_text()
    )
    page.locator(".videos > li").nth(1).wait_for()
    assert "broken.mp4" in page.locator("#failures").inner_text()
    assert not page.locator("#busy").is_visible()
    page.get_by_role("link", name="Search", exact=True).click()
    ask(page, "a cat")
    assert cards(page)[0][0] == "cat and coffee.mp4"
    page.goto(unindexed + "#/library")
    page.locator("#failures").get_by_role("button", name="Try again").click()
    page.locator(".job-state", has_text="Up to date").wait_for(timeout=2 * WAIT)
    assert "broken.mp4" in page.locator("#failures").inner_text()
    page.watch.said = [line for line in page.watch.said if "409" not in line]


def test_indexing_is_paused_gone_on_with_and_stopped(opened, tmp_path):
    for number in range(3):
        draw_long(tmp_path / "long" / f"{number}.mp4", first=number)
    with serving(tmp_path / "long") as (at, _):
        page = opened("#/library", at=at)
        page.get_by_role("button", name="Start indexing").click()
        page.get_by_role("button", name="Pause").click()
        page.locator(".job-state", has_text="Paused").wait_for()
        assert not page.locator("#busy").is_visible()
        page.reload()
        page.locator(".job-state", has_text="Paused").wait_for()
        page.get_by_role("button", name="Go on").click()
        page.locator(".job-state", has_text="Indexing").wait_for()
        page.locator("#job-numbers", has_text=re.compile(r"\d+ % · .+ of .+B · ")).wait_for()
        page.get_by_role("button", name="Stop").click()
        page.locator(".job-state", has_text="Stopped").wait_for()
        assert "kept" in page.locator("#job-body").inner_text()
        page.get_by_role("button", name="Go on").click()
        page.locator(".job-state", has_text="Up to date").wait_for(timeout=2 * WAIT)
        page.locator(".facts div", has_text=re.compile("^Videos3$")).wait_for()
    page.watch.said = [line for line in page.watch.said if "409" not in line and "ERR_" not in line]


# --- how it looks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fragment", ["", "#/search?q=a+cat+-coffee,+then+it+sleeps", "#/library"])
def test_it_fits_a_phone(opened, fragment, shoot):
    page = opened(fragment, viewport=PHONE, has_touch=True, is_mobile=True)
    if fragment == "#/library":
        page.locator(".videos > li").first.wait_for()
    elif fragment:
        cards(page)
    else:
        page.get_by_role("heading", name="For example").wait_for()
    narrow(page)
    accessible(page)
    shoot(page, f"phone-{fragment[2:9].strip('?') or 'idle'}")
    if "q=" in fragment:
        page.locator("#more summary").click()
        narrow(page)
        page.locator("#more summary").click()
        page.locator(f"{CARD} .thumb").first.tap()
        playing(page)
        narrow(page)
        box = page.locator("#player").bounding_box()
        assert (box["width"], box["x"]) == (360, 0)
        shoot(page, "phone-player")


def test_dark_is_dark_and_the_switch_is_remembered(opened, shoot):
    def back(page: Any) -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3

    page = opened("#/search?q=a+cat", color_scheme="dark")
    cards(page)
    assert back(page) < 60
    accessible(page)
    shoot(page, "dark")
    switch = page.locator("#theme")
    switch.click()
    assert switch.get_attribute("aria-label").startswith("Colours: light")
    assert back(page) > 200
    page.reload()
    cards(page)
    assert back(page) > 200
    switch.click()
    assert back(page) < 60
    switch.click()
    page.emulate_media(color_scheme="light")
    assert back(page) > 200


# --- when things go wrong ---------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_said_to_be_gone(opened, tmp_path):
    folder = tmp_path / "few"
    draw(folder, (HOSTILE,))
    rushes.open(folder).refresh(model="small")
    with serving(folder) as (at, process):
        wait_ready(at)
        page = opened(at=at)
        page.get_by_role("heading", name="For example").wait_for()
        process.terminate()
        process.wait(30)
        page.fill("#q", "the moon")
        page.press("#q", "Enter")
        page.locator("#notice").wait_for()
        assert "The server does not answer" in page.locator("#notice").inner_text()
        assert "The server does not answer" in page.locator("#found .problem").inner_text()
        accessible(page)
        port = re.search(r":(\d+)/", at)[1]
        with serving(folder, "--port", port):
            page.locator("#notice").wait_for(state="hidden")
            assert cards(page)[0][0] == HOSTILE
    page.watch.said = [line for line in page.watch.said if "ERR_" not in line and "503" not in line]


def test_a_page_whose_token_no_longer_holds_says_how_to_get_in(opened, tmp_path):
    folder = tmp_path / "few"
    draw(folder, (HOSTILE,))
    rushes.open(folder).refresh(model="small")
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple")
    token.chmod(0o600)
    with serving(folder, "--token-file", str(token)) as (at, _):
        page = opened("?token=correct-horse-battery-staple", at=at)
        page.get_by_role("heading", name=re.compile("For example")).wait_for()
        assert "token" not in page.url
        page.context.clear_cookies()
        page.fill("#q", "the moon")
        page.press("#q", "Enter")
        page.locator("#notice form").wait_for()
        assert "This page is locked" in page.locator("#notice").inner_text()
        accessible(page)
        page.fill("#notice input", "correct-horse-battery-staple")
        page.press("#notice input", "Enter")
        page.get_by_role("heading", name=re.compile("For example")).wait_for()
        ask(page, "the moon")
        assert cards(page)[0][0] == HOSTILE
    page.watch.said = [line for line in page.watch.said if "401" not in line and "ERR_" not in line]
