"""Similarities between texts and videos: pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

INFINITY = float("inf")


def fp32(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """At least fp32: half precision is raised, float64 stays as exact as it came.

    >>> fp32(torch.zeros(1, dtype=torch.float16)).dtype, fp32(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def unit(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Vectors of length one; a zero vector stays zero.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return normalize(vectors, dim=-1)


def dot(text: Float[Tensor, "text dim"], video: Float[Tensor, "video dim"]) -> Float[Tensor, "text video"]:
    """One vector a side: s(t, v) = <t, v>, in fp32 at least.

    >>> dot(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    tensor([[0.6000, 1.0000]])
    """
    return einsum(fp32(text), fp32(video), "text dim, video dim -> text video")


def masked_mean(
    vectors: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch dim"]:
    """Mean over real tokens; a row without one is an error, not a zero.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    counts = mask.sum(dim=1, keepdim=True)
    if not bool((counts > 0).all()):
        empty = (counts == 0).flatten().nonzero().flatten().tolist()
        raise ValueError(f"rows {empty[:5]} have no real token; every text and video needs one")
    return vectors.masked_fill(~mask[:, :, None], 0).sum(dim=1) / counts


def weighted_token_interaction(
    text: Float[Tensor, "text word dim"],
    video: Float[Tensor, "video frame dim"],
    word_mask: Bool[Tensor, "text word"],
    frame_mask: Bool[Tensor, "video frame"],
    word_weights: Float[Tensor, "text word"],
    frame_weights: Float[Tensor, "video frame"],
    block_bytes: int | None = None,
) -> Float[Tensor, "text video"]:
    """Each word takes its best frame and each frame its best word; both sides are weighed and averaged.

        s(t, v) = 1/2 [ sum_i a_i max_j <t_i, v_j>  +  sum_j b_j max_i <t_i, v_j> ]

    Wang et al. 2022 (arXiv 2203.07111), weighted token-wise interaction. Weights are 0 on padding. Padding wins no
    maximum: multiplying by zero instead, as public code does, lets it win where the best real similarity is negative.

    Pairs are taken in blocks of some `block_bytes` of products (by default what a processor's cache holds); the result
    does not depend on it.

    >>> t, v = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    >>> real, half = torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2), 0.5)
    >>> weighted_token_interaction(t, v, real, real, half, half)  # words: 1, 0.8; frames: 1, 0.8
    tensor([[0.9000]])
    """
    scores = _Scores(text, video)
    for rows, columns, products in _blocks(text, video, word_mask, frame_mask, block_bytes):
        found = _weighed(products.amax(dim=2), products.amax(dim=1), word_weights[rows], frame_weights[columns])
        scores.add(rows, columns, found)
    return scores.whole()


def token_interaction(
    text: Float[Tensor, "text word dim"],
    video: Float[Tensor, "video frame dim"],
    word_mask: Bool[Tensor, "text word"],
    frame_mask: Bool[Tensor, "video frame"],
    block_bytes: int | None = None,
) -> Float[Tensor, "text video"]:
    """Max-mean: each word takes its best frame, each frame its best word, all real tokens counting alike.

        s(t, v) = 1/2 [ mean_i max_j <t_i, v_j>  +  mean_j max_i <t_i, v_j> ]      Wang et al. 2022, their TI

    >>> t, v = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    >>> token_interaction(t, v, torch.tensor([[True, True]]), torch.tensor([[True]]))  # words: 1, 0; frame: 1
    tensor([[0.7500]])
    """
    a, b = equal_weights(word_mask, text), equal_weights(frame_mask, video)
    return weighted_token_interaction(text, video, word_mask, frame_mask, a, b, block_bytes)


def neighbour_interaction(
    text: Float[Tensor, "text word dim"],
    video: Float[Tensor, "video frame dim"],
    word_mask: Bool[Tensor, "text word"],
    frame_mask: Bool[Tensor, "video frame"],
    word_weights: Float[Tensor, "text word"],
    frame_weights: Float[Tensor, "video frame"],
    factor: float = 0.5,
    block_bytes: int | None = None,
) -> Float[Tensor, "text video"]:
    """Token interaction in which a word's best frame brings the evidence of the frame most like it.

        k(i) = argmax_j <t_i, v_j>         n(j), g(j) = argmax and max over j' != j of <v_j, v_j'>, not below 0
        p_i  = <t_i, v_k(i)>  +  factor * g(k(i)) * <t_i, v_n(k(i))>
        s    = 1/2 [ sum_i a_i p_i  +  sum_j b_j max_i <t_i, v_j> ]

    DMAE (Jiang et al. 2023, arXiv 2309.11082), visual attention as the authors' code has it; factor 0 gives weighted
    token interaction. Where no other frame is similar (all cosines negative) nothing is added: g is 0 then, its frame
    the frame itself. A single frame has no neighbour.

    >>> t, v = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    >>> one, two = torch.ones(1, 1), torch.full((1, 2), 0.5)
    >>> neighbour_interaction(t, v, one.bool(), two.bool(), one, two)  # 1/2 [1 + 0.5 * 0.6 * 0.6 + 0.8]
    tensor([[0.9900]])
    """
    if factor == 0:
        return weighted_token_interaction(text, video, word_mask, frame_mask, word_weights, frame_weights, block_bytes)
    parts = [_neighbours(part, real) for part, real in zip(video.split(256), frame_mask.split(256), strict=True)]
    neighbour, likeness = (torch.cat(both) for both in zip(*parts, strict=True))  # of each video once
    scores = _Scores(text, video)
    for rows, columns, products in _blocks(text, video, word_mask, frame_mask, block_bytes):
        best, place = products.max(dim=2, keepdim=True)  # text word 1 video
        beside = place.shape[:2]
        there = neighbour[columns].T.expand(*beside, -1, -1).gather(2, place)
        trust = likeness[columns].T.expand(*beside, -1, -1).gather(2, place)
        by_words = (best + factor * trust * products.gather(2, there))[:, :, 0]
        found = _weighed(by_words, products.amax(dim=1), word_weights[rows], frame_weights[columns])
        scores.add(rows, columns, found)
    return scores.whole()


def attention_over_similarity(
    text: Float[Tensor, "text word dim"],
    video: Float[Tensor, "video frame dim"],
    word_mask: Bool[Tensor, "text word"],
    frame_mask: Bool[Tensor, "video frame"],
    *,
    word_mixing: tuple[Float[Tensor, "words words"], Float[Tensor, "words words"]] | None = None,
    frame_mixing: tuple[Float[Tensor, "frames frames"], Float[Tensor, "frames frames"]] | None = None,
    pooled: Literal["attended", "max"] = "attended",
    temperature: float = 0.01,
    block_bytes: int | None = None,
) -> Float[Tensor, "text video"]:
    """The word-by-frame matrix pooled by attention over itself, along words then frames and the other way round.

        M_ij = <t_i, v_j>        A_x(y) = softmax over x of y / temperature, as a row vector times the mixing matrix
        f_j = sum_i A_i(M)_ij M_ij                   w_i = sum_j A_j(M)_ij M_ij
        s   = 1/2 [ sum_j A_j(f)_j f_j  +  sum_i A_i(w)_i w_i ]

    X-CLIP (Ma et al. 2022, arXiv 2207.07285), AOSM, as the authors' code has it. `pooled` "max" takes max_i M_ij and
    max_j M_ij for the last factors f_j and w_i, as X-MLNet's code does (SUMA). The first matrix of each pair mixes M's
    weights, the second those of f or w; no mixing is the identity. Padding has no weight, before and after mixing;
    mixed weights need not sum to one anyway, so they are not normalised again.

    >>> t, v = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    >>> real = torch.ones(1, 2, dtype=torch.bool)
    >>> attention_over_similarity(t, v, real, real)  # so cold that softmax is max: f = w = (1, 0.8), of which the best
    tensor([[1.]])
    """
    first_word, second_word = (
        (None, None) if word_mixing is None else (_fitting(matrix, text.shape[1]) for matrix in word_mixing)
    )
    first_frame, second_frame = (
        (None, None) if frame_mixing is None else (_fitting(matrix, video.shape[1]) for matrix in frame_mixing)
    )
    scores = _Scores(text, video)
    for rows, columns, products in _blocks(text, video, word_mask, frame_mask, block_bytes):
        words, frames = word_mask[rows], frame_mask[columns].T  # frames: frame video, as products lie
        of_frames = attend(products, products, words[:, :, None, None], first_word, temperature, dim=1)
        of_words = attend(products, products, frames, first_frame, temperature, dim=2)
        if pooled == "max":
            best_of_frames, best_of_words = products.amax(dim=1), products.amax(dim=2)
        else:
            best_of_frames, best_of_words = of_frames, of_words
        by_frames = attend(of_frames, best_of_frames, frames, second_frame, temperature, dim=1)
        by_words = attend(of_words, best_of_words, words[:, :, None], second_word, temperature, dim=1)
        scores.add(rows, columns, (by_frames + by_words) / 2)
    return scores.whole()


def attention_over_tokens(
    one: Float[Tensor, "item dim"],
    many: Float[Tensor, "set token dim"],
    mask: Bool[Tensor, "set token"],
    mixing: Float[Tensor, "tokens tokens"] | None = None,
    temperature: float = 0.01,
    block_bytes: int | None = None,
) -> Float[Tensor, "item set"]:
    """One vector a side against the other's tokens, pooled by attention over these very products.

        s_l = <x, y_l>        s(x, Y) = sum_l A(s)_l s_l,   A = softmax of s / temperature, times the mixing matrix

    X-CLIP (Ma et al. 2022), its video-word and sentence-frame terms. Padding has no weight.

    >>> y = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> attention_over_tokens(torch.tensor([[1.0, 1.0]]), 0.5 * y, torch.tensor([[True, True]]))  # 1/2 [0.5 + 0.5]
    tensor([[0.5000]])
    """
    mixing = None if mixing is None else _fitting(mixing, many.shape[1])
    scores = _Scores(one, many)
    alone = mask.new_ones(len(one), 1)
    for columns, rows, products in _blocks(many, one[:, None], mask, alone, block_bytes):
        products = products[:, :, 0]  # set token item
        scores.add(rows, columns, attend(products, products, mask[columns][:, :, None], mixing, temperature, dim=1).T)
    return scores.whole()


def attend(
    logits: Float[Tensor, "*shape"],
    values: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*mask"],
    mixing: Float[Tensor, "token token"] | None = None,
    temperature: float = 1.0,
    *,
    dim: int,
) -> Float[Tensor, "*rest"]:
    """Values summed along `dim` (never the last) with the softmax of logits / temperature as weights.

    `mixing` multiplies the weights, as row vectors, from the right. Padding, False in `mask` (which is broadcast), has
    no weight, whatever number it holds.

    >>> one = torch.tensor([[1.0], [3.0], [9.0]])
    >>> attend(torch.zeros(3, 1), one, torch.tensor([[True], [True], [False]]), dim=0)
    tensor([2.])
    """
    bias = torch.zeros(mask.shape, dtype=logits.dtype, device=logits.device).masked_fill_(~mask, -INFINITY)
    weights = torch.add(bias, logits, alpha=1 / temperature).softmax(dim=dim)
    if mixing is not None:
        inner = weights.shape[dim + 1 :].numel()
        flat = weights.reshape(*weights.shape[: dim + 1], inner)
        weights = (mixing.T.to(weights) @ flat).reshape(weights.shape) * mask
    return (weights * values).sum(dim=dim)


def without_padding(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch token dim"]:
    """Padding replaced by the row's first real token, so that it can win no maximum that this one does not.

    Cheaper than -inf in every product, and as exact, gradients too: equal entries share the gradient of their maximum.

    >>> without_padding(torch.tensor([[[1.0], [2.0], [99.0]]]), torch.tensor([[True, True, False]])).flatten()
    tensor([1., 2., 1.])
    """
    first = mask.to(torch.uint8).argmax(dim=1)
    rows = torch.arange(len(tokens), device=tokens.device)
    return torch.where(mask[:, :, None], tokens, tokens[rows, first][:, None])


def equal_weights(mask: Bool[Tensor, "batch token"], like: Tensor) -> Float[Tensor, "batch token"]:
    """Weights of real tokens that are equal and sum to one, in the precision in which `like` is scored.

    >>> equal_weights(torch.tensor([[True, True, False]]), torch.zeros(1))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    return mask.to(fp32(like[:0]).dtype) / mask.sum(dim=1, keepdim=True)


# --- blocks ----------------------------------------------------------------------------------------------------------


class _Scores:
    """Scores that are filled block by block; where gradients are wanted the blocks are joined instead of written."""

    def __init__(self, text: Tensor, video: Tensor):
        self.shape, self.like = (len(text), len(video)), fp32(text[:0])
        self.rows: dict[int, list[Tensor]] = {}
        self.written: Tensor | None = None

    def add(self, rows: slice, columns: slice, block: Float[Tensor, "text video"]) -> None:
        if block.requires_grad:
            self.rows.setdefault(rows.start, []).append(block)
            return
        if self.written is None:
            self.written = self.like.new_empty(self.shape)
        self.written[rows, columns] = block

    def whole(self) -> Float[Tensor, "text video"]:
        if self.rows:
            return torch.cat([torch.cat(blocks, dim=1) for blocks in self.rows.values()])
        return self.like.new_zeros(self.shape) if self.written is None else self.written


def _blocks(
    text: Float[Tensor, "text word dim"],
    video: Float[Tensor, "video frame dim"],
    word_mask: Bool[Tensor, "text word"],
    frame_mask: Bool[Tensor, "video frame"],
    block_bytes: int | None,
) -> Iterator[tuple[slice, slice, Float[Tensor, "text word frame video"]]]:
    """Products of words and frames, of so many texts and videos that they hold some `block_bytes`; one pair at least.

    Videos come last in memory: sums and maxima over words or frames then run along it. Padding is `without_padding`.
    Videos are made ready for many blocks at a time, which take up to 16 times as much, 32 MB at most.
    """
    if block_bytes is None:
        block_bytes = 2 << 20 if text.device.type == "cpu" else 256 << 20
    item, dim = fp32(text[:0]).element_size(), text.shape[2]
    pairs = max(1, block_bytes // (text.shape[1] * video.shape[1] * item))
    # a power of two of videos: products with 37 of them took 1.3 times as long as with 64
    height = max(1, min(len(text), pairs >> math.ceil(math.log2(pairs) / 2)))
    width = 1 << int(math.log2(max(1, pairs // height)))
    held = max(block_bytes, min(16 * block_bytes, 32 << 20))
    ready = max(1, held // (video.shape[1] * dim * item) // width) * width
    for first in range(0, len(video), ready):
        columns = [
            slice(left, min(left + width, len(video))) for left in range(first, min(first + ready, len(video)), width)
        ]
        frames = [_ready(fp32(video[part]), frame_mask[part], videos_last=True) for part in columns]
        for top in range(0, len(text), height):
            rows = slice(top, min(top + height, len(text)))
            words = _ready(fp32(text[rows]), word_mask[rows])
            for part, side in zip(columns, frames, strict=True):
                shape = (rows.stop - rows.start, text.shape[1], video.shape[1], part.stop - part.start)
                yield rows, part, (words @ side.T).reshape(shape)


def _ready(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"], videos_last: bool = False
) -> Float[Tensor, "row dim"]:
    """`without_padding` as rows of a matrix, batch by batch or token by token: all in one copy, which costs a tenth."""
    batch, width, dim = tokens.shape
    first = mask.to(torch.uint8).argmax(dim=1, keepdim=True)
    places = torch.where(mask, torch.arange(width, device=mask.device), first)
    places = places + width * torch.arange(batch, device=mask.device)[:, None]
    return tokens.reshape(-1, dim).index_select(0, (places.T if videos_last else places).reshape(-1))


def _weighed(
    of_words: Float[Tensor, "text word video"],
    of_frames: Float[Tensor, "text frame video"],
    word_weights: Float[Tensor, "text word"],
    frame_weights: Float[Tensor, "video frame"],
) -> Float[Tensor, "text video"]:
    """What words found and what frames found, each weighed by its side, averaged."""
    by_words = einsum(of_words, fp32(word_weights), "text word video, text word -> text video")
    by_frames = einsum(of_frames, fp32(frame_weights), "text frame video, video frame -> text video")
    return (by_words + by_frames) / 2


def _neighbours(
    video: Float[Tensor, "video frame dim"], mask: Bool[Tensor, "video frame"]
) -> tuple[Int[Tensor, "video frame"], Float[Tensor, "video frame"]]:
    """Of each frame the other real one most like it, and how much; padding is the copy `without_padding` makes it."""
    frames = without_padding(fp32(video), mask)
    likeness = einsum(frames, frames, "video frame dim, video other dim -> video frame other")
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    best, place = likeness.masked_fill(~mask[:, None, :], -INFINITY).masked_fill(itself, 0).max(dim=2)
    copied = mask.to(torch.uint8).argmax(dim=1, keepdim=True)
    source = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), copied)
    return place.gather(1, source), best.gather(1, source)


def _fitting(mixing: Float[Tensor, "tokens tokens"], count: int) -> Float[Tensor, "token token"]:
    """The part of a mixing matrix that so many tokens need; it was made for a largest number."""
    if count > len(mixing):
        raise ValueError(f"{count} tokens, but the mixing matrix was made for {len(mixing)}: sample or cut fewer")
    return mixing[:count, :count]
