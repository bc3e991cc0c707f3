"""DMAE is its authors' released code, written down again in plain numpy, and keeps what its reference asks for."""

from __future__ import annotations

import math
import re
import zlib
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rushes.backbones.base import Frames, Words
from rushes.losses import info_nce, neg_nce, partial_order
from rushes.methods.dmae import DMAE, Importance, most_telling
from rushes.model import Model
from rushes.similarity import token_interaction, unit
from rushes.train.cases import FRAME_COUNTS, WORD_COUNTS, Case, backward, cases, descend
from rushes.train.pair import TWO_PROCESSES, compared, learnt_by_two, share
from rushes.types import Tokens

Array = np.ndarray
INTERACTIONS = ("ti", "wti", "att_ti", "att_wti")
PADDING = ("nopad", "pad", "padpos")
EXACT = {"rtol": 0, "atol": 1e-9}


def close(found: Tensor, wanted: Array | Tensor | float, **tolerance: float) -> None:
    wanted = torch.as_tensor(wanted, dtype=found.dtype)
    torch.testing.assert_close(found.detach(), wanted.detach(), **(tolerance or EXACT))


# --- the authors' code, once more ------------------------------------------------------------------------------------
# Written from docs/papers/dmae.md's formulas, one pair at a time, in float64. Masks are multiplied, so that padding
# scores 0 and may win a maximum. `u` is 0 on padding, 2 on content words, 1 on other tokens; `n` is 1 on real frames.


@dataclass(frozen=True)
class Given:
    """Features as a backbone gives them, not normalised; padding holds features as large as others."""

    sentence: Array  # text dim
    words: Array  # text word dim
    frames: Array  # video frame dim
    u: Array  # text word
    n: Array  # video frame


def given(padding: str, dim: int = 16, seed: int = 0, texts: int = 4, videos: int = 4) -> Given:
    """Without padding; with some; with some that wins no maximum, since every cosine is above 0."""
    draw = np.random.default_rng(seed)
    sentence, words, frames = (draw.standard_normal(s) for s in ((texts, dim), (texts, 7, dim), (videos, 6, dim)))
    if padding == "padpos":
        sentence, words, frames = abs(sentence), abs(words), abs(frames)
    many, some = ([7] * 8, [6] * 8) if padding == "nopad" else ([7, 3, 2, 5, 4], [6, 2, 1, 4, 3])
    u = (np.arange(7) < np.array(many[:texts])[:, None]) * (1 + (draw.random((texts, 7)) < 0.5))
    u[:, 0] = 1  # the mark of the start, and in the authors' code the sentence's own mask
    return Given(sentence, words, frames, u, (np.arange(6) < np.array(some[:videos])[:, None]) * 1)


