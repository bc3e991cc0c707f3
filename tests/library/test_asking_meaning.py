"""What questions mean, with the model that Rushes comes with, on pictures that nobody trained it on."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import rushes
from rushes.backbones.base import Frames
from rushes.data.reels import Reel, compose, render
from rushes.index.exact import ExactIndex
from rushes.library import Library
from rushes.library.asking import picture
from rushes.model import Model
from rushes.search.parts import Scorer, Sought
from rushes.search.pipeline import rank
from rushes.search.query import Part, Query, Then
from rushes.types import Hit, Segment

FLICKR8K = Path(__file__).parents[3] / "shared/data/flickr8k"
TEXTS = {
    "astronaut.png": "a smiling woman in an orange space suit",
    "camera.png": "a photographer with a camera on a tripod",
    "chelsea.png": "the face of a cat",
    "coffee.png": "a cup of coffee on a table",
    "motorcycle_left.png": "a motorcycle parked in a garage",
    "rocket.jpg": "a rocket on its launch pad",
}
ORDERS = (("rocket.jpg", "chelsea.png", "coffee.png"), ("astronaut.png", "motorcycle_left.png", "camera.png"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pictures() -> Path:
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@pytest.fixture(scope="module")
def reels() -> dict[str, Reel]:
    """Each order of pictures once forwards and once backwards; the same shots, so that only the order tells them."""
    made = {}
    for number, order in enumerate(ORDERS):
        for way, shown in (("forwards", order), ("backwards", order[::-1])):
            (plan,) = compose(sorted(shown), count=1, seed=number, shots=(3, 3), seconds=(3.0, 3.0), fades=0.0)
            looks = {shot.picture: shot for shot in plan.shots}
            places = [(shot.start, shot.end) for shot in plan.shots]
            shots = tuple(
                replace(looks[name], start=start, end=end) for name, (start, end) in zip(shown, places, strict=True)
            )
            made[f"{way}{number}.mp4"] = Reel(f"{way}{number}", shots)
    return made


@pytest.fixture(scope="module")
def library(reels, pictures, tmp_path_factory) -> Library:
    place = tmp_path_factory.mktemp("meaning")
    for name, reel in reels.items():
        render(reel, place / name, root=pictures)
    found = rushes.open(place)
    assert found.refresh(model="small").failed == 0
    return found


def shown(library: Library, reels: dict[str, Reel], hit: Hit) -> str:
    """The picture in the middle of the hit's best moment."""
    middle = (hit.moments[0].start + hit.moments[0].end) / 2
    reel = reels[library.video(hit.segment.video).path]
    return next(shot.picture for shot in reel.shots if shot.start <= middle <= shot.end)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_then_finds_the_order(library, reels, order, way):
    """First one, then the other: of two reels of the same shots, the one that shows them so."""
    right = order if way == "forwards" else order[::-1]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        one, two = right[first], right[second]
        (hit, *_) = library.ask(Query.of_text(TEXTS[one], then=Then(TEXTS[two], within=10))).hits
        path = library.video(hit.segment.video).path
        assert path.startswith(way)
        if (first, second) == (0, 2):
            continue  # the model takes the cat between for a rocket as well, by a hair
        assert shown(library, reels, hit) == one
        shot = next(shot for shot in reels[path].shots if shot.picture == two)
        assert hit.then is not None
        assert shot.start - 0.5 <= hit.then.start < hit.then.end <= shot.end + 0.5


def test_then_knows_how_soon(library, reels):
    """From the first shot to the third it is three seconds."""
    query = Query.of_text(TEXTS["rocket.jpg"], then=Then(TEXTS["coffee.png"], within=1.0))
    for hit in library.ask(query).hits:
        assert hit.then is not None
        assert hit.then.start - max(moment.end for moment in hit.moments) <= 1.0
        pair = (shown(library, reels, hit), library.video(hit.segment.video).path)
        assert pair != ("rocket.jpg", "forwards0.mp4") or hit.then.start < 6.0 - 0.5


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_picture_finds_the_shots_that_show_it(library, reels, pictures, name):
    hits = library.ask(Query(parts=(Part(image=pictures / name),))).hits
    assert [shown(library, reels, hit) for hit in hits[:2]] == [name, name]
    assert hits[0].score > hits[2].score + 0.2


