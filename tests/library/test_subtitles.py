"""What is said in a video is found, wherever it is written down, and follows the files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rushes
from rushes.index.records import Records
from rushes.index.store import Store
from rushes.library import subtitles
from rushes.library.subtitles import SourceRow, SubtitleError, Subtitles, decoded, parse, read, sidecars
from rushes.search.query import Query, Where
from rushes.video import sandbox
from rushes.video.lines import Line
from tests.video.spoken import film

SRT = "1\n00:00:01,000 --> 00:00:02,500\nA dog barks\n\n2\n00:00:04,000 --> 00:00:05,000\nand runs\n"


def srt(*texts: str) -> str:
    return "\n".join(f"{n + 1}\n00:00:{2 * n:02},000 --> 00:00:{2 * n + 1:02},500\n{t}\n" for n, t in enumerate(texts))


# ---------------------------------------------------------------------- which files


def beside(folder: Path, video: str, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(SRT)
    return [sidecar.path for sidecar in sidecars(folder, [video])]


@pytest.mark.parametrize(
    "name", ["a.srt", "a.SRT", "a.vtt", "a.en.srt", "a.pt-BR.Vtt", "a.en.forced.srt", "a.mp4.srt", "a.ass", "a.eng.ssa"]
)
def test_a_file_with_the_videos_name_belongs_to_it(tmp_path, name):
    assert beside(tmp_path, "a.mp4", "a.mp4", name) == [name]


@pytest.mark.parametrize(
    "name", ["b.srt", "a2.srt", "a.txt", ".a.srt", "a. b.srt", "aa.en.srt", "deep/a.srt", "a.1.2.3.4.srt"]
)
def test_other_files_do_not(tmp_path, name):
    assert beside(tmp_path, "a.mp4", "a.mp4", name) == []


def test_the_longest_name_that_fits_wins(tmp_path):
    beside(tmp_path, "a.mp4", "a.mp4", "a.en.mkv", "a.srt", "a.en.srt", "a.en.de.srt", "a.de.srt")
    assert [s.path for s in sidecars(tmp_path, ["a.mp4"])] == ["a.de.srt", "a.srt"]
    assert [s.path for s in sidecars(tmp_path, ["a.en.mkv"])] == ["a.en.de.srt", "a.en.srt"]


def test_two_videos_of_one_name_share_a_file_and_copies_have_each_their_own(tmp_path):
    names = ("x/a.mp4", "x/a.mkv", "y/b.mp4", "x/a.srt", "y/b.srt")
    assert beside(tmp_path, "x/a.mp4", *names) == ["x/a.srt"]
    assert [s.path for s in sidecars(tmp_path, ["x/a.mkv"])] == ["x/a.srt"]
    assert [s.path for s in sidecars(tmp_path, ["x/a.mp4", "y/b.mp4"])] == ["x/a.srt", "y/b.srt"]
    assert sidecars(tmp_path, ["gone/a.mp4"]) == []


# ---------------------------------------------------------------------- what is in them


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_the_encoding_is_found_out(tmp_path, encoding):
    text = srt("Ich hörte Hunde bellen, ganz früh am Morgen", "Größe, Straße und Öl")
    (tmp_path / "a.srt").write_bytes(text.encode(encoding))
    assert [line.text for line in read(tmp_path / "a.srt")] == [
        "Ich hörte Hunde bellen, ganz früh am Morgen",
        "Größe, Straße und Öl",
    ]


def test_utf_8_with_a_broken_byte_stays_utf_8():
    assert decoded("Äh, öh, üh".encode() + b"\xff") == "Äh, öh, üh\ufffd"
    assert decoded("“Wörter” kosten 5 €".encode("cp1252")) == "“Wörter” kosten 5 €"
    assert decoded("привет".encode()) == "привет"
    assert decoded(b"") == ""


VTT = """WEBVTT - a title

NOTE nobody reads this

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 position:10%
<v Ann>A <b>dog</b> &amp; a cat

