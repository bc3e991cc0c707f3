"""Methods compute what their authors' own code computes, in float64; the numbers lie outside the repository."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rushes.backbones.base import Frames, Words
from rushes.losses import info_nce
from rushes.methods.meanpool import MeanPool
from rushes.methods.seqtransf import SeqTransf
from rushes.methods.wti import WTI
from rushes.methods.xpool import XPool
from rushes.similarity import unit, weighted_token_interaction
from tests.methods.golden import POOL, close, golden, inputs, temporal, weights

# --- WTI, against DRL ------------------------------------------------------------------------------------------------

ARCHITECTURES = {"wti": 0, "wti_arch2": 1}


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
    method, (words, frames) = wti(arrays, ARCHITECTURES[variant]), inputs(arrays, case)
    close(method.score(method.encode_text(words), method.encode_video(frames)), arrays[f"{case}.{variant}.f64"])


@pytest.mark.parametrize("variant", ARCHITECTURES)
@pytest.mark.parametrize("case", ["nopad", "pad", "padpos"])
def test_token_weights_are_the_authors(case, variant):
    arrays = golden("drl.npz")
    method, (words, frames) = wti(arrays, ARCHITECTURES[variant]), inputs(arrays, case)
    text, video = method.encode_text(words), method.encode_video(frames)
    assert text.weights is not None
    assert video.weights is not None
    close(text.weights, arrays[f"{case}.{variant}.word_weights.f64"])
    close(video.weights, arrays[f"{case}.{variant}.frame_weights.f64"])


@pytest.mark.parametrize("case", ["nopad", "padpos"])
def test_equal_weights_give_their_token_interaction(case):
    arrays = golden("drl.npz")
    words, frames = inputs(arrays, case)
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
    method, (words, frames) = wti(arrays, ARCHITECTURES[variant]), inputs(arrays, "pad")
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
    words, frames = inputs(arrays, "meanP")
    assert frames.mask.sum(dim=1).tolist() == [6, 3, 5, 1]
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


# --- the temporal transformer, against CLIP4Clip ---------------------------------------------------------------------


def test_seqtransf_is_the_authors():
    """Two blocks of two heads over 6, 3, 5 and 1 real frames; their padded frames hold numbers, ours nothing."""
    arrays = golden("clip4clip.npz")
    words, frames = inputs(arrays, "seqTransf")
    method = SeqTransf(128, SeqTransf.Config(layers=2)).double().eval()
    method.temporal.load_state_dict(temporal(arrays, "seqTransf", layers=2, positions=77))
    seen = method.temporal(frames.vectors, frames.mask)
    close(seen[frames.mask], arrays["seqTransf.frames_after_residual.f64"][frames.mask])
    close((seen - frames.vectors)[frames.mask], arrays["seqTransf.transformer_only.f64"][frames.mask])
    assert not bool(seen[~frames.mask].any())

    text, video = method.encode_text(words), method.encode_video(frames)
    kappa = arrays["seqTransf.weight.clip.logit_scale"].exp()
    close(video.vectors[:, 0], arrays["seqTransf.video_unit.f64"])
    scores = method.score(text, video)
    close(scores * kappa, arrays["seqTransf.logits.f64"])
    close(info_nce(scores[:4], scale=kappa), arrays["seqTransf.loss_of_first4.f64"])
    loss = method.loss(text[:4], video, torch.eye(4, dtype=torch.bool))
    assert set(loss) == {"nce"}
    close(loss["nce"], arrays["seqTransf.loss_of_first4.f64"], within=1e-5)


# --- X-Pool ----------------------------------------------------------------------------------------------------------


def xpool(arrays: dict[str, Tensor], case: str, dim: int) -> XPool:
    config = replace(XPool.Config.released(), heads=int(arrays[f"{case}.heads"]))
    method = XPool(dim, config).double().eval()
    method.pool.load_state_dict(weights(arrays, case, POOL))
    return method


@pytest.mark.parametrize(("case", "dim"), [("one_head", 32), ("two_heads_of_64", 128), ("one_head_identity_init", 32)])
def test_xpool_is_the_authors(case, dim):
    arrays = golden("xpool.npz")
    words, frames = inputs(arrays, case)
    method = xpool(arrays, case, dim)
    text, video = method.encode_text(words), method.encode_video(frames)
    close(method.pool(words.sentence, frames.vectors, frames.mask), arrays[f"{case}.pooled_video.f64"])
    close(method.score(text, video), arrays[f"{case}.similarity.f64"])
    loss = method.loss(text[:4], video, torch.eye(4, dtype=torch.bool))
    assert set(loss) == {"nce"}
    close(loss["nce"], arrays[f"{case}.loss_of_first4_scale100.f64"], within=1e-5)  # e^(fp32 ln 100) is above 100
    close(info_nce(method.score(text[:4], video), scale=100.0), arrays[f"{case}.loss_of_first4_scale100.f64"])
    if case == "one_head_identity_init":  # and that is how ours starts
        close(XPool(dim).double().eval().score(text, video), arrays[f"{case}.similarity.f64"])


def test_the_summary_of_xpool_is_not_their_average_pooling():
    """Theirs is the mean of raw frames, in which long ones count more; ours of unit frames."""
    arrays = golden("xpool.npz")
    words, frames = inputs(arrays, "one_head")
    method = xpool(arrays, "one_head", 32)
    theirs = arrays["one_head.average_pooling_similarity.f64"]
    close(unit(words.sentence) @ unit(frames.vectors.mean(dim=1)).T, theirs)
    ours = method.summary(method.encode_text(words)) @ method.summary(method.encode_video(frames)).T
    assert 1e-3 < (ours - theirs).abs().max() < 0.2


def test_xpool_scores_many_captions_as_the_authors():
    arrays = golden("xpool.npz")
    words, frames = inputs(arrays, "many_captions")
    method = XPool(32).double().eval()  # their identity weights are our start
    scores = method.score(method.encode_text(words), method.encode_video(frames))
    close(scores, arrays["many_captions.similarity_caption_by_video.f64"])
