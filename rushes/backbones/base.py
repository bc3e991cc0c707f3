"""What a backbone is: words and frames in, features of one shared space out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from rushes.tagging import content_words


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """Token ids as the backbone's own text tower wants them, with mask (True = real).

    offsets  start and end of the characters of the text, as it was given, that each token was made of: no blank at
             either end, and (0, 0) for marks of start and end, padding, and tokens of blanks alone. Pieces of one
             character share its span. None if the tokenizer cannot tell.
    """

    ids: Int[Tensor, "text word"]
    mask: Bool[Tensor, "text word"]
    offsets: Int[Tensor, "text word 2"] | None = None

    def to(self, device: torch.device | str) -> TextBatch:
        offsets = None if self.offsets is None else self.offsets.to(device)
        return TextBatch(self.ids.to(device), self.mask.to(device), offsets)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A backbone's view of texts: one feature a word token, one of the sentence; none of them normalised.

    content  True: the token is a piece of a content word (rushes/tagging.py); False on marks and padding. None unless
             the method asks for it by its `tagger`.
    """

    vectors: Float[Tensor, "text word dim"]
    mask: Bool[Tensor, "text word"]
    sentence: Float[Tensor, "text dim"]
    content: Bool[Tensor, "text word"] | None = None

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Words:
        content = None if self.content is None else self.content[index]
        return Words(self.vectors[index], self.mask[index], self.sentence[index], content)


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

    def read(self, texts: Sequence[str], tagger: str | None = None) -> Words:
        """`words` of raw texts, on the backbone's own device; with `content` by that tagger if one is named."""
        batch = self.tokenize(texts)
        if tagger is not None and batch.offsets is None:
            raise LookupError(
                f"the tokenizer of this {type(self).__name__} does not tell which characters a token comes from, so "
                "content words have no tokens; configure the method without textual attention, or take another backbone"
            )
        words = self.words(batch.to(next(self.parameters()).device))
        return words if tagger is None else replace(words, content=flags(texts, batch, tagger).to(words.mask.device))

    @abstractmethod
    def frames(self, pixels: UInt8[Tensor, "frame 3 height width"]) -> Float[Tensor, "frame dim"]:
        """A feature a frame, from RGB pixels of any size: the backbone's own transform is part of it."""

    @classmethod
    @abstractmethod
    def build(cls, config: dict[str, Any], folder: str | None) -> Backbone:
        """A backbone with the shape that `config` tells; `folder` holds what `assets` wrote. Weights come after."""

    def text_blocks(self, layers: int) -> dict[str, Tensor] | None:
        """Copies of the text tower's first blocks and of its places, named as in `layers.TemporalTransformer`.

        None, the default, if the tower's blocks are of another kind or width.
        """
        return None

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


def flags(texts: Sequence[str], batch: TextBatch, tagger: str) -> Bool[Tensor, "text word"]:
    """Which tokens are pieces of content words: their characters overlap those of one. On the CPU.

    >>> offsets = torch.tensor([[[0, 0], [0, 1], [2, 4], [4, 6], [0, 0]]])  # mark, a, po, ny, mark
    >>> batch = TextBatch(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.bool), offsets)
    >>> flags(["a pony"], batch, "closed-class").tolist()
    [[False, False, True, True, False]]
    """
    if batch.offsets is None:
        raise LookupError("the tokens have no offsets; a tokenizer that tells them is needed")
    before = torch.zeros(len(texts), 1 + max(map(len, texts)), dtype=torch.long)  # content letters before each letter
    for row, text in enumerate(texts):
        for start, end in content_words(text, tagger):
            before[row, start + 1 : end + 1] = 1
    starts, ends = batch.offsets.cpu().unbind(dim=-1)
    before = before.cumsum(dim=1)
    return before.gather(1, ends) > before.gather(1, starts)
