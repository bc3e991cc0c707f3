"""Tokens as an index keeps them: fp16, without padding, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int8, Int64

from rushes.types import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """The real tokens of some rows. `counts` says how many belong to each row; holes in a mask are closed.

    Vectors are halves: scores of unit vectors move by some 1e-4. Weights stay fp32, as they cost 4 bytes beside a
    vector's 2 dim. Spans are doubles: in the 12th hour of a video fp32 seconds come in steps of 4 ms.
    """

    counts: Int64[np.ndarray, "row"]
    vectors: Float16[np.ndarray, "token dim"]
    spans: Float64[np.ndarray, "token 2"] | None = None
    level: Int8[np.ndarray, "token"] | None = None
    weights: Float32[np.ndarray, "token"] | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Which of the optional fields are there."""
        return tuple(name for name in ("spans", "level", "weights") if getattr(self, name) is not None)

    def finest(self) -> tuple[Int64[np.ndarray, "row"], Float16[np.ndarray, "token dim"]]:
        """Counts and vectors of each row's tokens at the finest level that it has; all, where no level is told.

        >>> flat = Flat(np.array([2, 1]), np.zeros((3, 4), np.float16), level=np.array([0, 2, 1], np.int8))
        >>> flat.finest()[0].tolist()  # of the first row only the frame, of the second its one clip
        [1, 1]
        """
        if self.level is None or not len(self.counts):
            return self.counts, self.vectors
        starts = np.cumsum(self.counts) - self.counts
        keep = self.level == np.repeat(np.maximum.reduceat(self.level, starts), self.counts)
        return np.add.reduceat(keep.astype(np.int64), starts), self.vectors[keep]


def flatten(tokens: Tokens) -> Flat:
    """Drop the padding and go to stored precision."""
    tokens = tokens.to("cpu")
    mask = tokens.mask
    return Flat(
        counts=mask.sum(dim=1).numpy(),
        vectors=tokens.vectors[mask].half().numpy(),
        spans=None if tokens.spans is None else tokens.spans[mask].double().numpy(),
        level=None if tokens.level is None else tokens.level[mask].to(torch.int8).numpy(),
        weights=None if tokens.weights is None else tokens.weights[mask].float().numpy(),
    )


def unflatten(flat: Flat, dim: int) -> Tokens:
    """Tokens padded to the longest row, fp32 again."""
    counts = torch.from_numpy(flat.counts)
    width = int(counts.max()) if len(counts) else 0
    mask = torch.arange(width)[None, :] < counts[:, None]
    places = mask.flatten().nonzero().flatten()

    def spread(values: np.ndarray | None, dtype: torch.dtype) -> torch.Tensor | None:
        if values is None:
            return None
        real = torch.from_numpy(values).to(dtype)
        full = real if len(real) == mask.numel() else real.new_zeros(mask.numel(), *real.shape[1:])
        if full is not real:
            full[places] = real
        return full.view(*mask.shape, *real.shape[1:])

    vectors = spread(flat.vectors.reshape(-1, dim), torch.float32)
    assert vectors is not None
    return Tokens(
        vectors,
        mask,
        spread(flat.spans, torch.float64),
        spread(flat.level, torch.int64),
        spread(flat.weights, torch.float32),
    )


def concat(parts: Sequence[Flat]) -> Flat:
    """Rows one after another; every part must have the same optional fields."""

    def join(name: str) -> np.ndarray | None:
        return None if getattr(parts[0], name) is None else np.concatenate([getattr(part, name) for part in parts])

    counts, vectors = join("counts"), join("vectors")
    assert counts is not None
    assert vectors is not None
    return Flat(counts, vectors, join("spans"), join("level"), join("weights"))
