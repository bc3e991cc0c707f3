"""ActivityNet Captions' published counts, and how sentences become paragraphs."""

import json

import pytest

from rushes.data import activitynet
from rushes.data.base import differs


def film(*sentences, spans=None):
    return {"duration": 60.0, "timestamps": spans or [[0, 9.5]] * len(sentences), "sentences": list(sentences)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps({"v_b": film("B."), "v_a": film("One.", "  Two.\n")}))
    (tmp_path / "val_1.json").write_text(json.dumps({"v_c": film("C.")}))
    return tmp_path


@pytest.mark.parametrize("protocol", activitynet.PROTOCOLS)
def test_the_published_files_have_the_published_counts(published, protocol):
    benchmark = activitynet.load(published, protocol)
    for name, expected in activitynet.PROTOCOLS[protocol].counts.items():
        assert not differs(benchmark[name], expected)
    assert benchmark["test"].digest() == "131c78936133"


def test_what_is_odd_in_the_published_files_is_counted(published):
    notes = activitynet.load(published).notes
    assert "train.json: 2 sentences start after their end; a paragraph uses no times" in notes
    assert "train_ids.json: 15 ids have no captions in train.json, 0 that have are not listed" in notes


def test_paragraphs_are_in_the_order_of_the_file_and_videos_in_that_of_their_ids(folder):
    train = activitynet.parse(folder, "val1")["train"]
    assert [(video.id, caption.text) for video, caption in zip(train.videos, train.captions, strict=True)] == [
        ("v_a", "One. Two."),
        ("v_b", "B."),
    ]


def test_a_list_of_ids_leaves_no_video_out(folder):
    (folder / "val_1_list.txt").write_text("v_x\n")
    benchmark = activitynet.parse(folder, "val1")
    assert [video.id for video in benchmark["test"].videos] == ["v_c"]
    assert benchmark.notes == ("val_1_list.txt: 1 ids have no captions in val_1.json, 1 that have are not listed",)


def test_without_training_there_is_nothing_to_hold_out(folder):
    (folder / "train.json").unlink()
    benchmark = activitynet.parse(folder)
    assert list(benchmark.splits) == ["test"]
    for name in ("train", "val"):
        with pytest.raises(LookupError, match=rf"no split '{name}': train\.json is not in"):
            benchmark[name]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"v_c": []}, r"'v_c': no list 'sentences'; it has a list"),
        ({"v_c": film()}, r"'v_c': 0 sentences and 0 timestamps"),
        ({"v_c": film("a", "b", spans=[[0, 1]])}, r"'v_c': 2 sentences and 1 timestamps"),
        ({"v_c": film("a", spans=[[0]])}, r"'v_c', timestamps\[0\]: \[0\] is no pair"),
        ({"v_c": film("a", spans=[[0, "x"]])}, r"timestamps\[0\]: 'x' is no time; write seconds"),
        ({"v_c": film("a", " ")}, r"sentences\[1\]: ' ' is no sentence"),
        ({}, r"gives split 'test' no video"),
    ],
)
def test_damage_is_named(folder, told, message):
    (folder / "val_1.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=message) as caught:
        activitynet.parse(folder, "val1")
    assert "val_1.json" in str(caught.value)
