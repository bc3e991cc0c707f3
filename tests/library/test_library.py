"""A library follows its folder: new is indexed, known is left alone, moved is renamed, gone is dropped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

import rushes
from rushes.library import ingest
from rushes.model import Model
from rushes.video.worker import Decoder


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(reels, tmp_path):
    """Three videos in a folder of their own."""
    place = tmp_path / "videos"
    (place / "deep").mkdir(parents=True)
    for name, target in (("reel00000", "a.mp4"), ("reel00001", "b.mp4"), ("reel00002", "deep/c.mp4")):
        shutil.copyfile(reels / f"{name}.mp4", place / target)
    return place


@pytest.fixture
def library(folder, tiny_model):
    found = rushes.open(folder)
    found.refresh(model=str(tiny_model))
    return found


def names(library) -> set[str]:
    return {hit.segment.video for hit in library.search("anything", k=100, exact=True)}


def test_opening_writes_nothing_and_searching_before_indexing_says_what_to_do(folder):
    library = rushes.open(folder)
    assert not (folder / ".rushes").exists()
    with pytest.raises(FileNotFoundError, match="run `rushes index"):
        library.search("a dog")
    with pytest.raises(FileNotFoundError, match="run `rushes index"):
        library.info()
    with pytest.raises(NotADirectoryError):
        rushes.open(folder / "a.mp4")


def test_segments_are_the_shots_that_were_drawn(library, drawn):
    _, reels = drawn
    hits = library.search("anything", k=100, exact=True, group="segment")
    for reel, name in zip(reels, ("a.mp4", "b.mp4", "deep/c.mp4"), strict=False):
        found = sorted((hit.start, hit.end) for hit in hits if hit.segment.video == name)
        assert [start for start, _ in found] == pytest.approx([shot.start for shot in reel.shots], abs=0.09)
        assert found[-1][1] == pytest.approx(reel.length, abs=0.09)
        for hit in hits:
            assert all(hit.start <= moment.start < moment.end <= hit.end for moment in hit.moments)


def test_a_second_run_encodes_nothing(library):
    report = library.refresh()
    assert (report.videos, report.segments, report.frames, report.unchanged) == (0, 0, 0, 3)


def test_a_moved_file_keeps_its_index_and_answers_under_its_new_name(library, folder):
    before = library.index.segments()
    (folder / "a.mp4").rename(folder / "deep/z.mp4")
    report = library.refresh()
    assert (report.moved, report.frames, report.removed) == (1, 0, 0)
    assert library.index.segments() == before
    assert names(library) == {"b.mp4", "deep/c.mp4", "deep/z.mp4"}


def test_a_copy_is_the_same_video(library, folder):
    shutil.copyfile(folder / "a.mp4", folder / "copy.mp4")
    assert library.refresh().frames == 0
    assert library.info().videos == 3
    assert library.info().files == 4
    (folder / "a.mp4").unlink()
    library.refresh()
    assert names(library) == {"copy.mp4", "b.mp4", "deep/c.mp4"}


def test_a_touched_file_is_looked_at_but_not_encoded(library, folder):
    os.utime(folder / "a.mp4", (1, 1))
    report = library.refresh()
    assert (report.unchanged, report.videos, report.frames) == (2, 0, 0)


def test_changed_content_replaces_the_old(library, folder, reels):
    shutil.copyfile(reels / "reel00005.mp4", folder / "a.mp4")
    report = library.refresh()
    assert (report.videos, report.removed) == (1, 1)
    assert names(library) == {"a.mp4", "b.mp4", "deep/c.mp4"}
    assert report.segments > 0
    assert library.info().videos == 3


def test_what_is_gone_is_dropped(library, folder):
    (folder / "a.mp4").unlink()
    assert library.refresh().removed == 1
    assert names(library) == {"b.mp4", "deep/c.mp4"}
    shutil.rmtree(folder / "deep")
    (folder / "b.mp4").unlink()
    library.refresh()
    assert library.search("anything") == []
    assert library.info().segments == 0


def test_two_stages_and_exact_agree_where_everything_is_a_candidate(library):
    for by in ("summary", "frame"):
        assert library.search("a red thing", by=by) == library.search("a red thing", exact=True)
    for exact in (True, False):
        hits = library.search("a red thing", k=3, group="video", exact=exact)
        assert len({hit.segment.video for hit in hits}) == len(hits) == 3
        best = library.search("a red thing", k=100, exact=True)
        for hit in hits:
            assert hit.score == max(one.score for one in best if one.segment.video == hit.segment.video)


def test_grouping_by_video_looks_deeper_when_one_video_fills_the_candidates(library):
    assert len(library.search("anything", k=3, group="video", depth=3)) == 3


def test_a_folder_that_cannot_be_written_works_with_a_store(folder, tiny_model, tmp_path):
    (folder / ".rushes").write_text("a file where the index would lie")
    with pytest.raises(PermissionError, match="--store DIR"):
        rushes.open(folder).refresh(model=str(tiny_model))
    (folder / ".rushes").unlink()
    library = rushes.open(folder, tmp_path / "elsewhere")
    assert library.refresh(model=str(tiny_model)).videos == 3
    assert not (folder / ".rushes").exists()
    assert names(library) == {"a.mp4", "b.mp4", "deep/c.mp4"}


def test_failures_are_kept_with_code_and_reason_and_tried_again_on_demand(library, folder):
    (folder / "notes.mp4").write_text("no video at all")
    (folder / "empty.mov").touch()
    report = library.refresh()
    assert report.failed == 2
    ledger = {failure.video: failure for failure in library.info().failures}
    assert ledger["notes.mp4"].code == "not-a-video"
    assert ledger["empty.mov"].code == "empty"
    assert all(failure.reason for failure in ledger.values())
    assert library.refresh().videos == 0, "a file that failed is left alone"
    assert library.refresh(retry_failed=True).videos == 2
    shutil.copyfile(folder / "a.mp4", folder / "notes.mp4")
    library.refresh()
    assert {failure.video for failure in library.info().failures} == {"empty.mov"}
    (folder / "empty.mov").unlink()
    library.refresh()
    assert library.info().failures == ()


def test_a_file_that_cannot_be_read_for_a_while_is_listed_and_keeps_its_index(library, folder, monkeypatch):
    before = library.index.segments()
    os.utime(folder / "a.mp4", (1, 1))

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("rushes.library.library.fingerprint", refused)
    shutil.copyfile(folder / "b.mp4", folder / "new.mp4")
    assert library.refresh().failed == 2
    assert {failure.video: failure.code for failure in library.info().failures} == {
        "a.mp4": "unreadable",
        "new.mp4": "unreadable",
    }
    assert library.index.segments() == before
    monkeypatch.undo()
    report = library.refresh()
    assert (report.failed, report.frames) == (0, 0)
    assert library.index.segments() == before


def test_every_copy_of_a_broken_file_is_listed_and_under_its_new_name(library, folder):
    (folder / "one.mp4").touch()
    (folder / "two.mp4").touch()
    assert library.refresh().failed == 2
    assert [failure.video for failure in library.info().failures] == ["one.mp4", "two.mp4"]
    (folder / "one.mp4").rename(folder / "three.mp4")
    library.refresh()
    assert [failure.video for failure in library.info().failures] == ["three.mp4", "two.mp4"]


def test_half_a_file_is_indexed_as_far_as_it_goes_and_listed(library, folder):
    content = (folder / "a.mp4").read_bytes()
    import av

    with (
        av.open(str(folder / "a.mp4")) as source,
        av.open(str(folder / "front.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = (folder / "front.mp4").read_bytes()
    (folder / "front.mp4").unlink()
    (folder / "half.mp4").write_bytes(content[: len(content) * 6 // 10])
    library.refresh()
    failures = {failure.code: failure for failure in library.info().failures}
    assert set(failures) <= {"truncated", "damaged"}, "the packet that was cut through may be told apart"
    failure = failures["truncated"]
    assert failure.video == "half.mp4"
    assert failure.start is not None
    assert failure.end is not None
    assert 0 < failure.start < failure.end
    assert "half.mp4" in names(library)


def test_other_settings_are_refused_until_rebuilt(library, folder, tiny_model):
    with pytest.raises(ValueError, match="indexed with policy balanced, not policy thorough"):
        library.refresh(policy="thorough")
    report = library.refresh(model=str(tiny_model), policy="thorough", segments="windows", rebuild=True)
    assert report.videos == 3
    assert library.info().policy == "thorough"
    spans = sorted(
        (hit.start, hit.end) for hit in library.search("x", k=100, exact=True) if hit.segment.video == "a.mp4"
    )
    assert spans[0][0] == 0.0
    assert spans[1][0] == 5.0


def test_unknown_names_are_refused_before_anything_is_written(folder):
    with pytest.raises(LookupError, match="no policy 'quick'"):
        rushes.open(folder).refresh(policy="quick")
    with pytest.raises(LookupError, match="no model 'large'"):
        rushes.open(folder).refresh(model="large")
    assert not (folder / ".rushes/settings.json").exists()


def test_a_model_with_other_weights_is_noticed(library, folder, tiny_model, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(tiny_model, place)
    other = rushes.open(folder, tmp_path / "store")
    other.refresh(model=str(place))
    model: Model = rushes.load(place)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01
    model.save(place)
    with pytest.raises(ValueError, match="other weights"):
        rushes.open(folder, tmp_path / "store").search("x")


def test_two_runs_at_once_are_refused(folder, tiny_model):
    from filelock import FileLock

    (folder / ".rushes").mkdir()
    with FileLock(folder / ".rushes/lock"), pytest.raises(RuntimeError, match="another run is indexing"):
        rushes.open(folder).refresh(model=str(tiny_model))


def test_an_interrupted_run_keeps_what_it_encoded_and_goes_on_inside_the_video(folder, tiny_model, monkeypatch):
    calm = rushes.open(folder, folder.parent / "calm")
    calm.refresh(model=str(tiny_model), policy="thorough")

    read = Decoder.read

    def stop_after_two_shots(self, *arguments, **switches):
        spans = 0
        for event in read(self, *arguments, **switches):
            yield event
            spans += type(event).__name__ == "Span"
            if spans == 2:
                raise KeyboardInterrupt

    library = rushes.open(folder)
    monkeypatch.setattr(ingest.Decoder, "read", stop_after_two_shots)
    with pytest.raises(KeyboardInterrupt):
        library.refresh(model=str(tiny_model), policy="thorough")
    monkeypatch.undo()
    assert library.info().unfinished == 3
    stored = library.index.segments()
    report = rushes.open(folder).refresh()
    assert report.segments == calm.index.count() - len(stored)
    assert library.index.segments() == calm.index.segments()
    assert library.info().unfinished == 0


def test_a_crash_of_the_decoder_costs_one_file(folder, tiny_model, monkeypatch):
    read = Decoder.read

    def killed(self, path, **switches):
        events = read(self, path, **switches)
        if path.name == "a.mp4":
            next(events)
            os.kill(self.pid, signal.SIGKILL)
        yield from events

    monkeypatch.setattr(ingest.Decoder, "read", killed)
    library = rushes.open(folder)
    library.refresh(model=str(tiny_model))
    (failure,) = library.info().failures
    assert (failure.video, failure.code) == ("a.mp4", "crashed")
    assert {"b.mp4", "deep/c.mp4"} <= names(library)


def test_import_is_instant_and_brings_no_torch():
    code = "import sys, rushes; assert not {'torch', 'numpy', 'av'} & set(sys.modules); rushes.__version__"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
