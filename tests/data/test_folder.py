"""A folder of one's own: rows are queries, and what is wrong in them is named with file and line."""

import json

import pytest

from rushes.data import folder

GOOD = 'video,caption,start,end,split\nsea/a.mp4,"a dog,\nrunning",1,2.5,test\nb.mp4,a cat,,,\nc.mp4,a cow,,,train\n'


def test_csv_and_jsonl_say_the_same(tmp_path):
    (tmp_path / "captions.csv").write_text(GOOD)
    one = folder.load(tmp_path)
    assert {name: [video.id for video in split.videos] for name, split in one.splits.items()} == {
        "train": ["c.mp4"],
        "test": ["sea/a.mp4", "b.mp4"],
    }
    assert (one["test"].captions[0].start, one["test"].captions[0].end) == (1.0, 2.5)
    (tmp_path / "captions.csv").unlink()
    rows = [
        {"video": "sea/a.mp4", "caption": "a dog,\nrunning", "start": 1, "end": 2.5},
        {"video": "b.mp4", "caption": "a cat", "split": "test", "start": None},
        {"video": "c.mp4", "caption": "a cow", "split": "train"},
    ]
    (tmp_path / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(row) for row in rows).encode())
    two = folder.load(tmp_path)
    assert [two[name].digest() for name in two.splits] == [one[name].digest() for name in one.splits]


def test_the_order_of_rows_changes_no_digest_and_the_digest_is_the_same_everywhere(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("video,caption\na.mp4,a dog\nb.mp4,ein Hündchen \U0001f436\n", encoding="utf-8")
    before = folder.load(tmp_path)["test"]
    path.write_text("caption,video,more\nein Hündchen \U0001f436,b.mp4,\na dog,a.mp4,x\n", encoding="utf-8")
    assert folder.load(tmp_path)["test"].digest() == before.digest() == "9acc7e60f7ac"


def test_exact_repeats_count_once_and_are_told(tmp_path):
    (tmp_path / "captions.csv").write_text("video,caption\na.mp4,a dog\na.mp4,a cat\na.mp4,a dog\nb.mp4,a dog\n")
    benchmark = folder.load(tmp_path)
    assert [caption.text for caption in benchmark["test"].captions] == ["a dog", "a cat", "a dog"]
    assert benchmark.notes[0].startswith("1 rows repeat another exactly and count once: ")
    assert benchmark.notes[0].endswith("captions.csv, line 4 that of line 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video,text\na.mp4,b\n", r"line 1: no column 'caption' among video, text"),
        ("video,caption,video\na.mp4,b,c\n", r"line 1: more than one column 'video'"),
        ("video,caption\n", r"a header and no row"),
        ("", r"line 1: no column 'video' among nothing"),
        ("video,caption\na.mp4,a dog, running\n", r"line 2: 3 cells under 2 columns; quote what holds a comma"),
        ('video,caption\na.mp4,"a\nb\nc"\n,d\n', r"line 5: the cell 'video' is empty"),
        ('video,caption\na.mp4,b\na.mp4,"b\n', r"line 3: .*is a quote left open"),
        ("video,caption,start,end\na.mp4,b,3,2\n", r"line 2: start 3 is not before end 2"),
        ("video,caption,start,end\na.mp4,b,3,\n", r"line 2: start and end go together"),
        ("video,caption,start,end\na.mp4,b,0:03,4\n", r"line 2: '0:03' is no time; write seconds"),
        ("video,caption,start,end\na.mp4,b,nan,4\n", r"line 2: 'nan' is no time"),
        ("video,caption,split\na.mp4,b,dev\n", r"line 2: no split is called 'dev'; write train, val, test"),
        ("video,caption\n../a.mp4,b\n", r"line 2: the video '\.\./a\.mp4' is not below the folder"),
        ("video,caption\nC:\\a.mp4,b\n", r"line 2: the video .* is not below the folder"),
        (b"video,caption\na.mp4,b\nb.mp4,caf\xe9\n", r"line 3: byte 0xe9 is no UTF-8"),
        ("video,caption,split\na.mp4,b,train\na.mp4,c,test\n", r"1 videos are in 'train' and 'test' both"),
    ],
)
def test_damage_is_named(tmp_path, content, message):
    path = tmp_path / "captions.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        folder.load(tmp_path)
    assert "captions.csv" in str(caught.value) or "folder (videos)" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"video": "a", "caption": "b"}\n{"video": "a"\n', r"captions\.jsonl, line 2, column 14"),
        ('\n{"video": "a"}\n', r"captions\.jsonl, line 2: no str 'caption'; it has video"),
        ("[]\n", r"captions\.jsonl, line 1 holds a list, not a dict"),
        ("\n", r"captions\.jsonl holds no row"),
    ],
)
def test_damage_in_jsonl_is_named(tmp_path, content, message):
    (tmp_path / "captions.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        folder.load(tmp_path)


def test_none_or_two_files_of_captions_are_told(tmp_path):
    with pytest.raises(ValueError, match="neither; write one with the columns video, caption"):
        folder.load(tmp_path)
    for name in folder.FILES:
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(ValueError, match="both; keep one"):
        folder.load(tmp_path)