def weights(dim: int = 16, arch: int = 1, layers: int = 2, seed: int = 1) -> dict[str, Array]:
    """Random weights under the authors' parameter names, as many as their model of this `l3_wti_arch` has."""
    shapes: dict[str, tuple[int, ...]] = {"frame_position_embeddings.weight": (77, dim)}
    for head in ("text_weight_fc", "video_weight_fc"):
        for layer in range(arch):
            out, name = (1 if layer == arch - 1 else dim), head if arch == 1 else f"{head}.{2 * layer}"
            shapes |= {f"{name}.weight": (out, dim), f"{name}.bias": (out,)}
    for predictor, asking, asked in (("v2t_linear_xwp", 6, 7), ("t2v_linear_xwp", 1, 6)):
        shapes |= {
            f"{predictor}.qk_proj.weight": (asked, asking),
            f"{predictor}.attn_proj.0.weight": (asked, 2 * dim),
            f"{predictor}.attn_proj.0.bias": (asked, 2 * dim),
            f"{predictor}.attn_proj.1.weight": (dim // 2, 2 * dim),
            f"{predictor}.attn_proj.3.weight": (1, dim // 2),
        }
    for layer in range(layers):
        block = f"transformerClip.resblocks.{layer}."
        shapes |= {f"{block}{norm}.{part}": (dim,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        for name, out, into in (
            ("attn.in_proj_", 3 * dim, dim),
            ("attn.out_proj.", dim, dim),
            ("mlp.c_fc.", 4 * dim, dim),
            ("mlp.c_proj.", dim, 4 * dim),
        ):
            shapes |= {f"{block}{name}weight": (out, into), f"{block}{name}bias": (out,)}
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape) / math.sqrt(shape[-1]) for name, shape in shapes.items()}


def ours(method: DMAE, theirs: dict[str, Array]) -> DMAE:
    """Our method in float64 with the authors' weights; every parameter of ours must have got one.

    text_weight_fc[.0 .2 .4], video_weight_fc     word_weights, frame_weights: head.0 head.2 head.4; the last has a bias
                                                  there, which softmax forgets, and which ours has not
    v2t_linear_xwp (words, asked by frames)       word_importance       qk_proj               mixed
    t2v_linear_xwp (frames, asked by sentence)    frame_importance      attn_proj.0           scale, shift
                                                                        attn_proj.1, .3       hidden, last
    frame_position_embeddings, transformerClip    temporal              cut to the frames there may be; ln_1 ln_2
                                                                        in_proj out_proj c_fc c_proj
    q_proj and k_proj of the predictors are never called there, and are not here.
    """
    mapped: dict[str, Array] = {}
    for ours_, theirs_ in (("word_weights", "text_weight_fc"), ("frame_weights", "video_weight_fc")):
        layers = {name for name in theirs if name.startswith(theirs_)}
        for name in layers:
            _, *number, part = name.split(".")
            mapped[f"{ours_}.head.{number[0] if number else 0}.{part}"] = theirs[name]
        del mapped[f"{ours_}.head.{len(layers) - 2}.bias"]
    for ours_, theirs_ in (("word_importance", "v2t_linear_xwp"), ("frame_importance", "t2v_linear_xwp")):
        mapped |= {
            f"{ours_}.mixed.weight": theirs[f"{theirs_}.qk_proj.weight"],
            f"{ours_}.scale": theirs[f"{theirs_}.attn_proj.0.weight"],
            f"{ours_}.shift": theirs[f"{theirs_}.attn_proj.0.bias"],
            f"{ours_}.hidden.weight": theirs[f"{theirs_}.attn_proj.1.weight"],
            f"{ours_}.last.weight": theirs[f"{theirs_}.attn_proj.3.weight"],
        }
    mapped["temporal.positions"] = theirs["frame_position_embeddings.weight"][: method.config.frames]
    names = {
        "ln_1.": "norm_attention.",
        "attn.in_proj_": "inputs.",
        "attn.out_proj.": "attended.",
        "ln_2.": "norm_forward.",
        "mlp.c_fc.": "wide.",
        "mlp.c_proj.": "narrow.",
    }
    for name in theirs:
        if name.startswith("transformerClip"):
            _, _, layer, rest = name.split(".", 3)
            part = next(part for part in names if rest.startswith(part))
            mapped[f"temporal.blocks.{layer}.{names[part]}{rest.removeprefix(part)}"] = theirs[name]
    wanted = method.state_dict()
    method.double().load_state_dict({name: torch.from_numpy(mapped[name]) for name in wanted})
    return method


def a_unit(x: Array) -> Array:
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def a_softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def a_norm(x: Array, axes: tuple[int, ...], eps: float, scale: Array, shift: Array) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps) * scale + shift


def a_head(x: Array, real: Array, theirs: dict[str, Array], name: str, arch: int) -> Array:
    """Learnt token weights: softmax over real tokens."""
    for layer in range(arch):
        prefix = name if arch == 1 else f"{name}.{2 * layer}"
        x = x @ theirs[f"{prefix}.weight"].T + theirs[f"{prefix}.bias"]
        x = x if layer == arch - 1 else np.maximum(x, 0)
    return a_softmax(np.where(real > 0, x[..., 0], -np.inf))


def a_seqtransf(frames: Array, n: Array, theirs: dict[str, Array], layers: int = 2) -> Array:
    """Of unit frames; one head of 64 numbers; what comes out is not made unit again."""
    x = frames + theirs["frame_position_embeddings.weight"][: frames.shape[1]]
    for layer in range(layers):
        w = {k.split(".", 3)[3]: v for k, v in theirs.items() if k.startswith(f"transformerClip.resblocks.{layer}.")}
        normed = a_norm(x, (-1,), 1e-12, w["ln_1.weight"], w["ln_1.bias"])
        q, k, v = np.split(normed @ w["attn.in_proj_weight"].T + w["attn.in_proj_bias"], 3, axis=-1)
        logits = q @ k.transpose(0, 2, 1) / math.sqrt(x.shape[2]) - 1e6 * (1 - n)[:, None]
        x = x + a_softmax(logits) @ v @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
        normed = a_norm(x, (-1,), 1e-12, w["ln_2.weight"], w["ln_2.bias"])
        wide = normed @ w["mlp.c_fc.weight"].T + w["mlp.c_fc.bias"]
        x = x + (wide / (1 + np.exp(-1.702 * wide))) @ w["mlp.c_proj.weight"].T + w["mlp.c_proj.bias"]
    return x + frames


def a_branch(x: Array, real: Array, f: Array, n: Array, a: Array, b: Array, neighbour: float) -> float:
    """Tokens x of one text against frames f of one video."""
    s = (x @ f.T) * real[:, None] * n
    found = s.max(axis=1)
    if neighbour:
        g = (f @ f.T) * n[:, None] * n
        np.fill_diagonal(g, 0)
        best = s.argmax(axis=1)
        found = found + neighbour * g.max(axis=1)[best] * s[np.arange(len(x)), g.argmax(axis=1)[best]]
    return float(a @ found + b @ s.max(axis=0)) / 2


def a_scores(
    g: Given,
    theirs: dict[str, Array],
    interaction: str = "att_ti",
    header: str = "none",
    arch: int = 1,
    textual: bool = True,
    neighbour: float = 0.5,
) -> Array:
    sentence, words, frames = a_unit(g.sentence), a_unit(g.words), a_unit(g.frames)
    u = g.u if textual else np.clip(g.u, 0, 1)
    if header == "seqtransf":
        frames = a_seqtransf(frames, g.n, theirs)
    if interaction.endswith("wti"):
        a = u * a_head(words, u, theirs, "text_weight_fc", arch)  # of a content word twice, and nothing divided by it
        b = g.n * a_head(frames, g.n, theirs, "video_weight_fc", arch)
    else:
        a, b = u / u.sum(1, keepdims=True), g.n / g.n.sum(1, keepdims=True)
    one, scores = np.ones(1), np.zeros((len(words), len(frames)))
    for t, v in np.ndindex(scores.shape):
        scores[t, v] = a_branch(sentence[t : t + 1], one, frames[v], g.n[v], one, b[v], neighbour)
        if interaction.startswith("att"):
            words_score = a_branch(words[t], np.clip(u[t], 0, 1), frames[v], g.n[v], a[t], b[v], neighbour)
            scores[t, v] = (scores[t, v] + words_score) / 2
    return scores


def a_neg_nce(scores: Array) -> float:
    """Of a square of scores whose diagonal is right."""
    count, total = len(scores), 0.0
    hard = [
        (i, j)
        for i in range(count)
        for j in range(count)
        if i != j and (scores[i, j] > scores[i, i] or scores[i, j] > scores[j, j])
    ]
    for s, pairs in ((scores, hard), (scores.T, [(j, i) for i, j in hard])):
        p = np.clip(a_softmax(100 * s), 1e-6, 1 - 1e-6)
        total += float(np.mean([-math.log(p[i, i]) for i in range(count)]))
        total += 0.5 * float(np.mean([-math.log(1 - p[i, j]) for i, j in pairs])) if pairs else 0.0
    return total / 2


def a_predictor(asking: Array, asked: Array, theirs: dict[str, Array], name: str) -> Array:
    """Weights of one text's or video's tokens, padding among them, asked by the other side's."""
    w = {key.removeprefix(f"{name}."): value for key, value in theirs.items() if key.startswith(name)}
    both = np.concatenate([w["qk_proj.weight"] @ asking, asked], axis=1)
    z = a_norm(both, (0, 1), 1e-5, w["attn_proj.0.weight"], w["attn_proj.0.bias"]) @ w["attn_proj.1.weight"].T
    gelu = z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
    worth = 1 / (1 + np.exp(-(gelu @ w["attn_proj.3.weight"].T)[:, 0]))
    return worth / worth.sum()


def a_cut(importance: Array) -> Array:
    """True where a token is set to zero."""
    cut, so_far = np.zeros(len(importance), dtype=bool), 0.0
    for token in np.argsort(-importance, kind="stable"):
        so_far += importance[token]
        cut[token] = so_far < 0.6
    return cut


def a_triplets(g: Given, theirs: dict[str, Array]) -> dict[str, Array]:
    """Of text i with video i: both weights, both cuts, and the similarities that the three hinges compare."""
    sentence, words, frames = a_unit(g.sentence), a_unit(g.words), a_unit(g.frames)
    found: dict[str, list[Any]] = {}
    for i in range(len(words)):
        omega = a_predictor(frames[i], words[i], theirs, "v2t_linear_xwp")
        nu = a_predictor(sentence[i : i + 1], frames[i], theirs, "t2v_linear_xwp")
        whole, left = a_unit(omega @ words[i]), (omega * ~a_cut(omega)) @ words[i]  # the second is not made unit
        rest = frames[i] * ~a_cut(nu)[:, None]
        n = g.n[i]

        def likeness(x: Array, f: Array, n: Array = n) -> float:
            return a_branch(x[None], np.ones(1), f, n, np.ones(1), n / n.sum(), 0)

        for name, value in {
            "omega": omega,
            "nu": nu,
            "omega_cut": a_cut(omega),
            "nu_cut": a_cut(nu),
            "frames": (likeness(sentence[i], frames[i]), likeness(sentence[i], rest)),
            "by_words": (likeness(whole, frames[i]), likeness(whole, rest)),
            "words": (likeness(whole, frames[i]), likeness(left, frames[i])),
        }.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def a_loss(g: Given, theirs: dict[str, Array]) -> float:
    """All that the authors minimise at this stage: NegNCE and three hinges."""
    triplets = a_triplets(g, theirs)
    hinges = [
        np.maximum(0, 0.6 - (triplets[r][:, 0] - triplets[r][:, 1])).mean() for r in ("frames", "by_words", "words")
    ]
    return a_neg_nce(a_scores(g, theirs)) + float(sum(hinges))


# --- ours against it -------------------------------------------------------------------------------------------------


def released(**switches: Any) -> DMAE.Config:
    """The authors' preset, at the sizes of `given`."""
    return replace(DMAE.Config.released(), words=7, frames=6, layers=2, **switches)


def features(g: Given) -> tuple[Words, Frames]:
    spans = torch.arange(7.0).double().unfold(0, 2, 1).expand(len(g.frames), -1, -1)
    to = torch.from_numpy
    return Words(to(g.words), to(g.u > 0), to(g.sentence), to(g.u == 2)), Frames(to(g.frames), to(g.n > 0), spans)


def tokens(method: DMAE, g: Given) -> tuple[Tokens, Tokens]:
    words, frames = features(g)
    return method.encode_text(words), method.encode_video(frames)


@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("header", ["none", "seqtransf"])
@pytest.mark.parametrize("padding", PADDING)
def test_released_scores_are_the_authors(padding, header, interaction):
    dim = 64 if header == "seqtransf" else 16
    g = given(padding, dim, texts=5)
    for arch in (1, 2, 3) if interaction.endswith("wti") else (1,):
        theirs = weights(dim, arch)
        for textual in (True, False):
            for neighbour in (0.5, 0.0):
                turned = {"interaction": interaction, "header": header, "textual": textual, "neighbour": neighbour}
                method = ours(DMAE(dim, released(hidden=arch - 1, **turned)), theirs)
                close(method.score(*tokens(method, g)), a_scores(g, theirs, arch=arch, **turned))


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_only_padding_that_wins_a_maximum_is_between_masking_and_the_authors_zeros(interaction):
    theirs, found = weights(), {}
    for padding in PADDING:
        g = given(padding)
        zeros, masked = (
            ours(DMAE(16, released(interaction=interaction, masked=masked)), theirs) for masked in (False, True)
        )
        found[padding] = float((zeros.score(*tokens(zeros, g)) - masked.score(*tokens(masked, g))).detach().abs().max())
    assert found["nopad"] < 1e-14
    assert found["padpos"] < 1e-14
    assert found["pad"] > 1e-2


def test_seqtransf_as_released_gives_cosines_far_above_one_and_ours_does_not():
    g, theirs = given("nopad", 64), {name: 3 * value for name, value in weights(64).items()}
    there, here = (
        ours(DMAE(64, released(header="seqtransf", unit_first=first, neighbour=0.0)), theirs) for first in (True, False)
    )
    assert float(there.score(*tokens(there, g)).detach().abs().max()) > 10
    assert float(here.score(*tokens(here, g)).detach().abs().max()) < 1


@pytest.mark.parametrize("padding", PADDING)
def test_released_triplets_are_the_authors(padding):
    for seed in range(5):
        g, theirs = given(padding, seed=seed), weights(seed=seed)
        method = ours(DMAE(16, released()), theirs)
        assert method.word_importance is not None
        assert method.frame_importance is not None
        text, video = tokens(method, g)
        wanted = a_triplets(g, theirs)
        sentence, words, frames = text.vectors[:, :1], text.vectors[:, 1:], video.vectors[:, 1:]
        one, all_words, all_frames = (torch.ones(x.shape[:2], dtype=torch.bool) for x in (sentence, words, frames))
        omega = method.word_importance(frames, all_frames, words, all_words)
        nu = method.frame_importance(sentence, one, frames, all_frames)
        close(omega, wanted["omega"])
        close(nu, wanted["nu"])
        assert most_telling(omega).tolist() == wanted["omega_cut"].tolist()
        assert most_telling(nu).tolist() == wanted["nu_cut"].tolist()
        found = method.triplets(text, video)
        assert set(found) == {"words", "frames", "by_words"}
        for name, (whole, left) in found.items():
            close(torch.stack([whole, left], dim=1), wanted[name])


@pytest.mark.parametrize("padding", PADDING)
def test_released_losses_are_the_authors(padding):
    for seed in range(3):
        g, theirs = given(padding, seed=seed), weights(seed=seed)
        method = ours(DMAE(16, released()), theirs).train()
        terms = method.loss(*tokens(method, g), torch.eye(4, dtype=torch.bool))
        assert set(terms) == {"nce", "words", "frames", "by_words"}
        close(terms["nce"], a_neg_nce(a_scores(g, theirs)))
        for name, pairs in a_triplets(g, theirs).items():
            if name in terms:
                close(terms[name], np.maximum(0, 0.6 - (pairs[:, 0] - pairs[:, 1])).mean())
        close(torch.stack(list(terms.values())).sum(), a_loss(g, theirs))


def test_the_partial_types_are_the_authors():
    g, theirs = given("pad"), weights()
    wanted = {"all": {"frames", "by_words", "words"}, "video": {"frames", "by_words"}, "text": {"words"}, "off": set()}
    for partial, names in wanted.items():
        method = ours(DMAE(16, released(partial=partial)), theirs).train()
        terms = method.loss(*tokens(method, g), torch.eye(4, dtype=torch.bool))
        assert set(terms) == names | {"nce"}
        for name in names:
            pairs = a_triplets(g, theirs)[name]
            close(terms[name], np.maximum(0, 0.6 - (pairs[:, 0] - pairs[:, 1])).mean())


def test_released_gradients_are_the_slopes_of_the_authors_loss():
    g, theirs = given("pad"), weights()
    draw, step = np.random.default_rng(9), 1e-6
    method = ours(DMAE(16, released()), theirs).train()
    words, frames = features(g)
    for side in ("words", "frames", "sentence"):
        way = draw.standard_normal(getattr(g, side).shape)
        there, back = (a_loss(replace(g, **{side: getattr(g, side) + sign * step * way}), theirs) for sign in (1, -1))
        leaf = torch.from_numpy(getattr(g, side).copy()).requires_grad_()
        changed = {"words": {"vectors": leaf}, "sentence": {"sentence": leaf}, "frames": {}}[side]
        text = method.encode_text(replace(words, **changed))
        video = method.encode_video(replace(frames, vectors=leaf) if side == "frames" else frames)
        torch.stack(list(method.loss(text, video, torch.eye(4, dtype=torch.bool)).values())).sum().backward()
        assert leaf.grad is not None
        assert float((leaf.grad * torch.from_numpy(way)).sum()) == pytest.approx((there - back) / (2 * step), rel=1e-5)


def test_padding_asks_and_is_asked_as_released_and_never_by_default():
    theirs = weights()
    g = given("pad")
    other = replace(
        g,
        words=np.where(g.u[..., None] > 0, g.words, 5 * g.words[::-1]),
        frames=np.where(g.n[..., None] > 0, g.frames, 5 * g.frames[::-1]),
    )
    for config, same in ((released(), False), (released(masked=True), True), (DMAE.Config(words=7, frames=6), True)):
        method = ours(DMAE(16, config), theirs)
        one, two = (method.triplets(*tokens(method, each)) for each in (g, other))
        for name in ("words", "by_words", "frames"):
            equal = [torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(one[name], two[name], strict=True)]
            assert all(equal) == same or name == "frames"
    assert not np.allclose(a_triplets(g, theirs)["omega"], a_triplets(other, theirs)["omega"], atol=1e-3)


# --- what the reference asks for, (a) to (h) -------------------------------------------------------------------------


def case(config: DMAE.Config | None = None, dim: int = 16, seed: int = 0) -> Case:
    """Random features whose padding holds large random numbers, and a second text of the first video."""
    return Case(DMAE, config or DMAE.Config(), "", dim, seed)


def scored(config: DMAE.Config, words: Words, frames: Frames) -> Tensor:
    method = case(config).method()
    return method.score(method.encode_text(words), method.encode_video(frames))


@pytest.mark.parametrize("seed", range(3))
def test_a_without_both_attentions_each_branch_is_token_interaction(seed):
    words, frames = case(seed=seed).words(), case(seed=seed).frames()
    plain = DMAE.Config(textual=False, neighbour=0.0)
    by_sentence = scored(replace(plain, interaction="ti"), words, frames)
    by_words = 2 * scored(plain, words, frames) - by_sentence
    f, n = unit(frames.vectors), frames.mask
    close(by_words, token_interaction(unit(words.vectors), f, words.mask, n), rtol=0, atol=1e-6)
    one = torch.ones(len(words), 1, dtype=torch.bool)
    close(by_sentence, token_interaction(unit(words.sentence)[:, None], f, one, n), rtol=0, atol=1e-6)


def by_loops(x: Tensor, a: Tensor, f: Tensor, factor: float) -> float:
    """One text's real tokens against one video's real frames, looking at every triple of token, frame and frame."""
    total = 0.0
    for i in range(len(x)):
        best = max(range(len(f)), key=lambda k: float(x[i] @ f[k]))
        nearest, near = best, 0.0
        for k in range(len(f)):
            if k != best and float(f[best] @ f[k]) > near:
                nearest, near = k, float(f[best] @ f[k])
        total += float(a[i]) * (float(x[i] @ f[best]) + factor * near * float(x[i] @ f[nearest]))
    return (total + sum(max(float(x[i] @ f[k]) for i in range(len(x))) for k in range(len(f))) / len(f)) / 2


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_b_visual_attention_is_the_triple_loop(factor):
    words, frames = case(seed=3).words(), case(seed=3).frames()
    words = Words(words.vectors.double(), words.mask, words.sentence.double(), words.content)
    frames = replace(frames, vectors=frames.vectors.double())
    found = scored(DMAE.Config(neighbour=factor), words, frames)
    assert words.content is not None
    for t, v in np.ndindex(*found.shape):
        f = unit(frames.vectors[v][frames.mask[v]])
        u = 1.0 + words.content[t][words.mask[t]].double()
        by_words = by_loops(unit(words.vectors[t][words.mask[t]]), u / u.sum(), f, factor)
        by_sentence = by_loops(unit(words.sentence[t : t + 1]), torch.ones(1), f, factor)
        assert float(found[t, v]) == pytest.approx((by_words + by_sentence) / 2, abs=1e-12)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_c_padding_words_and_frames_leave_every_score_as_it_is(interaction):
    """Each pair alone and bare, against all of them side by side and wider still."""
    some = case()
    wide = some.words(width=max(WORD_COUNTS) + 4), some.frames(width=max(FRAME_COUNTS) + 5)
    for masked in (True, False):
        config = DMAE.Config(interaction=interaction, masked=masked)
        together, alone = scored(config, *wide), torch.zeros(len(WORD_COUNTS), len(FRAME_COUNTS))
        for (t, word), (v, frame) in product(enumerate(WORD_COUNTS), enumerate(FRAME_COUNTS)):
            text, video = some.words()[t : t + 1], some.frames()[v : v + 1]
            assert text.content is not None
            bare = Words(text.vectors[:, :word], text.mask[:, :word], text.sentence, text.content[:, :word])
            few = Frames(video.vectors[:, :frame], video.mask[:, :frame], video.spans[:, :frame])
            alone[t, v] = scored(config, bare, few).detach()
        apart = float((together.detach() - alone).abs().max())
        assert apart < 1e-6 if masked else apart > 1e-2  # the authors' defect


def by_sets(scores: Tensor, positives: Tensor, scale: float) -> tuple[set[tuple[int, int]], float]:
    """H of any relation of positives, and NegNCE over it, in float64 and from single numbers."""
    s, right = scores.double().tolist(), positives.tolist()
    rows, columns = range(len(s)), range(len(s[0]))
    hard = {
        (i, j)
        for i in rows
        for j in columns
        if not right[i][j]
        and (
            any(s[i][j] > s[i][p] for p in columns if right[i][p])
            or any(s[i][j] > s[p][j] for p in rows if right[p][j])
        )
    }
    total = 0.0
    for table, truth, pairs in (
        (np.array(s), np.array(right), hard),
        (np.array(s).T, np.array(right).T, {(j, i) for i, j in hard}),
    ):
        p = a_softmax(scale * table)
        total += float(np.mean([-math.log(p[i][truth[i]].sum()) for i in range(len(p)) if truth[i].any()]))
        total += 0.5 * float(np.mean([-math.log(1 - p[pair]) for pair in pairs])) if pairs else 0.0
    return hard, total / 2


def test_d_neg_nce_without_hard_negatives_is_info_nce():
    draw = torch.Generator().manual_seed(0)
    scores = 0.1 * torch.rand(5, 5, generator=draw) + torch.eye(5)
    assert by_sets(scores, torch.eye(5).bool(), 1.0)[0] == set()
    for clamped in (False, True):
        close(neg_nce(scores, scale=10.0, clamped=clamped), info_nce(scores, scale=10.0), rtol=1e-5, atol=1e-6)


def test_d_hard_negatives_are_the_brute_force_set():
    """A hard negative is a number that the loss's second term depends on: its gradient tells H."""
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        rows, columns = 3 + seed % 3, 4
        scores = torch.rand(rows, columns, generator=draw, dtype=torch.float64)
        positives = torch.arange(rows)[:, None] % columns == torch.arange(columns)
        hard, wanted = by_sets(scores, positives, 2.0)
        close(neg_nce(scores, positives, 2.0), wanted)
        close(neg_nce(scores, positives, 2.0, clamped=True), wanted)
        least = info_nce(scores, positives, 2.0)
        assert (len(hard) > 0) == bool(neg_nce(scores, positives, 2.0) > least)


@pytest.mark.parametrize("clamped", [False, True])
def test_d_the_hardest_positive_learns_unless_probabilities_are_clamped(clamped):
    """Pair 0 trails by 0.5 in its row and in its column; at scale 100 its probability is e^-50, its competitors' 1.

    Of one of two rows -100 as a positive, and half of -100 as what is left to one of two hard negatives; columns alike.
    """
    scores = torch.tensor([[0.0, 0.5], [0.5, 1.0]], requires_grad=True)
    loss = neg_nce(scores, scale=100.0, clamped=clamped)
    loss.backward()
    assert scores.grad is not None
    assert bool(loss.isfinite())
    assert bool(scores.grad.isfinite().all())
    assert float(scores.grad[0, 0]) == pytest.approx(0 if clamped else -50 - 25, abs=1e-3)


def test_d_the_clamp_bites_from_a_gap_of_138_thousandths():
    for gap, learns in ((0.13, True), (0.14, False)):
        scores = torch.tensor([[0.0, gap], [-1.0, 1.0]], dtype=torch.float64, requires_grad=True)
        neg_nce(scores, clamped=True).backward()
        assert scores.grad is not None
        assert (float(scores.grad[0, 0]) != 0) == learns
    assert math.log(1e6) / 100 == pytest.approx(0.138, abs=2e-4)


def test_e_the_heaviest_tokens_below_the_mass_are_cut():
    rows = torch.tensor([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    assert most_telling(rows).tolist() == [[True, False, False], [False, False, False], [False, False, True]]
    assert most_telling(rows, at_least_one=True).tolist() == [[True, False, False]] * 2 + [[False, False, True]]
    assert most_telling(torch.tensor([[0.6, 0.4]])).tolist() == [[False, False]]  # strictly below


@pytest.mark.parametrize(("tokens_", "cut"), [(30, 17), (9, 5), (13, 7)])
def test_e_uniform_weights_cut_as_many_as_in_float32_there(tokens_, cut):
    assert int(most_telling(torch.full((1, tokens_), 1 / tokens_)).sum()) == cut


def test_e_something_is_always_cut_and_something_left():
    draw = torch.Generator().manual_seed(0)
    for count in range(1, 9):
        for mass in (1e-6, 0.3, 0.6, 0.999):
            weights_ = (5 * torch.randn(50, count, generator=draw)).softmax(dim=1)
            cut = most_telling(weights_, mass, at_least_one=True).sum(dim=1)
            assert bool((cut < count).all())
            assert bool((cut > 0).all()) or count == 1
    assert most_telling(torch.tensor([[1.0, 0.0, 0.0]]), at_least_one=True).tolist() == [[False] * 3]  # one real token


def test_f_shares_of_two_processes_score_as_the_whole_batch():
    """Encoded apart, each padded to its own width, and joined as `gather` does; then two real processes that learn."""
    some = case()
    method, batch = some.method(), some.batch()
    whole = method.score(method.encode_text(batch.words), method.encode_video(batch.frames))
    parts = [share(batch, rank) for rank in (0, 1)]
    text = Tokens.cat([method.encode_text(part.words) for part in parts])
    video = Tokens.cat([method.encode_video(part.frames) for part in parts])
    close(method.score(text, video), whole, rtol=0, atol=1e-6)


def test_f_two_processes_learn_as_one():
    found = cases(DMAE, 16, (0,))
    seen, on_purpose = compared(found, learnt_by_two(["dmae"], 16, (0,), patience=150)["dmae"])
    assert seen.startswith("largest difference")
    assert {line.split(":")[0] for line in on_purpose} == {"released", "masked=False"}
    assert TWO_PROCESSES in DMAE.Config.released().breaks()
    assert DMAE.Config().breaks() == {}


WITH_ALL = {"interaction": "att_wti", "header": "seqtransf", "layers": 2}


@pytest.mark.parametrize("turned", [{}, WITH_ALL], ids=["as it is", "with every module"])
@pytest.mark.parametrize("preset", [DMAE.Config, DMAE.Config.paper, DMAE.Config.released])
def test_g_every_predictor_learns_but_as_released_that_of_frames(preset, turned):
    config = replace(preset(), **turned)
    method = case(config, dim=64).method().train()
    idle = {name for name, _ in method.named_parameters()}
    for seed in range(3):  # blocks of seqtransf start closed
        backward(method, case(config, dim=64, seed=seed).batch())
        idle -= {name for name, weight in method.named_parameters() if weight.grad is not None and weight.grad.any()}
        descend(method)
    parts = ("mixed.weight", "scale", "shift", "hidden.weight", "last.weight")
    assert idle == ({f"frame_importance.{part}" for part in parts} if preset == DMAE.Config.released else set())


@pytest.mark.parametrize("preset", [DMAE.Config, DMAE.Config.paper, DMAE.Config.released])
def test_h_triplets_cost_nothing_outside_training(preset, monkeypatch):
    some = case(preset())
    method = some.method()
    learning = set(method.train().step(some.batch()))
    assert {"words", "frames", "by_words"} < learning
    assert ("pooled" in learning) == method.config.fourth

    def never(*_: object) -> None:
        raise AssertionError("the triplets were computed")

    monkeypatch.setattr(DMAE, "triplets", never)
    method.eval()
    assert set(method.step(some.batch())) == learning - {"words", "frames", "by_words", "pooled"}
    method.score(method.encode_text(some.words()), method.encode_video(some.frames()))


# --- by hand ---------------------------------------------------------------------------------------------------------


def words_of(*texts: list[list[float]], content: list[list[bool]] | None = None, sentence: Any = None) -> Words:
    most = max(map(len, texts))
    vectors = torch.tensor([text + [[9.0, 9.0]] * (most - len(text)) for text in texts])
    mask = torch.arange(most) < torch.tensor([len(text) for text in texts])[:, None]
    told = torch.zeros_like(mask) if content is None else torch.tensor(content)
    return Words(vectors, mask, vectors[:, 0] if sentence is None else torch.tensor(sentence), told)


def frames_of(*videos: list[list[float]]) -> Frames:
    spans = [torch.arange(len(video) + 1.0).unfold(0, 2, 1) for video in videos]
    return Frames.pack([torch.tensor(video) for video in videos], spans)


def test_content_words_count_double():
    words = words_of(
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0]], content=[[False, True, False], [False, False, True]]
    )  # the flag on padding counts for nothing
    text = DMAE(2).encode_text(words)
    assert text.weights is not None
    assert text.weights.tolist() == [[1.0, 0.25, 0.5, 0.25], [1.0, 1.0, 0.0, 0.0]]
    without = DMAE(2, DMAE.Config(textual=False)).encode_text(words).weights
    assert without is not None
    close(without[0], [1, 1 / 3, 1 / 3, 1 / 3], rtol=0, atol=1e-7)


def test_learnt_weights_of_content_words_double_and_are_not_made_to_sum_to_one():
    words = words_of([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], content=[[False, True, False]])
    method = DMAE(2, DMAE.Config(interaction="att_wti", hidden=0))
    with torch.no_grad():
        for weight in method.parameters():
            weight.zero_()
    found = method.encode_text(words).weights
    assert found is not None
    close(found, [[1, 1 / 3, 2 / 3, 1 / 3]], rtol=0, atol=1e-7)


def test_learnt_weights_see_unit_vectors():
    method = case(DMAE.Config(interaction="att_wti")).method()
    words, frames = case().words(), case().frames()
    text = method.encode_text(words).weights
    video = method.encode_video(frames).weights
    assert text is not None
    assert video is not None
    close(method.encode_text(replace(words, vectors=7 * words.vectors)).weights, text, rtol=0, atol=1e-6)  # type: ignore[arg-type]
    close(method.encode_video(replace(frames, vectors=7 * frames.vectors)).weights, video, rtol=0, atol=1e-6)  # type: ignore[arg-type]


def test_texts_without_content_told_are_an_error_where_it_matters():
    words = replace(case().words(), content=None)
    with pytest.raises(ValueError, match=r"Words.content.*tagger='closed-class'.*textual=False"):
        DMAE(16).encode_text(words)
    for config in (DMAE.Config(textual=False), DMAE.Config(interaction="ti"), DMAE.Config(interaction="wti")):
        assert DMAE(16, config).tagger is None
        DMAE(16, config).encode_text(words)


def test_a_model_tells_content_words_by_itself(tiny_clip):
    model = Model(tiny_clip, DMAE(tiny_clip.dim)).eval()
    texts = ["a dog on the beach"]
    content = model.words(texts).content
    assert content is not None
    pieces, flags = tiny_clip.tokenize(texts), content[0].tolist()
    assert pieces.offsets is not None
    told = {texts[0][a:b] for (a, b), flag in zip(pieces.offsets[0].tolist(), flags, strict=True) if flag}
    assert "".join(sorted(told, key=texts[0].index)) == "dogbeach"
    found = model.texts(texts).weights
    assert found is not None
    assert (found[0, 1:] > found[0, 1:].max() / 1.5).tolist() == flags


@pytest.mark.parametrize("interaction", ["ti", "wti"])
def test_without_att_words_are_not_scored(interaction):
    config, words, frames = DMAE.Config(interaction=interaction), case().words(), case().frames()
    other = replace(words, vectors=words.vectors.flip(1), content=None)
    assert torch.equal(scored(config, words, frames), scored(config, other, frames))
    assert not torch.equal(
        scored(config, words, frames), scored(config, replace(words, sentence=-words.sentence), frames)
    )


def test_one_word_and_one_frame_score_their_cosine():
    """A single frame has no neighbour; sentence and word are the same vector here."""
    found = scored(DMAE.Config(), words_of([[3.0, 4.0]]), frames_of([[2.0, 0.0]]))
    close(found, [[0.6]], rtol=0, atol=1e-6)


def test_a_score_by_hand():
    """Frames f1 = (1, 0), f2 = (0.6, 0.8), alike by 0.6. Sentence (1, 0): 1 + 0.5 * 0.6 * 0.6 = 1.18 to the best frame,
    frames 1 and 0.6; so (1.18 + 0.8) / 2 = 0.99. Words (1, 0), weight 1/3, and (0, 1), content, weight 2/3:
    1.18 and 0.8 + 0.5 * 0.6 * 0 = 0.8; frames 1 and 0.8; so ((1.18 + 2 * 0.8) / 3 + 0.9) / 2 = 0.91333.
    """
    words = words_of([[5.0, 0.0], [0.0, 2.0]], content=[[False, True]])
    frames = frames_of([[2.0, 0.0], [0.6, 0.8]])
    close(scored(DMAE.Config(), words, frames), [[(0.99 + 0.9133333) / 2]], rtol=0, atol=1e-6)
    close(scored(DMAE.Config(interaction="ti"), words, frames), [[0.99]], rtol=0, atol=1e-6)


def test_all_cosines_negative():
    """To (1, 0) frames are -1 and -0.6, alike by 0.6: -0.6 + 0.5 * 0.6 * -1 = -0.9, and -0.8 on average, padded as it
    is. In the authors' code padding wins with 0, and has no neighbour.
    """
    words, frames = words_of([[1.0, 0.0]]), frames_of([[-1.0, 0.0], [-0.6, -0.8]], [[-1.0, 0.0]] * 3)
    close(scored(DMAE.Config(), words, frames)[0, 0], -0.85, rtol=0, atol=1e-6)
    close(scored(DMAE.Config(masked=False), words, frames)[0, 0], -0.4, rtol=0, atol=1e-6)


def test_opposite_frames_are_no_neighbours():
    frames = frames_of([[1.0, 0.0], [-1.0, 0.0]])
    close(scored(DMAE.Config(), words_of([[1.0, 0.0]]), frames), [[(1 + 0) / 2]], rtol=0, atol=1e-6)


def test_the_summaries_are_one_half_of_the_sentences_score_but_for_a_length():
    """Frames (1, 0) and (0, 1): their mean is (0.5, 0.5), of length sqrt 0.5; the sentence (1, 0) has 0.5 with it."""
    method, words = DMAE(2, DMAE.Config(interaction="ti", neighbour=0.0)), words_of([[1.0, 0.0]])
    text, video = method.encode_text(words), method.encode_video(frames_of([[3.0, 0.0], [0.0, 2.0]]))
    product = method.summary(text) @ method.summary(video).T
    close(product, [[math.sqrt(0.5)]], rtol=0, atol=1e-6)
    close(method.score(text, video), (1 + product * math.sqrt(0.5)) / 2, rtol=0, atol=1e-6)


def evenly(**switches: Any) -> DMAE:
    """A method that finds all tokens equally important, so that of two the first is cut out."""
    method = DMAE(2, DMAE.Config(**switches)).train()
    with torch.no_grad():
        for predictor in (method.word_importance, method.frame_importance):
            if predictor is not None:
                predictor.last.weight.zero_()
    return method


@torch.no_grad()
def test_triplets_by_hand():
    """Words (1, 0), (0, 1); frames (1, 0), (0.6, 0.8); of each the first is cut out. t_g = (1, 1) / sqrt 2.

    words      t_g: frames 0.70711, 0.98995, so (0.98995 + 0.84853) / 2;    (0, 1): 0, 0.8, so (0.8 + 0.4) / 2
    frames     (1, 0): 1, 0.6, so (1 + 0.8) / 2;                            against (0.6, 0.8) alone 0.6
    by_words   as words;                                                    against (0.6, 0.8) alone 0.98995
    pooled     (1, 0) with (0.8, 0.4) made unit;                            with (0.6, 0.8)
    """
    words = words_of([[1.0, 0.0], [0.0, 1.0]], sentence=[[1.0, 0.0]])
    frames = frames_of([[1.0, 0.0], [0.6, 0.8]])
    method = evenly()
    text, video = method.encode_text(words), method.encode_video(frames)
    found = {name: [part.item() for part in pair] for name, pair in method.triplets(text, video).items()}
    whole, half = (1.4 + 1.2) / 2 / math.sqrt(2), math.sqrt(0.5)
    assert found["words"] == pytest.approx([whole, 0.6], abs=1e-6)
    assert found["frames"] == pytest.approx([0.9, 0.6], abs=1e-6)
    assert found["by_words"] == pytest.approx([whole, 1.4 * half], abs=1e-6)
    assert found["pooled"] == pytest.approx([2 / math.sqrt(5), 0.6], abs=1e-6)
    terms = method.loss(text, video, torch.ones(1, 1, dtype=torch.bool))
    assert float(terms["words"]) == 0  # ahead by 0.32
    assert float(terms["by_words"]) == pytest.approx(0.1 - (whole - 1.4 * half), abs=1e-6)  # what is left is the better
    twice = evenly(tpm=2.0, margin=0.4)
    assert float(twice.loss(text, video, torch.ones(1, 1).bool())["frames"]) == pytest.approx(2 * 0.1, abs=1e-6)


def test_as_released_what_is_left_loses_by_its_length():
    """The same pair: (0, 1) keeps its weight of a half, the cut frame is a zero that counts, and so on."""
    words = words_of([[1.0, 0.0], [0.0, 1.0]], sentence=[[1.0, 0.0]])
    frames = frames_of([[1.0, 0.0], [0.6, 0.8]])
    method = evenly(normalised=False)
    found = method.triplets(method.encode_text(words), method.encode_video(frames))
    left = {name: pair[1].item() for name, pair in found.items()}
    half = math.sqrt(0.5)
    wanted = {"words": 0.3, "frames": (0.6 + 0.3) / 2, "by_words": (1.4 + 0.7) / 2 * half, "pooled": 0.3}
    assert left == pytest.approx(wanted, abs=1e-6)


def test_a_token_that_is_cut_out_of_a_pair_of_one_word_and_one_frame_is_none():
    method = evenly()
    text, video = method.encode_text(words_of([[1.0, 0.0]])), method.encode_video(frames_of([[0.6, 0.8]]))
    for whole, left in method.triplets(text, video).values():
        assert torch.equal(whole, left)


def test_two_texts_of_one_video_by_hand():
    """Texts 0 and 1 belong to video 0, text 2 to video 1. Above a positive: (0, 1), in its row; (1, 1), in its column,
    since text 2 has 0.2. Not (2, 0): both texts of video 0 have more, and so has text 2's own video.
    """
    scores = torch.tensor([[0.5, 0.6], [0.4, 0.3], [0.1, 0.2]])
    positives = torch.tensor([[True, False], [True, False], [False, True]])
    hard, wanted = by_sets(scores, positives, 10.0)
    assert hard == {(0, 1), (1, 1)}
    close(neg_nce(scores, positives, 10.0), wanted, rtol=1e-5, atol=0)


def test_every_text_of_a_video_has_its_triplets():
    method, batch = case().method().train(), case().batch()
    text, video = method.encode_text(batch.words), method.encode_video(batch.frames)
    positives = batch.video_of_text[:, None] == batch.video
    terms = method.loss(text, video, positives)
    pairs = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)]
    each = [method.triplets(text[t : t + 1], video[v : v + 1]) for t, v in pairs]
    for name in ("words", "frames", "by_words", "pooled"):
        alone = torch.stack([partial_order(*one[name], 0.1) for one in each])
        close(terms[name], alone.mean(), rtol=0, atol=1e-6)


