"""Mean pooling and WTI, in numbers that a hand can check."""

from __future__ import annotations

import math

import pytest
import torch

from rushes.backbones.base import Frames, Words
from rushes.methods.base import FRAME, WHOLE
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.types import Tokens


def words() -> Words:
    return Words(torch.tensor([[[2.0, 0.0], [0.0, 9.0]]]), torch.tensor([[True, False]]), torch.tensor([[0.0, 5.0]]))


def frames() -> Frames:
    """One video: frames along both axes, then padding; its seconds are 3-4 and 4-6."""
    return Frames(
        torch.tensor([[[7.0, 0.0], [0.0, 2.0], [8.0, 8.0]]]),
        torch.tensor([[True, True, False]]),
        torch.tensor([[[3.0, 4.0], [4.0, 6.0], [0.0, 99.0]]]),
    )


def test_mean_pooling_by_hand():
    method = MeanPool(2)
    text, video = method.encode_text(words()), method.encode_video(frames())
    torch.testing.assert_close(video.vectors[0, 0], torch.full((2,), math.sqrt(0.5)))
    assert video.level is not None
    assert video.level.tolist() == [[WHOLE, FRAME, FRAME, FRAME]]
    assert video.mask.tolist() == [[True, True, True, False]]
    assert video.spans is not None
    assert video.spans[0, 0].tolist() == [3.0, 6.0]
    assert method.score(text, video).item() == pytest.approx(math.sqrt(0.5))
    assert method.evidence(text, video)[0].tolist() == pytest.approx([math.sqrt(0.5), 0.0, 1.0, -math.inf])


def test_wti_by_hand():
    """One real word along the first axis. It finds frame 0 (cosine 1); frames find it with 1 and 0, half each."""
    method = WTI(2)
    with torch.no_grad():
        for weight in method.frame_weights.parameters():
            weight.zero_()  # equal weights
    text, video = method.encode_text(words()), method.encode_video(frames())
    assert method.score(text, video).item() == pytest.approx((1 + 0.5) / 2)
    torch.testing.assert_close(method.summary(video), torch.full((1, 2), math.sqrt(0.5)))
    assert method.evidence(text, video)[0].tolist() == pytest.approx([1.0, 0.0, -math.inf])


def test_evidence_is_for_one_text():
    method = WTI(2)
    text, video = method.encode_text(words()), method.encode_video(frames())
    with pytest.raises(ValueError, match="evidence is for one text, got 2"):
        method.evidence(Tokens.cat([text, text]), video)


def test_presets_of_wti():
    assert WTI.Config.released().summary == 0.0
    assert set(WTI(4, WTI.Config.released()).loss(*_pair(4), torch.ones(1, 1, dtype=torch.bool))) == {"nce"}
    assert set(WTI(4).loss(*_pair(4), torch.ones(1, 1, dtype=torch.bool))) == {"nce", "summary"}


def _pair(dim: int) -> tuple[Tokens, Tokens]:
    tokens = Tokens(torch.ones(1, 1, dim), torch.ones(1, 1, dtype=torch.bool), weights=torch.ones(1, 1))
    return tokens, tokens


def test_tokens_of_another_method_are_refused():
    bare = Tokens(torch.ones(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="encoded by another method"):
        WTI(4).score(bare, bare)


def test_an_unknown_switch_is_named():
    with pytest.raises(TypeError, match="WTI has no switch colour; it has hidden, scale, summary"):
        WTI.configured(colour=1)
