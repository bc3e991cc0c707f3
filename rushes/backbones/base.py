"""What a backbone is: words and frames in, features of one shared space out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """Token ids as the backbone's own text tower wants them, with mask (True = real)."""

    ids: Int[Tensor, "text word"]
    mask: Bool[Tensor, "text word"]

    def to(self, device: torch.device | str) -> TextBatch:
        return TextBatch(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A backbone's view of texts: one feature a word token, one of the sentence; none of them normalised."""

    vectors: Float[Tensor, "text word dim"]
    mask: Bool[Tensor, "text word"]
    sentence: Float[Tensor, "text dim"]

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Words:
        return Words(self.vectors[index], self.mask[index], self.sentence[index])


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A backbone's view of videos: one feature a frame, not normalised, with the seconds each frame stands for."""

    vectors: Float[Tensor, "video frame dim"]
    mask: Bool[Tensor, "video frame"]
    spans: Float[Tensor, "video frame 2"]

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Frames:
        return Frames(self.vectors[index], self.mask[index], self.spans[index])

    @staticmethod
    def pack(vectors: Sequence[Float[Tensor, "frame dim"]], spans: Sequence[Float[Tensor, "frame 2"]]) -> Frames:
        """Videos of unequal length side by side, padded with zeros.

        >>> one, two = torch.ones(1, 4), torch.ones(2, 4)
        >>> Frames.pack([one, two], [torch.zeros(1, 2), torch.zeros(2, 2)]).mask.tolist()
        [[True, False], [True, True]]
        """
        if not vectors or any(len(video) == 0 for video in vectors):
            empty = [number for number, video in enumerate(vectors) if len(video) == 0]
            raise ValueError(f"videos without a frame: {empty or 'no video at all'}; every segment needs one frame")
        pad = nn.utils.rnn.pad_sequence
        counts = torch.tensor([len(video) for video in vectors], device=vectors[0].device)
        mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        return Frames(pad(list(vectors), batch_first=True), mask, pad(list(spans), batch_first=True))


class Backbone(nn.Module, ABC):
    """A pair of towers into one space of `dim` numbers.

    Subclasses are final, named in the registry by their file, and carry a frozen `Config` dataclass from which,
    with a state dict and the files of `assets`, they can be rebuilt exactly.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    config: Any  # the subclass's own Config; `Any`, so that its fields need no cast
    dim: int  # of every feature, word, sentence or frame
    image_size: int  # pixels; the decoder scales frames to at least this before they come here
    squash: bool  # True: the whole frame is squeezed into the square; False: shorter side scaled, centre cropped
    max_words: int  # word tokens a text may have, marks of start and end included; longer texts are cut

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Token ids, padded to the longest text and cut at `max_words`. ValueError names an empty text."""

    @abstractmethod
    def words(self, batch: TextBatch) -> Words:
        """Features of every word token and of the sentence. Padding changes nothing of the real ones."""

    @abstractmethod
    def frames(self, pixels: UInt8[Tensor, "frame 3 height width"]) -> Float[Tensor, "frame dim"]:
        """A feature a frame, from RGB pixels of any size: the backbone's own transform is part of it."""

    @classmethod
    @abstractmethod
    def build(cls, config: dict[str, Any], folder: str | None) -> Backbone:
        """A backbone with the shape that `config` tells; `folder` holds what `assets` wrote. Weights come after."""

    def assets(self, folder: str) -> None:
        """Write what is neither config nor weights (a tokenizer's files) into `folder`. The default writes nothing."""

    def settings(self) -> dict[str, Any]:
        """`config` as plain data, for config.json."""
        return asdict(self.config)


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts, or a clear error: a bare string is no list of texts, and an empty text can match nothing."""
    if isinstance(texts, str):
        raise TypeError(f"expected a list of texts, got the single text {texts!r}; pass [{texts!r}]")
    if not texts:
        raise ValueError("got no texts; give at least one")
    empty = [number for number, text in enumerate(texts) if not text.strip()]
    if empty:
        raise ValueError(f"{len(empty)} of {len(texts)} texts are empty (rows {empty[:5]}); remove them")
    return list(texts)
