"""A method's configurations on random features, made so that what a law forbids shows."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushes.backbones.base import Frames, Words
from rushes.methods.base import ALONE, Batch, Gather, Method

WORD_COUNTS = (7, 3, 1, 5, 4)  # five texts and four videos: unequal numbers show whoever counts on pairs
FRAME_COUNTS = (6, 3, 1, 5)
VIDEO = (31, 4, 27, 15)  # numbers of the videos; the last text is a second one of the first video,
VIDEO_OF_TEXT = (31, 4, 27, 15, 31)  # and with two processes, of a video that the other process has


Seen = tuple[str, tuple[str, ...]]  # what a law saw, and which configurations break it on purpose, with the reason


class Broken(Exception):
    """A law is not kept; the message says by how much and where."""


@dataclass(frozen=True)
class Case:
    """One configuration of a method, on features drawn from one seed."""

    method_class: type[Method]
    config: Any
    name: str
    dim: int
    seed: int

    def method(self) -> Method:
        """The method as it starts: the same for the same seed, whatever the random state was. In eval mode."""
        torch.manual_seed(self.seed)
        return self.method_class(self.dim, self.config).eval()

    def words(self, counts: Sequence[int] = WORD_COUNTS, width: int | None = None) -> Words:
        """Texts whose padding holds large random numbers, never zeros: a forgotten mask shows."""
        draw = torch.Generator().manual_seed(1000 + self.seed)
        sentence = torch.randn(len(counts), self.dim, generator=draw)
        content = torch.rand(len(counts), max(counts), generator=draw) < 0.5
        vectors, mask = _features(counts, self.dim, draw, width)
        content = torch.nn.functional.pad(content, (0, mask.shape[1] - content.shape[1]))
        return Words(vectors, mask, sentence, content & mask)

    def frames(self, counts: Sequence[int] = FRAME_COUNTS, width: int | None = None, view: int = 1) -> Frames:
        """Videos that start anywhere on their clock, with padding as in `words`, of vectors and of seconds.

        The second view is of the same videos: near the first, never equal.
        """
        draw = torch.Generator().manual_seed(2000 + self.seed)
        begin = 90 * torch.rand(len(counts), 1, generator=draw) + 10
        length = 0.5 + torch.rand(len(counts), max(counts), generator=draw)
        ends = begin + length.cumsum(dim=1)
        vectors, mask = _features(counts, self.dim, draw, width)
        if view == 2:
            other = torch.randn(len(counts), max(counts), self.dim, generator=draw.manual_seed(4000 + self.seed))
            vectors[:, : max(counts)] += 0.5 * other
        spans = -1e6 * torch.rand(*mask.shape, 2, generator=draw)
        spans[mask] = torch.stack([ends - length, ends], dim=-1)[mask[:, : max(counts)]]
        return Frames(vectors, mask, spans)

    def batch(self, words: int | None = None, frames: int | None = None) -> Batch:
        """A step's batch, padded to so many words and frames; as many texts as videos where training wants pairs."""
        texts = len(VIDEO) if self.config.paired else len(VIDEO_OF_TEXT)
        return Batch(
            self.words(width=words)[:texts],
            self.frames(width=frames),
            torch.tensor(VIDEO_OF_TEXT[:texts]),
            torch.tensor(VIDEO),
            self.frames(width=frames, view=2) if self.config.views == 2 else None,
        )


def cases(method_class: type[Method], dim: int, seeds: Sequence[int]) -> list[Case]:
    """Every configuration worth trying: default and presets under every seed, each turned switch under the first."""
    configurations = list(_configurations(method_class))
    return [
        Case(method_class, config, name, dim, seed)
        for number, seed in enumerate(seeds)
        for name, config, preset in configurations
        if preset or number == 0
    ]


def _configurations(method_class: type[Method]) -> Iterator[tuple[str, Any, bool]]:
    """Name, configuration, and whether it is the default or a preset rather than a single turned switch."""
    default = method_class.Config()
    seen = [default]
    yield "default", default, True
    for preset in ("released", "paper"):
        if hasattr(method_class.Config, preset):
            config = getattr(method_class.Config, preset)()
            if config not in seen:
                seen.append(config)
                yield preset, config, True
    hints = get_type_hints(method_class.Config)
    for field in fields(default):  # type: ignore[arg-type]
        value = getattr(default, field.name)
        options = (not value,) if isinstance(value, bool) else ()
        if get_origin(hints[field.name]) is Literal:
            options = get_args(hints[field.name])
        for option in options:
            try:
                config = replace(default, **{field.name: option})  # type: ignore[type-var]
            except ValueError:  # the method refuses this switch beside its defaults, as it may
                continue
            if config not in seen:
                seen.append(config)
                yield f"{field.name}={option}", config, False


def kept_after_all(case: Case, law: str) -> str:
    """What to say of a configuration that claims to break a law, but keeps it."""
    reason = case.config.breaks()[law]
    return f"{case.name}, seed {case.seed}, says it breaks this law on purpose ({reason}), but it keeps it"


def total(terms: dict[str, Tensor]) -> Tensor:
    if not terms:
        raise Broken("a step returned no loss")
    for name, term in terms.items():
        if term.shape != () or not bool(term.isfinite()):
            raise Broken(f"the loss {name!r} is {term.detach().tolist()}, not one finite number")
    return torch.stack(list(terms.values())).sum()


def backward(method: Method, batch: Batch, gather: Gather = ALONE) -> None:
    """Gradients of one step; a method without parameters has none, its backbone alone would learn."""
    loss = total(method.step(batch, gather))
    if any(weight.requires_grad for weight in method.parameters()):
        loss.backward()


def descend(method: Method, rate: float = 1e-3) -> None:
    """One step of plain gradient descent. Not torch.optim, whose first step costs seconds of imports."""
    with torch.no_grad():
        for weight in method.parameters():
            if weight.grad is not None:
                weight -= rate * weight.grad
                weight.grad = None


def told(error: Exception, file: str) -> str:
    """What happened, in which case, and for an exception of the method's own, where: its last line in `file`."""
    note = f"{error.__notes__[0]}: " if getattr(error, "__notes__", None) else ""
    if isinstance(error, Broken):
        return f"{note}{error}"
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if Path(step.filename).name == Path(file).name] or list(steps)
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name})" if own else ""
    return f"{note}{type(error).__name__}: {error}{where}"


def _features(
    counts: Sequence[int], dim: int, draw: torch.Generator, width: int | None
) -> tuple[Float[Tensor, "row token dim"], Bool[Tensor, "row token"]]:
    """Random vectors, row r with counts[r] real ones, and large random numbers behind them."""
    real = torch.randn(len(counts), max(counts), dim, generator=draw)
    mask = torch.arange(width or max(counts)) < torch.tensor(counts)[:, None]
    noise = 30 * torch.randn(len(counts), mask.shape[1], dim, generator=draw)
    noise[:, : max(counts)] = torch.where(mask[:, : max(counts), None], real, noise[:, : max(counts)])
    return noise, mask