01:00:04.000 --> 01:00:05.000
late
"""
ASS = """[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,nobody sees this
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\an8}A dog\\Nbarks, loudly
"""


def test_every_format_is_read():
    assert parse(SRT) == [Line(1.0, 2.5, "A dog barks"), Line(4.0, 5.0, "and runs")]
    assert parse(VTT, ".vtt") == [Line(1.0, 2.5, "A dog & a cat"), Line(3604.0, 3605.0, "late")]
    assert parse(ASS, ".ass") == [Line(1.0, 2.5, "A dog barks, loudly")]


def test_a_file_with_the_wrong_ending_is_read_as_what_it_is():
    assert parse(VTT, ".srt")[0] == Line(1.0, 2.5, "A dog & a cat")
    assert parse(ASS, ".srt") == [Line(1.0, 2.5, "A dog barks, loudly")]


def test_lines_out_of_order_or_that_end_before_they_start_are_kept():
    text = "1\n00:00:09,000 --> 00:00:08,000\nlate\n\n2\n00:00:01,000 --> 00:00:02,000\nearly\n"
    assert parse(text) == [Line(1.0, 2.0, "early"), Line(9.0, 11.0, "late")]


@pytest.mark.parametrize("text", ["", "  \n\n", "\ufeff", "WEBVTT", "WEBVTT\n\nNOTE nothing yet\n"])
def test_no_lines_is_no_error(text):
    assert parse(text.lstrip("\ufeff"), ".vtt") == []


@pytest.mark.parametrize("text", ["garbage", "\x00\x01\x02", "1\n99:99 --> x\nhm\n", "<html><body>404</body></html>"])
def test_what_is_no_subtitle_is_an_error(text):
    with pytest.raises(SubtitleError) as caught:
        parse(text, ".srt", "a.srt")
    assert caught.value.code == "subtitles-malformed"
    assert "a.srt" in caught.value.reason


def test_too_large_unreadable_and_irregular_files(tmp_path, monkeypatch):
    (tmp_path / "a.srt").write_text(SRT)
    monkeypatch.setattr(subtitles, "LARGEST_BYTES", 10)
    with pytest.raises(SubtitleError) as caught:
        read(tmp_path / "a.srt")
    assert caught.value.code == "subtitles-too-large"
    with pytest.raises(SubtitleError) as caught:
        read(tmp_path / "gone.srt")
    assert caught.value.code == "subtitles-unreadable"
    os.mkfifo(tmp_path / "pipe.srt")
    with pytest.raises(SubtitleError) as caught:
        read(tmp_path / "pipe.srt")
    assert caught.value.code == "subtitles-unreadable"


# ---------------------------------------------------------------------- keeping them


class World:
    """A folder with a subtitle table, without videos or a model; counts what is read."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder = folder
        self.store = Store(folder / ".store", create=True)
        self.subtitles = Subtitles(folder, self.store)
        self.contents = {"A": ["a.mp4"], "B": ["b.mp4"]}
        for name in ("a.mp4", "b.mp4"):
            (folder / name).write_bytes(b"")

    def texts(self, video: str) -> list[str]:
        return [cue.text for cue in self.subtitles.cues.of(video)]

    def sources(self) -> list[SourceRow]:
        return Records(self.store, "subtitles", SourceRow, key="id").all()


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    return World(tmp_path, monkeypatch)


def test_files_are_read_when_new_or_changed_only(world):
    (world.folder / "a.srt").write_text(SRT)
    assert world.subtitles.beside(world.contents) == 1
    assert world.texts("A") == ["A dog barks", "and runs"]
    assert world.subtitles.beside(world.contents) == 0
    (world.folder / "a.srt").write_text(srt("A cat"))
    assert world.subtitles.beside(world.contents) == 1
    assert world.texts("A") == ["A cat"]
    os.utime(world.folder / "a.srt", ns=(1, 1))
    assert world.subtitles.beside(world.contents) == 1
    assert world.texts("B") == []


