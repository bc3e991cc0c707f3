"""Similarities and losses: values that a hand can check, blocks equal to one piece, edges decided on purpose."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.layers import TokenWeights
from rushes.losses import info_nce, scale_of
from rushes.similarity import dot, fp32, masked_mean, unit, weighted_token_interaction


def masks(counts: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(counts)[:, None]


def drawn(seed: int, texts: int, words: int, videos: int, frames: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    counts = [
        torch.randint(1, most + 1, (n,), generator=draw).tolist() for n, most in ((texts, words), (videos, frames))
    ]
    word_mask, frame_mask = masks(counts[0], words), masks(counts[1], frames)
    text = torch.randn(texts, words, 8, generator=draw, dtype=torch.float64)
    video = torch.randn(videos, frames, 8, generator=draw, dtype=torch.float64)
    a = torch.rand(texts, words, generator=draw, dtype=torch.float64) * word_mask
    b = torch.rand(videos, frames, generator=draw, dtype=torch.float64) * frame_mask
    return unit(text), unit(video), word_mask, frame_mask, a, b


@given(st.integers(0, 10**6), *[st.integers(1, 6)] * 4, st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_blocks_equal_one_piece(seed, texts, words, videos, frames, block_bytes):
    given_ = drawn(seed, texts, words, videos, frames)
    whole = weighted_token_interaction(*given_, block_bytes=1 << 30)
    torch.testing.assert_close(weighted_token_interaction(*given_, block_bytes=block_bytes), whole, rtol=0, atol=1e-12)


@given(st.integers(0, 10**6), *[st.integers(1, 5)] * 4)
@settings(max_examples=40, deadline=None)
def test_the_interaction_is_its_formula(seed, texts, words, videos, frames):
    """Word for word in plain Python, over real tokens only."""
    text, video, word_mask, frame_mask, a, b = drawn(seed, texts, words, videos, frames)
    found = weighted_token_interaction(text, video, word_mask, frame_mask, a, b)
    for t in range(texts):
        for v in range(videos):
            real_words, real_frames = range(int(word_mask[t].sum())), range(int(frame_mask[v].sum()))
            s = {(i, j): float(text[t, i] @ video[v, j]) for i in real_words for j in real_frames}
            by_words = sum(float(a[t, i]) * max(s[i, j] for j in real_frames) for i in real_words)
            by_frames = sum(float(b[v, j]) * max(s[i, j] for i in real_words) for j in real_frames)
            assert math.isclose(float(found[t, v]), (by_words + by_frames) / 2, abs_tol=1e-12)


def test_padding_never_wins_a_maximum():
    """The only real pair is at -1; a zero in its place would score 0."""
    text, video = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    first = torch.tensor([[True, False]])
    weights = torch.tensor([[1.0, 0.0]])
    assert weighted_token_interaction(text, video, first, first, weights, weights).tolist() == [[-1.0]]


def test_no_texts_give_no_scores():
    text, video, word_mask, frame_mask, a, b = drawn(0, 2, 3, 4, 5)
    assert weighted_token_interaction(text[:0], video, word_mask[:0], frame_mask, a[:0], b).shape == (0, 4)


def test_half_precision_is_raised_and_double_is_kept():
    assert fp32(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert dot(torch.ones(1, 2, dtype=torch.float16), torch.ones(1, 2, dtype=torch.float16)).dtype == torch.float32
    assert dot(torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_a_mean_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"rows \[1\] have no real token"):
        masked_mean(torch.ones(2, 2, 3), masks([1, 0], 2))


def test_a_mean_and_its_gradient_ignore_even_nan_in_padding():
    vectors = torch.tensor([[[1.0], [math.nan]]], requires_grad=True)
    masked_mean(vectors, masks([1], 2)).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.tolist() == [[[1.0], [0.0]]]


def test_token_weights_by_hand():
    """Logits ln 1 and ln 3 over two real tokens: a quarter and three quarters."""
    head = TokenWeights(1)
    with torch.no_grad():
        head.head[0].weight.fill_(1.0)
    found = head(torch.tensor([[[0.0], [math.log(3)], [50.0]]]), masks([2], 3))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75, 0.0]]))


def test_info_nce_by_hand():
    """Scores 0 except ln 3 on the diagonal of two: every softmax is 3/4."""
    scores = torch.eye(2) * math.log(3)
    assert float(info_nce(scores)) == pytest.approx(math.log(4 / 3))
    assert float(info_nce(torch.eye(2), scale=math.log(3))) == pytest.approx(math.log(4 / 3))


def test_info_nce_with_two_texts_of_one_video():
    """Three texts, the first two of video 0. All scores 0: rows -log 1/2, columns -log 2/3 and -log 1/3."""
    positives = torch.tensor([[True, False], [True, False], [False, True]])
    columns = (math.log(3 / 2) + math.log(3)) / 2
    assert float(info_nce(torch.zeros(3, 2), positives)) == pytest.approx((math.log(2) + columns) / 2)


def test_info_nce_leaves_out_rows_without_a_positive_but_keeps_them_as_negatives():
    positives = torch.tensor([[True, False], [False, False]])
    found = info_nce(torch.zeros(2, 2), positives)
    assert float(found) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="no positive"):
        info_nce(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="no diagonal"):
        info_nce(torch.zeros(2, 3))


def test_a_temperature_at_its_bound_still_learns():
    """ln 100 in fp32 is above 100 after exp: clamped by value it would have no gradient from the first step on."""
    parameter = torch.nn.Parameter(torch.tensor(math.log(100.0)))
    scale_of(parameter).backward()
    assert parameter.grad is not None
    assert float(parameter.grad) == pytest.approx(100.0)
    far = torch.nn.Parameter(torch.tensor(20.0))
    assert float(scale_of(far, most=10.0).detach()) == pytest.approx(10.0)
    assert far.item() == pytest.approx(math.log(10.0))
