"""Stored features are those of the backbone, row by row; a killed run loses little and changes nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.nn.functional import cosine_similarity
from typer.testing import CliRunner

from rushes import data
from rushes.cli import app
from rushes.data import features as store
from rushes.data import reels
from rushes.data.base import Benchmark
from rushes.data.rendered import write
from rushes.library.scan import fingerprint
from rushes.train import features
from rushes.train.features import Drawn, Features, Files, Report, compute, source_of, stretches
from rushes.video.decode import Frame
from rushes.video.probe import VideoError
from tests.data.album import SHARED, album
from tests.train.toy import Toy

ROOT = Path(__file__).parents[2]
FLICKR8K = SHARED / "flickr8k"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return album(tmp_path_factory.mktemp("album"), per_split=10)


@pytest.fixture(scope="module")
def films(pictures, tmp_path_factory):
    """Three rendered reels as a folder benchmark. Shared: tests that change it copy it."""
    out = tmp_path_factory.mktemp("films") / "out"
    write(pictures, out, splits=["test"], count=3, films=True)
    return out


def run(
    root: Path, out: Path, name: str = "reels", protocol: str | None = None, split: str = "test", **options
) -> Report:
    benchmark = data.load(name, root, protocol)
    backbone = options.pop("backbone", None) or Toy()
    policy = options.pop("policy", "balanced")
    with closing(source_of(benchmark, split, root, fingerprint, policy)) as source:
        return compute(benchmark, split, source, backbone, out, name="toy", **options)


def test_frames_and_words_are_the_backbones(pictures, tmp_path):
    split = data.load("reels", pictures)["test"]
    report = run(pictures, tmp_path)
    found = Features(report.folder, split)
    source = Drawn(pictures, reels.reels_of(pictures, "shot", "test"), "balanced", fingerprint)
    backbone = Toy()
    with torch.inference_mode():
        for row in range(len(found)):
            pixels = [event.pixels for event in source.read(row, 16, True) if isinstance(event, Frame)]
            expected = backbone.frames(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
            assert torch.allclose(found.frames([row]).vectors[0], expected, atol=2e-3)
        texts = [caption.text for caption in split.captions]
        expected = backbone.read(texts, "closed-class")
        words = found.words(range(len(texts)))
    assert torch.equal(words.mask, expected.mask)
    assert torch.allclose(words.vectors[words.mask], expected.vectors[expected.mask], atol=2e-3)
    assert torch.allclose(words.sentence, expected.sentence, atol=5e-3)
    assert torch.equal(words.content & words.mask, expected.content)
    assert words.vectors.dtype == words.sentence.dtype == torch.float32
    assert (words.vectors[~words.mask] == 0).all()
    assert not words.content[~words.mask].any()
    assert (report.videos, report.captions) == (len(split.videos), len(split.captions))
    assert found.dim == 6
    assert found.there.all()


def test_padding_and_order_of_rows_change_nothing(pictures, tmp_path):
    found = Features(run(pictures, tmp_path, split="train").folder)
    rows = [3, 0, 3]
    together = found.frames(rows)
    for place, row in enumerate(rows):
        alone = found.frames([row])
        count = int(alone.mask.sum())
        assert together.mask[place].sum() == count
        assert torch.equal(together.vectors[place, :count], alone.vectors[0])
        assert torch.equal(together.spans[place, :count], alone.spans[0])
        assert (together.vectors[place, count:] == 0).all()
    assert torch.equal(found.frames(np.array(rows)).vectors, found.frames(torch.tensor(rows)).vectors)
    words = found.words([5, 0])
    assert torch.equal(words.vectors[1, : int(words.mask[1].sum())], found.words([0]).vectors[0])


def test_spans_cover_a_reel_without_a_gap(pictures, tmp_path):
    found = Features(run(pictures, tmp_path).folder)
    for row, reel in enumerate(reels.reels_of(pictures, "shot", "test")):
        spans = found.frames([row]).spans[0]
        assert spans[0, 0] == 0
        assert spans[-1, 1] == pytest.approx(reel.length)
        assert torch.equal(spans[1:, 0], spans[:-1, 1])
        assert len(spans) == len([0.5 + second for second in range(40) if 0.5 + second < reel.length])


def test_at_most_so_many_frames_one_of_each_stretch(pictures, tmp_path):
    found = Features(run(pictures, tmp_path, split="train").folder)
    everything = found.frames([0, 1, 2])
    few = found.frames([0, 1, 2], most=3)
    assert few.vectors.shape[1] == 3
    draw, seen = np.random.default_rng(0), set()
    for _ in range(60):
        drawn = found.frames([1], most=3, draw=draw)
        count = int(everything.mask[1].sum())
        edges = [number * count // 3 for number in range(4)]
        for number in range(3):
            stretch = everything.vectors[1, edges[number] : edges[number + 1]]
            place = (stretch == drawn.vectors[0, number]).all(dim=1).nonzero()[0, 0].item() + edges[number]
            assert torch.equal(drawn.spans[0, number], everything.spans[1, place])
            seen.add(place)
    assert seen == set(range(count))
    assert torch.equal(found.frames([0], most=1000).vectors, found.frames([0]).vectors)


@pytest.mark.parametrize(("count", "most"), [(5, 5), (6, 5), (13, 4), (100, 12), (7, 1)])
def test_stretches_are_equal_but_for_one_frame(count, most):
    draw = np.random.default_rng(0)
    edges = np.arange(most + 1) * count // most
    assert set(np.diff(edges)) <= {count // most, count // most + 1}
    for picked in (stretches(count, most, None), *(stretches(count, most, draw) for _ in range(20))):
        assert (edges[:-1] <= picked).all()
        assert (picked < edges[1:]).all()
    with pytest.raises(ValueError, match="at most 0 frames"):
        stretches(count, 0, None)


def test_unknown_rows_and_none_are_errors(pictures, tmp_path):
    found = Features(run(pictures, tmp_path).folder)
    with pytest.raises(LookupError, match=rf"has {len(found)} videos, rows 0 to .*; none is row {len(found)}"):
        found.frames([0, len(found)])
    with pytest.raises(LookupError, match="none is row -1"):
        found.words([-1])
    with pytest.raises(ValueError, match="no rows of captions"):
        found.words([])
    assert not issubclass(LookupError, IndexError)


def test_a_second_run_computes_nothing_and_protocols_share(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "PART_VIDEOS", 2)
    first = run(pictures, tmp_path)
    assert first.computed_frames == first.frames > 0
    again = run(pictures, tmp_path)
    assert (again.folder, again.computed_frames, again.computed_texts) == (first.folder, 0, 0)
    both = {protocol: len(reels.reels_of(pictures, protocol, "test")) for protocol in ("shot", "paragraph")}
    assert both["shot"] >= 2
    more = run(pictures, tmp_path, protocol="paragraph")
    assert more.computed_frames < more.frames
    found = Features(store.folder_of(tmp_path, "reels", "paragraph", "test"))
    assert torch.equal(found.frames([0]).vectors, Features(first.folder).frames([0]).vectors)


def test_the_key_knows_backbone_content_and_policy(pictures, tmp_path):
    folders = {run(pictures, tmp_path / "out").folder}
    folders.add(run(pictures, tmp_path / "out", backbone=Toy(seed=1)).folder)
    folders.add(run(pictures, tmp_path / "out", policy="thorough").folder)
    folders.add(run(pictures, tmp_path / "out", backbone=Toy(Toy.Config(squash=False))).folder)
    changed = tmp_path / "changed"
    shutil.copytree(pictures, changed)
    shown = reels.reels_of(pictures, "shot", "test")[0].shots[0].picture
    other = next(path for path in sorted(changed.glob("*.png")) if path.name != shown)
    shutil.copyfile(other, changed / shown)
    folders.add(run(changed, tmp_path / "out").folder)
    assert len(folders) == 5
    with pytest.raises(LookupError, match="has 5 features of reels shot test"):
        store.folder_of(tmp_path / "out", "reels", "shot", "test")
    with pytest.raises(LookupError, match="no features of reels shot train, it has reels-shot-test"):
        store.folder_of(tmp_path / "out", "reels", "shot", "train")


def test_a_split_of_another_drawing_is_refused(pictures, tmp_path):
    report = run(pictures, tmp_path)
    with pytest.raises(ValueError, match="compute them with `rushes features`"):
        Features(report.folder, reels.parse(pictures, seed=3)["test"])
    with pytest.raises(ValueError, match="another drawing"):
        source_of(reels.parse(pictures, count=9), "test", pictures, fingerprint)


def test_features_travel_to_other_processes(pictures, tmp_path):
    found = Features(run(pictures, tmp_path).folder)
    assert torch.equal(pickle.loads(pickle.dumps(found)).frames([1]).vectors, found.frames([1]).vectors)


def test_without_offsets_no_word_is_flagged(pictures, tmp_path):
    report = run(pictures, tmp_path, backbone=Toy(Toy.Config(offsets=False)))
    found = Features(report.folder)
    assert found.manifest["tagger"] is None
    assert found.words([0, 1]).content is None


def test_texts_that_lose_their_end_are_counted(pictures, tmp_path):
    split = data.load("reels", pictures, "paragraph")["test"]
    report = run(pictures, tmp_path, protocol="paragraph")
    assert report.cut_texts == sum(len(caption.text.split()) > 12 for caption in split.captions) > 0


def test_one_writer_at_a_time(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.0)
    with FileLock(tmp_path / ".lock"), pytest.raises(RuntimeError, match="another process writes features"):
        run(pictures, tmp_path)


def test_who_has_nothing_to_compute_is_waited_for(pictures, tmp_path):
    run(pictures, tmp_path)
    lock = FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert run(pictures, tmp_path).computed_frames == 0


WORK = """
import sys, time
from contextlib import closing
from pathlib import Path
import torch
torch.set_num_threads(1)
from rushes import data
from rushes.library.scan import fingerprint
from rushes.train import features
from tests.train.toy import Toy

