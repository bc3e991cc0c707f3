"""Shots as segments hold one picture each, and truth is read from captions alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from rushes.backbones.base import Backbone, Frames, TextBatch, Words
from rushes.data import reels
from rushes.library.scan import fingerprint
from rushes.train.judged import (
    NOT,
    RELEVANT,
    STRANGE,
    UNKNOWN,
    Asked,
    other_views,
    relevance,
    shots_of,
    strange,
    texts_of,
)


class Grey(Backbone):
    """Sees how bright a frame is: a picture of one grey is known from any crop of it."""

    dim, image_size, squash, max_words = 2, 16, True, 8

    def __init__(self) -> None:
        super().__init__()
        self.config = Backbone.Config()
        self.one = torch.nn.Parameter(torch.ones(1))
        self.frames_seen = 0

    def tokenize(self, texts) -> TextBatch:
        mask = torch.ones(len(texts), 1, dtype=torch.bool)
        return TextBatch(mask.long(), mask, torch.zeros(len(texts), 1, 2, dtype=torch.long))

    def words(self, batch) -> Words:
        ones = torch.ones(len(batch.mask), 1, 2)
        return Words(ones, batch.mask, ones[:, 0])

    def frames(self, pixels):
        self.frames_seen += len(pixels)
        level = pixels.float().mean(dim=(1, 2, 3))
        return torch.stack([level, torch.ones_like(level)], dim=1)

    @classmethod
    def build(cls, config, folder):
        return cls()


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    """Pictures of one grey each, and how bright each is."""
    root = tmp_path_factory.mktemp("greys")
    lines, level = ["picture,caption,split"], {}
    for number in range(24):
        level[f"{number:02d}.png"] = 10 * number + 5
        cv2.imwrite(str(root / f"{number:02d}.png"), np.full((40, 50, 3), 10 * number + 5, np.uint8))
        lines.append(f"{number:02d}.png,a grey number {number},{'train' if number % 2 else 'val'}")
    (root / "captions.csv").write_text("\n".join(lines) + "\n")
    return root, level


def test_a_segment_shows_the_picture_that_it_is_told_to_show(greys, tmp_path):
    root, level = greys
    shots = shots_of(root, "val", Grey(), tmp_path, fingerprint, name="grey")
    every = reels.reels_of(root, "shot", "val")
    assert shots.pictures == tuple(shot.picture for reel in every for shot in reel.shots)
    fades = [shot.fade > 0 for reel in every for shot in reel.shots]
    for row, picture in enumerate(shots.pictures):
        seen = shots.frames.vectors[row, shots.frames.mask[row], 0]
        assert float(seen[-1]) == pytest.approx(level[picture], abs=4.9)  # greys are 10 apart, a pixel format rounds
        if not fades[row]:
            assert float(seen[0]) == pytest.approx(level[picture], abs=4.9)
    spans = shots.frames.spans[shots.frames.mask]
    assert (spans[:, 0] < spans[:, 1]).all()


def test_spans_are_those_of_the_shot(greys, tmp_path):
    root, _ = greys
    shots = shots_of(root, "val", Grey(), tmp_path, fingerprint, name="grey")
    times = [(shot.start, shot.end) for reel in reels.reels_of(root, "shot", "val") for shot in reel.shots]
    for row, (start, end) in enumerate(times):
        spans = shots.frames.spans[row, shots.frames.mask[row]]
        assert (float(spans[0, 0]), float(spans[-1, 1])) == pytest.approx((start, end), abs=1e-5)


def test_what_was_computed_is_read_and_a_part_is_kept_apart(greys, tmp_path):
    root, _ = greys
    backbone = Grey()
    some = shots_of(root, "val", backbone, tmp_path, fingerprint, name="grey", first=1)
    assert len(some) == len(reels.reels_of(root, "shot", "val")[0].shots)
    assert not list(tmp_path.glob("reels-*"))  # nobody takes it for the whole split
    whole = shots_of(root, "val", backbone, tmp_path, fingerprint, name="grey")
    before = backbone.frames_seen
    again = shots_of(root, "val", backbone, tmp_path, fingerprint, name="grey", first=1)
    assert backbone.frames_seen == before
    assert again.pictures == some.pictures == whole.pictures[: len(some)]
    assert torch.equal(again.frames.vectors, some.frames.vectors)


def test_another_view_is_of_the_same_picture(greys):
    root, level = greys
    names = sorted(level)
    views = other_views(root, names, Grey())
    assert isinstance(views, Frames)
    assert views.vectors[:, 0, 0].tolist() == pytest.approx([level[name] for name in names], abs=4.9)


CAPTIONS = {
    "a": ["A brown dog runs over the grass.", "a running dog"],
    "b": ["Dogs in green grass", "they ran", "brown puppies running"],
    "c": ["a brown dog sleeps", "a dog on a couch"],
    "d": ["two children play", "boys with a ball"],
}


@pytest.mark.parametrize(
    ("text", "picture", "verdicts"),
    [
        ("A brown dog runs over the grass.", "a", [RELEVANT, RELEVANT, NOT, NOT]),
        ("a brown dog runs on a couch", "c", [UNKNOWN, UNKNOWN, RELEVANT, NOT]),  # its own picture lacks "runs"
        ("dog", "a", [RELEVANT, RELEVANT, RELEVANT, NOT]),
        ("dog couch", "a", [RELEVANT, NOT, RELEVANT, NOT]),  # of two words none may lack
        ("the of and", "d", [NOT, NOT, NOT, RELEVANT]),
    ],
)
def test_truth_is_what_captions_say(text, picture, verdicts):
    assert relevance([Asked(text, picture, 0)], list(CAPTIONS), CAPTIONS).tolist() == [verdicts]


def test_queries_are_the_same_each_time_and_each_text_is_there_once():
    asked = texts_of(CAPTIONS, list(CAPTIONS) * 2)
    assert asked == texts_of(CAPTIONS, list(CAPTIONS))
    assert len({one.text for one in asked}) == len(asked)
    assert {one.words for one in asked} == {0, 1, 2, 3}
    judged = relevance(asked, list(CAPTIONS), CAPTIONS)
    assert all(judged[row, list(CAPTIONS).index(one.picture)] == RELEVANT for row, one in enumerate(asked))


def test_strange_queries_come_in_two_halves_and_fit_nothing():
    one, other = strange(odd=False), strange(odd=True)
    assert min(len(one), len(other)) > 35
    assert not {ask.text for ask in one} & {ask.text for ask in other}
    assert {ask.words for ask in one + other} == {STRANGE}
    assert (relevance(one + other, list(CAPTIONS), CAPTIONS) == NOT).all()
