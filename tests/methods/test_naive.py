"""Similarities and layers equal plain loops over real tokens, whatever padding holds and wherever it stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rushes.layers import SlotAggregation, TemporalTransformer, TokenWeights
from rushes.similarity import (
    attend,
    attention_over_similarity,
    attention_over_tokens,
    dot,
    equal_weights,
    masked_mean,
    neighbour_interaction,
    token_interaction,
    unit,
    weighted_token_interaction,
)
from tests.methods import naive

SIZES = st.tuples(*[st.integers(1, 5)] * 4)  # texts, words, videos, frames
SEEDS = st.integers(0, 10**6)
BLOCKS = st.sampled_from([None, 1, 100, 400, 1000, 1 << 30])  # one pair at a time, some, all
DIM = 6


class Drawn:
    """Texts and videos whose masks may have holes, whose padding holds large numbers, and weights of real tokens."""

    def __init__(self, seed: int, sizes: tuple[int, int, int, int] = (5, 4, 3, 6), dim: int = DIM):
        self.draw, self.dim = torch.Generator().manual_seed(seed), dim
        texts, words, videos, frames = sizes
        self.text, self.word_mask, self.a = self.side(texts, words)
        self.video, self.frame_mask, self.b = self.side(videos, frames)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw, dtype=torch.float64)

    def side(self, items: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        mask = torch.rand(items, tokens, generator=self.draw) < 0.6
        mask[torch.arange(items), torch.randint(tokens, (items,), generator=self.draw)] = True
        vectors = torch.where(mask[..., None], unit(self.normal(items, tokens, self.dim)), 1e3)
        vectors = torch.where(mask[..., None], vectors, vectors * self.normal(items, tokens, self.dim))
        return vectors, mask, torch.rand(items, tokens, generator=self.draw, dtype=torch.float64) * mask

    def mixing(self, most: int) -> tuple[Tensor, Tensor]:
        return torch.eye(most) + 0.3 * self.normal(most, most), torch.eye(most) + 0.3 * self.normal(most, most)

    @property
    def pairs(self) -> tuple[Tensor, ...]:
        return self.text, self.video, self.word_mask, self.frame_mask


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def state(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def shaken(module: nn.Module, by: float = 0.3) -> nn.Module:
    """In float64, with all weights moved at random: those that start at zero, one or the identity too."""
    with torch.no_grad():
        for weight in module.double().parameters():
            weight += by * torch.randn_like(weight)
    return module.eval()


def same(found: Tensor, wanted: object, within: float = 1e-10) -> None:
    wanted = torch.as_tensor(np.asarray(wanted))
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=within)


# --- similarities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_dot(seed):
    drawn = Drawn(seed)
    one, other = drawn.normal(4, 6), drawn.normal(3, 6)
    same(dot(one, other), [[sum(a * b for a, b in zip(x, y, strict=True)) for y in other] for x in one])


@given(SEEDS, SIZES)
@settings(max_examples=20, deadline=None)
def test_masked_mean(seed, sizes):
    drawn = Drawn(seed, sizes)
    vectors, mask = arrays(drawn.text, drawn.word_mask)
    same(
        masked_mean(drawn.text, drawn.word_mask),
        [row[real].mean(axis=0) for row, real in zip(vectors, mask, strict=True)],
    )


@given(SEEDS, SIZES, BLOCKS)
@settings(max_examples=30, deadline=None)
def test_weighted_token_interaction(seed, sizes, block_bytes):
    drawn = Drawn(seed, sizes)
    found = weighted_token_interaction(*drawn.pairs, drawn.a, drawn.b, block_bytes)
    same(found, naive.weighted_token_interaction(*arrays(*drawn.pairs, drawn.a, drawn.b)))


@given(SEEDS, SIZES, BLOCKS)
@settings(max_examples=30, deadline=None)
def test_token_interaction(seed, sizes, block_bytes):
    drawn = Drawn(seed, sizes)
    word_mask, frame_mask = arrays(drawn.word_mask, drawn.frame_mask)
    a, b = naive.equal(word_mask), naive.equal(frame_mask)
    same(equal_weights(drawn.word_mask, drawn.text), a)
    found = token_interaction(*drawn.pairs, block_bytes=block_bytes)
    same(found, naive.weighted_token_interaction(*arrays(*drawn.pairs), a, b))


@given(SEEDS, SIZES, BLOCKS, st.sampled_from([0.0, 0.5, 1.7]), st.sampled_from([2, 6]))
@settings(max_examples=60, deadline=None)
def test_neighbour_interaction(seed, sizes, block_bytes, factor, dim):
    """In two dimensions a frame is often opposed to all others, and then has no neighbour."""
    drawn = Drawn(seed, sizes, dim)
    found = neighbour_interaction(*drawn.pairs, drawn.a, drawn.b, factor, block_bytes)
    same(found, naive.neighbour_interaction(*arrays(*drawn.pairs, drawn.a, drawn.b), factor))


def test_neighbours_of_more_videos_than_are_looked_at_together():
    drawn = Drawn(0, (2, 2, 300, 3))
    found = neighbour_interaction(*drawn.pairs, drawn.a, drawn.b, 0.5)
    same(found, naive.neighbour_interaction(*arrays(*drawn.pairs, drawn.a, drawn.b), 0.5))


@given(SEEDS, SIZES, BLOCKS, st.sampled_from(["attended", "max"]), st.sampled_from([0.01, 0.3]), *[st.booleans()] * 2)
@settings(max_examples=80, deadline=None)
def test_attention_over_similarity(seed, sizes, block_bytes, pooled, temperature, mix_words, mix_frames):
    """Mixing matrices are made for more tokens than there are, and mix real ones alone."""
    drawn = Drawn(seed, sizes)
    words, frames = drawn.mixing(7) if mix_words else None, drawn.mixing(6) if mix_frames else None
    found = attention_over_similarity(
        *drawn.pairs,
        word_mixing=words,
        frame_mixing=frames,
        pooled=pooled,
        temperature=temperature,
        block_bytes=block_bytes,
    )
    given_words, given_frames = words and tuple(arrays(*words)), frames and tuple(arrays(*frames))
    wanted = naive.attention_over_similarity(*arrays(*drawn.pairs), given_words, given_frames, pooled, temperature)
    same(found, wanted[0])


@given(SEEDS, SIZES, BLOCKS, st.booleans(), st.sampled_from([0.01, 0.3]))
@settings(max_examples=40, deadline=None)
def test_attention_over_tokens(seed, sizes, block_bytes, mix, temperature):
    drawn = Drawn(seed, sizes)
    one, mixing = drawn.normal(sizes[0], DIM), drawn.mixing(7)[0] if mix else None
    found = attention_over_tokens(one, drawn.video, drawn.frame_mask, mixing, temperature, block_bytes)
    given_mixing = None if mixing is None else mixing.numpy()
    wanted = naive.attention_over_tokens(
        *arrays(one, drawn.video, drawn.frame_mask), mixing=given_mixing, temperature=temperature
    )
    same(found, wanted)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_attend(seed, mix, dim):
    """Along any axis but the last, with a mask of fewer entries than there are values, and huge values in padding."""
    drawn = Drawn(seed)
    logits, values = drawn.normal(4, 3, 5, 2), drawn.normal(4, 3, 5, 2)
    real = torch.rand(logits.shape[dim], generator=drawn.draw) < 0.6
    real[1] = True
    mask = real.view([-1 if axis == dim else 1 for axis in range(4)])
    noise = torch.where(mask, 0.0, 1e6)
    matrix = drawn.mixing(len(real))[0] if mix else None
    found = attend(logits + noise, values - noise, mask, matrix, 0.5, dim=dim)
    wanted = np.zeros(found.shape)
    ordinary, value = (np.moveaxis(tensor.numpy(), dim, 0) for tensor in (logits, values))
    here = naive.places(real.numpy())
    for place in np.ndindex(*wanted.shape):
        weights = naive.mixed(
            ordinary[(slice(None), *place)][here], None if matrix is None else matrix.numpy(), here, 0.5
        )
        wanted[place] = weights @ value[(slice(None), *place)][here]
    same(found, wanted)


def test_too_many_tokens_for_a_mixing_matrix():
    drawn = Drawn(0)
    with pytest.raises(ValueError, match="4 tokens, but the mixing matrix was made for 3"):
        attention_over_similarity(*drawn.pairs, word_mixing=drawn.mixing(3))
    with pytest.raises(ValueError, match="6 tokens, but the mixing matrix was made for 5"):
        attention_over_similarity(*drawn.pairs, frame_mixing=drawn.mixing(5))


# --- gradients -------------------------------------------------------------------------------------------------------


def interactions(drawn: Drawn) -> dict[str, tuple]:
    """Each blockwise similarity, and the tensors that it is differentiated by."""
    words, frames = drawn.mixing(4), drawn.mixing(6)

    def over_similarity(pooled):
        def score(text, video, w1, w2, f1, f2, **block):
            masks = drawn.word_mask, drawn.frame_mask
            mixing = {"word_mixing": (w1, w2), "frame_mixing": (f1, f2), "pooled": pooled, "temperature": 0.2}
            return attention_over_similarity(text, video, *masks, **mixing, **block)

        return score, (drawn.text, drawn.video, *words, *frames)

    def weighted(text, video, a, b, **block):
        return weighted_token_interaction(text, video, drawn.word_mask, drawn.frame_mask, a, b, **block)

    def neighbours(text, video, a, b, **block):
        return neighbour_interaction(text, video, drawn.word_mask, drawn.frame_mask, a, b, 0.5, **block)

    def over_tokens(text, video, w1, **block):
        return attention_over_tokens(video[:, 0], text, drawn.word_mask, w1, 0.2, **block)

    return {
        "weighted": (weighted, (drawn.text, drawn.video, drawn.a, drawn.b)),
        "neighbours": (neighbours, (drawn.text, drawn.video, drawn.a, drawn.b)),
        "attended": over_similarity("attended"),
        "max": over_similarity("max"),
        "tokens": (over_tokens, (drawn.text, drawn.video, words[0])),
    }


@pytest.mark.parametrize("name", ["weighted", "neighbours", "attended", "max", "tokens"])
def test_gradients_through_blocks_are_those_of_one_block(name):
    score, leaves = interactions(Drawn(4))[name]
    found = []
    for block_bytes in (1, 700, 1 << 30):
        given_ = [leaf.clone().requires_grad_() for leaf in leaves]
        scores = score(*given_, block_bytes=block_bytes)
        (scores * torch.arange(scores.numel()).reshape(scores.shape)).sum().backward()
        found.append([leaf.grad for leaf in given_])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["weighted", "neighbours", "attended", "max", "tokens"])
def test_padding_may_hold_what_is_no_number(name):
    """Of tokens and of gradients: none comes from padding, none goes there."""
    found = []
    for filling in (1e3, float("nan")):
        drawn = Drawn(4)
        drawn.text[~drawn.word_mask], drawn.video[~drawn.frame_mask] = filling, filling
        drawn.video[:, 0] = 1.0  # `tokens` takes it for the one vector of a side
        drawn.frame_mask[:, 0] = True
        score, leaves = interactions(drawn)[name]
        given_ = [leaf.clone().requires_grad_() for leaf in leaves]
        scores = score(*given_)
        scores.square().sum().backward()
        assert not bool(given_[0].grad[~drawn.word_mask].any())
        assert not bool(given_[1].grad[~drawn.frame_mask].any())
        found.append([scores, *(leaf.grad for leaf in given_)])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["weighted", "neighbours", "attended", "max", "tokens"])
def test_gradients_are_those_of_the_numbers(name):
    drawn = Drawn(4, (3, 3, 2, 3), dim=3)
    drawn.text[~drawn.word_mask], drawn.video[~drawn.frame_mask] = 2.0, 3.0  # finite differences lose digits on 1e3
    score, leaves = interactions(drawn)[name]
    given_ = [leaf.clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(lambda *inputs: score(*inputs, block_bytes=150), given_)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_token_weights(seed, hidden):
    drawn, head = Drawn(seed), shaken(TokenWeights(DIM, hidden))
    wanted = naive.token_weights(*arrays(drawn.video, drawn.frame_mask), state(head), hidden)
    same(head(drawn.video, drawn.frame_mask), wanted)


@pytest.mark.parametrize(("dim", "heads"), [(6, 1), (128, 2)])
def test_temporal_transformer(dim, heads):
    drawn, layer = Drawn(1, dim=dim), shaken(TemporalTransformer(dim, layers=2, positions=9), 0.1)
    wanted = naive.temporal(*arrays(drawn.video, drawn.frame_mask), state(layer), 2, heads)
    same(layer(drawn.video, drawn.frame_mask), wanted)
    nothing = drawn.video.masked_fill(~drawn.frame_mask[..., None], float("nan"))
    same(layer(nothing, drawn.frame_mask), wanted)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("dim", "heads"), [(6, 1), (128, 2)])
def test_slot_aggregation(seed, count, dim, heads):
    drawn, layer = Drawn(seed, dim=dim), shaken(SlotAggregation(dim, count), 0.1)
    vectors, shares = layer(drawn.text, drawn.word_mask)
    wanted = naive.slots(*arrays(drawn.text, drawn.word_mask), state(layer), count, heads)
    same(vectors, wanted[0])
    same(shares, wanted[1])
    same(shares.sum(dim=1), np.ones((5, count)))
