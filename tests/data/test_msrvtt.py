"""MSR-VTT's published counts, and damage that must be named with file and row."""

import json
import zipfile

import pytest

from rushes.data import msrvtt
from rushes.data.base import differs


def counts(benchmark):
    return {name: (len(split.videos), len(split.captions)) for name, split in benchmark.splits.items()}


@pytest.mark.parametrize("protocol", msrvtt.PROTOCOLS)
def test_the_published_files_have_the_published_counts(published, protocol):
    benchmark = msrvtt.load(published, protocol)
    for name, expected in msrvtt.PROTOCOLS[protocol].counts.items():
        assert not differs(benchmark[name], expected)
    assert benchmark.splits.keys() == msrvtt.PROTOCOLS[protocol].counts.keys()


def test_the_published_held_out_slice_shares_no_web_video_with_training(published):
    benchmark = msrvtt.load(published)
    sources = [{video.source for video in benchmark[name].videos} for name in ("train", "val")]
    assert None not in sources[0] | sources[1]
    assert not sources[0] & sources[1]
    whole = msrvtt.load(published, "1k-A-9k")
    both = {video.id for name in ("train", "val") for video in benchmark[name].videos}
    assert both == {video.id for video in whole["train"].videos}
    assert whole["test"].digest() == benchmark["test"].digest() == "44028bd5f6b1"  # the same on every machine
    assert benchmark["val"].digest() == "0e339f5f9a11"


def test_the_four_repeated_test_captions_stay(published):
    texts = [caption.text for caption in msrvtt.load(published, "1k-A-7k")["test"].captions]
    repeated = [text for text in texts if texts.count(text) > 1]
    assert (len(set(repeated)), len(repeated)) == (4, 9)


def test_each_layout_gives_the_same(msrvtt_folder, tmp_path):
    whole = msrvtt.parse(msrvtt_folder, "full")
    told = json.loads((msrvtt_folder / "MSRVTT_data.json").read_text())
    (msrvtt_folder / "MSRVTT_data.json").unlink()
    for member, zipped in msrvtt.HALVES.items():
        test = member.startswith("test")
        ids = {video["video_id"] for video in told["videos"] if (video["split"] == "test") == test}
        half = {part: [one for one in reversed(told[part]) if one["video_id"] in ids] for part in told}
        with zipfile.ZipFile(msrvtt_folder / zipped, "w") as archive:
            archive.writestr(member, "\ufeff" + json.dumps(half, indent=1).replace("\n", "\r\n"))
    halves = msrvtt.parse(msrvtt_folder, "full")
    assert counts(halves) == counts(whole) == {"train": (6, 12), "val": (1, 2), "test": (3, 6)}
    for name in whole.splits:
        assert halves[name].digest() == whole[name].digest()
        assert halves[name].videos == whole[name].videos  # the order, too
    assert whole["train"].captions[0].text == "caption 0 of 0"  # by number of the sentence


def test_the_test_list_alone_is_a_test_set_and_training_says_what_it_lacks(msrvtt_folder):
    (msrvtt_folder / "MSRVTT_data.json").unlink()
    benchmark = msrvtt.parse(msrvtt_folder, "1k-A-9k")
    assert counts(benchmark) == {"test": (2, 2)}
    assert benchmark["test"].captions[0].text == "a dog, running"
    with pytest.raises(LookupError, match=r"no split 'train': train_val_videodatainfo\.json and test_"):
        benchmark["train"]


def test_a_smaller_set_is_no_benchmark(msrvtt_folder):
    (msrvtt_folder / "MSRVTT_train.9k.csv").unlink()
    with pytest.raises(ValueError, match=r"'test' has 2 videos, 2 captions; published are 1,000 .*doctor msrvtt"):
        msrvtt.load(msrvtt_folder, "1k-A-9k")


