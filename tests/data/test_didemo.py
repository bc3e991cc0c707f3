"""DiDeMo's published counts in both layouts, and how sentences become paragraphs."""

import json

import pytest

from rushes.data import didemo


def moment(number, video, text):
    return {"annotation_id": number, "video": video, "description": text, "times": [[0, 0]], "num_segments": 6}


@pytest.fixture
def folder(tmp_path):
    moments = [
        moment(1, "1@N00_2_ab.mov", "a dog runs. "),
        moment(2, "3@N00_4_cd.", "a cat\nsits"),
        moment(3, "1@N00_2_ab.mp4", "it jumps"),
        moment(4, "3@N00_4_cd.AVI", "it sleeps"),
    ]
    (tmp_path / "test_data.json").write_text(json.dumps(moments))
    (tmp_path / "didemo_test_label.csv").write_text(
        'success,video_path,text\nTrue,/far/away/1@N00_2_ab.mov,"a dog runs.\nit jumps"\nTrue,C:\\x\\3@N00_4_cd,a cat\n'
    )
    return tmp_path


def test_the_published_csv_files_have_the_published_counts(published):
    benchmark = didemo.load(published, "csv")
    sizes = {name: (len(split.videos), len(split.captions)) for name, split in benchmark.splits.items()}
    assert sizes == {"train": (8362, 8362), "val": (1062, 1062), "test": (1004, 1004)}
    assert benchmark["test"].digest() == "3e30df204752"


def test_the_published_json_files_have_the_published_counts(published):
    benchmark = didemo.load(published)
    assert {name: len(benchmark[name].videos) for name in ("val", "test")} == {"val": 1065, "test": 1004}
    notes = " ".join(benchmark.notes)
    assert "4,180 sentences of 1,065 videos" in notes
    assert "4,021 sentences of 1,004 videos" in notes
    ids = {video.id for video in benchmark["test"].videos}
    assert ids == {video.id for video in didemo.load(published, "csv")["test"].videos}
    if "train" not in benchmark.splits:
        with pytest.raises(LookupError, match=r"no split 'train': train_data\.json is not in"):
            benchmark["train"]


def test_all_sentences_of_a_video_are_one_paragraph_whatever_names_it_has(folder):
    test = didemo.parse(folder)["test"]
    assert [(caption.id, caption.text) for caption in test.captions] == [
        ("1@N00_2_ab#0", "a dog runs. it jumps"),
        ("3@N00_4_cd#0", "a cat sits it sleeps"),
    ]
    assert {(video.start, video.end) for video in test.videos} == {(0.0, 30.0)}


def test_the_csv_layout_takes_the_path_s_last_part(folder):
    test = didemo.parse(folder, "csv")["test"]
    assert [(video.id, caption.text) for video, caption in zip(test.videos, test.captions, strict=True)] == [
        ("1@N00_2_ab", "a dog runs. it jumps"),
        ("3@N00_4_cd", "a cat"),
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_data.json", "[{}]", r"test_data\.json, \[0\]: no str 'video'; it has nothing"),
        ("test_data.json", '["a"]', r"test_data\.json, \[0\]: no str 'video'; it has a str"),
        ("test_data.json", "[]", r"test_data\.json gives split 'test' no video"),
        (
            "test_data.json",
            json.dumps([moment(1, "a.mov", "b"), moment(1, "c.mov", "d")]),
            r"\[1\]: '1' is there twice",
        ),
        ("test_data.json", '[{"video": "a", "description": 3}]', r"no str 'description' but 3; it has video"),
        (
            "didemo_test_label.csv",
            "video_path,text\na.mov,b\na.mp4,c\n",
            r"line 3: 'a' is there twice, first in .*line 2",
        ),
        ("didemo_test_label.csv", "video_path\na.mov\n", r"line 1: no column 'text' among video_path"),
        ("didemo_test_label.csv", 'video_path,text\na.mov,"b\nc"\nd.mov\n', r"line 4: 1 cells under 2 columns"),
    ],
)
def test_damage_is_named(folder, file, content, message):
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        didemo.parse(folder, "official" if file.endswith("json") else "csv")