def test_lines_go_with_their_file_and_with_their_video(world):
    for name in ("a.srt", "a.de.srt", "b.srt"):
        (world.folder / name).write_text(srt(name))
    assert world.subtitles.beside(world.contents) == 3
    (world.folder / "a.de.srt").unlink()
    assert world.subtitles.beside(world.contents) == 0
    assert world.texts("A") == ["a.srt"]
    world.subtitles.beside({"A": ["a.mp4"]})  # B is gone, its file is not
    assert world.texts("B") == []
    assert [row.path for row in world.sources()] == ["a.srt"]


def test_a_moved_video_takes_its_lines_along(world):
    (world.folder / "a.srt").write_text(srt("hello"))
    world.subtitles.beside(world.contents)
    (world.folder / "new").mkdir()
    shutil.move(world.folder / "a.mp4", world.folder / "new" / "c.mp4")
    shutil.move(world.folder / "a.srt", world.folder / "new" / "c.srt")
    world.contents["A"] = ["new/c.mp4"]
    world.subtitles.beside(world.contents)
    assert world.texts("A") == ["hello"]
    assert [row.path for row in world.sources()] == ["new/c.srt"]


def test_broken_files_are_remembered_and_the_others_are_read(world):
    (world.folder / "a.srt").write_text("garbage")
    (world.folder / "b.srt").write_text(SRT)
    assert world.subtitles.beside(world.contents) == 2
    (failed,) = world.subtitles.failures()
    assert (failed.video, failed.code, failed.start) == ("a.srt", "subtitles-malformed", None)
    assert world.texts("B") == ["A dog barks", "and runs"]
    assert world.subtitles.beside(world.contents) == 0
    assert world.subtitles.beside(world.contents, retry_failed=True) == 1
    (world.folder / "a.srt").write_text(SRT)
    assert world.subtitles.beside(world.contents) == 1
    assert world.subtitles.failures() == []


def test_a_file_that_breaks_loses_its_old_lines(world):
    (world.folder / "a.srt").write_text(SRT)
    world.subtitles.beside(world.contents)
    (world.folder / "a.srt").write_text("broken now")
    world.subtitles.beside(world.contents)
    assert world.texts("A") == []


def test_what_is_inside_a_content_is_read_once(world, monkeypatch):
    film(world.folder / "a.mkv", "subrip", [(1.0, 2.0, "inside")])
    runs: list[str] = []
    real = sandbox.run
    monkeypatch.setattr(sandbox, "run", lambda task, *rest, **more: runs.append(task) or real(task, *rest, **more))
    contents = {"A": ["a.mkv"], "B": ["b.mp4"]}
    assert world.subtitles.inside(contents, silent={"B"}) == 2
    assert len(runs) == 1  # in a process of its own; B is known to have none
    assert world.texts("A") == ["inside"]
    shutil.move(world.folder / "a.mkv", world.folder / "c.mkv")
    assert world.subtitles.inside({"A": ["c.mkv"], "B": ["b.mp4"]}) == 0
    world.subtitles.beside({"A": ["c.mkv"]})
    assert world.texts("A") == ["inside"]
    world.subtitles.beside({})
    assert world.texts("A") == []
    assert world.sources() == []


def test_a_video_that_cannot_be_read_has_no_lines_and_no_second_entry_in_the_ledger(world):
    (world.folder / "a.mp4").write_bytes(b"no film" * 100)
    assert world.subtitles.inside({"A": ["a.mp4"]}) == 1
    assert [row.code for row in world.sources()] == ["not-a-video"]
    assert world.subtitles.failures() == []  # the video itself is in the ledger already
    assert world.subtitles.inside({"A": ["a.mp4"]}) == 0
    assert world.subtitles.inside({"A": ["a.mp4"]}, retry_failed=True) == 1


