"""Laws of splits: what a digest sees, what is held out, which files are a video's."""

import os
import subprocess
import sys

import pytest

from rushes import data
from rushes.data.base import (
    Benchmark,
    Caption,
    Count,
    Protocol,
    Split,
    Video,
    captions,
    checked,
    files_below,
    hold_out,
    locate,
    make_split,
)


def items(count, source=lambda number: None):
    return [
        (Video(f"v{n}", f"v{n}", source=source(n)), captions(f"v{n}", [f"text {n}", "a dog"])) for n in range(count)
    ]


def test_a_digest_forgets_order_and_sees_all_else():
    one = make_split("test", items(3), "here")
    assert make_split("test", items(3)[::-1], "here").digest() == one.digest()
    moved = items(3)
    moved[0] = (Video("v0", "v0", 0, 30), moved[0][1])
    timed = items(3)
    timed[0] = (timed[0][0], [Caption("v0#0", "text 0", 1, 2), timed[0][1][1]])
    swapped = Split("test", one.videos, one.captions, one.pairs[:, [0, 1]].copy())
    swapped.pairs[0, 1] = 1
    others = [make_split("test", changed, "here").digest() for changed in (moved, timed, items(2))]
    assert len({one.digest(), swapped.digest(), *others}) == 5
    whole = make_split("test", [(Video("v0", "v0", 0, 30), ())], "here").digest()
    assert whole == make_split("test", [(Video("v0", "v0", 0.0, 30.0), ())], "here").digest()


def test_digests_and_held_out_videos_are_the_same_in_every_process():
    program = (
        "from rushes.data.base import *\n"
        "items = [(Video(f'v{n}', f'v{n}', source=f'film{n % 7}'), captions(f'v{n}', ['ä', 'b'])) for n in range(40)]\n"
        "print([make_split('x', part, '').digest() for part in hold_out(items, 12)], len(hold_out(items, 12)[1]))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert told == {"['182c29f2762a', '7a093a442c0c'] 11\n"}


def test_held_out_videos_are_whole_sources_whatever_the_order():
    made = items(30, lambda number: f"film{number // 3}")
    rest, held = hold_out(made, 10)
    assert len(held) == 9  # no source of one video is there to fill the tenth
    assert not {video.source for video, _ in rest} & {video.source for video, _ in held}
    again = hold_out(made[::-1], 10)[1]
    assert {video.id for video, _ in again} == {video.id for video, _ in held}


def test_a_benchmark_is_as_published_or_an_error():
    rules = Protocol("two tests", {"train": Count(None, 4), "test": Count(2, 4)})
    good = Benchmark("b", "p", {"test": make_split("test", items(2), "here")}, {"train": "train.csv is not in here"})
    assert checked(good, rules) is good
    with pytest.raises(LookupError, match=r"b \(p\) has no split 'train': train\.csv is not in here"):
        good["train"]
    with pytest.raises(LookupError, match=r"no split 'val'; it has test"):
        good["val"]
    short = Benchmark("b", "p", {"test": make_split("test", items(1), "here")})
    with pytest.raises(ValueError, match="'test' has 1 videos, 2 captions; published are 2 videos, 4 captions"):
        checked(short, rules)
    assert checked(short, Protocol("any", rules.counts, loose=frozenset({"test"}))) is short
    with pytest.raises(FileNotFoundError, match=r"has no split: train\.csv is nowhere"):
        checked(Benchmark("b", "p", {}, {"train": "train.csv is nowhere"}), rules)
    twice = Benchmark("b", "p", {name: make_split(name, items(2), "here") for name in ("train", "test")})
    with pytest.raises(ValueError, match="2 videos are in 'train' and 'test' both, as 'v0'"):
        checked(twice, rules)


def test_files_are_found_by_path_or_by_name_with_any_ending(tmp_path):
    for path in ("a.mp4", "deep/er/b.WEBM", "c.mkv", "deep/c.avi", "d.txt", ".e.mp4", ".hidden/f.mp4", "00.51.926.avi"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    videos = [Video(name, name) for name in ("a.mp4", "b", "c", "d", "e", "f", "00.51.926", "00.51", "deep/c", "B")]
    assert locate(tmp_path, videos) == {
        "a.mp4": ("a.mp4",),
        "b": ("deep/er/b.WEBM",),
        "c": ("c.mkv", "deep/c.avi"),
        "00.51.926": ("00.51.926.avi",),
    }


def test_linked_folders_are_entered_once(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.mp4").touch()
    (tmp_path / "bench").mkdir()
    try:
        (tmp_path / "bench" / "videos").symlink_to(tmp_path / "disk")
        (tmp_path / "disk" / "round").symlink_to(tmp_path / "bench")
    except OSError:
        pytest.skip("no links here")
    assert files_below(tmp_path / "bench") == ["videos/a.mp4"]


def test_benchmarks_are_found_by_name_and_protocol(msrvtt_folder):
    with pytest.raises(LookupError, match=r"rushes\.data has no 'os'; it has activitynet"):
        data.load("os", msrvtt_folder)
    with pytest.raises(LookupError, match="msrvtt has no protocol 'half'"):
        data.load("msrvtt", msrvtt_folder, "half")
    with pytest.raises(ValueError, match="published are"):
        data.load("msrvtt", msrvtt_folder)  # 8 training videos are too few to hold 500 out, and the test set is short
    assert all(data.find(name) for name in data.NAMES)


def test_no_parser_needs_torch():
    program = (
        "import sys\nfrom rushes.data import NAMES, doctor, find\n"
        "[find(name) for name in NAMES if name != 'reels']\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
