"""The command line: data on stdout, talk on stderr, 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import pytest
import torch

from rushes import __version__
from tests.command import rushes


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rushes_process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rushes", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def folder(reels, tiny_model, tmp_path_factory):
    place = tmp_path_factory.mktemp("cli") / "my videos"
    place.mkdir()
    for name in ("reel00000.mp4", "reel00001.mp4"):
        shutil.copyfile(reels / name, place / name)
    (place / "broken é.mp4").write_text("no video")
    done = rushes("index", place, "--model", tiny_model, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["videos"] == 3
    assert report["failed"] == 1
    assert "rushes info" in done.stderr
    return place


def test_search_json_is_a_list_best_first(folder):
    done = rushes("search", folder, "a dog", "-k", 3, "--json")
    assert done.returncode == 0
    hits = json.loads(done.stdout)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    for hit in hits:
        assert {"rank", "video", "start", "end", "score", "moments", "segment", "confidence", "merged"} <= set(hit)
        assert hit["video"] in {"reel00000.mp4", "reel00001.mp4"}
        assert 0 <= hit["start"] < hit["end"]
        assert all(set(moment) == {"start", "end", "score"} for moment in hit["moments"])
        assert hit["moments"]


def test_search_for_people_is_a_line_a_hit(folder):
    done = rushes("search", folder, "a dog", "-k", 2)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] == "1"
    assert ".mp4" in lines[0]


def test_exact_and_group(folder):
    every = json.loads(rushes("search", folder, "a dog", "-k", 50, "--exact", "--json").stdout)
    assert every == json.loads(rushes("search", folder, "a dog", "-k", 50, "--json").stdout)
    videos = json.loads(rushes("search", folder, "a dog", "--group", "video", "--json").stdout)
    assert sorted(hit["video"] for hit in videos) == ["reel00000.mp4", "reel00001.mp4"]


def test_info_json(folder):
    known = json.loads(rushes("info", folder, "--json").stdout)
    assert {"videos", "segments", "hours", "model", "method", "failures"} <= set(known)
    assert known["videos"] == 2
    assert known["method"] == "wti"
    (failure,) = known["failures"]
    assert failure["video"] == "broken é.mp4"
    assert failure["code"] == "not-a-video"
    assert failure["reason"]
    assert "broken é.mp4" in rushes("info", folder).stdout


def test_wrong_usage_is_2_and_says_so(folder):
    for words in (
        ("search", folder, "  "),
        ("search", folder, "a dog", "-k", 0),
        ("search", folder / "nowhere", "a dog"),
        ("index", folder, "--policy", "quick"),
        ("index", folder, "--store", folder.parent / "s", "--model", "no-such-model"),
        ("nonsense",),
        ("check", "no_such_method"),
    ):
        done = rushes(*words)
        assert done.returncode == 2, words
        assert done.stdout == ""
        assert done.stderr
        assert "Traceback" not in done.stderr


def test_failed_is_1_and_one_line(tmp_path, folder, tiny_model):
    done = rushes("search", tmp_path, "a dog")
    assert done.returncode == 1
    assert done.stderr.startswith("rushes: error: ")
    assert "rushes index" in done.stderr
    (tmp_path / "only.mp4").write_text("no video")
    assert rushes("index", tmp_path, "--model", tiny_model).returncode == 1
    assert rushes("index", folder, "--policy", "thorough").returncode == 1


def test_a_folder_without_videos_says_so(tmp_path, tiny_model):
    (tmp_path / "notes.txt").write_text("x")
    done = rushes("index", tmp_path, "--model", tiny_model)
    assert done.returncode == 0
    assert "no video found" in done.stderr
    assert json.loads(rushes("search", tmp_path, "a dog", "--json").stdout) == []


def test_the_process_itself_exits_alike(folder):
    done = rushes_process("search", folder, "a dog", "-k", 1, "--json")
    assert (done.returncode, len(json.loads(done.stdout)), done.stderr) == (0, 1, "")
    done = rushes_process("search", folder, "a dog", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_no_bar_where_stderr_is_no_terminal(folder):
    done = rushes("index", folder)
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


def test_methods_models_version_and_help():
    assert {"meanpool", "wti"} <= {row["name"] for row in json.loads(rushes("methods", "--json").stdout)}
    assert {row["name"] for row in json.loads(rushes("models", "--json").stdout)} >= {"small"}
    assert rushes("--version").stdout.strip() == __version__
    assert "search" in rushes("--help").stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom rushes.cli import app\n"
        "heavy = {'torch', 'lancedb', 'av', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_search_goes_on_while_an_index_is_written(folder, tiny_model, reels, tmp_path):
    """Two processes: one indexes, the other answers from what is stored so far."""
    place = tmp_path / "v"
    shutil.copytree(reels, place)
    writer = subprocess.Popen(
        [sys.executable, "-m", "rushes", "index", str(place), "--model", str(tiny_model)], stderr=subprocess.DEVNULL
    )
    while not (place / ".rushes/settings.json").exists() and writer.poll() is None:
        time.sleep(0.05)
    answers = []
    while writer.poll() is None:
        done = rushes("search", place, "a dog", "--json")
        assert done.returncode == 0, done.stderr
        answers.append(len(json.loads(done.stdout)))
    assert writer.returncode == 0
    assert answers == sorted(answers)
