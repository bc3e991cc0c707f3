"""Methods compute what their authors' own code computes, in float64; the numbers lie outside the repository."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rushes.backbones.base import Frames, Words
from rushes.losses import info_nce
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.similarity import unit, weighted_token_interaction

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "golden"


def golden(file: str) -> dict[str, Tensor]:
    """The arrays of a golden file, floats as float64; the test is skipped where there is none."""
    if not (FOLDER / file).is_file():
        pytest.skip(f"no golden values {file} beside the repository")
    with np.load(FOLDER / file, allow_pickle=False) as arrays:
        loaded = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    return {name: value.double() if value.is_floating_point() else value for name, value in loaded.items()}


def close(found: Tensor, wanted: Tensor, within: float = 1e-9) -> None:
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() < within


# --- WTI, against DRL ------------------------------------------------------------------------------------------------

ARCHITECTURES = {"wti": 0, "wti_arch2": 1}


def features(arrays: dict[str, Tensor], case: str) -> tuple[Words, Frames]:
    words, frames = arrays[f"{case}.input.words_raw"], arrays[f"{case}.input.frames_raw"]
    spans = torch.arange(frames.shape[1] + 1.0).unfold(0, 2, 1).double().expand(len(frames), -1, -1)
    return (
        Words(words, arrays[f"{case}.input.word_mask"].bool(), words[:, 0]),
        Frames(frames, arrays[f"{case}.input.frame_mask"].bool(), spans),
    )


def wti(arrays: dict[str, Tensor], hidden: int) -> WTI:
    """Our method with their weights. Their last layer has a bias too, which the softmax forgets."""
    method = WTI(16, WTI.Config(hidden=hidden)).double().eval()
    for ours, theirs in ((method.word_weights, "text_weight_fc"), (method.frame_weights, "video_weight_fc")):
        prefix = f"weight_arch{hidden + 1}.{theirs}."
        state = {f"head.{key.removeprefix(prefix)}": value for key, value in arrays.items() if key.startswith(prefix)}
        if not hidden:
            state = {key.replace("head.", "head.0."): value for key, value in state.items()}
        del state[f"head.{2 * hidden}.bias"]
        ours.load_state_dict(state)
    return method


@pytest.mark.parametrize("variant", ARCHITECTURES)
@pytest.mark.parametrize("case", ["nopad", "padpos"])
def test_wti_scores_are_the_authors_where_their_masking_does_no_harm(case, variant):
    arrays = golden("drl.npz")
    method, (words, frames) = wti(arrays, ARCHITECTURES[variant]), features(arrays, case)
    close(method.score(method.encode_text(words), method.encode_video(frames)), arrays[f"{case}.{variant}.f64"])


@pytest.mark.parametrize("variant", ARCHITECTURES)
@pytest.mark.parametrize("case", ["nopad", "pad", "padpos"])
def test_token_weights_are_the_authors(case, variant):
    arrays = golden("drl.npz")
    method, (words, frames) = wti(arrays, ARCHITECTURES[variant]), features(arrays, case)
    text, video = method.encode_text(words), method.encode_video(frames)
    assert text.weights is not None
    assert video.weights is not None
    close(text.weights, arrays[f"{case}.{variant}.word_weights.f64"])
    close(video.weights, arrays[f"{case}.{variant}.frame_weights.f64"])


@pytest.mark.parametrize("case", ["nopad", "padpos"])
def test_equal_weights_give_their_token_interaction(case):
    arrays = golden("drl.npz")
    words, frames = features(arrays, case)
    equal = [mask.double() / mask.sum(dim=1, keepdim=True) for mask in (words.mask, frames.mask)]
    scores = weighted_token_interaction(unit(words.vectors), unit(frames.vectors), words.mask, frames.mask, *equal)
    close(scores, arrays[f"{case}.ti.f64"])


def masked_by_zeros(words: Words, frames: Frames, a: Tensor, b: Tensor) -> Tensor:
    """The authors' interaction, in which padding scores 0 and wins wherever the best real similarity is negative."""
    products = torch.einsum("twd,vfd->tvwf", unit(words.vectors), unit(frames.vectors))
    products = products * words.mask[:, None, :, None] * frames.mask[None, :, None, :]
    by_words = torch.einsum("tvw,tw->tv", products.amax(dim=3), a)
    return (by_words + torch.einsum("tvf,vf->tv", products.amax(dim=2), b)) / 2


@pytest.mark.parametrize("variant", ARCHITECTURES)
def test_with_padding_only_their_zeros_are_between_us(variant):
    arrays = golden("drl.npz")
    method, (words, frames) = wti(arrays, ARCHITECTURES[variant]), features(arrays, "pad")
    text, video = method.encode_text(words), method.encode_video(frames)
    assert text.weights is not None
    assert video.weights is not None
    theirs = arrays[f"pad.{variant}.f64"]
    close(masked_by_zeros(words, frames, text.weights, video.weights), theirs)
    assert 1e-2 < (method.score(text, video) - theirs).abs().max() < 1e-1


def test_info_nce_is_their_loss():
    arrays = golden("drl.npz")
    for variant in ("ti", "wti"):
        logits = arrays[f"train4.{variant}.logits_scale100.f64"]
        close(info_nce(logits), arrays[f"train4.{variant}.loss.f64"])
        close(info_nce(logits / 100, scale=100.0), arrays[f"train4.{variant}.loss.f64"])


# --- mean pooling, against CLIP4Clip ---------------------------------------------------------------------------------


def test_mean_pooling_is_the_authors():
    arrays = golden("clip4clip.npz")
    sentence, vectors = arrays["meanP.input.sentence_raw"], arrays["meanP.input.frames_raw"]
    mask = arrays["meanP.input.frame_mask"].bool()
    assert mask.sum(dim=1).tolist() == [6, 3, 5, 1]
    frames = Frames(vectors, mask, torch.zeros(4, 6, 2).double())
    words = Words(sentence[:, None], torch.ones(5, 1, dtype=torch.bool), sentence)
    method = MeanPool(16).double()
    text, video = method.encode_text(words), method.encode_video(frames)
    kappa = arrays["meanP.weight.clip.logit_scale"].exp()  # 100.0000064, of an fp32 logarithm
    close(video.vectors[:, 0], arrays["meanP.video_unit.f64"])
    scores = method.score(text, video)
    close(scores * kappa, arrays["meanP.logits.f64"])
    close(info_nce(scores[:4], scale=kappa), arrays["meanP.loss_of_first4.f64"])
    loss = method.loss(text[:4], video, torch.eye(4, dtype=torch.bool))["nce"]
    close(loss, arrays["meanP.loss_of_first4.f64"], within=1e-5)  # our temperature is 100, theirs 6e-6 above
    assert math.isclose(float(kappa), 100.0000064, rel_tol=1e-9)
