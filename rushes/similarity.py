"""Similarities between texts and videos: pure functions of tensors."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Bool, Float
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
    block_bytes: int = 32 << 20,
) -> Float[Tensor, "text video"]:
    """Each word takes its best frame and each frame its best word; both sides are weighed and averaged.

        s(t, v) = 1/2 [ sum_i a_i max_j <t_i, v_j>  +  sum_j b_j max_i <t_i, v_j> ]

    Wang et al. 2022 (arXiv 2203.07111), weighted token-wise interaction; with equal weights it is their TI. Weights sum
    to one over real tokens and are 0 on padding. Padding is -inf before each max:
    multiplying by zero instead, as public code does, lets padding win whenever the best real similarity is negative.

    Texts are taken in blocks so that the word-by-frame products held at once stay under `block_bytes` (at least one
    text at a time); the result does not depend on it.

    >>> t, v = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    >>> real, half = torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2), 0.5)
    >>> weighted_token_interaction(t, v, real, real, half, half)  # words: 1, 0.8; frames: 1, 0.8
    tensor([[0.9000]])
    """
    text, video = fp32(text), fp32(video)
    products_a_text = max(1, text.shape[1] * video.shape[0] * video.shape[1] * text.element_size())
    rows = max(1, block_bytes // products_a_text)
    blocks = []
    for start in range(0, len(text), rows):
        part = slice(start, start + rows)
        products = einsum(text[part], video, "text word dim, video frame dim -> text video word frame")
        for_words = products.masked_fill(~frame_mask[None, :, None, :], -INFINITY).amax(dim=3)
        for_frames = products.masked_fill(~word_mask[part, None, :, None], -INFINITY).amax(dim=2)
        by_words = einsum(
            for_words.masked_fill(~word_mask[part, None, :], 0),
            fp32(word_weights[part]),
            "text video word, text word -> text video",
        )
        by_frames = einsum(
            for_frames.masked_fill(~frame_mask[None], 0),
            fp32(frame_weights),
            "text video frame, video frame -> text video",
        )
        blocks.append((by_words + by_frames) / 2)
    return torch.cat(blocks) if blocks else text.new_zeros(0, len(video))
