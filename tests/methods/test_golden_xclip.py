"""X-CLIP computes what its authors' code computes, in float64; the numbers lie outside the repository."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rushes.losses import info_nce
from rushes.methods.xclip import XCLIP
from rushes.similarity import attend, attention_over_similarity, attention_over_tokens, dot
from rushes.types import Tokens
from tests.methods import naive
from tests.methods.golden import close, golden, inputs, mixing, temporal

CASES = {"meanP": (16, "mean"), "seqTransf": (64, "seqtransf")}
COLD = 0.01

# Their attention knows no padding. The video's mean and the temporal transformer do.


def xclip(arrays: dict[str, Tensor], case: str, masked: bool) -> XCLIP:
    dim, header = CASES[case]
    config = replace(XCLIP.Config.released(), header=header, layers=2, words=7, frames=6, masked=masked)
    method = XCLIP(dim, config).double().eval()
    state = mixing(arrays, case) | {"log_scale": arrays[f"{case}.weight.clip.logit_scale"]}
    if header == "seqtransf":
        state |= {f"temporal.{key}": value for key, value in temporal(arrays, case, layers=2, positions=6).items()}
    method.load_state_dict(state)
    return method


def encoded(method: XCLIP, arrays: dict[str, Tensor], case: str) -> tuple[Tokens, Tokens]:
    words, frames = inputs(arrays, case)
    return method.encode_text(words), method.encode_video(frames)


@pytest.mark.parametrize("case", CASES)
def test_without_masks_xclip_is_the_authors(case):
    arrays = golden("xclip.npz")
    method = xclip(arrays, case, masked=False)
    text, video = encoded(method, arrays, case)
    kappa = method.log_scale.exp().detach()
    close(video.vectors[:, 0], arrays[f"{case}.video_unit.f64"])
    scores = method.score(text, video).detach()
    close(scores * kappa, arrays[f"{case}.logits.f64"])
    close(info_nce(scores[:4], scale=kappa), arrays[f"{case}.loss_of_first4.f64"])
    loss = method.loss(text[:4], video, torch.eye(4, dtype=torch.bool))
    assert set(loss) == {"nce"}
    # the scale is kept at 100 or below, theirs is 6e-6 above it
    close(loss["nce"].detach(), arrays[f"{case}.loss_of_first4.f64"], within=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_each_term_is_the_authors(case):
    """The four terms one by one, and what AOSM's attention gives on its way."""
    arrays = golden("xclip.npz")
    method = xclip(arrays, case, masked=False)
    text, video = encoded(method, arrays, case)
    kappa = method.log_scale.exp().detach()
    with torch.no_grad():
        sentence, words = text.vectors[:, 0], text.vectors[:, 1:]
        whole, frames = video.vectors[:, 0], video.vectors[:, 1:]
        every_word, every_frame = (torch.ones(part.shape[:2], dtype=torch.bool) for part in (words, frames))
        close(dot(sentence @ method.of_whole, whole) * kappa, arrays[f"{case}.video_sentence_logits.f64"])
        of_video = attention_over_tokens(whole, words, every_word, method.words_for_video, COLD).T
        close(of_video * kappa, arrays[f"{case}.video_word_logits.f64"])
        of_sentence = attention_over_tokens(sentence, frames, every_frame, method.frames_for_sentence, COLD)
        close(of_sentence * kappa, arrays[f"{case}.sentence_frame_logits.f64"])
        of_tokens = attention_over_similarity(
            words @ method.of_tokens,
            frames,
            every_word,
            every_frame,
            word_mixing=(method.words_first, method.words_second),
            frame_mixing=(method.frames_first, method.frames_second),
            temperature=COLD,
        )
        close(of_tokens, arrays[f"{case}.aosm.score.f64"])
        close(of_tokens * kappa, arrays[f"{case}.frame_word_logits.f64"])

        products = torch.einsum("twd,vfd->twfv", words @ method.of_tokens, frames)
        real = torch.tensor(True)
        of_frames = attend(products, products, real, method.words_first, COLD, dim=1)  # text frame video
        of_words = attend(products, products, real, method.frames_first, COLD, dim=2)  # text word video
        close(of_frames.transpose(1, 2), arrays[f"{case}.aosm.word_level_logit.f64"])
        close(of_words, arrays[f"{case}.aosm.frame_level_logit.f64"])
        by_frames = attend(of_frames, of_frames, real, method.frames_second, COLD, dim=1)
        by_words = attend(of_words, of_words, real, method.words_second, COLD, dim=1)
        close(by_frames, arrays[f"{case}.aosm.sent2frame_logits.f64"])
        close(by_words, arrays[f"{case}.aosm.video2word_logits.f64"])


@pytest.mark.parametrize("case", CASES)
def test_with_masks_full_pairs_are_the_authors_and_the_rest_is_the_formula(case):
    arrays = golden("xclip.npz")
    method = xclip(arrays, case, masked=True)
    with torch.no_grad():
        text, video = encoded(method, arrays, case)
        scores, kappa = method.score(text, video), method.log_scale.exp()
    full = text.mask.all(dim=1)[:, None] & video.mask.all(dim=1)[None]
    theirs = arrays[f"{case}.logits.f64"]
    assert 0 < int(full.sum()) < full.numel()
    close((scores * kappa)[full], theirs[full])
    assert (scores * kappa - theirs)[~full].abs().max() > 1  # of 100: padding is no trifle

    w = {name: value.detach().numpy() for name, value in method.named_parameters()}
    sentence, words, word_mask = text.vectors[:, 0].numpy(), text.vectors[:, 1:].numpy(), text.mask[:, 1:].numpy()
    whole, frames = video.vectors[:, 0].numpy(), video.vectors[:, 1:].numpy()
    frame_mask = video.mask[:, 1:].numpy()
    aosm, _, _ = naive.attention_over_similarity(
        words @ w["of_tokens"],
        frames,
        word_mask,
        frame_mask,
        (w["words_first"], w["words_second"]),
        (w["frames_first"], w["frames_second"]),
        "attended",
        COLD,
    )
    terms = [
        naive.all_pairs(len(words), len(frames), lambda t, v: sentence[t] @ w["of_whole"] @ whole[v]),
        naive.attention_over_tokens(whole, words, word_mask, w["words_for_video"], COLD).T,
        naive.attention_over_tokens(sentence, frames, frame_mask, w["frames_for_sentence"], COLD),
        aosm,
    ]
    close(scores, torch.from_numpy(np.mean(terms, axis=0)))


def test_the_presets_are_those_two():
    assert not XCLIP.Config.released().masked
    assert XCLIP.Config().masked
    assert XCLIP.Config.paper().masked