def test_a_wrong_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no split: .*MSRVTT_JSFUSION_test\.csv is not in"):
        msrvtt.load(tmp_path)
    with pytest.raises(NotADirectoryError, match="give the folder"):
        msrvtt.load(tmp_path / "nowhere")
    with pytest.raises(LookupError, match=r"no protocol '1k-B'; it has 1k-A-9k-val500, "):
        msrvtt.load(tmp_path, "1k-B")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("MSRVTT_JSFUSION_test.csv", "key,video\nret0,video8\n", r"line 1: no column 'video_id' among key, video"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\nvideo8,a\nvideo77,b\n", r"line 3: the video 'video77' is not"),
        (
            "MSRVTT_JSFUSION_test.csv",
            "video_id,sentence\nvideo8,a\nvideo8,a\n",
            r"line 3: 'video8' is there twice.*line 2",
        ),
        ("MSRVTT_JSFUSION_test.csv", 'video_id,sentence\nvideo8,"a\n\nb"\nvideo9,b,c\n', r"line 5: 3 cells under 2"),
        ("MSRVTT_JSFUSION_test.csv", 'video_id,sentence\nvideo8,a\nvideo9,"b\n', r"line 3: .*is a quote left open"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\nvideo8, \n", r"line 2: the cell 'sentence' is empty"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\n", r"a header and no row"),
        ("MSRVTT_JSFUSION_test.csv", "", r"line 1: no column 'video_id' among nothing"),
        ("MSRVTT_JSFUSION_test.csv", b"video_id,sentence\nvideo8,caf\xe9\n", r"line 2: byte 0xe9 is no UTF-8"),
        ("MSRVTT_train.9k.csv", "video_id\nvideo1\nvideo99\n", r"9k\.csv, line 3: the video 'video99' is not among"),
        ("MSRVTT_data.json", '{"videos": [', r"MSRVTT_data\.json, column 13: .*download or mend it"),
        ("MSRVTT_data.json", "[" * 100_000, r"MSRVTT_data\.json nests too deep"),
        ("MSRVTT_data.json", '{"videos": [], "videos": []}', r"the key 'videos' is there twice"),
        ("MSRVTT_data.json", "[]", r"holds a list, not a dict"),
        ("MSRVTT_data.json", '{"videos": []}', r"no list 'sentences'; it has videos"),
        (
            "MSRVTT_data.json",
            '{"videos": [{"video_id": "video1", "split": "dev"}], "sentences": []}',
            r"videos\[0\]: no split is called 'dev'; there are train, validate, test",
        ),
        (
            "MSRVTT_data.json",
            '{"videos": [], "sentences": [{"video_id": "video1", "sen_id": 0, "caption": "a"}]}',
            r"sentences\[0\]: the video 'video1' is not among its videos",
        ),
    ],
)
def test_damage_is_named(msrvtt_folder, file, content, message):
    (msrvtt_folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        msrvtt.parse(msrvtt_folder, "1k-A-9k")
    assert file in str(caught.value)


def test_a_damaged_zip_is_named(msrvtt_folder):
    (msrvtt_folder / "MSRVTT_data.json").unlink()
    (msrvtt_folder / "train_val_annotation.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"train_val_annotation\.zip is no whole zip file"):
        msrvtt.parse(msrvtt_folder, "full")


def test_byte_order_mark_and_windows_lines_change_nothing(msrvtt_folder):
    before = msrvtt.parse(msrvtt_folder, "1k-A-9k")
    for path in msrvtt_folder.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = msrvtt.parse(msrvtt_folder, "1k-A-9k")
    assert [split.digest() for split in after.splits.values()] == [split.digest() for split in before.splits.values()]


def test_one_file_in_two_folders_is_not_chosen_between(msrvtt_folder):
    for folder in ("a", "b"):
        (msrvtt_folder / folder).mkdir()
        (msrvtt_folder / folder / "MSRVTT_data.json").write_text("{}")
    assert msrvtt.parse(msrvtt_folder, "full").splits  # the one beside the lists is meant
    (msrvtt_folder / "MSRVTT_data.json").unlink()
    with pytest.raises(ValueError, match=r"MSRVTT_data\.json is in .*a and in .*b; keep one"):
        msrvtt.parse(msrvtt_folder, "full")
