"""Batches are the same whoever asks, and each process's share is a part of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rushes.data import folder
from rushes.methods.base import ALONE
from rushes.train.features import Files
from rushes.train.source import Batches, Films, Picked, Pixels, Pool, Reading, Texts, loaded, some
from tests.train.made import Made, many_to_many, run_of, split
from tests.video.films import film


def pool(videos: int = 11, each: int = 3) -> Pool:
    whole = split(videos=videos, each=each)
    return Pool(whole, Made(whole, dim=4))


def run(**choices):
    return replace(run_of("wti"), **choices)


def test_an_epoch_has_each_video_once_in_an_order_of_its_own():
    batches = Batches(pool(), run(batch=3))
    assert batches.steps == 3  # two of eleven wait for another epoch
    epochs = [np.concatenate([batches.rows(3 * epoch + step)[1] for step in range(3)]) for epoch in range(2)]
    for videos in epochs:
        assert len(set(videos.tolist())) == 9
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_depends_on_seed_and_step_alone():
    one, other = Batches(pool(), run(batch=4)), Batches(pool(), run(batch=4))
    for step in (5, 0, 3):
        first, second = one.batch(step), other.batch(step)
        assert torch.equal(first.video, second.video)
        assert torch.equal(first.frames.vectors, second.frames.vectors)
        assert torch.equal(first.words.vectors, second.words.vectors)
    assert not torch.equal(one.batch(0).video, Batches(pool(), run(batch=4, seed=1)).batch(0).video)


def test_captions_are_drawn_and_belong_to_their_video():
    batches = Batches(pool(), run(batch=11))
    seen = [batches.rows(step)[0].tolist() for step in range(6)]
    assert len({tuple(sorted(texts)) for texts in seen}) > 1
    for step, texts in enumerate(seen):
        videos = batches.rows(step)[1].tolist()
        assert [text // 3 for text in texts] == videos  # three captions a video, in order


def test_several_captions_of_a_video_are_all_its_own():
    batch = Batches(pool(), run(batch=4, captions=2)).batch(0)
    assert batch.positives(ALONE).sum(dim=0).tolist() == [2, 2, 2, 2]


def test_an_epoch_of_captions_has_each_once_and_no_video_twice_in_a_batch():
    batches = Batches(pool(videos=4), run(batch=6, epoch_of="captions"))
    assert batches.steps == 2
    seen = [batches.batch(step) for step in range(2)]
    assert sorted(np.concatenate([batches.rows(step)[0] for step in range(2)]).tolist()) == list(range(12))
    for batch in seen:
        assert len(batch.video.unique()) == len(batch.video) == len(batch.frames) <= 4
        assert batch.positives(ALONE).sum(dim=1).tolist() == [1] * 6


def test_pairs_are_row_by_row():
    batch = Batches(pool(videos=4), run(batch=6, epoch_of="captions"), paired=True).batch(0)
    assert torch.equal(batch.video_of_text, batch.video)
    assert len(batch.frames) == len(batch.words) == 6
    with pytest.raises(ValueError, match="pairs"):
        Batches(pool(), run(captions=2), paired=True)


def test_a_text_of_several_videos_is_a_positive_of_all():
    whole = many_to_many()
    batch = Batches(Pool(whole, Made(whole, 4)), run(batch=3, captions=2)).batch(0)
    texts = Batches(Pool(whole, Made(whole, 4)), run(batch=3, captions=2)).rows(0)[0]
    wanted = np.zeros((4, 3), dtype=bool)
    wanted[whole.pairs[:, 0], whole.pairs[:, 1]] = True
    assert batch.positives(ALONE).tolist() == wanted[texts][:, batch.video.numpy()].tolist()
    assert len(set(texts.tolist())) == len(texts)  # a caption of two videos is in the batch once


@pytest.mark.parametrize("unit", ["videos", "captions"])
def test_the_shares_of_processes_are_the_batch(unit):
    """Also what is drawn: frames, and a second view of them."""
    batches = Batches(pool(), run(batch=5, epoch_of=unit, frames=2), views=2)
    whole, shares = batches.batch(1), [batches.batch(1, rank, 2) for rank in (0, 1)]
    for field in ("video", "video_of_text"):
        assert torch.equal(torch.cat([getattr(one, field) for one in shares]), getattr(whole, field))
    for field in ("frames", "second"):
        assert torch.equal(torch.cat([getattr(one, field).vectors for one in shares]), getattr(whole, field).vectors)
    assert torch.equal(torch.cat([one.words.vectors for one in shares]), whole.words.vectors)
    assert not torch.equal(whole.frames.vectors, whole.second.vectors)  # type: ignore[union-attr]


def test_too_small_a_batch_for_so_many_processes_is_told():
    with pytest.raises(ValueError, match=r"2 texts and 2 videos .* 3 processes"):
        Batches(pool(), run(batch=2)).batch(0, 0, 3)


def test_a_small_split_is_one_smaller_batch():
    batches = Batches(pool(videos=3), run(batch=64))
    assert (batches.size, batches.steps) == (3, 1)


def test_batches_ahead_are_the_batches_in_turn():
    batches = Batches(pool(), run(batch=4))
    found = [batch.video.tolist() for batch in batches.ahead(range(1, 4))]
    assert found == [batches.batch(step).video.tolist() for step in range(1, 4)]
    assert list(batches.ahead(range(4, 4))) == []


def test_without_drawing_every_epoch_sees_the_same_frames():
    still = Batches(pool(videos=4), run(batch=4, frames=2, draw=False))
    drawn = Batches(pool(videos=4), run(batch=4, frames=2))

    def seen(batches: Batches, step: int) -> list:
        batch = batches.batch(step)
        return [batch.frames.spans[batch.video.argsort()].tolist()]

    assert seen(still, 0) == seen(still, 5)
    assert len({str(seen(drawn, step)) for step in range(6)}) > 1


def test_picked_rows_are_those_of_the_whole():
    whole = split(videos=6)
    reader, part = Made(whole, 4), some(whole, [4, 1], captions=1)
    found = Picked.of(reader, whole, part)
    assert torch.equal(found.frames([0, 1]).vectors, reader.frames([4, 1]).vectors)
    assert torch.equal(found.words([1]).sentence, reader.words([2]).sentence)


def test_long_texts_are_cut_and_half_precision_is_raised():
    words = Made(split(), 4, dtype=torch.float16).words(range(6))
    read = Reading(None, None, 3, torch.device("cpu"))(words)  # type: ignore[arg-type]
    assert read.vectors.shape[1] == read.mask.shape[1] == read.content.shape[1] == 3
    assert read.vectors.dtype == torch.float32
    assert torch.equal(read.sentence, words.sentence.float())


def test_films_are_decoded_end_to_end(tmp_path, tiny_clip):
    for number, size in enumerate(((64, 48), (48, 64))):
        film(tmp_path / f"{number}.mp4", frames=150, rate=25, size=size)
    (tmp_path / "captions.csv").write_text("video,caption,split\n0.mp4,a dog,train\n1.mp4,a cat,train\n")
    whole = folder.load(tmp_path)["train"]
    films = Films(whole, lambda: Files(tmp_path, whole.videos, "balanced", str), tiny_clip)
    even = loaded(films.frames([0, 1], most=3))
    assert isinstance(even, Pixels)
    assert [len(pixels) for pixels in even.pixels] == [3, 3]
    assert even.spans[0][0, 0] == 0.0
    everything = loaded(films.frames([1]))
    assert len(everything.pixels[0]) == 6  # one a second
    seeds = [np.random.default_rng(seed) for seed in (0, 0)]
    drawn = [films.frames([0, 1], 3, seed) for seed in seeds]
    assert torch.equal(loaded(drawn[0]).pixels[1], loaded(drawn[1][1:]).pixels[0])  # a share draws as the whole
    assert films.words([1]) == Texts(("a cat",))
    reading = Reading(tiny_clip, None, 32, torch.device("cpu"))
    assert reading(even).vectors.shape == (2, 3, tiny_clip.dim)
    assert reading(films.words([0, 1])).vectors.shape[0] == 2
