"""Damage costs what is damaged: decoding goes on, and the bad seconds are on record."""

import random

import av
import pytest

from rushes.video.decode import Damage, Frame, Span, read
from rushes.video.probe import VideoError
from tests.video.films import number_of
from tests.video.test_kinds import exact, parts

POLICIES = ("fast", "balanced", "thorough")
FRONT = {"size": (192, 108), "container": {"movflags": "faststart"}}
SMALL = {"size": (192, 108)}


def packets(path):
    """(offset, size, seconds, is key) of every video packet, in decoding order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(p.pos, p.size, float(p.pts * p.time_base), p.is_keyframe) for p in container.demux(stream) if p.size]


def broken(path, target, numbers, how):
    """A copy in which the packets `numbers` are zeroed or have some bits flipped."""
    data, dice = bytearray(path.read_bytes()), random.Random(0)
    table = packets(path)
    for number in numbers:
        offset, size, _, _ = table[number]
        if how == "zeroed":
            data[offset : offset + size] = bytes(size)
        else:
            for _ in range(8):
                data[offset + 4 + dice.randrange(size - 4)] ^= 1 << dice.randrange(8)
    target.write_bytes(data)
    return [table[number][2] for number in numbers]


@pytest.mark.parametrize("how", ["zeroed", "flipped"])
@pytest.mark.parametrize("policy", ["balanced", "thorough"])
def test_damaged_packets_cost_those_packets(films, tmp_path, policy, how):
    path = films("long.mp4", frames=240, **FRONT)
    bad = broken(path, tmp_path / "bad.mp4", range(100, 106), how)
    frames, spans, damage = parts(tmp_path / "bad.mp4", policy=policy)
    _, whole, _ = parts(path, policy=policy)
    assert (spans[0].start, spans[-1].end) == (whole[0].start, whole[-1].end)
    assert damage
    assert {event.code for event in damage} == {"damaged"}
    first, last = min(event.start for event in damage), max(event.end for event in damage)
    assert min(bad) - 0.2 < first
    if how == "zeroed":
        assert first <= min(bad) + 0.05
        assert max(bad) - 0.05 <= last < max(bad) + 0.2
    else:  # a flipped bit may decode to a wrong picture without complaint, and spoil what refers to it
        assert first <= max(bad) + 0.05
        assert last < 4.1
    sound = [f for f in frames if f.time < min(bad) - 0.1 or f.time >= 4.0]  # the next key frame is at 4 s
    exact(sound)
    assert len(sound) >= len(frames) - 2


@pytest.mark.parametrize("seed", range(4))
def test_key_frames_with_flipped_bits_cost_fast_no_other(films, tmp_path, seed):
    path = films("long.mp4", frames=240, **FRONT)
    keys = [number for number, packet in enumerate(packets(path)) if packet[3]]
    bad = broken(path, tmp_path / "bad.mp4", keys[1 + seed : 3 + seed], "flipped")
    frames, spans, _ = parts(tmp_path / "bad.mp4", policy="fast")
    sound = [frame for frame in frames if frame.time not in bad]
    exact(sound)
    assert len(sound) == 6
    assert spans[-1].end == pytest.approx(8.0)


def test_a_lost_key_frame_in_a_damaged_file_is_survived_by_fast(films, tmp_path):
    path = films("long.mp4", frames=240, **FRONT)
    key = [number for number, packet in enumerate(packets(path)) if packet[3]][3]
    broken(path, tmp_path / "bad.mp4", [key], "zeroed")
    frames, spans, _ = parts(tmp_path / "bad.mp4", policy="fast")
    exact(frames)
    assert [round(frame.time) for frame in frames] == [0, 1, 2, 4, 5, 6, 7]
    assert spans[-1].end == pytest.approx(8.0)


def test_a_lost_piece_of_mpeg_ts_is_on_record(films, tmp_path):
    data = bytearray(films("long.ts", frames=240, **SMALL).read_bytes())
    middle = len(data) // 2 // 188 * 188
    del data[middle : middle + 188 * 20]
    (tmp_path / "bad.ts").write_bytes(data)
    frames, spans, damage = parts(tmp_path / "bad.ts", policy="thorough")
    assert spans[-1].end == pytest.approx(8.0, abs=0.04)
    assert damage
    assert all(0 < event.start < event.end < 8 for event in damage)
    exact([frame for frame in frames if frame.time < damage[0].start or frame.time > damage[-1].end + 1.1])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
@pytest.mark.parametrize("segments", ["shots", "windows"])
def test_a_truncated_file_is_recognised_and_repeats_no_frame(films, tmp_path, name, policy, segments):
    data = films(name, frames=240, **(FRONT if name.endswith("mp4") else SMALL)).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    frames, spans, damage = parts(path, policy=policy, segments=segments)
    assert [event.code for event in damage] == ["truncated"]
    assert damage[0].end == pytest.approx(8.0, abs=0.01)
    assert 2 < damage[0].start < 6
    assert abs(spans[-1].end - damage[0].start) < 0.2
    exact(frames)
    numbers = [number_of(frame.pixels) for frame in frames]
    assert len(set(numbers)) == len(numbers)
    assert all(frame.time <= damage[0].start for frame in frames)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_a_whole_file_has_no_damage(films, name):
    how = FRONT if name == "long.mp4" else SMALL
    for policy in POLICIES:
        assert not parts(films(name, frames=240, **how), policy=policy)[2]


def test_a_last_picture_of_many_seconds_is_no_truncation(films):
    times = (*(number / 30 for number in range(60)), 2.0, 12.0)
    for name in ("still.mp4", "still.mkv"):
        frames, _, damage = parts(films(name, frames=62, times=times, **SMALL), policy="thorough")
        assert not damage
        assert frames[-1].time == pytest.approx(2.0, abs=0.001) or number_of(frames[-1].pixels) == 61


def test_an_index_without_content_is_a_clear_error(films, tmp_path):
    """A copy that stopped right after the header."""
    data = films("long.mp4", frames=240, **FRONT).read_bytes()
    path = tmp_path / "head.mp4"
    path.write_bytes(data[: data.index(b"mdat") + 8])
    with pytest.raises(VideoError) as caught:
        list(read(path))
    assert caught.value.code in ("no-frames", "not-a-video")


def test_random_damage_never_breaks_the_order_of_events(films, tmp_path):
    """Any file read to its end gives frames and spans in order, or one VideoError."""
    data = films("long.mp4", frames=240, **FRONT).read_bytes()
    path = tmp_path / "bad.mp4"
    for seed in range(9):
        dice, bad = random.Random(seed), bytearray(data)
        for _ in range(dice.choice([1, 30, 300])):
            bad[dice.randrange(0 if seed % 3 == 0 else 8000, len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        try:
            events = list(read(path, policy=POLICIES[seed % 3], segments=("shots", "windows")[seed % 2]))
        except VideoError:
            continue
        spans = [event for event in events if isinstance(event, Span)]
        times = [event.time for event in events if isinstance(event, Frame)]
        assert times == sorted(set(times))
        assert spans
        assert all(span.times and span.start < span.end for span in spans)
        assert all(event.start < event.end for event in events if isinstance(event, Damage))