features.PART_VIDEOS, features.PART_TEXTS, features.BATCH_FRAMES = 2, 3, 5
root, out = map(Path, sys.argv[1:])

def say(now):
    print(now.what, now.done, now.frames, flush=True)
    time.sleep(0.05)

benchmark = data.load("reels", root, "paragraph")
with closing(features.source_of(benchmark, "test", root, fingerprint)) as source:
    report = features.compute(benchmark, "test", source, Toy(), out, name="toy", on_progress=say)
print("done", report.computed_frames, report.frames, flush=True)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(pictures, tmp_path):
    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORK, str(pictures), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    calm = start(tmp_path / "calm").communicate(timeout=100)[0].splitlines()
    frames = int(calm[-1].split()[2])
    for lines in (2, 3):  # of progress, after which it is killed
        process = start(tmp_path / "stormy")
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not list((tmp_path / "stormy").glob("*/manifest.json"))
    (tmp_path / "stormy" / "parts" / ".half").mkdir()  # as a kill in the middle of writing leaves it
    last = start(tmp_path / "stormy").communicate(timeout=100)[0].splitlines()
    assert last[-1].startswith("done")
    assert int(last[-1].split()[1]) < frames
    assert content(tmp_path / "stormy") == content(tmp_path / "calm")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_give_what_their_reels_give(pictures, films):
    """Same seconds; pixels differ by what the codec loses."""
    made = reels.reels_of(pictures, "shot", "test", count=3)
    drawn = Drawn(pictures, made, "balanced", fingerprint)
    with closing(Files(films, data.load("folder", films)["test"].videos, "balanced", fingerprint)) as files:
        for row, reel in enumerate(made):
            one, two = ([*source.read(row, 64, True)] for source in (drawn, files))
            assert two[-1].end == pytest.approx(reel.length)
            assert len(one) == len(two)
            for left, right in zip(one[:-1], two[:-1], strict=True):
                assert 0 <= left.time - right.time < 0.13  # the decoder leaves out some frames that no other needs
                assert np.abs(left.pixels.astype(int) - right.pixels).mean() < 8


