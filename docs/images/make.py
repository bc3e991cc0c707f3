"""Takes the screenshots of the README: `PYTHONPATH=. python docs/images/make.py`.

The library is drawn from pictures that scikit-image carries (public domain or CC0), indexed and served as a user would.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import rushes
from rushes.data.compose import render
from tests.chromium import program
from tests.serve.browsing import pictures, reel, serving, wait_ready

HERE = Path(__file__).parent
COLOURS = 224  # of a picture: enough for photographs at this size, and a third of the bytes
FILMS = {
    "home/chelsea.mp4": (("coffee.png", 5.0), ("chelsea.png", 7.0), ("grass.png", 4.0), ("chelsea.png", 5.0)),
    "garage/motorcycle.mp4": (("motorcycle_left.png", 6.0), ("brick.png", 4.0)),
    "launch day.mp4": (("rocket.jpg", 6.0), ("astronaut.png", 6.0), ("moon.png", 5.0)),
    "walk.mp4": (("camera.png", 6.0), ("gravel.png", 4.0)),
    "letters.mp4": (("page.png", 5.0), ("text.png", 4.0), ("horse.png", 4.0)),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "Videos"
        for name, shots in FILMS.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            render(reel(name, shots), folder / name, root=pictures(), size=(640, 480), options={"crf": "18"})
        rushes.open(folder).refresh(model="small")
        with serving(folder) as (address, _), sync_playwright() as play:
            wait_ready(address)
            browser = play.chromium.launch(executable_path=program(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
            page.goto(f"{address}#/search?q=a+motorcycle+parked+in+a+garage")
            still(page, "search")
            page.locator(".card:not(.ghost) .thumb").first.click()
            page.wait_for_function("() => document.querySelector('#video').currentTime > 0")
            page.locator("#strip rect.top").first.wait_for(state="attached")
            page.locator("#video").evaluate("video => { video.pause(); video.controls = false }")
            keep(page, "player")
            phone = browser.new_page(viewport={"width": 390, "height": 760}, color_scheme="dark", is_mobile=True)
            phone.goto(f"{address}#/search?q=a+photographer+with+a+camera+-brick")
            still(phone, "phone")
            browser.close()


def still(page: Page, name: str) -> None:
    """Keep the page once its pictures are there."""
    page.locator(".card:not(.ghost)").first.wait_for()
    page.evaluate("document.activeElement.blur()")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumb img')].slice(0, 4).every((one) => one.complete)"
    )
    keep(page, name)


def keep(page: Page, name: str) -> None:
    file = HERE / f"{name}.png"
    page.screenshot(path=file)
    Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main()