def test_more_like_this_finds_the_other_reel(library, reels):
    for text in TEXTS.values():
        (one, *_) = library.ask(Query.of_text(text)).hits
        (hit, *_) = library.ask(Query(parts=(Part(like=one.segment.id),))).hits
        assert hit.segment.video != one.segment.video
        assert shown(library, reels, hit) == shown(library, reels, one)


def test_what_is_avoided_goes_down(library, reels):
    """A person, but no astronaut: both shots of the astronaut make room, and nothing else falls behind them."""

    def order(query: Query) -> list[str]:
        return [shown(library, reels, hit) for hit in library.ask(query).hits]

    person = order(Query.of_text("a person"))
    avoided = order(Query.of_text("a person", avoid=["a woman in an orange space suit"]))
    assert person[:2] == ["astronaut.png"] * 2
    assert "astronaut.png" not in avoided[:2]
    others = [[name for name in names if name != "astronaut.png"] for names in (person, avoided)]
    assert others[0][:2] == others[1][:2]


def test_two_texts_are_both_looked_for(library, reels):
    """An object and where it is: the shot that has both comes before those of one."""
    query = Query(parts=(Part(text="a motorcycle"), Part(text="a garage")))
    assert shown(library, reels, library.ask(query).hits[0]) == "motorcycle_left.png"


# ---------------------------------------------------------------------- photographs


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="needs the photographs of Flickr8k")
def test_a_dog_but_no_beach_on_photographs():
    """Of 40 photographs of dogs, half of them at the sea: the sea is avoided, the dogs stay."""
    model = rushes.load("small")
    told: dict[str, str] = {}
    with (FLICKR8K / "captions.txt").open(newline="") as stream:
        for row in list(csv.reader(stream))[1:]:
            told[row[0]] = told.get(row[0], "") + " " + ",".join(row[1:]).lower()
    test = sorted((FLICKR8K / "Flickr_8k.testImages.txt").read_text().split())
    dog = [name for name in test if re.search(r"\bdogs?\b", told[name])]
    sea = [name for name in dog if re.search(r"\b(beach|ocean|shore|sea)\b", told[name])]
    land = [name for name in dog if not re.search(r"\b(beach|ocean|shore|sea|sand|water)\b", told[name])]
    other = [name for name in test if not re.search(r"\b(dogs?|beach|ocean|shore|sea)\b", told[name])]
    chosen = [*sea[:20], *land[:20], *other[:60]]
    assert len(sea) >= 15
    index = album(model, chosen)
    _, sample = index.fetch(chosen)

    def first(*parts: Sought) -> list[str]:
        scorer = Scorer.of(model.method, parts, sample)
        with torch.inference_mode():
            hits = rank(scorer, index, k=40, depth=100, sample=sample).hits(40)
        return [hit.segment.id for hit in hits]

    wanted = Sought(model.texts(["a dog"]))
    avoided = Sought(model.texts(["a beach"]), weight=-1.0)
    before, after = first(wanted), first(wanted, avoided)
    wet, dry = (sum(name in sea for name in names) for names in (before, after))
    assert wet >= 8
    assert dry <= 0.6 * wet
    assert sum(name in land for name in after) >= sum(name in land for name in before) >= 15


def album(model: Model, names: list[str]) -> ExactIndex:
    """Photographs as segments of one frame."""
    index = ExactIndex(model.method.dim)
    for name in names:
        tokens = picture(model, FLICKR8K / "images" / name)
        index.add([Segment(name, name, 0.0, 1.0)], model.method.summary(tokens), tokens)
    return index


def test_frames_of_a_picture_are_encoded_as_a_video_is(library, pictures):
    """A picture as a query goes the way of a video's frame: one frame, which saw one second."""
    tokens = picture(library.model, pictures / "coffee.png")
    assert tokens.mask.shape == (1, 1)
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    features = library.model.frames(pixels).float()
    span = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert library.model.videos(Frames.pack([features], [span])).vectors.shape == tokens.vectors.shape
