"""Explanations are the method's own evidence, told by words: for every method, and for a stranger's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rushes import registry
from rushes.backbones.base import Frames
from rushes.methods.base import FRAME, WHOLE, Method
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.methods.xclip import XCLIP
from rushes.model import Model
from rushes.search.explain import explain
from rushes.search.parts import finest
from rushes.types import Tokens

SOFTPOOL = str(Path(__file__).parents[2] / "examples" / "softpool.py")
METHODS = [*registry.names("methods"), SOFTPOOL]
POOLED = {"meanpool", "seqtransf", "xpool", SOFTPOOL}  # they score a text by a single vector
TEXT = "A dog, catches   the frisbee's ball"
TYPED = ("A", "dog,", "catches", "the", "frisbee's", "ball")
SECONDS = 40.0  # where the segment begins


def test_all_methods_are_here():
    assert len(METHODS) >= 9
    assert {Path(name).stem for name in POOLED} < {Path(name).stem for name in METHODS}


@pytest.fixture(params=METHODS, ids=lambda name: Path(name).stem)
def name(request) -> str:
    return request.param


def made(backbone, name: str) -> Model:
    torch.manual_seed(1)
    model = Model(backbone, registry.find("methods", name, Method)(backbone.dim)).eval()
    with torch.no_grad():  # what starts as the identity, or as zero, would hide a forgotten factor
        for parameter in model.method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def segment(model: Model, frames: int = 5) -> Tokens:
    draw = torch.Generator().manual_seed(2)
    edges = SECONDS + torch.arange(frames + 1, dtype=torch.float64)
    spans = edges.unfold(0, 2, 1)
    return model.videos(Frames.pack([torch.randn(frames, model.backbone.dim, generator=draw)], [spans]))


def shuffled(tokens: Tokens) -> tuple[Tokens, list[int]]:
    """The finest tokens of one segment in another order, and what came from where."""
    places = finest(tokens)[0].nonzero().flatten()
    turn = torch.tensor([3, 0, 4, 1, 2])
    order = torch.arange(tokens.mask.shape[1])
    order[places] = places[turn]
    return tokens._each(lambda tensor: tensor[:, order]), turn.tolist()


def test_rows_are_the_words_as_typed_and_columns_the_frames(tiny_clip, name):
    model = made(tiny_clip, name)
    told = explain(model, TEXT, segment(model))
    if name in POOLED:
        assert (told.words, told.whole) == ((TEXT,), 0)
    else:
        assert told.words == (*TYPED, TEXT)
        assert told.whole == len(TYPED)
    assert len(told.scores) == len(told.weights) == len(told.words)
    assert all(len(row) == len(told.spans) == 5 for row in told.scores)
    assert sum(told.weights) == pytest.approx(1, abs=1e-5)
    assert min(told.weights) >= 0


def test_spans_are_the_frames_own_seconds(tiny_clip, name):
    model = made(tiny_clip, name)
    told = explain(model, TEXT, segment(model))
    assert list(told.spans) == [(SECONDS + second, SECONDS + second + 1) for second in range(5)]


def test_words_add_up_to_the_evidence_that_moments_are_read_from(tiny_clip, name):
    model = made(tiny_clip, name)
    tokens = segment(model)
    told = explain(model, TEXT, tokens)
    with torch.no_grad():
        evidence = model.method.evidence(model.texts([TEXT]), tokens)[0, finest(tokens)[0]]
    summed = torch.tensor(told.weights) @ torch.tensor(told.scores)
    torch.testing.assert_close(summed, evidence.float(), atol=1e-5, rtol=1e-5)
    assert evidence.std() > 1e-3


def test_permuting_stored_frames_permutes_columns(tiny_clip, name):
    model = made(tiny_clip, name)
    tokens = segment(model)
    turned, turn = shuffled(tokens)
    plain, other = explain(model, TEXT, tokens), explain(model, TEXT, turned)
    assert other.spans == tuple(plain.spans[place] for place in turn)
    for row, before in zip(other.scores, plain.scores, strict=True):
        assert row == pytest.approx([before[place] for place in turn], abs=1e-6)


def test_padding_changes_nothing(tiny_clip, name):
    model = made(tiny_clip, name)
    tokens = segment(model)
    padded = tokens.padded(tokens.mask.shape[1] + 3)
    vectors = padded.vectors.masked_fill(~padded.mask[..., None], 1e3)
    plain, other = explain(model, TEXT, tokens), explain(model, TEXT, replace(padded, vectors=vectors))
    assert (plain.words, plain.spans) == (other.words, other.spans)
    for row, before in zip(other.scores, plain.scores, strict=True):
        assert row == pytest.approx(before, abs=1e-5)


def test_wti_by_hand(tiny_clip):
    """Each row is the weighted mean of the products of the word's own pieces."""
    model = made(tiny_clip, "wti")
    tokens = segment(model)
    text = "a frisbees dog"  # one word of several pieces
    told, batch = explain(model, text, tokens), tiny_clip.tokenize([text])
    with torch.no_grad():
        words = model.texts([text])
    assert batch.offsets is not None
    assert words.weights is not None
    pieces = [place for place, (start, end) in enumerate(batch.offsets[0].tolist()) if 2 <= start < end <= 10]
    assert len(pieces) > 1
    weights = words.weights[0, pieces]
    expected = weights @ (words.vectors[0, pieces] @ tokens.vectors[0].T) / weights.sum()
    assert told.words[1] == "frisbees"
    assert told.weights[1] == pytest.approx(float(weights.sum()), abs=1e-6)
    assert told.scores[1] == pytest.approx(expected.tolist(), abs=1e-5)