def test_importance_needs_no_padding_and_says_what_it_was_made_for():
    ask, draw = Importance(8, asking=5, asked=6), torch.Generator().manual_seed(0)
    asking, asked = torch.randn(2, 5, 8, generator=draw), torch.randn(2, 6, 8, generator=draw)
    queries, real = torch.arange(5) < torch.tensor([[5], [2]]), torch.arange(6) < torch.tensor([[6], [3]])
    found = ask(asking, queries, asked, real)
    close(found.sum(dim=1), [1.0, 1.0], rtol=0, atol=1e-6)
    short = ask(asking[1:, :2], queries[1:, :2], asked[1:, :3], real[1:, :3])
    close(found[1, :3], short[0], rtol=0, atol=1e-6)
    assert found[1, 3:].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"5 tokens ask 7, but .* was made for 5 that ask 6: cut texts"):
        ask(asking, queries, torch.randn(2, 7, 8), torch.ones(2, 7, dtype=torch.bool))


def test_longer_texts_than_the_predictor_knows_are_scored_but_not_trained_on():
    some = case(DMAE.Config(words=max(WORD_COUNTS) - 1))
    method = some.method()
    method.step(some.batch())
    with pytest.raises(ValueError, match="configure more `words` and `frames`"):
        method.train().step(some.batch())