def test_drawn_and_rendered_features_of_photos_agree(tmp_path):
    """Six photos, the small model; measured over 56 frames: cosine 0.991 in the mean, 0.966 at least."""
    if not FLICKR8K.is_dir():
        pytest.skip(f"the photos of Flickr8k are not at {FLICKR8K}")
    from rushes.model import load

    backbone = load("small").backbone
    write(FLICKR8K, tmp_path / "out", splits=["test"], count=1, films=True)
    made = reels.reels_of(FLICKR8K, "shot", "test", count=1)
    videos = data.load("folder", tmp_path / "out")["test"].videos
    sources = [
        Drawn(FLICKR8K, made, "balanced", fingerprint),
        Files(tmp_path / "out", videos, "balanced", fingerprint),
    ]
    pixels = []
    for source in sources:
        with closing(source):
            pixels += [one.pixels for one in source.read(0, 224, True) if isinstance(one, Frame)]
    with torch.inference_mode():
        one, two = backbone.frames(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).chunk(2)
    alike = cosine_similarity(one, two)
    assert alike.mean() > 0.98
    assert alike.min() > 0.95


def test_a_clip_has_the_frames_of_its_seconds(films):
    video = data.load("folder", films)["test"].videos[0]
    whole = [(None, None), (3.2, 6.9), (0.0, 2.0), (4.6, 4.9), (7.0, 1000.0)]
    cut = [type(video)(f"{video.id}{number}", video.file, *span) for number, span in enumerate(whole)]
    with closing(Files(films, cut, "balanced", fingerprint)) as source:
        assert len(set(source.prints)) == len(cut)
        events = [[*source.read(row, 16, True)] for row in range(len(cut))]
        full = {round(one.time, 3): one.pixels for one in events[0][:-1]}
        assert events[1][-1] == features.End(3.2, 6.9)
        assert [round(one.time) for one in events[1][:-1]] == [3, 4, 5, 6]
        assert all(np.array_equal(full[round(one.time, 3)], one.pixels) for one in events[1][:-1])
        assert len(events[2]) == 3
        only, end = events[3]
        assert (only.time, end) == (4.6, features.End(4.6, 4.9))
        assert events[4][-1].end == events[0][-1].end
        late = Files(films, [type(video)("late", video.file, 500.0, 510.0)], "balanced", fingerprint)
        with closing(late), pytest.raises(VideoError, match="shows nothing from 500 s"):
            list(late.read(0, 16, True))


