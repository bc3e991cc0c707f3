"""The doctor tells what is wrong with a folder, and is never what goes wrong."""

import json
import os

import pytest
from typer.testing import CliRunner

from rushes.cli import app
from rushes.data import NAMES
from rushes.data.doctor import Broken, Copies, Overlap, examine
from tests.data.conftest import ANNOTATIONS
from tests.video.films import film

EXAMINED = [name for name in NAMES if name != "reels"]
ROWS = """video,caption,split
a,a dog runs,test
b,A dog  RUNS,test
c,a cat,test
d,a cow,test
e,a dog runs,train
e,a bird,train
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "captions.csv").write_text(ROWS)
    (tmp_path / "videos").mkdir()
    for name in "abce":
        film(tmp_path / "videos" / f"{name}.mp4", frames=5 + (name == "c"), size=(64, 48))
    return tmp_path


@pytest.mark.parametrize("name", EXAMINED)
def test_an_empty_folder_is_told(tmp_path, name):
    report = examine(name, tmp_path)
    assert report.problems
    assert not any(one.served or one.annotations for one in report.protocols)
    assert (report.videos, report.found, report.files) == (0, 0, 0)
    for file in tmp_path.iterdir():
        raise AssertionError(f"the doctor left {file}")


@pytest.mark.parametrize("name", EXAMINED)
def test_rubbish_under_the_right_names_is_told(tmp_path, name):
    for file in (
        *("MSRVTT_data.json", "MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv", "MSRVTT_JSFUSION_test.csv"),
        *("captions_msvd.json", "train_list.txt", "test_list.txt", "LSMDC16_annos_val.csv", "test_data.json"),
        *("didemo_test_label.csv", "train.json", "val_1.json", "captions.csv"),
    ):
        (tmp_path / file).write_bytes(b"\xff\x00 no annotation")
    report = examine(name, tmp_path)
    assert any("is no UTF-8" in problem and str(tmp_path) in problem for problem in report.problems)
    assert not any(one.annotations for one in report.protocols)


@pytest.mark.parametrize("name", [name for name in EXAMINED if name not in ("folder", "lsmdc")])
def test_published_annotations_without_videos(name):
    if not (ANNOTATIONS / name).is_dir():
        pytest.skip(f"the published annotations of {name} are not at {ANNOTATIONS / name}")
    report = examine(name, ANNOTATIONS / name, "1k-A-9k" if name == "msrvtt" else None)
    assert len(report.missing) == report.videos > 1900
    assert [problem.partition(";")[0] for problem in report.problems] == [
        f"none of {report.videos:,} videos has a file"
    ]
    assert all(split.as_published for split in report.splits)
    assert next(one for one in report.protocols if one.protocol == report.protocol).annotations
    if name == "msrvtt":
        assert report.splits[1].repeated == 5  # 4 texts in 9 rows
        assert report.overlaps == (Overlap(("train", "test"), (), 107, 372),)


def test_a_whole_folder_is_served(bench):
    film(bench / "videos" / "d.mp4", frames=8, size=(64, 48))
    looked = []
    report = examine("folder", bench, probe=lambda path: looked.append(path.name), on_progress=lambda *_: None)
    assert report.problems == ()
    assert report.protocols[0].served
    assert sorted(looked) == [f"{name}.mp4" for name in "abcde"]
    assert (report.videos, report.found, report.files, report.probed) == (5, 5, 5, 5)


def test_missing_empty_broken_and_copied_files_are_told_apart(bench):
    (bench / "videos" / "c.mp4").write_bytes(b"")
    report = examine("folder", bench, probe=lambda path: "torn" if path.stem == "b" else None)
    assert report.missing == ("d",)
    assert report.empty == ("videos/c.mp4",)
    assert report.broken == (Broken("videos/b.mp4", "torn"),)
    assert report.copies == (Copies(("videos/a.mp4", "videos/e.mp4"), ("train", "test")),)
    assert report.probed == 3
    assert not report.protocols[0].served
    assert report.problems == (
        "test: 1 of 4 videos have no file (d)",
        "1 video files are empty (videos/c.mp4); copy them again",
        "1 video files give no frame, as videos/b.mp4: torn",
    )
    assert "train and test: the same content in videos/a.mp4, videos/e.mp4" in report.remarks


def test_without_a_probe_no_video_is_opened(bench):
    (bench / "videos" / "a.mp4").write_bytes(b"no film")
    report = examine("folder", bench)
    assert (report.broken, report.probed) == ((), 0)


def test_files_of_one_size_and_other_content_are_no_copies(bench):
    for name in "ab":
        (bench / "videos" / f"{name}.mp4").write_bytes(name.encode() * 100)
    assert not any("videos/a.mp4" in copies.files for copies in examine("folder", bench).copies)


def test_two_names_of_one_file_are_told(bench):
    (bench / "captions.csv").write_text(ROWS.replace("d,", "videos/a.mp4,"))
    assert examine("folder", bench).problems == ("a and videos/a.mp4 are one file, videos/a.mp4; give it one name",)


def test_files_that_may_not_be_read_are_told(bench):
    path = bench / "videos" / "a.mp4"
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.chmod(0o644)
        pytest.skip("this user may read everything")
    assert examine("folder", bench).broken == (Broken("videos/a.mp4", "it may not be read; check its permissions"),)


def test_texts_and_videos_of_two_splits_are_counted(bench):
    report = examine("folder", bench)
    assert report.overlaps == (Overlap(("train", "test"), (), 2, 0),)
    (bench / "captions.csv").write_text(ROWS + "a,a horse,train\n")
    report = examine("folder", bench)
    assert report.overlaps == (Overlap(("train", "test"), ("a",), 2, 0),)
    assert "train and test: 1 videos are in both (a)" in report.problems


def test_two_files_of_one_video_and_files_of_none_are_told(bench):
    (bench / "a.webm").write_bytes(b"first by path")
    (bench / "x.mkv").write_bytes(b"nobody's")
    report = examine("folder", bench)
    assert report.several == (("a.webm", "videos/a.mp4"),)
    assert "1 video files belong to no video of this protocol" in report.remarks


def test_a_partial_benchmark_is_told_and_no_protocol_is_served(msrvtt_folder):
    report = examine("msrvtt", msrvtt_folder, "1k-A-9k")
    assert [(split.name, split.videos, split.as_published) for split in report.splits] == [
        ("train", 8, False),
        ("test", 2, False),
    ]
    assert "test has 2 videos, 2 captions; published are 1,000 videos, 1,000 captions" in report.problems
    assert [one.annotations for one in report.protocols] == [False] * 5
    held = examine("msrvtt", msrvtt_folder)
    assert "train: " + str(
        msrvtt_folder / "MSRVTT_train.9k.csv"
    ) + " has 8 videos, of which 500 are to be held out" in (held.problems)
    assert held.splits[2].videos == 2
    (msrvtt_folder / "MSRVTT_data.json").unlink()
    report = examine("msrvtt", msrvtt_folder, "1k-A-9k")
    assert report.splits[0].absent is not None
    assert "train_val_videodatainfo.json" in report.splits[0].absent


def test_a_name_or_protocol_that_there_is_not_lists_those_there_are(tmp_path):
    with pytest.raises(LookupError, match="no protocol 'x'; it has official"):
        examine("msvd", tmp_path, "x")
    with pytest.raises(LookupError, match="it has activitynet, didemo"):
        examine("vatex", tmp_path)
    with pytest.raises(LookupError, match="the doctor sees activitynet"):
        examine("reels", tmp_path)


def test_the_command_finds_what_does_not_decode(bench):
    whole = (bench / "videos" / "b.mp4").read_bytes()
    (bench / "videos" / "b.mp4").write_bytes(whole[: len(whole) // 3])
    film(bench / "videos" / "d.mp4", frames=8, size=(64, 48))
    run = CliRunner().invoke(app, ["data", "doctor", "folder", "--root", str(bench), "--json"])
    told = json.loads(run.stdout)
    assert run.exit_code == 1
    assert [one["file"] for one in told["broken"]] == ["videos/b.mp4"]
    assert told["broken"][0]["reason"].endswith("]")  # the code of the failure
    assert told["splits"][0]["published"] is None
    film(bench / "videos" / "b.mp4", frames=9, size=(64, 48))
    run = CliRunner().invoke(app, ["data", "doctor", "folder", "--root", str(bench)])
    assert run.exit_code == 0, run.output
    assert "5 of 5 videos have one, 5 read for a frame" in run.stdout
    assert "to mend" not in run.stdout


def test_the_command_opens_nothing_where_told_not_to(bench):
    for path in (bench / "videos").iterdir():
        path.write_bytes(path.name.encode())
    run = CliRunner().invoke(app, ["data", "doctor", "folder", "--root", str(bench), "--no-probe"])
    assert "none opened" in run.stdout
    assert "give no frame" not in run.stdout
    assert run.exit_code == 1  # d has no file
