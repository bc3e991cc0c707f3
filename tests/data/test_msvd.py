"""MSVD's published counts, and damage that must be named with file and row."""

import json
import pickle

import pytest

from rushes.data import msvd


@pytest.fixture
def folder(tmp_path):
    told = {f"web{n}_{n}_9": [f"a dog {n}", "a dog"] for n in range(5)}
    (tmp_path / "captions_msvd.json").write_text(json.dumps(told))
    for name, ids in {"train": [0, 1], "val": [2], "test": [3, 4]}.items():
        (tmp_path / f"{name}_list.txt").write_text("".join(f"web{n}_{n}_9\n" for n in ids))
    return tmp_path


def test_the_published_files_have_the_published_counts(published):
    benchmark = msvd.load(published)
    assert {name: (len(split.videos), len(split.captions)) for name, split in benchmark.splits.items()} == {
        "train": (1200, 48_774),
        "val": (100, 4290),
        "test": (670, 27_763),
    }
    assert benchmark["test"].digest() == "373b97e8d5e2"


def test_the_order_of_keys_changes_nothing_and_a_source_is_the_web_video(folder):
    before = msvd.parse(folder)
    told = json.loads((folder / "captions_msvd.json").read_text())
    (folder / "captions_msvd.json").write_text(json.dumps(dict(reversed(told.items()))))
    assert msvd.parse(folder)["test"].digest() == before["test"].digest()
    assert [video.source for video in before["test"].videos] == ["web3", "web4"]
    assert before["test"].pairs.tolist() == [[0, 0], [1, 0], [2, 1], [3, 1]]


def test_a_pickle_is_never_loaded(folder):
    (folder / "captions_msvd.json").unlink()

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileNotFoundError, match=r"raw-captions\.pkl is a pickle, .* never loaded: get the JSON file"):
        msvd.load(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_list.txt", "web3_3_9\nweb9_9_9\n", r"test_list\.txt, line 2: the video 'web9_9_9' has no captions"),
        ("test_list.txt", "web3_3_9\n\nweb3_3_9\n", r"line 3: 'web3_3_9' is there twice, first in .*line 1"),
        ("test_list.txt", "\n \n", r"test_list\.txt holds no name"),
        ("captions_msvd.json", '{"web3_3_9": []}', r"captions_msvd\.json, 'web3_3_9': \[\] is no list of captions"),
        ("captions_msvd.json", '{"web3_3_9": ["a", " "]}', r"'web3_3_9'\[1\]: ' ' is no caption"),
        ("captions_msvd.json", '{"a": ["b"], "a": ["c"]}', r"the key 'a' is there twice"),
    ],
)
def test_damage_is_named(folder, file, content, message):
    for name in ("train", "val"):
        (folder / f"{name}_list.txt").unlink()
    (folder / "test_list.txt").write_text("web3_3_9\n")
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        msvd.parse(folder)


def test_marks_and_windows_lines_are_read_and_a_missing_list_is_told(folder):
    (folder / "test_list.txt").write_bytes(b"\xef\xbb\xbfweb3_3_9\r\nweb4_4_9\r\n")
    (folder / "train_list.txt").unlink()
    benchmark = msvd.parse(folder)
    assert [video.id for video in benchmark["test"].videos] == ["web3_3_9", "web4_4_9"]
    with pytest.raises(LookupError, match=r"no split 'train': train_list\.txt is not in"):
        benchmark["train"]
