"""A scan finds the videos of a folder and knows each by its content."""

import os

import pytest

from rushes.library import scan as scanning
from rushes.library.scan import fingerprint, scan


def test_videos_are_found_at_any_depth_in_order_and_the_rest_is_counted(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.MP4", "b/a.mkv", "b/notes.txt", ".hidden.mp4", "picture.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".rushes").mkdir()
    (tmp_path / ".rushes/x.mp4").write_bytes(b"x")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/x.mp4").write_bytes(b"x")
    found = scan(tmp_path, without=tmp_path / "store")
    assert [file.path for file in found.files] == ["b/a.mkv", "z.MP4"]
    assert found.ignored == 2


def test_a_link_to_a_folder_is_not_entered_and_a_dead_link_is_counted(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "nowhere")
    assert scan(tmp_path).files == ()
    assert scan(tmp_path).ignored == 1


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        scan(tmp_path / "none")


def test_a_large_file_is_known_by_its_size_and_blocks_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "BLOCK_BYTES", 16)
    monkeypatch.setattr(scanning, "WHOLE_BYTES", 64)
    content = os.urandom(1000)
    (tmp_path / "a").write_bytes(content)
    name = fingerprint(tmp_path / "a")
    for place in (0, 999, 400):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        unseen = place == 400  # between blocks: the documented price of not reading it all
        assert (fingerprint(tmp_path / "b") == name) == unseen
    (tmp_path / "b").write_bytes(content + b"\0")
    assert fingerprint(tmp_path / "b") != name