def test_a_table_that_was_written_but_not_noted_is_written_again(world, monkeypatch):
    """As after a kill between the two."""
    (world.folder / "a.srt").write_text(SRT)
    with monkeypatch.context() as patch:
        patch.setattr(world.subtitles._sources, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.subtitles.beside(world.contents)
    assert world.subtitles.beside(world.contents) == 1
    assert world.texts("A") == ["A dog barks", "and runs"]


# ---------------------------------------------------------------------- in a library


@pytest.fixture(scope="module")
def library(reels, tiny_model, tmp_path_factory) -> rushes.Library:
    """Three videos with words; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        shutil.copyfile(reels / f"reel0000{number}.mp4", folder / f"{'ab'[number]}.mp4")
    film(folder / "c.mkv", "subrip", [(1.0, 2.0, "a walrus inside")], seconds=3.0)
    (folder / "a.en.srt").write_text(srt("nothing", "the quarterly zebra budget"))
    (folder / "b.srt").write_text("garbage")
    found = rushes.open(folder)
    found.refresh(model=str(tiny_model))
    return found


def test_a_library_hears_what_is_beside_and_inside_its_videos(library):
    (cue,) = library.cues("zebra budgets")
    assert (library.video(cue.video).path, cue.start, cue.end) == ("a.mp4", 2.0, 3.5)
    assert cue.score == pytest.approx(1.0)
    (cue,) = library.cues("walrus")
    assert (library.video(cue.video).path, cue.start) == ("c.mkv", pytest.approx(1.0))
    assert library.cues("zebra", where=Where(videos=(cue.video,))) == []
    assert library.cues("!") == []
    assert [(row.video, row.code) for row in library.info().failures] == [("b.srt", "subtitles-malformed")]


def test_a_broken_subtitle_file_does_not_make_a_video_be_indexed_again(library, tmp_path):
    shutil.copytree(library.folder, tmp_path / "copy")
    report = rushes.open(tmp_path / "copy").refresh(retry_failed=True)
    assert (report.videos, report.segments, report.failed) == (0, 0, 1)


def test_asking_finds_what_is_only_said(library):
    answer = library.ask(Query.of_text("zebra budget"))
    best = answer.hits[0]
    assert library.video(best.segment.video).path == "a.mp4"
    assert best.start < 3.5
    assert best.end > 2.0
    assert best.scores["words"] == pytest.approx(1.0)
    assert [cue.text for cue in best.cues] == ["the quarterly zebra budget"]
    assert answer.match == "good"
    only = library.ask(Query.of_text("zebra budget", spoken="only"))
    assert {library.video(hit.segment.video).path for hit in only.hits} == {"a.mp4"}
    without = library.ask(Query.of_text("zebra budget", spoken="without"))
    assert all("words" not in hit.scores and not hit.cues for hit in without.hits)
    nothing = library.ask(Query.of_text("submarine", spoken="only"))
    assert (nothing.hits, nothing.match) == ((), "none")


def test_words_pass_filters_and_groups(library):
    elsewhere = library.ask(Query.of_text("zebra budget", where=Where(videos=(library.cues("walrus")[0].video,))))
    assert all(not hit.cues for hit in elsewhere.hits)
    grouped = library.ask(Query.of_text("zebra budget", group="video"))
    assert library.video(grouped.hits[0].segment.video).path == "a.mp4"
    assert len({hit.segment.video for hit in grouped.hits}) == len(grouped.hits) == 3
    assert [cue.text for cue in grouped.hits[0].cues] == ["the quarterly zebra budget"]


def test_a_rebuild_reads_them_again(library, tiny_model, tmp_path):
    shutil.copytree(library.folder, tmp_path / "copy")
    library = rushes.open(tmp_path / "copy")
    library.refresh(model=str(tiny_model), rebuild=True)
    assert len(library.cues("zebra")) == len(library.cues("walrus")) == 1


def test_other_processes_hear_the_same(library):
    code = f"import rushes; print(len(rushes.open({str(library.folder)!r}).cues('zebra')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "1"