def test_frames_of_unlike_shapes_are_encoded_apart(films, tmp_path):
    report = run(films, tmp_path, "folder", backbone=Toy(Toy.Config(squash=False)))
    assert report.frames > 0


def test_missing_files_are_an_error_or_written_down(films, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    gone = folder / "test" / "test00001.mp4"
    gone.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 3 videos of split 'test' have no file: test/test00001\.mp4; get"
    ):
        run(folder, tmp_path / "out", "folder")
    report = run(folder, tmp_path / "out", "folder", allow_missing=True)
    assert report.missing == ("test/test00001.mp4",)
    assert report.failures == ()
    found = Features(report.folder, data.load("folder", folder)["test"])
    assert found.there.tolist() == [True, False, True]
    assert found.manifest["missing"] == ["test/test00001.mp4"]
    with pytest.raises(LookupError, match=r"'test/test00001\.mp4' \(row 1\) has no frames: its file was missing"):
        found.frames([0, 1])
    shutil.copyfile(films / "test" / "test00001.mp4", gone)
    assert Features(run(folder, tmp_path / "out", "folder").folder).there.all()


def test_broken_files_are_listed_and_cost_themselves_only(films, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    (folder / "test" / "test00000.mp4").write_bytes(b"no video" * 99)
    report = run(folder, tmp_path / "out", "folder")
    assert [(one["video"], one["code"]) for one in report.failures] == [("test/test00000.mp4", "not-a-video")]
    found = Features(report.folder)
    assert found.there.tolist() == [False, True, True]
    with pytest.raises(LookupError, match="no video that FFmpeg can read"):
        found.frames([0])
    assert run(folder, tmp_path / "out", "folder").computed_frames == 0
    assert run(folder, tmp_path / "out", "folder", retry_failed=True).computed_frames == report.frames


def test_a_broken_or_missing_picture_fails_its_reels(pictures, tmp_path):
    folder = tmp_path / "album"
    shutil.copytree(pictures, folder)
    made = reels.reels_of(folder, "shot", "test")
    name = made[0].shots[0].picture
    holding = [reel.id for reel in made if name in [shot.picture for shot in reel.shots]]
    (folder / name).write_text("no picture")
    report = run(folder, tmp_path / "out")
    assert [one["video"] for one in report.failures] == holding
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match="have no file"):
        run(folder, tmp_path / "out")


def test_an_unfinished_or_damaged_store_says_so(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished features"):
        Features(tmp_path)
    report = run(pictures, tmp_path)
    manifest = Path(report.folder) / "manifest.json"
    told = json.loads(manifest.read_text())
    shutil.rmtree(tmp_path / "parts" / told["frame_parts"][0])
    with pytest.raises(FileNotFoundError, match=r"1 parts of .* are gone"):
        Features(report.folder)
    manifest.write_text(json.dumps(told | {"format": 99}))
    with pytest.raises(ValueError, match="has format 99"):
        Features(report.folder)


def test_numbers_beyond_16_bits_are_an_error(pictures, tmp_path):
    backbone = Toy()
    with torch.no_grad():
        backbone.eye *= 1e6
    with pytest.raises(ValueError, match="too large for 16 bits"):
        run(pictures, tmp_path, backbone=backbone)


def test_a_real_clip_is_cut_not_squashed(pictures, tmp_path, tiny_clip):
    benchmark = data.load("reels", pictures)
    small = Benchmark("reels", "shot", {"test": benchmark["test"]})
    with closing(source_of(small, "test", pictures, fingerprint)) as source:
        events = [*source.read(0, 32, False)]
        assert events[0].pixels.shape == (32, 43, 3)
        report = compute(small, "test", source, tiny_clip, tmp_path, name="tiny")
    found = Features(report.folder)
    assert found.dim == tiny_clip.dim
    with torch.inference_mode():
        expected = tiny_clip.read([caption.text for caption in small["test"].captions[:3]], "closed-class")
    words = found.words([0, 1, 2])
    assert torch.allclose(words.vectors[words.mask], expected.vectors[expected.mask], atol=2e-3, rtol=2e-3)


def test_the_command(films, tmp_path):
    arguments = ["features", "folder", "--root", str(films), "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["videos"], told["failures"], told["split"]) == (3, [], "test")
    assert len(Features(told["folder"], data.load("folder", films)["test"])) == 3
    broken = tmp_path / "broken"
    shutil.copytree(films, broken)
    (broken / "test" / "test00002.mp4").write_bytes(b"x")
    done = CliRunner().invoke(app, [*arguments[:3], str(broken), *arguments[4:]])
    assert done.exit_code == 1
    assert "1 videos FAILED" in done.stderr
