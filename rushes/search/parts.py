"""The parts of a query once they are tokens: what each says of segments, and how they add up to one score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushes.methods.base import Method
from rushes.search.query import Candidates, Kind
from rushes.similarity import fp32, unit
from rushes.types import Segment, Tokens

FRAMES = 4  # frames of a segment that candidates are looked for by, evenly spread
DOUBT = 50  # numbers; of a few segments one alone may make the slope


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """One part of a query: the tokens of a text, or of a picture or a stored segment (tokens of a video).

    `place` is the stored segment itself, so that it is not its own best answer.
    """

    tokens: Tokens
    kind: Kind = "text"
    weight: float = 1.0
    place: Segment | None = None

    def scores(self, method: Method, tokens: Tokens) -> Float[Tensor, "segment"]:
        """Of each segment: the method's own score for a text, `likeness` for a picture or a segment."""
        return method.score(self.tokens, tokens)[0] if self.kind == "text" else likeness(self.tokens, tokens)

    def evidence(self, method: Method, tokens: Tokens) -> Float[Tensor, "segment token"]:
        """Of each stored token: the method's own for a text, the nearest frame's cosine otherwise; padding is -inf."""
        if self.kind == "text":
            return method.evidence(self.tokens, tokens)
        cosines = _cosines(self.tokens, tokens).masked_fill(~finest(self.tokens)[0][None, :, None], -float("inf"))
        return cosines.amax(dim=1).masked_fill(~tokens.mask, -float("inf"))

    def vectors(self, method: Method, by: Candidates) -> list[tuple[Float[Tensor, "dim"], Candidates]]:
        """What candidates are found by: a text by one vector, what was seen by its summary and by its frames."""
        summary = fp32(method.summary(self.tokens)[0])
        if self.kind == "text":
            return [(summary, by)]
        frames = fp32(self.tokens.vectors[0][finest(self.tokens)[0]])
        few = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long()
        return [(summary, "summary"), *((unit(frame), "frame") for frame in frames[few])]


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of one part's numbers over a sample."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, numbers: Float[Tensor, "number"]) -> Scale:
        """Where all numbers are equal (one segment, say) they are only shifted: deviation 1.

        >>> Scale.of(torch.tensor([1.0, 3.0])), Scale.of(torch.tensor([0.5]))
        (Scale(mean=2.0, deviation=1.0), Scale(mean=0.5, deviation=1.0))
        """
        values = numbers.double()
        deviation = float(values.std(correction=0)) if len(values) else 0.0
        return cls(float(values.mean()) if len(values) else 0.0, deviation if deviation > 1e-9 else 1.0)

    def __call__(self, numbers: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return (numbers.double() - self.mean) / self.deviation


@dataclass(frozen=True, slots=True)
class Mix:
    """How the numbers of several parts add up to one.

    Scores of different texts are not on one scale (one text gets 0.3 everywhere, another 0.1), and those of pictures
    are on quite another; so each part is first told in deviations from its own mean, both taken over a sample of the
    library. With v a segment, w_i the weights:

        W(v) = sum_{w_i > 0} w_i z_i(v)                                     z_i(v) = (s_i(v) - mean_i) / deviation_i
        S(v) = W(v) - sum_{w_i < 0} |w_i| max(0, z_i(v) - b_i W(v))
        b_i  = max(0, cov(z_i, W) / var(W)) n / (n + 50)                    n numbers in the sample

    What is avoided counts as far as there is more of it than the wanted parts let one expect (b is the slope of that
    expectation over the sample, trusted the more the larger that is), and never the other way round: "people in the
    snow, not skiing" must not push down people in the snow, nor "a dog, not a beach" bring up what is least like a
    beach, dog or no dog. Measured on 2,000 photographs, see docs/search.md.
    """

    weights: tuple[float, ...]
    scales: tuple[Scale, ...]
    slopes: tuple[float, ...]  # b of each part that is avoided; 0 for the others

    @classmethod
    def of(cls, weights: Sequence[float], numbers: Sequence[Float[Tensor, "number"]]) -> Mix:
        """From each part's numbers of the sample; of an empty sample all is taken as it comes."""
        plain = Scale(0.0, 1.0)
        scales = tuple(Scale.of(row) if len(row) else plain for row in numbers)
        standard = [scale(row) for scale, row in zip(scales, numbers, strict=True)]
        wanted = torch.stack([w * z for w, z in zip(weights, standard, strict=True) if w > 0]).sum(dim=0)
        power = float(wanted.square().sum())
        trust = len(wanted) / (len(wanted) + DOUBT)
        slopes = tuple(
            max(0.0, trust * float(z @ wanted) / power) if w < 0 and power > 0 else 0.0
            for w, z in zip(weights, standard, strict=True)
        )
        return cls(tuple(weights), scales, slopes)

    def __call__(self, numbers: Sequence[Float[Tensor, "*shape"]]) -> Float[Tensor, "*shape"]:
        """S, in fp64, of the parts' numbers."""
        standard = [scale(row) for scale, row in zip(self.scales, numbers, strict=True)]
        wanted = torch.zeros_like(standard[0])
        for weight, z in zip(self.weights, standard, strict=True):
            wanted = wanted + weight * z if weight > 0 else wanted
        total = wanted
        for weight, z, slope in zip(self.weights, standard, self.slopes, strict=True):
            total = total + weight * (z - slope * wanted).clamp(min=0.0) if weight < 0 else total
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """What a whole query says of segments: one part its own score on its own scale, several their `Mix`.

    Parts are added in the order given: sort them first, for the sum to be the same to the bit.
    """

    method: Method
    parts: tuple[Sought, ...]
    mix: Mix | None = None  # of scores; None where there is one part
    evidence_mix: Mix | None = None

    @classmethod
    def of(cls, method: Method, parts: Sequence[Sought], sample: Tokens | None = None, alone: bool = False) -> Scorer:
        """A scorer of these parts. Several parts need the `sample`, the tokens of some of the library's segments.

        `alone` standardises even a single part, for its score to be added to another query's.
        """
        kept = tuple(part for part in parts if part.weight)
        if not any(part.weight > 0 for part in kept):
            raise ValueError("no part is to be found: give one a weight above 0")
        if len(kept) == 1 and not alone:
            return cls(method, kept)
        weights = [part.weight for part in kept]
        if sample is None or not len(sample):
            none = [torch.zeros(0)] * len(kept)
            return cls(method, kept, Mix.of(weights, none), Mix.of(weights, none))
        known = finest(sample)
        scores = [part.scores(method, sample).double() for part in kept]
        evidence = [part.evidence(method, sample)[known].double() for part in kept]
        return cls(method, kept, Mix.of(weights, scores), Mix.of(weights, evidence))

    def __call__(
        self, tokens: Tokens
    ) -> tuple[Float[Tensor, "segment"], Float[Tensor, "segment token"], Float[Tensor, "segment part"]]:
        """Scores, evidence (padding is -inf), and the parts' own raw scores."""
        raw = [part.scores(self.method, tokens) for part in self.parts]
        evidence = [part.evidence(self.method, tokens) for part in self.parts]
        if self.mix is None or self.evidence_mix is None:
            return raw[0], evidence[0], torch.stack(raw, dim=1)
        total = self.evidence_mix([one.masked_fill(~tokens.mask, 0.0) for one in evidence])
        return self.mix(raw), total.masked_fill(~tokens.mask, -float("inf")), torch.stack(raw, dim=1)

    def vectors(self, by: Candidates, sample: Tokens | None = None) -> list[tuple[Float[Tensor, "dim"], Candidates]]:
        """What candidates are found by: each part that is wanted, and, of several, their weighted sum.

        The sum of the parts' standardised first-stage scores is one dot product again, so segments that fit all parts
        well but none of them best are found too. What is avoided is taken off once, and once left out of the sum.
        """
        found = [pair for part in self.parts if part.weight > 0 for pair in part.vectors(self.method, by)]
        if len(self.parts) == 1:
            return found
        summaries = [fp32(self.method.summary(part.tokens)[0]).double() for part in self.parts]
        scales = [Scale(0.0, 1.0)] * len(summaries)
        if sample is not None and len(sample):
            known = fp32(self.method.summary(sample)).double()
            scales = [Scale.of(known @ summary) for summary in summaries]
        terms = [
            part.weight / scale.deviation * summary
            for part, scale, summary in zip(self.parts, scales, summaries, strict=True)
        ]
        wanted = [term for part, term in zip(self.parts, terms, strict=True) if part.weight > 0]
        sums = [torch.stack(terms).sum(dim=0), *([torch.stack(wanted).sum(dim=0)] if len(wanted) > 1 else [])]
        return [*found, *((unit(vector).float(), "summary") for vector in sums)]


def likeness(one: Tokens, others: Tokens) -> Float[Tensor, "other"]:
    """How like one video's frames are to those of others: each of its frames takes the nearest, by cosine; the mean.

        l(q, v) = mean_i max_j cos(q_i, v_j)         over the tokens of the finest level of each

    Of a picture, which is one frame, this is its cosine with the best frame.

    >>> one = Tokens(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[True, True]]))
    >>> likeness(one, Tokens(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[True]])))
    tensor([0.5000])
    """
    if len(one) != 1:
        raise ValueError(f"likeness is of one video to others, got {len(one)}; call it for each")
    cosines = _cosines(one, others).masked_fill(~finest(others)[:, None, :], -float("inf"))
    return cosines.amax(dim=2)[:, finest(one)[0]].mean(dim=1)


def finest(tokens: Tokens) -> Bool[Tensor, "batch token"]:
    """The tokens that saw the least time each: those of the highest level, a segment by itself."""
    if tokens.level is None:
        return tokens.mask
    level = tokens.level.masked_fill(~tokens.mask, -1)
    return tokens.mask & (level == level.amax(dim=1, keepdim=True))


def _cosines(one: Tokens, others: Tokens) -> Float[Tensor, "other token_of_one token"]:
    return torch.einsum("id,vjd->vij", unit(fp32(one.vectors[0])), unit(fp32(others.vectors)))
