"""Why a segment was found: how well each word of the text fits each stored frame, by the method's own token scores."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushes.model import Model
from rushes.search.parts import finest
from rushes.similarity import fp32
from rushes.types import Tokens

# what stands between blanks, and each letter of scripts that write none
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
CLOSE = 1e-3  # of the evidence; what rows and columns must add up to


@dataclass(frozen=True, slots=True)
class Explanation:
    """A text's words against a segment's finest tokens.

    words    as they were typed; where a part of the score belongs to no single word (the sentence's own vector, marks
             of start and end, phrases), the last is the whole text. `whole` is that row, None if there is none
    weights  how much each word counts; they sum to one
    spans    start and end of what each token saw, in seconds on the video's clock
    scores   word by span, on the method's own scale. Their weighted sum over the words is the method's evidence of
             each span, from which moments are read
    """

    words: tuple[str, ...]
    weights: tuple[float, ...]
    spans: tuple[tuple[float, float], ...]
    scores: tuple[tuple[float, ...], ...]
    whole: int | None = None


@torch.inference_mode()
def explain(model: Model, text: str, segment: Tokens) -> Explanation:
    """How the words of `text` fit the frames of one stored segment.

    Pieces of a word are one row, their scores weighed as the method weighs them. A method that scores a text by one
    vector, a backbone that cannot tell the characters of its tokens, or a method whose evidence is not a sum over
    tokens give one row, the whole text. Words that the backbone does not read, since the text is too long, are not
    there. Raises ValueError for an empty text, for tokens of more or less than one segment, or without seconds.
    """
    if not text.strip():
        raise ValueError("the text is empty; give the words that were searched for")
    if len(segment) != 1:
        raise ValueError(f"an explanation is of one segment, got tokens of {len(segment)}")
    if segment.spans is None:
        raise ValueError("these tokens do not tell which seconds they saw, so nothing can be shown beside them")
    method, segment = model.method, segment.to(model.device)
    tokens = model.texts([text])
    assert segment.spans is not None  # of the same tokens on another device
    columns = finest(segment)[0]
    evidence = method.evidence(tokens, segment)[0, columns]
    found = fp32(method.token_evidence(tokens, segment))[0][:, columns]
    shares = method.shares(tokens)
    places = _places(model, text, tokens)
    if places is None or not torch.allclose(shares @ found, fp32(evidence), atol=CLOSE, rtol=CLOSE):
        words, groups, whole = [text.strip()], [torch.ones_like(shares)], 0
        rows = [fp32(evidence)]
    else:
        words, groups, whole = _grouped(text, places)
        rows = [_mean(found, shares * group, group) for group in groups]
    spans = [(start, end) for start, end in segment.spans[0, columns].tolist()]
    return Explanation(
        tuple(words),
        tuple(float((shares * group).sum()) for group in groups),
        tuple(spans),
        tuple(tuple(row.tolist()) for row in rows),
        whole,
    )


def _mean(
    found: Float[Tensor, "token span"], weights: Float[Tensor, "token"], group: Float[Tensor, "token"]
) -> Float[Tensor, "span"]:
    """The weighted mean over a group; where all of it weighs nothing, the plain mean."""
    weights = weights if float(weights.sum()) > 0 else group
    return weights @ found / weights.sum()


def _places(model: Model, text: str, tokens: Tokens) -> Int[Tensor, "token 2"] | None:
    """The characters of each of the method's text tokens, (0, 0) for those of no word; None if no token is a word's."""
    batch = model.backbone.tokenize([text])
    if batch.offsets is None:
        return None
    read = batch.offsets[0][batch.mask[0]]
    words = finest(tokens)[0].cpu()
    if int(words.sum()) != len(read) or (int(tokens.mask.sum()) == 1 and len(read) != 1):
        return None
    places = torch.zeros(len(words), 2, dtype=read.dtype)
    places[words] = read.cpu()
    return places


def _grouped(text: str, places: Int[Tensor, "token 2"]) -> tuple[list[str], list[Float[Tensor, "token"]], int | None]:
    """Typed words, the tokens of each (1 or 0), and which row is the whole text."""
    typed = [match.span() for match in _WORD.finditer(text)]
    members: dict[int, list[int]] = {}
    others: list[int] = []
    for token, (start, end) in enumerate(places.tolist()):
        over = [min(end, last) - max(start, first) for first, last in typed]
        if end <= start or max(over, default=0) <= 0:
            others.append(token)
        else:
            members.setdefault(over.index(max(over)), []).append(token)
    words = [text[slice(*typed[place])] for place in sorted(members)]
    rows = [members[place] for place in sorted(members)]
    whole = None
    if others:
        whole = len(words)
        words.append(text.strip())
        rows.append(others)
    groups = []
    for row in rows:
        group = torch.zeros(len(places))
        group[row] = 1.0
        groups.append(group)
    return words, groups, whole