def test_xclip_words_meet_frames_through_its_matrix(tiny_clip):
    model = made(tiny_clip, "xclip")
    assert isinstance(model.method, XCLIP)
    tokens = segment(model)
    with torch.no_grad():
        before = explain(model, "dog", tokens).scores[0]
        model.method.of_tokens.mul_(2)
        after = explain(model, "dog", tokens).scores[0]
    assert after == pytest.approx([2 * score for score in before], abs=1e-5)


def test_an_evidence_that_is_no_sum_over_words_gives_one_row(tiny_clip):
    class Best(WTI):
        def evidence(self, text, video):
            return self.token_evidence(text, video).amax(dim=1)

    torch.manual_seed(0)
    model = Model(tiny_clip, Best(tiny_clip.dim)).eval()
    tokens = segment(model)
    told = explain(model, "a dog", tokens)
    assert (told.words, told.weights, told.whole) == (("a dog",), (1.0,), 0)
    with torch.no_grad():
        assert told.scores[0] == pytest.approx(model.method.evidence(model.texts(["a dog"]), tokens)[0].tolist())


def test_a_tokenizer_without_characters_gives_one_row(tiny_siglip, monkeypatch):
    model = made(tiny_siglip, "wti")
    tokenize = tiny_siglip.tokenize
    monkeypatch.setattr(tiny_siglip, "tokenize", lambda texts: replace(tokenize(texts), offsets=None))
    assert explain(model, "a dog", segment(model)).words == ("a dog",)


def test_words_that_were_cut_off_are_not_there(tiny_clip):
    model = made(tiny_clip, "wti")
    text = " ".join(["dog"] * 100)
    told = explain(model, text, segment(model))
    assert told.words[:-1] == ("dog",) * (tiny_clip.max_words - 2)
    assert told.words[-1] == text


def test_scripts_without_blanks_are_told_letter_by_letter(tiny_clip):
    told = explain(made(tiny_clip, "wti"), "狗跑 dog", segment(made(tiny_clip, "wti")))
    assert told.words[:-1] == ("狗", "跑", "dog")


def test_only_the_finest_tokens_are_columns(tiny_clip):
    model = made(tiny_clip, "meanpool")
    tokens = segment(model)
    assert tokens.level is not None
    assert sorted(set(tokens.level[0].tolist())) == [WHOLE, FRAME]
    assert len(explain(model, "a dog", tokens).spans) == 5


@pytest.mark.parametrize("frames", [1, 2])
def test_short_segments(tiny_clip, name, frames):
    model = made(tiny_clip, name)
    told = explain(model, "dog", segment(model, frames))
    assert len(told.spans) == frames


def test_what_cannot_be_explained_says_why(tiny_clip):
    model = made(tiny_clip, "meanpool")
    assert isinstance(model.method, MeanPool)
    tokens = segment(model)
    with pytest.raises(ValueError, match="the text is empty"):
        explain(model, "  ", tokens)
    with pytest.raises(ValueError, match="tokens of 2"):
        explain(model, "a dog", Tokens.cat([tokens, tokens]))
    with pytest.raises(ValueError, match="which seconds"):
        explain(model, "a dog", replace(tokens, spans=None))
