"""LSMDC, whose files are given under an agreement: all tests write files of the same layout."""

import pytest

from rushes.data import lsmdc

FILES = {name: files[0] for name, files in lsmdc.FILES.items()}


def row(clip, sentence, times=("00.01.02.500", "00.01.05.000", "00.01.02.000", "00.01.05.500")):
    return "\t".join((clip, *times, sentence)) + "\n"


def name(film, number):
    return f"000{film}_A_Film_00.0{number}.00.000-00.0{number}.03.500"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FILES["train"]).write_text(
        row(name(1, 1), 'SOMEONE says "no.') + row(name(1, 2), "He goes.") + row(name(1, 2), "He goes on.")
    )
    (tmp_path / FILES["val"]).write_text(row(name(2, 1), "She sits."))
    (tmp_path / FILES["test"]).write_text("\t".join(lsmdc.COLUMNS) + "\n" + row(name(3, 1), "They dance."))
    return tmp_path


def test_rows_become_clips_of_films_with_seconds_of_their_own(folder):
    benchmark = lsmdc.parse(folder)
    train = benchmark["train"]
    assert [video.source for video in train.videos] == ["0001_A_Film", "0001_A_Film"]
    assert [caption.text for caption in train.captions] == ['SOMEONE says "no.', "He goes.", "He goes on."]
    assert train.pairs.tolist() == [[0, 0], [1, 1], [2, 1]]
    assert (train.captions[0].start, train.captions[0].end) == pytest.approx((0.5, 3.0))
    assert len(benchmark["test"].videos) == 1  # the header is no row


def test_a_short_test_set_is_refused_but_training_counts_are_only_told(folder):
    with pytest.raises(ValueError, match=r"'test' has 1 videos, 1 captions; published are 1,000 videos"):
        lsmdc.load(folder)
    rows = "".join(row(f"0009_Film_{n}", f"sentence {n}") for n in range(1000))
    (folder / FILES["test"]).write_text(rows)
    assert len(lsmdc.load(folder)["test"].videos) == 1000


def test_a_sentence_that_ends_before_it_starts_keeps_no_seconds_and_is_counted(folder):
    times = ("00.01.05.000", "00.01.02.500", "00.01.02.000", "00.01.05.500")
    (folder / FILES["val"]).write_text(row(name(2, 1), "She sits.", times) + row(name(2, 2), "She stands."))
    benchmark = lsmdc.parse(folder)
    assert [caption.start is None for caption in benchmark["val"].captions] == [True, False]
    assert benchmark.notes == (f"{FILES['val']}: 1 sentences start at or after their end; they keep no seconds",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (row(name(3, 1), "a") + "clip\tonly\n", r"line 2: 2 cells, not the 6 of movie_clip, start_aligned"),
        (row(name(3, 1), "a").replace("\t", ","), r"line 1: 1 cells, not the 6"),
        (row(name(3, 1), " "), r"line 1: the cell 'sentence' is empty"),
        (row(name(3, 1), "a", ("12", "1", "2", "3")), r"line 1, start_aligned: '12' is no time; write hours"),
        ("", r"gives split 'test' no video"),
        (b"\xff\xfe", r"line 1: byte 0xff is no UTF-8"),
    ],
)
def test_damage_is_named(folder, content, message):
    path = folder / FILES["test"]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        lsmdc.parse(folder)
    assert path.name in str(caught.value)


def test_marks_and_windows_lines_change_nothing(folder):
    before = lsmdc.parse(folder)
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = lsmdc.parse(folder)
    assert [split.digest() for split in after.splits.values()] == [split.digest() for split in before.splits.values()]
