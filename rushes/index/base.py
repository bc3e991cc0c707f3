"""What every index promises: segments in by whole batches, segments out by likeness."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rushes.types import Segment, Tokens

By = Literal["summary", "frame"]


@runtime_checkable
class Index(Protocol):
    """Segments with their summaries and tokens, kept as fp16: the first stage searches, the second fetches.

    Every engine answers alike, so `ExactIndex` is the oracle of the others. Scores are dot products, higher is better,
    computed in fp64 from the stored fp16 numbers: equal vectors tie to the bit, and ties are ordered by id.
    """

    dim: int

    def add(self, segments: Sequence[Segment], summaries: Float[Tensor, "segment dim"], tokens: Tokens) -> None:
        """Store one batch: all of it or, on an error or a kill, nothing; on return it survives a kill.

        ValueError for an id that is already there, a wrong shape, a number that fp16 cannot hold, a segment without a
        real token, or fields (spans, level, weights) other than those of the batches before. An empty batch is no-op.
        """
        ...

    def remove(self, videos: Sequence[str]) -> int:
        """Drop all segments of these videos, at once; how many there were. Unknown videos count as none."""
        ...

    def nearest(
        self,
        vector: Float[Tensor, "dim"],
        k: int,
        *,
        by: By = "summary",
        videos: Sequence[str] | None = None,
        each: int | None = None,
    ) -> list[tuple[str, float]]:
        """Ids and scores of the `k` best segments, best first, fewer only if there are fewer.

        by="summary": <vector, summary>.   by="frame": max_j <vector, token_j> over the tokens of the finest level that
        the segment has: its frames if it has frames; all its tokens if the method tells no levels.
        `videos` narrows the search to some videos; an empty list leaves nothing. `each` takes at most so many segments
        of one video, its best.
        """
        ...

    def fetch(self, ids: Sequence[str], *, skip: bool = False) -> tuple[list[Segment], Tokens]:
        """Segments and tokens in the order asked, repeats included. KeyError names the ids that are not there.

        `skip` leaves those out instead: between two calls another process may have dropped a video.

        Tokens come as the second stage wants them: fp32 vectors and weights, padding behind the real ones, spans fp64.
        """
        ...

    def count(self, videos: Sequence[str] | None = None) -> int:
        """Segments, of all videos or of some."""
        ...

    def segments(self, videos: Sequence[str] | None = None) -> list[Segment]:
        """Segments without their tokens, by video, start, id."""
        ...

    def batches(
        self, rows: int = 1024, *, videos: Sequence[str] | None = None
    ) -> Iterator[tuple[list[Segment], Tokens]]:
        """Everything, at most `rows` segments at a time, as one consistent state: what `exact=True` scores.

        `videos` narrows it to some videos; an empty list leaves nothing.
        """
        ...

    def state(self) -> Hashable:
        """What is another value after each change of the segments, by any process: what is derived is kept by it."""
        ...

    def optimize(self) -> None:
        """Whatever makes later searches faster and the store smaller; changes no answer."""
        ...


def checked(dim: int, segments: Sequence[Segment], summaries: Tensor, tokens: Tokens) -> None:
    """ValueError unless this batch can be stored in an index of `dim` numbers a vector."""
    sizes = (len(segments), len(summaries), len(tokens))
    if len(set(sizes)) != 1:
        raise ValueError("got {} segments, {} summaries and {} rows of tokens; each segment needs one".format(*sizes))
    for name, vectors, axes in (("summaries", summaries, 2), ("tokens", tokens.vectors, 3)):
        if vectors.ndim != axes or vectors.shape[-1] != dim:
            raise ValueError(f"{name} have shape {tuple(vectors.shape)}; this index keeps vectors of {dim} numbers")
    ids = [segment.id for segment in segments]
    if repeated := sorted({name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else ()):
        raise ValueError(f"{len(repeated)} ids are twice in one batch: {some(repeated)}")
    if backwards := [s.id for s in segments if not s.start < s.end]:  # `not <` catches NaN, too
        raise ValueError(f"{len(backwards)} segments do not start before they end: {some(backwards)}")
    if empty := [s.id for s, count in zip(segments, tokens.counts().tolist(), strict=True) if not count]:
        raise ValueError(f"{len(empty)} segments have no real token: {some(empty)}; every segment needs one")
    _finite("summaries", segments, summaries.half(), "NaN, infinite or too large for fp16")
    real = tokens.vectors.half().masked_fill(~tokens.mask[..., None], 0)
    _finite("tokens", segments, real, "NaN, infinite or too large for fp16")
    for name in ("weights", "spans"):
        numbers: Tensor | None = getattr(tokens, name)
        if numbers is not None:
            mask = tokens.mask if numbers.ndim == 2 else tokens.mask[..., None]
            _finite(name, segments, numbers.masked_fill(~mask, 0), "NaN or infinite")


def wanted(vector: Tensor, dim: int, k: int, by: str, each: int | None = None) -> None:
    """ValueError unless `nearest` can answer this."""
    if tuple(vector.shape) != (dim,):
        raise ValueError(f"the vector has shape {tuple(vector.shape)}; this index searches with one of ({dim},)")
    if bad := int((~torch.isfinite(vector)).sum()):
        raise ValueError(f"{bad} of {dim} numbers of the vector are NaN or infinite")
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least one segment")
    if each is not None and each < 1:
        raise ValueError(f"each is {each}; take at least one segment of a video")
    if by not in ("summary", "frame"):
        raise ValueError(f"by={by!r} is no way to search; it is 'summary' or 'frame'")


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few, for an error message.

    >>> some(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    listed = ", ".join(repr(name) for name in names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def _finite(name: str, segments: Sequence[Segment], numbers: Tensor, trouble: str) -> None:
    bad = ~torch.isfinite(numbers).flatten(1).all(dim=1) if len(numbers) else numbers.new_zeros(0, dtype=torch.bool)
    if bad.any():
        ids = [segments[row].id for row in bad.nonzero().flatten().tolist()]
        raise ValueError(f"{len(ids)} of {len(segments)} segments have {name} that are {trouble}: {some(ids)}")