def test_a_mass_that_would_cut_all_or_nothing_is_refused():
    for mass in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"mass is {mass}; give a share between 0 and 1"):
            DMAE.Config(mass=mass)


def test_tokens_of_another_method_are_refused():
    bare = Tokens(torch.ones(1, 2, 4), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="encoded by another method"):
        DMAE(4).score(bare, bare)


def test_the_predictors_of_the_default_are_as_large_as_the_page_says():
    size = {name: sum(weight.numel() for weight in part.parameters()) for name, part in DMAE(512).named_children()}
    assert size == {"word_importance": 426_025, "frame_importance": 420_173}


# --- no dead switch --------------------------------------------------------------------------------------------------

SWITCHES: dict[str, tuple[dict[str, Any], Any]] = {  # beside what, to which other value
    "interaction": ({}, "att_wti"),
    "hidden": ({"interaction": "att_wti"}, 0),
    "header": ({}, "seqtransf"),
    "layers": ({"header": "seqtransf"}, 2),
    "unit_first": ({"header": "seqtransf"}, True),
    "textual": ({}, False),
    "tagger": ({}, "spacy"),
    "neighbour": ({}, 0.25),
    "masked": ({}, False),
    "loss": ({}, "info_nce"),
    "scale": ({}, 50.0),
    "negative": ({}, 0.25),
    "clamped": ({}, True),
    "summary": ({}, 0.0),
    "partial": ({}, "text"),
    "fourth": ({}, False),
    "normalised": ({}, False),
    "always": ({"mass": 0.05}, False),
    "mass": ({}, 0.3),
    "margin": ({}, 0.2),
    "tpm": ({}, 0.5),
    "words": ({}, 9),
    "frames": ({}, 9),
}


