"""Gradient caching: a batch is encoded in parts, and yet every text meets every video of it.

Encoders need memory for what they must remember until their gradient comes; losses need all tokens at once. So:

  1  each part is encoded without remembering anything                           tokens x
  2  the losses of all tokens, of all processes, go backward to the tokens       dL/dx
  3  each part is encoded again, with the same random numbers, and its share of dL/dx goes backward from there

which gives the gradients of the plain step (Gao et al. 2021, arXiv 2101.06983), for a second run of the encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rushes.methods.base import ALONE, Gather
from rushes.types import Tokens

Encode = Callable[[Any], Tokens]


@dataclass(frozen=True)
class _Kept:
    """One call of an encoder: what it was given, and the tokens whose gradient is waited for."""

    encode: Encode
    features: Any
    number: int
    tokens: Tokens


class Encoder:
    """How the encoders of one step are called: `step(batch, encoder.gather)`, losses backward, `finish`.

    read    brings features to where they are encoded: to a device, or through the backbone
    micro   texts or videos at a time; None encodes all at once, and `finish` has nothing to do
    seed    of what encoders draw (dropout): a part's numbers depend on it, and on nothing drawn before or after
    """

    def __init__(
        self,
        gather: Gather = ALONE,
        read: Callable[[Any], Any] = lambda features: features,
        micro: int | None = None,
        seed: int = 0,
    ):
        self.gather = replace(gather, encode=self._encode)
        self._read, self._micro, self._seed = read, micro, seed
        self._kept: list[_Kept] = []
        self._calls = 0

    def finish(self) -> None:
        """Pass 3: bring the gradients of the tokens home to the weights. ValueError if no encoder was ever called."""
        if not self._calls:
            raise ValueError("the method's step encodes by itself; let it call gather.encoded(self.encode_text, ...)")
        for kept in self._kept:
            start = 0
            for part in self._parts(kept.encode, kept.features, kept.number):
                rows, width = slice(start, start + len(part)), part.mask.shape[1]
                pairs = [
                    (again, first.grad[rows, :width])
                    for again, first in ((part.vectors, kept.tokens.vectors), (part.weights, kept.tokens.weights))
                    if again is not None and again.requires_grad and first is not None and first.grad is not None
                ]
                if pairs:
                    torch.autograd.backward([again for again, _ in pairs], [wanted for _, wanted in pairs])
                start += len(part)
        self._kept.clear()

    def _encode(self, encode: Encode, features: Any) -> Tokens:
        """Passes 1 and 2 of one encoder's call; its tokens are where the losses' gradient ends."""
        number, self._calls = self._calls, self._calls + 1
        if self._micro is None:
            return next(self._parts(encode, features, number))
        with torch.no_grad():
            tokens = Tokens.cat(list(self._parts(encode, features, number)))
        if not torch.is_grad_enabled():
            return tokens
        weights = None if tokens.weights is None else tokens.weights.requires_grad_()
        tokens = replace(tokens, vectors=tokens.vectors.requires_grad_(), weights=weights)
        self._kept.append(_Kept(encode, features, number, tokens))
        return tokens

    def _parts(self, encode: Encode, features: Any, number: int) -> Iterator[Tokens]:
        most = self._micro or max(1, len(features))
        for part, start in enumerate(range(0, max(1, len(features)), most)):
            with drawing(self._seed, number, part):
                tokens = encode(self._read(features[start : start + most]))
            yield tokens


@contextmanager
def drawing(*seed: int) -> Iterator[None]:
    """Inside, torch draws from a state that the numbers alone determine; outside nothing has been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(mixed(*seed))
        yield


def mixed(*numbers: int) -> int:
    """One seed of several numbers.

    >>> mixed(0, 1) == mixed(0, 1), mixed(0, 1) == mixed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
