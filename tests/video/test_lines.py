"""Subtitles inside a file are read with their times on the video's clock, whatever they are kept as."""

from __future__ import annotations

import pytest

from rushes.video import sandbox
from rushes.video.lines import LONGEST, Line, lines, plain, understood
from rushes.video.probe import VideoError
from tests.video import films
from tests.video.spoken import film

SAID = [(1.0, 2.5, "Hello there"), (4.0, 6.0, "{\\i1}zweite{\\i0} Zeile, äh\\Nund mehr")]
READ = [Line(1.0, 2.5, "Hello there", "eng"), Line(4.0, 6.0, "zweite Zeile, äh und mehr", "eng")]
KINDS = [("mp4", "mov_text"), ("mkv", "subrip"), ("mkv", "ass"), ("mkv", "webvtt")]


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_lines_come_as_they_were_put_in(tmp_path, ending, codec):
    assert lines(film(tmp_path / f"film.{ending}", codec, SAID)) == READ


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "subrip"), ("mp4", "mov_text")])
def test_times_count_from_where_a_player_begins(tmp_path, ending, codec):
    read = lines(film(tmp_path / f"film.{ending}", codec, SAID, shift=5.0))
    assert [(line.start, line.end) for line in read] == [pytest.approx((1.0, 2.5)), pytest.approx((4.0, 6.0))]


def test_the_sandbox_reads_the_same(tmp_path):
    with film(tmp_path / "film.mkv", "subrip", SAID).open("rb") as source:
        facts, data = sandbox.run("rushes.video.lines:task", {}, source=source)
    assert understood(facts) == READ
    assert data == b""


def test_a_film_without_subtitles_has_no_lines(tmp_path):
    path = tmp_path / "film.mp4"
    films.film(path)
    assert lines(path) == []


def test_what_is_no_film_is_an_error(tmp_path):
    (tmp_path / "film.mkv").write_bytes(b"no film at all" * 100)
    with pytest.raises(VideoError) as caught:
        lines(tmp_path / "film.mkv")
    assert caught.value.code == "not-a-video"


def test_a_film_cut_short_keeps_the_lines_before_the_cut(tmp_path):
    path = film(tmp_path / "film.mkv", "subrip", SAID)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert READ[0] in lines(path)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<v Roger>Hi <c.yellow>you</c>", "Hi you"),
        ("<00:00:01.500>now", "now"),
        ("{\\pos(1,2)}A {\\b1}dog{\\b0}\\hruns", "A dog runs"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("a\0b\n\n c", "ab c"),
        ("<i></i>", ""),
        ("x" * 5000, "x" * LONGEST),
    ],
)
def test_markup_is_left_out(text, read):
    assert plain(text) == read
