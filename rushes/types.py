"""The nouns that every part of Rushes shares: segments, tokens, moments, hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is imported by who needs tensors, so that `import rushes` stays instant
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one video. `start` and `end` are seconds on the video's own clock, `start < end`.

    >>> Segment(id="a1b2:0", video="beach.mp4", start=2.0, end=5.5).length
    3.5
    """

    id: str
    video: str
    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Moment:
    """Where inside a segment the query matched: seconds on the video's clock, score higher-is-better."""

    start: float
    end: float
    score: float


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle line: when it is on screen, in seconds on the video's clock, and how well it matched a text."""

    video: str
    start: float
    end: float
    text: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search: a segment, its score (higher is better), and the moments that earned it.

    confidence  in [0, 1], how sure it is that this is what was asked for; None where the model is not calibrated
    scores      where the score comes from: "visual" what is seen, "words" what is said; of a query that is
                a video "alike", "same", "peak" (rushes/search/alike.py)
    cues        the subtitle lines that matched, in order of time
    then        of a query "A, then B": where B is, while the segment is A's
    merged      how many neighbouring, nearly identical segments this hit stands for, itself included
    of_query    of a query that is a video: the seconds of the query clip that this hit is like
    """

    segment: Segment
    score: float
    moments: tuple[Moment, ...] = ()
    confidence: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    cues: tuple[Cue, ...] = ()
    then: Moment | None = None
    merged: int = 1
    of_query: tuple[float, float] | None = None

    @property
    def start(self) -> float:
        return self.segment.start

    @property
    def end(self) -> float:
        return self.segment.end


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What a method stores of a batch of texts or videos, and all that its `score` may look at.

    vectors  [batch token dim]  as the method scores them
    mask     [batch token]      True = real, False = padding
    spans    [batch token 2]    the seconds each token saw; texts have none
    level    [batch token]      0 whole, 1 clip or phrase, 2 frame or word; None = all alike
    weights  [batch token]      the method's own weight of each token; 0 on padding

    >>> import torch
    >>> two = Tokens(torch.ones(2, 3, 4), torch.tensor([[True, True, True], [True, False, False]]))
    >>> len(two), two.counts().tolist(), two[1:].vectors.shape
    (2, [3, 1], torch.Size([1, 3, 4]))
    >>> Tokens.cat([two[:1], two[1:].trimmed()]).mask.tolist()
    [[True, True, True], [True, False, False]]
    """

    vectors: Float[Tensor, "batch token dim"]
    mask: Bool[Tensor, "batch token"]
    spans: Float[Tensor, "batch token 2"] | None = None
    level: Int[Tensor, "batch token"] | None = None
    weights: Float[Tensor, "batch token"] | None = None

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Tokens:
        """Some rows of the batch; a single row is `tokens[i:i + 1]`, so the batch axis stays."""
        if isinstance(index, int):
            raise TypeError(f"Tokens[{index}] would drop the batch axis; ask for Tokens[{index}:{index + 1}]")
        return self._each(lambda tensor: tensor[index])

    def to(self, *args: Any) -> Tokens:
        """Move to a device; `to(torch.float16)` converts vectors and weights only (spans are seconds: fp32 stays)."""
        import torch

        if args and isinstance(args[0], torch.dtype):
            weights = None if self.weights is None else self.weights.to(*args)
            return replace(self, vectors=self.vectors.to(*args), weights=weights)
        return self._each(lambda tensor: tensor.to(*args))

    def counts(self) -> Int[Tensor, "batch"]:
        """Real tokens a row."""
        return self.mask.sum(dim=1)

    def trimmed(self) -> Tokens:
        """The same rows without the columns that are padding in all of them."""
        columns = self.mask.any(dim=0)
        return self._each(lambda tensor: tensor[:, columns])

    def padded(self, token: int) -> Tokens:
        """The same rows with padding up to `token` columns."""
        import torch

        extra = token - self.mask.shape[1]
        if extra < 0:
            raise ValueError(f"cannot pad {self.mask.shape[1]} tokens to {token}; trim or re-encode first")
        if extra == 0:
            return self

        def pad(tensor: Tensor) -> Tensor:
            shape = (tensor.shape[0], extra, *tensor.shape[2:])
            return torch.cat([tensor, tensor.new_zeros(shape)], dim=1)

        return self._each(pad)

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Batches one after another, padded to the longest; fields that any part lacks must be lacking in all."""
        import torch

        if not parts:
            raise ValueError("Tokens.cat got no batches; give at least one")
        token = max(part.mask.shape[1] for part in parts)
        parts = [part.padded(token) for part in parts]

        def join(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if all(tensor is None for tensor in tensors):
                return None
            if any(tensor is None for tensor in tensors):
                raise ValueError(
                    f"only some of the {len(parts)} batches have {name}; tokens of one method have all or none"
                )
            return torch.cat(tensors)

        return Tokens(join("vectors"), join("mask"), join("spans"), join("level"), join("weights"))  # type: ignore[arg-type]

    def _each(self, function: Any) -> Tokens:
        def apply(tensor: torch.Tensor | None) -> Any:
            return None if tensor is None else function(tensor)

        return Tokens(apply(self.vectors), apply(self.mask), apply(self.spans), apply(self.level), apply(self.weights))
