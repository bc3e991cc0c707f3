"""What can be asked of a library: laws first, on drawn videos and a tiny model; meaning is in test_asking_meaning."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import av
import cv2
import pytest
import torch

import rushes
from rushes.library import Library
from rushes.search.query import Part, Query, Then, Where
from rushes.types import Hit

TEXTS = ("a dog", "a man throws a red ball", "snow")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def library(reels, tiny_model, tmp_path_factory) -> Library:
    """Five videos in three folders, one of them twice. Tests that change it copy it."""
    place = tmp_path_factory.mktemp("asking") / "videos"
    for name, target in (
        ("reel00000", "a.mp4"),
        ("reel00001", "beach/b.mp4"),
        ("reel00002", "beach/deep/c.mp4"),
        ("reel00003", "beaches/d.mp4"),
        ("reel00004", "e.mp4"),
        ("reel00004", "beach/e again.mp4"),
    ):
        (place / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reels / f"{name}.mp4", place / target)
    dated(place / "beach/b.mp4", datetime(2021, 6, 1, 12, tzinfo=UTC))
    for number, path in enumerate(sorted(place.rglob("*.mp4"))):
        os.utime(path, (1.6e9 + 86400 * number, 1.6e9 + 86400 * number))
    found = rushes.open(place)
    found.refresh(model=str(tiny_model), segments="windows")
    return found


def dated(path: Path, moment: datetime) -> None:
    """Write the file again as if a camera had recorded it then."""
    target = path.with_suffix(".part.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w", format="mp4") as output:
        output.metadata["creation_time"] = moment.isoformat()
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams.video}
        for packet in source.demux():
            if packet.dts is not None and packet.stream.index in streams:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    target.replace(path)


def paths(library: Library, hits) -> set[str]:
    return {library.video(hit.segment.video).path for hit in hits}


def bare(hit: Hit) -> tuple:
    return hit.segment, hit.score, hit.moments


def every(library: Library, text: str = "a dog", **others) -> list[Hit]:
    return list(library.ask(Query.of_text(text, merge=False, **others)).hits)


# ---------------------------------------------------------------------- laws


@pytest.mark.parametrize("group", ["segment", "video"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_single_text_is_a_search(library, group, exact):
    for text in TEXTS:
        for k in (1, 3, 500):
            found = library.ask(Query.of_text(text, merge=False, group=group, exact=exact), most=k).hits
            want = library.search(text, k, group=group, exact=exact)
            assert [bare(hit)[1:] for hit in found] == [bare(hit)[1:] for hit in want]
            assert [library.video(hit.segment.video).path for hit in found] == [hit.segment.video for hit in want]
            assert [hit.segment.id for hit in found] == [hit.segment.id for hit in want]


def test_the_order_of_parts_changes_nothing(library):
    (first, *_, last) = every(library)
    parts = (
        Part(text="a dog"),
        Part(text="snow", weight=0.5),
        Part(text="a beach", weight=-1.0),
        Part(like=first.segment.id, weight=0.7),
        Part(like=last.segment.id, weight=-0.3),
    )
    want = library.ask(Query(parts=parts)).hits
    assert want
    assert library.ask(Query(parts=parts[::-1])).hits == want
    assert library.ask(Query(parts=(*parts[2:], *parts[:2]))).hits == want


def test_weight_zero_is_absence(library):
    query = Query.of_text("a dog", avoid=["snow"])
    nothing = replace(query, parts=(*query.parts, Part(text="a cat", weight=0.0)))
    assert library.ask(nothing).hits == library.ask(query).hits
    alone = Query(parts=(Part(text="a dog"), Part(text="a cat", weight=0.0)))
    assert library.ask(alone).hits == library.ask(Query.of_text("a dog")).hits


def test_the_same_question_has_the_same_answer(library):
    query = Query.of_text("a dog", avoid=["snow"], then=Then("a man"), where=Where(folder="beach"))
    assert library.ask(query).hits == rushes.open(library.folder).ask(query).hits


def test_at_most_so_many_are_the_first_so_many(library):
    query = Query.of_text("a dog", avoid=["snow"])
    want = library.ask(query).hits
    assert library.ask(query, most=3).hits == want[:3]
    with pytest.raises(ValueError, match="most is 0"):
        library.ask(query, most=0)


def test_it_looks_deeper_until_there_are_enough(library):
    """Neighbours that look the same are one hit, so as many candidates as hits are too few."""
    most = len(library.ask(Query.of_text("a dog")).hits)
    query = Query.of_text("a dog", depth=1)
    shallow, deep = (library.ask(query, most=most, enough=enough).hits for enough in (1, most))
    assert 1 <= len(shallow) < len(deep) == most
    assert library.ask(query, most=most).hits == deep
    with pytest.raises(ValueError, match=f"enough is {most + 1}; it is from 1 to {most}"):
        library.ask(query, most=most, enough=most + 1)


def test_a_filter_is_a_search_of_the_filtered_library(library, tiny_model, tmp_path):
    """The same files alone, indexed anew, give the same hits: ids are of contents."""
    for name in ("beach/b.mp4", "beach/deep/c.mp4", "beach/e again.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library.folder / name, tmp_path / name)
    alone = rushes.open(tmp_path)
    alone.refresh(model=str(tiny_model), segments="windows")
    for text in TEXTS:
        for group in ("segment", "video"):
            query = Query.of_text(text, group=group)
            found = library.ask(replace(query, where=Where(folder="beach/"))).hits
            assert [bare(hit) for hit in found] == [bare(hit) for hit in alone.ask(query).hits]


def test_a_filter_restricts_the_ranking_whatever_is_asked(library):
    first = every(library)[0].segment.id
    for parts in (
        (Part(text="a dog"),),
        (Part(text="a dog"), Part(text="snow", weight=-1.0)),
        (Part(like=first), Part(text="a man")),
    ):
        query = Query(parts=parts, merge=False)
        left = {video.id for video in library.videos(Where(folder="beach"))}
        whole = [hit for hit in library.ask(query).hits if hit.segment.video in left]
        for exact in (False, True):
            found = library.ask(replace(query, where=Where(folder="beach"), exact=exact)).hits
            assert [hit.segment.id for hit in found] == [hit.segment.id for hit in whole]
            # a batch of another size sums in another order
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in whole], abs=1e-5)


def test_a_filter_narrows_the_first_stage(library):
    """One candidate is enough to find the worst video of all, once the others are filtered out."""
    worst = every(library)[-1].segment.video
    query = Query.of_text("a dog", depth=1, where=Where(videos=(worst,)))
    (hit,) = library.ask(query, most=1).hits
    assert hit.segment.video == worst
    assert len(library.ask(query).hits) >= 1


def test_no_hit_is_lost_by_a_filter(library):
    for video in library.videos():
        count = library.index.count([video.id])
        assert len(every(library, where=Where(videos=(video.id,)))) == count > 0


def test_merging_loses_no_video_and_no_segment(library):
    for text in TEXTS:
        merged = library.ask(Query.of_text(text)).hits
        alone = every(library, text)
        assert paths(library, merged) == paths(library, alone)
        assert sum(hit.merged for hit in merged) == len(alone)
        assert merged[0].segment == alone[0].segment


def test_a_still_video_is_one_hit(tiny_model, tmp_path):
    """40 seconds of one picture: seven overlapping windows, one answer."""
    still(tmp_path / "still.mp4", 40)
    found = rushes.open(tmp_path)
    found.refresh(model=str(tiny_model), segments="windows")
    assert len(every(found)) >= 7
    (hit,) = found.ask(Query.of_text("a dog")).hits
    assert hit.merged == len(every(found))
    assert hit.moments[0].end - hit.moments[0].start > 35


def still(path: Path, seconds: int) -> None:
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_NEAREST)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("h264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(5 * seconds):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        output.mux(stream.encode(None))


def test_a_group_is_a_video_and_none_is_crowded_out(library):
    for depth in (1, 500):
        found = library.ask(Query.of_text("a dog", group="video", depth=depth)).hits
        assert len(found) == len({hit.segment.video for hit in found}) == 5
    best: dict[str, float] = {}
    for hit in every(library):
        best.setdefault(hit.segment.video, hit.score)
    assert [(hit.segment.video, hit.score) for hit in found] == list(best.items())


def test_by_time_is_by_date_then_path_then_second(library):
    hits = library.ask(Query.of_text("a dog", sort="time", merge=False)).hits
    keys = []
    for hit in hits:
        video = library.video(hit.segment.video)
        keys.append((video.date, video.path, hit.start))
    assert keys == sorted(keys)
    assert {hit.segment.id for hit in hits} == {hit.segment.id for hit in every(library)}
    best = library.ask(Query.of_text("a dog", sort="time", merge=False), most=4).hits
    assert {hit.segment.id for hit in best} == {hit.segment.id for hit in every(library)[:4]}


# ---------------------------------------------------------------------- what is looked for


def test_more_like_this_leaves_out_what_it_overlaps(library):
    one = every(library)[2].segment
    hits = library.ask(Query(parts=(Part(like=one.id),), merge=False)).hits
    assert all(h.segment.video != one.video or h.start >= one.end or h.end <= one.start for h in hits)
    beside = [s for s in library.index.segments([one.video]) if s.start < one.end and s.end > one.start]
    assert len(beside) > 1  # windows overlap
    assert len(hits) == library.index.count() - len(beside)
    assert hits[0].scores["visual"] == hits[0].score <= 1.0 + 1e-6
    with pytest.raises(LookupError, match="the index has no segment 'nothing:0'"):
        library.ask(Query(parts=(Part(like="nothing:0"),)))


def test_a_frame_as_a_picture_finds_its_video(library, drawn, tmp_path):
    _, made = drawn
    shots = {0: "a.mp4", 2: "beach/deep/c.mp4", 3: "beaches/d.mp4"}
    for number, path in shots.items():
        second = (made[number].shots[0].start + made[number].shots[0].end) / 2
        capture = cv2.VideoCapture(str(library.folder / path))
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * second)
        done, picture = capture.read()
        assert done
        for ending in ("png", "jpg"):
            file = tmp_path / f"{number} %d.{ending}"
            cv2.imwrite(str(file), picture)
            (hit, *_) = library.ask(Query(parts=(Part(image=file),))).hits
            assert library.video(hit.segment.video).path == path
            assert hit.start <= second <= hit.end
            assert hit.score > 0.9


def test_what_is_no_picture_is_told(library, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    for name in ("a.jpg", "nothing.jpg"):
        with pytest.raises(Exception, match=name) as caught:
            library.ask(Query(parts=(Part(image=tmp_path / name),)))
        assert type(caught.value).__name__ == "VideoError"


def test_then_follows_in_the_same_video(library):
    query = Query.of_text("a dog", then=Then("snow", within=8), merge=False)
    hits = library.ask(query).hits
    assert hits
    for hit in hits:
        assert hit.then is not None
        first = min(hit.moments, key=lambda moment: moment.end)
        assert hit.then.start >= first.end - 0.5
        assert any(hit.then.start - moment.end <= 8 for moment in hit.moments)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(library.ask(replace(query, then=Then("snow", within=0.01))).hits) <= len(hits)
    grouped = library.ask(replace(query, group="video")).hits
    assert len({hit.segment.video for hit in grouped}) == len(grouped)
    assert all(hit.then is not None for hit in grouped)


def test_matches_are_every_segment_in_order_of_time(library):
    for parts in ((Part(text="a dog"),), (Part(text="a dog"), Part(text="snow", weight=-1.0))):
        scores = {hit.segment.id: hit.score for hit in library.ask(Query(parts=parts, merge=False)).hits}
        for video in library.videos():
            found = library.matches(Query(parts=parts), video.id)
            assert [hit.segment for hit in found] == library.index.segments([video.id])
            want = [scores[hit.segment.id] for hit in found]
            assert [hit.score for hit in found] == pytest.approx(want, abs=1e-5)
    with pytest.raises(LookupError, match="no video 'nobody'"):
        library.matches(Query.of_text("a dog"), "nobody")


def test_stages_are_timed_and_an_uncalibrated_model_says_so(library):
    answer = library.ask(Query.of_text("a dog", avoid=["snow"]))
    assert {"encode", "background", "search", "order"} <= set(answer.seconds)
    assert all(seconds >= 0 for seconds in answer.seconds.values())
    assert answer.match == "unknown"
    assert all(hit.confidence is None for hit in answer.hits)


# ---------------------------------------------------------------------- videos, filters, tags


def test_videos_are_what_the_folder_holds(library):
    videos = library.videos()
    assert [video.path for video in videos] == [
        "a.mp4",
        "beach/b.mp4",
        "beach/deep/c.mp4",
        "beach/e again.mp4",
        "beaches/d.mp4",
    ]
    twice = library.find("e.mp4")
    assert (twice.paths, twice.folder, twice.name) == (("beach/e again.mp4", "e.mp4"), "beach/", "e again.mp4")
    assert library.video(twice.id) == library.find("beach/e again.mp4") == library.find("./e.mp4") == twice
    for video in videos:
        assert video.status == "done"
        assert video.length > 5
        assert video.size_bytes == (library.folder / video.path).stat().st_size
    for ask in (library.video, library.find, library.tag):
        with pytest.raises(LookupError, match=r"no video 'nobody\.mp4'"):
            ask("nobody.mp4")
    with pytest.raises(LookupError, match=r"no video 'a\.mp4'"):
        library.video("a.mp4")  # a path is no id


def test_dates_are_the_cameras_or_else_the_files(library):
    assert library.find("beach/b.mp4").date == datetime(2021, 6, 1, 12, tzinfo=UTC)
    oldest = min((library.folder / path).stat().st_mtime for path in library.find("e.mp4").paths)
    assert library.find("e.mp4").date == datetime.fromtimestamp(oldest, UTC)


def test_where(library):
    length = {video.path: video.length for video in library.videos()}
    middle = sorted(length.values())[2]

    def found(**conditions) -> set[str]:
        where = Where(**conditions)
        listed = {video.path for video in library.videos(where)}
        assert paths(library, every(library, where=where)) == listed
        return listed

    assert found(folder="beach") == {"beach/b.mp4", "beach/deep/c.mp4", "beach/e again.mp4"}
    assert found(folder="beach/deep/") == {"beach/deep/c.mp4"}
    assert found(folder="nowhere") == set()
    assert found(min_seconds=middle) == {path for path, seconds in length.items() if seconds >= middle}
    assert found(max_seconds=middle) == {path for path, seconds in length.items() if seconds <= middle}
    assert found(after=date(2021, 5, 31)) == {"beach/b.mp4"}
    assert found(before=date(2021, 5, 31)) == set(length) - {"beach/b.mp4"}
    assert found(videos=(library.find("a.mp4").id,), folder="beach") == set()
    with pytest.raises(LookupError, match="no video 'nobody'"):
        library.ask(Query.of_text("a dog", where=Where(videos=("nobody",))))
    assert library.ask(Query.of_text("a dog", where=Where(folder="nowhere"))).notes == ("No video passes the filter.",)


def test_tags_belong_to_the_content(library, tiny_model, tmp_path):
    place = tmp_path / "videos"
    shutil.copytree(library.folder, place)
    found = rushes.open(place)
    assert found.tag("a.mp4", ["Holiday", "zoo", " two   words "]) == ("Holiday", "two words", "zoo")
    assert found.tag(found.find("a.mp4").id, ["holiday"], ["Zoo", "never there"]) == ("holiday", "two words")
    assert found.tag("beach/b.mp4", ["Holiday"]) == ("Holiday",)
    assert {video.path for video in found.videos(Where(tags=("HOLIDAY",)))} == {"a.mp4", "beach/b.mp4"}
    assert paths(found, every(found, where=Where(tags=("two words", "holiday")))) == {"a.mp4"}
    for add, remove in (([" "], []), (["x" * 101], []), (["a\x00b"], []), (["a"], ["A"])):
        with pytest.raises(ValueError, match=r"tag|at once"):
            found.tag("a.mp4", add, remove)
    with pytest.raises(TypeError, match="lists of tags"):
        found.tag("a.mp4", "holiday")
    (place / "a.mp4").rename(place / "beach/moved.mp4")
    (place / "beach/b.mp4").unlink()
    found.refresh()
    assert found.find("beach/moved.mp4").tags == ("holiday", "two words")
    assert len(found.videos(Where(tags=("holiday",)))) == 1
    shutil.copyfile(library.folder / "beach/b.mp4", place / "back.mp4")
    found.refresh(model=str(tiny_model), rebuild=True)
    assert found.find("beach/moved.mp4").tags == ("holiday", "two words")
    assert found.find("back.mp4").tags == ("Holiday",)
    assert rushes.open(place).find("back.mp4").tags == ("Holiday",)


def test_what_another_process_changed_is_seen_at_once(library, tmp_path):
    """Videos and tags are kept in memory while no table changes, and no longer."""
    place = tmp_path / "videos"
    shutil.copytree(library.folder, place)
    one, other = rushes.open(place), rushes.open(place)
    one.tag("a.mp4", ["first"])
    for table in place.glob(".rushes/*.lance"):
        os.utime(table / "_versions", (1e9, 1e9))  # as if long ago: nothing can have happened at the same time
    assert other.find("a.mp4").tags == ("first",)
    assert other._catalog() is other._catalog()
    one.tag("a.mp4", ["second"])
    assert other.find("a.mp4").tags == ("first", "second")
    (place / "a.mp4").rename(place / "z.mp4")
    one.refresh()
    assert other.find("z.mp4").tags == ("first", "second")


def test_a_store_of_before_gets_its_dates_without_encoding(library, tmp_path):
    place = tmp_path / "videos"
    shutil.copytree(library.folder, place)
    for name in ("dates.lance", "tags.lance"):
        shutil.rmtree(place / ".rushes" / name, ignore_errors=True)
    found = rushes.open(place)
    changed = found.find("beach/b.mp4").date
    assert changed < datetime(2021, 1, 1, tzinfo=UTC)
    assert every(found)
    report = found.refresh()
    assert report.frames == 0
    assert found.find("beach/b.mp4").date == datetime(2021, 6, 1, 12, tzinfo=UTC)
    assert found.find("beach/b.mp4").date - changed > timedelta(days=100)


# ---------------------------------------------------------------------- while others work


def test_asking_goes_on_while_another_process_indexes(library, reels, tmp_path):
    """Another process drops a video and adds two: every question meanwhile has an answer."""
    place = tmp_path / "videos"
    shutil.copytree(library.folder, place)
    asked = rushes.open(place)
    before = paths(asked, every(asked))
    (place / "a.mp4").unlink()
    for number, name in ((5, "new1.mp4"), (1, "new2.mp4")):
        shutil.copyfile(reels / f"reel{number:05d}.mp4", place / name)
    other = subprocess.Popen(
        [sys.executable, "-m", "rushes", "index", str(place)], stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    queries = (
        Query.of_text("a dog"),
        Query.of_text("a dog", avoid=["snow"]),
        Query.of_text("a dog", then=Then("snow")),
        Query.of_text("a dog", group="video", where=Where(folder="beach")),
        Query.of_text("a dog", exact=True),
    )
    answers = 0
    while other.poll() is None:
        for query in queries:
            assert asked.ask(query).hits
            answers += 1
    _, talk = other.communicate()
    assert other.returncode == 0, talk.decode()
    assert answers >= len(queries)
    after = paths(asked, every(asked))
    assert "a.mp4" in before
    assert after == {video.path for video in asked.videos()}
    assert after == before - {"a.mp4"} | {"new1.mp4", "new2.mp4"}
