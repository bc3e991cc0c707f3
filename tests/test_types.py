"""Tokens keep their rows, masks and fields whatever is done to them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.types import Hit, Moment, Segment, Tokens


def drawn(seed: int, rows: int, columns: int, full: bool = True) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=draw)
    return Tokens(
        torch.randn(rows, columns, 5, generator=draw),
        mask,
        torch.rand(rows, columns, 2, generator=draw) if full else None,
        torch.randint(0, 3, (rows, columns), generator=draw) if full else None,
        torch.rand(rows, columns, generator=draw) * mask if full else None,
    )


def same(one: Tokens, other: Tokens) -> None:
    """Equal where tokens are real."""
    assert one.counts().tolist() == other.counts().tolist()
    for name in ("vectors", "spans", "level", "weights"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left[one.mask], right[other.mask])


shapes = st.tuples(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 6))


@given(st.lists(shapes, min_size=1, max_size=4), st.booleans())
@settings(max_examples=50, deadline=None)
def test_together_and_apart_again(parts, full):
    tokens = [drawn(*part, full) for part in parts]
    joined = Tokens.cat(tokens)
    assert len(joined) == sum(len(part) for part in tokens)
    start = 0
    for part in tokens:
        same(joined[start : start + len(part)], part)
        start += len(part)


@given(shapes, st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_padding_and_trimming_change_no_real_token(shape, extra):
    tokens = drawn(*shape)
    wide = tokens.padded(tokens.mask.shape[1] + extra)
    assert wide.mask.shape[1] == tokens.mask.shape[1] + extra
    same(wide, tokens)
    narrow = wide.trimmed()
    assert narrow.mask.shape[1] == int(tokens.counts().max())
    same(narrow, tokens)


def test_half_precision_is_for_vectors_and_weights_only():
    half = drawn(0, 2, 3).to(torch.float16)
    assert half.spans is not None
    assert half.weights is not None
    assert half.level is not None
    kinds = (half.vectors.dtype, half.weights.dtype, half.spans.dtype, half.level.dtype, half.mask.dtype)
    assert kinds == (torch.float16, torch.float16, torch.float32, torch.int64, torch.bool)
    assert drawn(0, 2, 3, full=False).to(torch.float16).weights is None


def test_rows_by_slice_list_and_mask():
    tokens = drawn(1, 4, 3)
    same(tokens[torch.tensor([3, 1])], Tokens.cat([tokens[3:4], tokens[1:2]]))
    same(tokens[[3, 1]], tokens[torch.tensor([3, 1])])
    same(tokens[torch.tensor([True, False, False, True])], tokens[[0, 3]])
    with pytest.raises(TypeError, match=r"ask for Tokens\[2:3\]"):
        tokens[2]  # type: ignore[index]


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match="cannot pad 3 tokens to 2"):
        drawn(0, 1, 3).padded(2)
    with pytest.raises(ValueError, match="no batches"):
        Tokens.cat([])
    with pytest.raises(ValueError, match="only some of the 2 batches have spans"):
        Tokens.cat([drawn(0, 1, 3), drawn(0, 1, 3, full=False)])


def test_a_hit_begins_and_ends_with_its_segment():
    hit = Hit(Segment(id="a:0", video="a.mp4", start=2.0, end=5.5), 0.5, (Moment(3.0, 4.0, 0.7),))
    assert (hit.start, hit.end, hit.segment.length) == (2.0, 5.5, 3.5)