def outcome(config: DMAE.Config) -> dict[str, Any]:
    """What a configuration does with weights that depend on nothing but their names."""
    some = case(config, dim=64)
    method = some.method().train()
    with torch.no_grad():
        for name, weight in method.named_parameters():
            draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            weight.copy_(0.3 * torch.randn(weight.shape, generator=draw))
    scores = method.score(method.encode_text(some.words()), method.encode_video(some.frames()))
    terms = {name: round(term.item(), 4) for name, term in method.step(some.batch()).items()}
    most = None if method.word_importance is None else method.word_importance.mixed.weight.shape
    scores = scores.detach().numpy().round(4).tolist()
    return {"scores": scores, "terms": terms, "tagger": method.tagger, "most words and frames": most}


def test_every_switch_is_tried():
    assert list(SWITCHES) == [field.name for field in fields(DMAE.Config)]


@pytest.mark.parametrize("switch", SWITCHES)
def test_no_switch_is_dead(switch):
    beside, other = SWITCHES[switch]
    base = DMAE.Config(**beside)
    assert outcome(base) != outcome(replace(base, **{switch: other}))


def test_the_four_interactions_differ():
    found = [outcome(DMAE.Config(interaction=interaction))["scores"] for interaction in INTERACTIONS]
    assert all(one != other for number, one in enumerate(found) for other in found[:number])


# --- the page --------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "papers" / "dmae.md").read_text()


def test_the_page_tells_every_field_in_all_three_configurations():
    rows = [re.split(r" *\| *", line)[1:5] for line in PAGE.splitlines() if re.match(r"\| `\w+` \|", line)]
    presets = [DMAE.Config.released(), DMAE.Config.paper(), DMAE.Config()]

    def told(value: Any) -> str:
        return f'"{value}"' if isinstance(value, str) else str(value)

    names = [field.name for field in fields(DMAE.Config)]
    assert rows == [[f"`{name}`", *(told(getattr(preset, name)) for preset in presets)] for name in names]


def test_the_example_of_the_page_is_a_training_step(tiny_clip):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    frames = Case(DMAE, DMAE.Config(), "", tiny_clip.dim, 0).frames((3, 2))
    seen: dict[str, Any] = {"backbone": deepcopy(tiny_clip), "frames": frames}
    exec(example, seen)
    named = re.findall(r"\w+", re.search(r"terms = .*# (.*)", example).group(1))  # type: ignore[union-attr]
    assert set(seen["terms"]) == set(named) - {"and", "the", "triplets"}
    assert all(weight.grad is not None for weight in seen["model"].method.parameters())
