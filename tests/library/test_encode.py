"""Batches run across videos and windows, and change nothing of what each segment holds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import rushes
from rushes.library.encode import Finished, encode, seen
from rushes.video.decode import Damage, Frame, Span


@pytest.fixture(scope="module")
def model(tiny_model):
    return rushes.load(tiny_model)


def film(name: str, seconds: int, seed: int, windows: bool = False) -> list:
    """A frame a second; segments of 3 s side by side, or of 4 s every 2 s."""
    random, events = np.random.default_rng(seed), []
    length, step = (4, 2) if windows else (3, 3)
    for second in range(seconds):
        events.append((name, Frame(second + 0.5, random.integers(0, 256, (32, 32, 3), dtype=np.uint8))))
        end = second + 1
        if end >= length and (end - length) % step == 0:
            times = tuple(float(t) + 0.5 for t in range(end - length, end))
            events.append((name, Span(float(end - length), float(end), times)))
    return events


def stored(model, events, batch):
    """Segment id -> its real vectors; notes; frames encoded."""
    vectors, notes, frames = {}, [], 0
    for encoded in encode(model, iter(events), batch):
        frames += encoded.frames
        notes += encoded.notes
        for row, segment in enumerate(encoded.segments):
            vectors[segment.id] = encoded.tokens.vectors[row][encoded.tokens.mask[row]]
    return vectors, notes, frames


@pytest.mark.parametrize("windows", [False, True])
def test_the_batch_size_changes_nothing_and_each_frame_is_encoded_once(model, windows):
    events = [*film("a", 12, 0, windows), ("a", Finished()), *film("b", 6, 1, windows), ("b", Finished())]
    one, notes, frames = stored(model, events, 1)
    assert frames == 18
    assert [video for video, _ in notes] == ["a", "b"]
    assert len(one) == (5 + 2 if windows else 4 + 2)
    for batch in (5, 32):
        many, _, again = stored(model, events, batch)
        assert again == 18
        assert many.keys() == one.keys()
        assert all(torch.allclose(many[name], one[name], atol=1e-5) for name in one)


def test_a_videos_end_comes_after_its_last_segment(model):
    events = [*film("a", 3, 0), ("a", Damage("damaged", "x", 3.0, 4.0)), ("a", Finished())]
    order = []
    for encoded in encode(model, iter(events), 32):
        order += [segment.id for segment in encoded.segments] + [type(note).__name__ for _, note in encoded.notes]
    assert order == ["a:000000000", "Damage", "Finished"]


def test_frames_of_unlike_shapes_do_not_share_a_batch(model):
    wide = ("b", Frame(0.5, np.zeros((32, 48, 3), np.uint8)))
    events = [*film("a", 3, 0), wide, ("b", Span(0.0, 1.0, (0.5,))), ("b", Finished())]
    vectors, _, frames = stored(model, events, 32)
    assert frames == 4
    assert len(vectors) == 2


def test_spans_tile_the_segment():
    assert seen(Span(0.0, 1.0, (0.2,))).tolist() == [[0.0, 1.0]]
    spans = seen(Span(1.0, 4.0, (1.1, 2.0, 3.9))).tolist()
    assert spans[0][0] == 1.0
    assert spans[-1][1] == 4.0
    assert all(a[1] == b[0] for a, b in pairwise(spans))
