"""Reels written as a folder of files are the benchmark that they were composed as."""

from __future__ import annotations

import json

import av
import pytest
from typer.testing import CliRunner

from rushes import data
from rushes.cli import app
from rushes.data import reels
from rushes.data.rendered import write
from tests.data.album import album


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return album(tmp_path_factory.mktemp("album"), per_split=12)


@pytest.mark.parametrize("protocol", reels.PROTOCOLS)
def test_the_folder_has_the_videos_captions_and_seconds(folder, tmp_path, protocol):
    write(folder, tmp_path / "out", protocol)
    written, made = data.load("folder", tmp_path / "out"), reels.parse(folder, protocol, told=True)
    assert list(written.splits) == list(made.splits)
    for name, split in made.splits.items():
        homes = {f"{name}/{video.id}.mp4" for video in split.videos}
        assert {video.id for video in written[name].videos} == homes
        assert [(one.text, one.start, one.end) for one in written[name].captions] == [
            (one.text, pytest.approx(one.start), pytest.approx(one.end)) for one in split.captions
        ]


def test_files_are_as_long_as_their_reels_and_a_stopped_run_goes_on(folder, tmp_path):
    out = tmp_path / "out"

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, reel: str) -> None:
        if done == 1:
            raise Stopped

    with pytest.raises(Stopped):
        write(folder, out, splits=["test"], count=2, films=True, on_progress=stop)
    assert not (out / "captions.csv").exists()
    assert write(folder, out, splits=["test"], count=2, films=True).rendered == 1
    for reel in reels.reels_of(folder, "shot", "test", count=2):
        with av.open(str(out / "test" / f"{reel.id}.mp4")) as film:
            assert film.streams.video[0].frames == round(reel.length * 25)
    told = json.loads((out / "reels.json").read_text())["reels"]["test"]
    assert [reel["id"] for reel in told] == ["test00000", "test00001"]
    assert set(told[0]["shots"][0]) == {"picture", "start", "end", "view_from", "view_to", "fade"}


def test_a_folder_with_something_else_is_left_alone(folder, tmp_path):
    write(folder, tmp_path / "one", count=1)
    with pytest.raises(ValueError, match="tells of other reels"):
        write(folder, tmp_path / "one", count=2)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"holds letter\.txt already"):
        write(folder, tmp_path / "two")


def test_the_command(folder, tmp_path):
    arguments = ["data", "reels", "--pictures", str(folder), "--out", str(tmp_path / "out"), "--split", "test"]
    run = CliRunner().invoke(app, [*arguments, "--count", "1", "--render", "--json"])
    assert run.exit_code == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["videos"], told["rendered"]) == ({"test": 1}, 1)
    assert "no standard numbers" in run.stderr
    assert len(data.load("folder", tmp_path / "out")["test"].captions) == told["captions"]["test"]
