"""Reels as a benchmark: the same everywhere, no picture on two sides, and pairs that hold all that is true."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rushes import data
from rushes.data import reels
from rushes.data.pictures import captioned, share_of
from tests.data.album import SHARED, album, picture

FLICKR8K = SHARED / "flickr8k"
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return album(tmp_path_factory.mktemp("album"), per_split=12)


@pytest.fixture
def flickr8k():
    if not FLICKR8K.is_dir():
        pytest.skip(f"the photos of Flickr8k are not at {FLICKR8K}")
    return FLICKR8K


@pytest.fixture(params=reels.PROTOCOLS)
def protocol(request):
    return request.param


def pictures_by_caption(folder: Path) -> dict[str, str]:
    with (folder / "captions.csv").open() as stream:
        return {row["caption"]: row["picture"] for row in csv.DictReader(stream)}


def test_another_process_makes_the_same(folder, protocol):
    program = (
        "import sys\nfrom pathlib import Path\nfrom rushes.data import load, reels\n"
        "root, protocol = Path(sys.argv[1]), sys.argv[2]\nbenchmark = load('reels', root, protocol)\n"
        "made = {name: repr(reels.reels_of(root, protocol, name)) for name in benchmark.splits}\n"
        "print([(split.digest(), made[name]) for name, split in benchmark.splits.items()])"
    )
    run = [sys.executable, "-c", program, str(folder), protocol]
    there = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    splits = data.load("reels", folder, protocol).splits
    here = [(split.digest(), repr(reels.reels_of(folder, protocol, name))) for name, split in splits.items()]
    assert there.strip() == repr(here)


def test_splits_share_no_picture_and_reels_repeat_none(folder, protocol):
    shown = {}
    for split in SPLITS:
        of_split = captioned(folder).splits[split]
        for reel in reels.reels_of(folder, protocol, split):
            names = [shot.picture for shot in reel.shots]
            assert len(set(names)) == len(names)
            assert set(names) <= set(of_split)
            assert all(one.end == two.start for one, two in zip(reel.shots, reel.shots[1:], strict=False))
            assert reel.shots[0].fade == 0
        shown[split] = {shot.picture for reel in reels.reels_of(folder, protocol, split) for shot in reel.shots}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not shown[one] & shown[other]


def test_videos_are_the_reels_and_spans_lie_inside(folder, protocol):
    benchmark = data.load("reels", folder, protocol)
    for name in SPLITS:
        split, made = benchmark[name], reels.reels_of(folder, protocol, name)
        assert [video.id for video in split.videos] == [reel.id for reel in made]
        home = {reel.id: reel for reel in made}
        for caption in split.captions:
            reel = home[caption.id.partition("#")[0]]
            assert caption.start is not None
            assert caption.end is not None
            assert 0 <= caption.start < caption.end <= reel.length
        spans = reels.spans_of(folder, protocol, name)
        assert len(spans) == len(split.pairs)
        for (_, video), (start, end) in zip(split.pairs.tolist(), spans.tolist(), strict=True):
            assert 0 <= start < end <= made[video].length


def test_a_shots_caption_tells_of_its_picture_at_its_seconds(folder):
    told = pictures_by_caption(folder)
    for name in SPLITS:
        split, made = data.load("reels", folder)[name], reels.reels_of(folder, "shot", name)
        spans = reels.spans_of(folder, "shot", name)
        for (caption, video), span in zip(split.pairs.tolist(), spans.tolist(), strict=True):
            there = {(shot.picture, shot.start, shot.end) for shot in made[video].shots}
            assert (told[split.captions[caption].text], *span) in there


def test_pairs_hold_every_reel_that_shows_the_picture_outside_training(folder):
    """Counted anew: with 12 pictures a split, several come in more than one reel."""
    told = pictures_by_caption(folder)
    for name in SPLITS:
        benchmark = reels.parse(folder, "shot", count=5)
        split, made = benchmark[name], reels.reels_of(folder, "shot", name, count=5)
        true = {
            (row, video)
            for row, caption in enumerate(split.captions)
            for video, reel in enumerate(made)
            if told[caption.text] in [shot.picture for shot in reel.shots]
        }
        pairs = set(map(tuple, split.pairs.tolist()))
        beside = {(row, video) for row, video, _ in reels.sharing(folder, "shot", name, count=5).tolist()}
        assert pairs | beside == true
        assert not pairs & beside
        if name == "train":
            assert Counter(row for row, _ in pairs) == Counter(range(len(split.captions)))
            assert beside
        else:
            assert len(pairs) > len(split.captions)
            assert not beside


def test_training_has_all_captions_of_a_shot_and_tests_have_one(folder):
    benchmark = data.load("reels", folder)
    for name in SPLITS:
        shots = sum(len(reel.shots) for reel in reels.reels_of(folder, "shot", name))
        assert len(benchmark[name].captions) == shots * (2 if name == "train" else 1)


def test_a_paragraph_has_one_caption_of_each_shot_in_order(folder):
    told = pictures_by_caption(folder)
    for name in SPLITS:
        split, made = data.load("reels", folder, "paragraph")[name], reels.reels_of(folder, "paragraph", name)
        for row, video in split.pairs.tolist():
            sentences = [one.strip() for one in split.captions[row].text.split(" .") if one.strip()]
            assert [told[one] for one in sentences] == [shot.picture for shot in made[video].shots]


def test_order_has_a_reordering_and_a_swap_of_each_and_only_the_original_is_right(folder):
    split, made = data.load("reels", folder, "order")["test"], reels.reels_of(folder, "order", "test")
    by_id = {reel.id: reel for reel in made}
    originals = [reel for reel in made if "-" not in reel.id]
    assert len(made) == 3 * len(originals)
    assert [split.videos[video].id for _, video in split.pairs] == [reel.id for reel in originals]
    for reel in originals:
        names = [shot.picture for shot in reel.shots]
        other = [shot.picture for shot in by_id[f"{reel.id}-order"].shots]
        swapped = [shot.picture for shot in by_id[f"{reel.id}-swap"].shots]
        assert other != names
        assert sorted(other) == sorted(names)
        assert by_id[f"{reel.id}-order"].length == pytest.approx(reel.length)
        assert sum(one != two for one, two in zip(names, swapped, strict=True)) == 1
        assert len(set(swapped)) == len(swapped)
    assert len(data.load("reels", folder, "order")["train"].captions) == 2 * len(
        reels.reels_of(folder, "order", "train")
    )


def test_protocols_with_fewer_reels_have_the_first_of_the_others(folder):
    for split in ("val", "test"):
        few, many = (reels.reels_of(folder, protocol, split) for protocol in ("shot", "paragraph"))
        assert many[: len(few)] == few
        assert reels.reels_of(folder, "order", split)[: len(few)] == few


def test_another_seed_is_another_benchmark_and_says_so(folder):
    one, two = reels.parse(folder, seed=0), reels.parse(folder, seed=1)
    assert one["test"].digest() != two["test"].digest()
    assert not any("seed" in note for note in one.notes)
    assert any("seed 1" in note for note in two.notes)


def test_pictures_without_splits_are_split_by_their_paths(tmp_path):
    names = [f"p{number:03d}.png" for number in range(300)]
    (tmp_path / "captions.csv").write_text("picture,caption\n" + "".join(f"{name},a dog\n" for name in names))
    splits = captioned(tmp_path).splits
    assert {name: len(held) for name, held in splits.items()} == {"train": 245, "val": 27, "test": 28}
    assert all(share_of(name) == split for split, held in splits.items() for name in held)
    benchmark = data.load("reels", tmp_path)
    assert any("no splits" in note for note in benchmark.notes)


def test_too_few_pictures_are_no_split_and_asking_says_why(tmp_path):
    folder = album(tmp_path, per_split=6)
    with pytest.raises(FileNotFoundError, match="has 6 pictures for train, reels need 7"):
        data.load("reels", folder)
    with pytest.raises(LookupError, match="6 pictures for val"):
        reels.reels_of(folder, "shot", "val")
    with pytest.raises(LookupError, match="no split 'dev'; it has train, val, test"):
        reels.reels_of(folder, "shot", "dev")
    with pytest.raises(LookupError, match="no protocol 'shots'; it has shot, paragraph, order"):
        data.load("reels", folder, "shots")
    with pytest.raises(ValueError, match="0 reels cannot be"):
        reels.parse(album(tmp_path / "more"), count=0)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ("picture,caption,split\na.png,a dog,dev\n", r"line 2: no split is called 'dev'"),
        (
            "picture,caption,split\na.png,a dog,val\na.png,a cat,test\n",
            r"line 3: 'a.png' is in split 'test' here, 'val'",
        ),
        ("picture,caption,split\na.png,a dog,val\nb.png,a cat,\n", r"line 3: 1 of 2 pictures have no split"),
        ("picture,caption\n../a.png,a dog\n", r"line 2: the picture '../a.png' is not below"),
        ("video,caption\na.mp4,a dog\n", r"no column 'picture'"),
    ],
)
def test_errors_name_file_and_row(tmp_path, rows, error):
    (tmp_path / "captions.csv").write_text(rows)
    with pytest.raises(ValueError, match=error):
        data.load("reels", tmp_path)


def test_flickr8ks_layout_is_read(tmp_path):
    (tmp_path / "images").mkdir()
    names = [f"{number}.jpg" for number in range(30)]
    lines = [f'{name},"a dog , {one} of {name}"' for name in names for one in range(5)]
    (tmp_path / "captions.txt").write_text("image,caption\n" + "\n".join(lines))
    for name in names:
        picture(tmp_path / "images" / name, 0)
    for split, start in (("train", 0), ("dev", 9), ("test", 18)):
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names[start : start + 9]))
    benchmark = data.load("reels", tmp_path)
    assert list(benchmark.splits) == ["train", "val", "test"]
    assert any(note.startswith("3 captioned pictures are in none") for note in benchmark.notes)
    assert all(shot.picture.startswith("images/") for shot in reels.reels_of(tmp_path, "shot", "test")[0].shots)
    (tmp_path / "Flickr_8k.testImages.txt").write_text("8.jpg\n")
    with pytest.raises(ValueError, match=r"testImages.txt, line 1: '8.jpg' is there twice, first in .*trainImages"):
        data.load("reels", tmp_path)
    (tmp_path / "Flickr_8k.testImages.txt").write_text("99.jpg\n")
    with pytest.raises(ValueError, match=r"'99\.jpg' has no caption"):
        data.load("reels", tmp_path)
    (tmp_path / "Flickr_8k.testImages.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testImages\.txt is missing"):
        data.load("reels", tmp_path)


def test_counts_on_flickr8k_are_those_of_the_docstring(flickr8k, protocol):
    """Videos, captions, pairs and what shares a picture beside them, as the module tells."""
    benchmark = data.load("reels", flickr8k, protocol)
    lines = [line.replace(protocol, "").split() for line in _table(protocol)]
    for name, videos, captions, pairs, beside, *_ in lines:
        split = benchmark[name]
        counts = [len(split.videos), len(split.captions), len(split.pairs)]
        counts.append(len(reels.sharing(flickr8k, protocol, name)))
        assert counts == [int(one.strip(",").replace(",", "")) for one in (videos, captions, pairs, beside)]
    assert [line[0] for line in lines] == list(SPLITS)


def test_drawing_is_that_of_the_published_numbers(flickr8k):
    """A change here makes every published number one of another benchmark: rename the protocols if it must be."""
    digests = {name: data.load("reels", flickr8k, name)["test"].digest() for name in reels.PROTOCOLS}
    assert digests == {"shot": "5e64b6bfaaf4", "paragraph": "622f682c562f", "order": "4471c09e5eb1"}


def test_every_training_caption_of_flickr8k_is_true_of_one_more_reel(flickr8k):
    captions = reels.sharing(flickr8k, "shot", "train")[:, 0]
    assert len(captions) == 59_410  # all but 295: 59 pictures come once, the last reel ends before the second round
    assert len(np.unique(captions)) == len(captions)


def _table(protocol: str) -> list[str]:
    lines = (reels.__doc__ or "").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{protocol} "))
    return lines[start : start + 3]
