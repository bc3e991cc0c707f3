"""X-MLNet is the authors' program where it is asked to be, and what their abstract says where it is not."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import cross_entropy

from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.layers import CrossAttentionPool
from rushes.losses import connectivity, influential
from rushes.methods.base import Batch, Method
from rushes.methods.xmlnet import TERMS, XMLNet
from rushes.similarity import unit
from rushes.types import Tokens

DIM, HEADS, LAYERS, PAIRS, WORDS, FRAMES = 128, 2, 2, 6, 5, 4
KAPPA = float(np.exp(np.float64(np.float32(math.log(100)))))  # of an fp32 logarithm: 100.0000064

# --- the authors' program, from its description: plain numpy in float64, their parameter names, one pair at a time ----


def softmax(x: ndarray) -> ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def length_one(x: ndarray) -> ndarray:
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def layer_norm(x: ndarray, w: dict[str, ndarray], name: str, eps: float) -> ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: ndarray, w: dict[str, ndarray], name: str) -> ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def seen_in_time(frames: ndarray, mask: ndarray, w: dict[str, ndarray]) -> ndarray:
    """One video through the temporal encoder, the outer residual included; padded keys are lowered by 1e6."""
    z, size = frames + w["frame_position_embeddings.weight"][: len(frames)], DIM // HEADS
    for n in range(LAYERS):
        name = f"transformerClip.resblocks.{n}"
        x = layer_norm(z, w, f"{name}.ln_1", 1e-12)
        x = x @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
        q, k, v = x[:, :DIM], x[:, DIM : 2 * DIM], x[:, 2 * DIM :]
        out = np.zeros_like(z)
        for i in range(len(z)):
            for h in range(HEADS):
                head = slice(h * size, (h + 1) * size)
                out[i, head] = softmax(k[:, head] @ q[i, head] / math.sqrt(size) - 1e6 * (1 - mask)) @ v[:, head]
        z = z + linear(out, w, f"{name}.attn.out_proj")
        x = linear(layer_norm(z, w, f"{name}.ln_2", 1e-12), w, f"{name}.mlp.c_fc")
        z = z + linear(x / (1 + np.exp(-1.702 * x)), w, f"{name}.mlp.c_proj")
    return z + frames


def pooled_by(query: ndarray, tokens: ndarray, w: dict[str, ndarray], block: str, mask: ndarray | None = None):
    """The cross-attention block of one query on one set; the authors have no mask. Also its attention weights."""
    q, x = layer_norm(query, w, f"{block}.layer_norm1", 1e-5), layer_norm(tokens, w, f"{block}.layer_norm1", 1e-5)
    if mask is not None:
        x = x[mask]
    q, k, u = (linear(part, w, f"{block}.cross_attn.{name}_proj") for part, name in ((q, "q"), (x, "k"), (x, "v")))
    size = DIM // HEADS
    heads = [slice(h * size, (h + 1) * size) for h in range(HEADS)]
    shares = [softmax(k[:, head] @ q[head] / math.sqrt(size)) for head in heads]
    o = np.concatenate([share @ u[:, head] for share, head in zip(shares, heads, strict=True)])
    r = layer_norm(linear(o, w, f"{block}.cross_attn.out_proj"), w, f"{block}.layer_norm2", 1e-5)
    return layer_norm(r + linear(r, w, f"{block}.linear_proj"), w, f"{block}.layer_norm3", 1e-5), shares


def frame_word(words: ndarray, frames: ndarray, w: dict[str, ndarray], aosm: bool) -> float:
    m = words @ w["local_mat_weight"] @ frames.T  # word frame
    of_frame = np.array([softmax(m[:, k] / 0.01) @ w["word_mat_weight"] @ m[:, k] for k in range(m.shape[1])])
    of_word = np.array([softmax(m[i] / 0.01) @ w["frame_mat_weight"] @ m[i] for i in range(len(m))])
    best_of_frame, best_of_word = (of_frame, of_word) if aosm else (m.max(axis=0), m.max(axis=1))
    by_frames = softmax(of_frame / 0.01) @ w["frame_mat_weight2"] @ best_of_frame
    return (by_frames + softmax(of_word / 0.01) @ w["word_mat_weight2"] @ best_of_word) / 2


def authors(x: dict[str, ndarray], w: dict[str, ndarray], variant: str = "A", **changed) -> dict[str, ndarray]:
    """What their program computes of a batch of pairs, in one of the variants A, C, D, E that it has in its files."""
    alpha, beta, kappa = changed.get("alpha", 0.8), changed.get("beta", 0.5), changed.get("kappa", KAPPA)
    gamma_video, gamma_text = changed.get("gammas", (0.7, 0.7))
    count = len(x["words"])
    f, words, s = length_one(x["frames"]), length_one(x["words"]), length_one(x["sentence"])
    v = np.stack(
        [
            length_one(length_one(seen_in_time(x["frames"][j], x["frame_mask"][j], w))[x["frame_mask"][j] > 0].mean(0))
            for j in range(count)
        ]
    )

    def pairs(score) -> ndarray:
        return np.array([[score(i, j) for j in range(count)] for i in range(count)])

    g = s @ v.T
    fw = pairs(lambda i, j: frame_word(words[i], f[j], w, aosm=variant == "D"))
    s2f = pairs(lambda i, j: s[i] @ length_one(pooled_by(s[i], f[j], w, "s2f")[0]))
    v2w = pairs(lambda j, i: v[j] @ length_one(pooled_by(v[j], words[i], w, "v2w")[0]))  # video by text
    c = alpha * s2f + (1 - alpha) * v2w  # added as it is
    train, evaluation = (g + fw) / 2 + c, (g + fw) / 2
    if variant == "C":
        train = train / 2
    if variant == "E":
        train, evaluation = g + c, g

    def nce(logits: ndarray) -> float:
        return float(np.mean([-np.log(softmax(row)[i]) for i, row in enumerate(logits)]))

    def retained(vectors: ndarray, gamma: float) -> ndarray:
        alike = vectors @ vectors.T
        if changed.get("softmaxed", False):
            c = np.array([(softmax(row) * row).mean() for row in alike])
        else:
            c = alike.mean(axis=1)
        return c / c.max() < gamma

    def contrast(anchor: ndarray, matrix: ndarray, other: ndarray, kept: ndarray) -> float:
        logits = kappa * anchor @ matrix @ other.T
        return nce(np.concatenate([logits, 0.8 * kappa * (anchor @ anchor[kept].T)], axis=1))

    kept_video, kept_text = retained(v, gamma_video), retained(s, gamma_text)
    sim = (nce(kappa * train) + nce(kappa * train.T)) / 2
    clr = contrast(v, w["global_v2tmat_weight"], s, kept_video) + contrast(s, w["global_t2vmat_weight"], v, kept_text)
    clr = clr / 2
    return {
        "video": v, "global": g, "frame_word": fw, "sentence_frame": s2f, "video_word": v2w,
        "train": train, "evaluation": evaluation, "kept_video": kept_video, "kept_text": kept_text,
        "sim": np.array(sim), "clr": np.array(clr), "total": np.array(sim + beta * clr),
    }  # fmt: skip


# --- their weights under our names -----------------------------------------------------------------------------------

BLOCK = {
    "ln_1.": "norm_attention.",
    "attn.in_proj_": "inputs.",
    "attn.out_proj.": "attended.",
    "ln_2.": "norm_forward.",
    "mlp.c_fc.": "wide.",
    "mlp.c_proj.": "narrow.",
}
POOL = {
    "cross_attn.q_proj.": "query.",
    "cross_attn.k_proj.": "key.",
    "cross_attn.v_proj.": "value.",
    "cross_attn.out_proj.": "pooled.",
    "linear_proj.": "forth.",
    "layer_norm1.": "norm_input.",
    "layer_norm2.": "norm_pooled.",
    "layer_norm3.": "norm_output.",
}
MATRICES = {
    "local_mat_weight": "words_to_frames",
    "word_mat_weight": "words_first",
    "word_mat_weight2": "words_second",
    "frame_mat_weight": "frames_first",
    "frame_mat_weight2": "frames_second",
    "global_v2tmat_weight": "to_text",
    "global_t2vmat_weight": "to_video",
    "clip.logit_scale": "log_scale",
}


def under_our_names(weights: dict[str, ndarray], frames: int, s2f: str = "s2f", v2w: str = "v2w") -> dict[str, Tensor]:
    """A state of XMLNet from the authors' parameters, whose two blocks begin with `s2f` and `v2w`.

    Matrices are used the same way round on both sides (x W^T + b, w A f, v G s, weights times B from the right), so
    only names change, and of their 77 places the first `frames` are taken.
    """
    found = {}
    for name, value in weights.items():
        if name in MATRICES:
            ours = MATRICES[name]
        elif name == "frame_position_embeddings.weight":
            ours, value = "temporal.positions", value[:frames]
        elif name.startswith("transformerClip.resblocks."):
            number, part = name.removeprefix("transformerClip.resblocks.").split(".", 1)
            ours = f"temporal.blocks.{number}." + renamed(part, BLOCK)
        elif name.startswith(f"{s2f}."):
            ours = "sentence_frame." + renamed(name.removeprefix(f"{s2f}."), POOL)
        elif name.startswith(f"{v2w}."):
            ours = "video_word." + renamed(name.removeprefix(f"{v2w}."), POOL)
        else:
            raise LookupError(f"no name of ours for their {name}")
        found[ours] = torch.from_numpy(np.asarray(value))
    return found


def renamed(name: str, begins: dict[str, str]) -> str:
    for theirs, ours in begins.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise LookupError(f"no name of ours for their {name}")


def drawn_weights(seed: int, words: int = WORDS, frames: int = FRAMES) -> dict[str, ndarray]:
    """Everything random and nothing at its start, so that a matrix that is transposed or forgotten shows."""
    draw = np.random.default_rng(seed)

    def near(size: int, spread: float) -> ndarray:
        return np.eye(size) + spread * draw.standard_normal((size, size))

    def norm(name: str) -> dict[str, ndarray]:
        return {
            f"{name}.weight": 1 + 0.3 * draw.standard_normal(DIM),
            f"{name}.bias": 0.3 * draw.standard_normal(DIM),
        }

    def line(name: str, into: int, out: int, dot: str = ".") -> dict[str, ndarray]:
        return {
            f"{name}{dot}weight": draw.standard_normal((out, into)) / math.sqrt(into),
            f"{name}{dot}bias": 0.3 * draw.standard_normal(out),
        }

    w = {
        "local_mat_weight": near(DIM, 0.05),
        "word_mat_weight": near(words, 0.2),
        "word_mat_weight2": near(words, 0.2),
        "frame_mat_weight": near(frames, 0.2),
        "frame_mat_weight2": near(frames, 0.2),
        "global_v2tmat_weight": near(DIM, 0.05),
        "global_t2vmat_weight": near(DIM, 0.05),
        "frame_position_embeddings.weight": 0.3 * draw.standard_normal((77, DIM)),
        "clip.logit_scale": np.float64(np.float32(math.log(100))),
    }
    for n in range(LAYERS):
        name = f"transformerClip.resblocks.{n}"
        w |= norm(f"{name}.ln_1") | norm(f"{name}.ln_2")
        w |= line(f"{name}.attn.in_proj", DIM, 3 * DIM, "_") | line(f"{name}.attn.out_proj", DIM, DIM)
        w |= line(f"{name}.mlp.c_fc", DIM, 4 * DIM) | line(f"{name}.mlp.c_proj", 4 * DIM, DIM)
    for block in ("s2f", "v2w"):
        for name in ("layer_norm1", "layer_norm2", "layer_norm3"):
            w |= norm(f"{block}.{name}")
        for name in ("cross_attn.q_proj", "cross_attn.k_proj", "cross_attn.v_proj", "cross_attn.out_proj"):
            w |= line(f"{block}.{name}", DIM, DIM)
        w |= line(f"{block}.linear_proj", DIM, DIM)
    return w


def drawn_inputs(seed: int, texts: int = PAIRS, videos: int = PAIRS) -> dict[str, ndarray]:
    """Texts and videos with more or less in common, not normalised; padding is as random as the rest."""
    draw = np.random.default_rng(1000 + seed)
    common = draw.standard_normal(DIM)
    of_text, of_video = (draw.uniform(-0.5, 1.5, (count, 1, 1)) * common for count in (texts, videos))
    real_words, real_frames = draw.integers(1, WORDS + 1, texts), draw.integers(1, FRAMES + 1, videos)
    return {
        "words": of_text + draw.standard_normal((texts, WORDS, DIM)),
        "sentence": of_text[:, 0] + draw.standard_normal((texts, DIM)),
        "frames": of_video + draw.standard_normal((videos, FRAMES, DIM)),
        "word_mask": (np.arange(WORDS) < real_words[:, None]).astype(np.int64),
        "frame_mask": (np.arange(FRAMES) < real_frames[:, None]).astype(np.int64),
    }


def ours(x: dict[str, ndarray]) -> tuple[Words, Frames]:
    t = {name: torch.from_numpy(value) for name, value in x.items()}
    spans = torch.arange(FRAMES + 1.0).unfold(0, 2, 1).expand(len(t["frames"]), -1, -1)
    return (
        Words(t["words"], t["word_mask"].bool(), t["sentence"]),
        Frames(t["frames"], t["frame_mask"].bool(), spans.double()),
    )


def released(w: dict[str, ndarray], **changed) -> XMLNet:
    config = replace(XMLNet.Config.released(), layers=LAYERS, words=WORDS, frames=FRAMES, **changed)
    method = XMLNet(DIM, config).double().eval()
    state = under_our_names(w, frames=FRAMES)
    method.load_state_dict({name: state[name] for name in method.state_dict()})
    return method


def close(found: Tensor | float, wanted: ndarray | float, within: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=0, atol=within)


# --- as released ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_as_released_it_is_the_authors_program(seed):
    x, w = drawn_inputs(seed), drawn_weights(seed)
    theirs, method = authors(x, w), released(w)
    words, frames = ours(x)
    text, video = method.encode_text(words), method.encode_video(frames)
    assert not text.mask.all()
    assert not video.mask.all()
    close(video.vectors[:, 0], theirs["video"])
    levels = method.levels(text, video, TERMS)
    for term in TERMS:
        close(levels[term], theirs[term])
    close(method.similarity(text, video, TERMS), theirs["train"])
    close(method.score(text, video), theirs["evaluation"])
    assert 0 < theirs["kept_text"].sum() < PAIRS
    assert 0 < theirs["kept_video"].sum() < PAIRS
    terms = method.step(Batch(words, frames, torch.arange(PAIRS), torch.arange(PAIRS)))
    assert set(terms) == {"nce", "bilinear"}
    close(terms["nce"], theirs["sim"])
    close(terms["bilinear"] / 0.5, theirs["clr"])  # beta times theirs
    close(terms["nce"] + terms["bilinear"], theirs["total"])
    assert method.statistics["texts pruned"] == pytest.approx(1 - theirs["kept_text"].mean())
    assert method.statistics["videos pruned"] == pytest.approx(1 - theirs["kept_video"].mean())


VARIANTS = {
    "A, the older code's alpha": ({"alpha": 0.9}, ("A", {"alpha": 0.9})),
    "B": (
        {"statistic": "softmax", "gamma_video": 0.8, "gamma_text": 0.6, "alpha": 0.9, "beta": 1.0},
        ("B", {"softmaxed": True, "gammas": (0.8, 0.6), "alpha": 0.9, "beta": 1.0}),
    ),
    "C": (
        {"combine": "mean", "statistic": "softmax", "gamma_video": 0.8, "gamma_text": 0.6, "beta": 1.0},
        ("C", {"softmaxed": True, "gammas": (0.8, 0.6), "beta": 1.0}),
    ),
    "D": (
        {"pooled": "attended", "statistic": "softmax", "gamma_video": 0.8, "gamma_text": 0.6, "beta": 1.0},
        ("D", {"softmaxed": True, "gammas": (0.8, 0.6), "beta": 1.0}),
    ),
    "E": (
        {"terms": ("global", "sentence_frame", "video_word"), "terms_eval": ("global",), "beta": 0.0},
        ("E", {"beta": 0.0}),
    ),
    "nothing retained": ({"gamma_video": 1e-3, "gamma_text": 1e-3}, ("A", {"gammas": (1e-3, 1e-3)})),
    "everything retained": ({"gamma_video": 9.0, "gamma_text": 9.0}, ("A", {"gammas": (9.0, 9.0)})),
}


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_existing_switches_express_the_other_variants_of_their_code(variant):
    """B, C and D halve the sum of both losses: beta 1 gives twice theirs, which their optimiser does not tell apart."""
    changed, (name, theirs) = VARIANTS[variant]
    x, w = drawn_inputs(7), drawn_weights(7)
    theirs, method = authors(x, w, name, **theirs), released(w, **changed)
    words, frames = ours(x)
    text, video = method.encode_text(words), method.encode_video(frames)
    close(method.similarity(text, video, method.config.terms), theirs["train"])
    close(method.score(text, video), theirs["evaluation"])
    terms = method.loss(text, video, torch.eye(PAIRS, dtype=torch.bool))
    close(terms["nce"], theirs["sim"])
    if method.config.beta:
        close(terms["bilinear"] / method.config.beta, theirs["clr"])
    close(sum(terms.values()), theirs["total"])


@torch.no_grad()
def test_a_learnt_temperature_is_theirs_too():
    x, w = drawn_inputs(3), drawn_weights(3)
    w["clip.logit_scale"] = np.float64(math.log(30))
    theirs, method = authors(x, w, kappa=30.0), released(w)
    words, frames = ours(x)
    terms = method.step(Batch(words, frames, torch.arange(PAIRS), torch.arange(PAIRS)))
    close(sum(terms.values()), theirs["total"])


@torch.no_grad()
def test_as_released_whatever_is_not_the_pair_is_a_negative():
    """Two captions of one video: the authors' batch is pairs, and knows nothing of it."""
    x, w = drawn_inputs(5), drawn_weights(5)
    method, (words, frames) = released(w), ours(x)
    numbers = torch.tensor([4, 4, 1, 2, 3, 0])
    terms = method.step(Batch(words, frames, numbers, numbers))
    close(sum(terms.values()), authors(x, w)["total"])
    assert method.statistics["texts recall"] in (0.0, 0.5, 1.0)  # yet the known pair is counted


@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_at_a_scale_of_200_fp32_is_float64(pairs):
    """Both losses at the scale training begins with, which "sum" doubles; tiny batches, where theirs is not finite."""
    x, w = drawn_inputs(9, pairs, pairs), drawn_weights(9)
    exact, single = released(w), released(w).float()
    words, frames = ours(x)
    numbers = torch.arange(pairs)
    wanted = exact.step(Batch(words, frames, numbers, numbers))
    words, frames = (
        Words(words.vectors.float(), words.mask, words.sentence.float()),
        Frames(frames.vectors.float(), frames.mask, frames.spans.float()),
    )
    found = single.step(Batch(words, frames, numbers, numbers))
    for name, value in found.items():
        close(float(value.detach()), float(wanted[name].detach()), within=2e-4)
    sum(found.values()).backward()
    for name, weight in single.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name


def test_as_released_the_two_blocks_start_at_random_and_the_bare_matrices_as_the_identity():
    method = XMLNet(512, replace(XMLNet.Config.released(), layers=1))
    for pool in (method.sentence_frame, method.video_word):
        for layer in (pool.query, pool.key, pool.value, pool.pooled, pool.forth):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert abs(layer.weight.mean().item()) < 3e-4
            assert not layer.bias.any()
        for norm in (pool.norm_input, pool.norm_pooled, pool.norm_output):
            assert bool((norm.weight == 1).all())
            assert not norm.bias.any()
    for matrix, size in (
        (method.words_to_frames, 512),
        (method.to_text, 512),
        (method.to_video, 512),
        (method.words_first, 32),
        (method.words_second, 32),
        (method.frames_first, 12),
        (method.frames_second, 12),
    ):
        assert torch.equal(matrix, torch.eye(size))
    count = sum(weight.numel() for weight in method.sentence_frame.parameters())
    assert count == 5 * (512**2 + 512) + 3 * 2 * 512  # 1.316 million


# --- the minimum tests of the reference ------------------------------------------------------------------------------


def small(**changed) -> XMLNet:
    """Every weight random, in float64."""
    config = XMLNet.Config(**{"layers": LAYERS, "words": WORDS, "frames": FRAMES} | changed)
    method = XMLNet(DIM, config).double().eval()
    state = under_our_names(drawn_weights(11, config.words, config.frames), config.frames)
    method.load_state_dict({name: state[name] for name in method.state_dict()})
    return method


@torch.no_grad()
def test_block_against_a_naive_loop_over_pairs():
    x, w, method = drawn_inputs(11, 5, 3), drawn_weights(11), small()
    words, frames = ours(x)
    text, video = method.encode_text(words), method.encode_video(frames)
    levels = method.levels(text, video, ("sentence_frame", "video_word"))
    s, v = text.vectors[:, 0].numpy(), video.vectors[:, 0].numpy()
    for i in range(5):
        for j in range(3):
            real_frames, real_words = x["frame_mask"][j] > 0, x["word_mask"][i] > 0
            phi, _ = pooled_by(s[i], length_one(x["frames"][j]), w, "s2f", real_frames)
            psi, _ = pooled_by(v[j], length_one(x["words"][i]), w, "v2w", real_words)
            close(levels["sentence_frame"][i, j], s[i] @ length_one(phi))
            close(levels["video_word"][i, j], v[j] @ length_one(psi))


@torch.no_grad()
def test_video_word_is_text_by_video_with_unequal_counts():
    """Five texts, three videos; each entry is that of the pair by itself, and tiny budgets change nothing."""
    method = small()
    words, frames = ours(drawn_inputs(12, 5, 3))
    text, video = method.encode_text(words), method.encode_video(frames)
    found = method.levels(text, video, TERMS)
    for term, level in found.items():
        assert level.shape == (5, 3), term
        for i in range(5):
            for j in range(3):
                alone = method.levels(text[i : i + 1], video[j : j + 1], (term,))[term]
                close(level[i, j], alone.item())
        close(method.levels(text, video, (term,), budget_bytes=1)[term], level.numpy())
    close(method.score_within(text, video, 1), method.score(text, video).numpy())
    close(method.score(text, video), sum(method.config.weights(TERMS)[term] * found[term] for term in TERMS).numpy())


@torch.no_grad()
def test_padding_invariance():
    """Cut to the real tokens, or behind more noise: the same scores, though mixing matrices couple the places."""
    method = small(words=WORDS + 3, frames=FRAMES + 3)
    words, frames = ours(drawn_inputs(13, 4, 4))
    text, video = method.encode_text(words), method.encode_video(frames)
    scores = method.score(text, video)
    for i in range(4):
        for j in range(4):
            close(method.score(text[i : i + 1].trimmed(), video[j : j + 1].trimmed()), scores[i : i + 1, j : j + 1])
    wide = text.padded(WORDS + 3)
    wide = replace(wide, vectors=torch.where(wide.mask[..., None], wide.vectors, 50 * torch.randn(wide.vectors.shape)))
    close(method.score(wide, video.padded(FRAMES + 2)), scores.numpy())
    positives = torch.eye(4, dtype=torch.bool)
    for name, value in method.loss(wide, video.padded(FRAMES + 2), positives).items():
        close(value, method.loss(text, video, positives)[name])


@torch.no_grad()
def test_identity_init_pools_the_attended_mean_of_normalised_tokens():
    """At step 0: O = LN of the attention-weighted mean of LN1(tokens); of a dim-128 set, each head its own weights."""
    method = XMLNet(DIM, XMLNet.Config(layers=1)).double().eval()
    identity = {f"s2f.layer_norm{n}.{part}": np.full(DIM, float(part == "weight")) for n in (1, 2, 3)
                for part in ("weight", "bias")}  # fmt: skip
    for name in ("cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.out", "linear"):
        identity |= {f"s2f.{name}_proj.weight": np.eye(DIM), f"s2f.{name}_proj.bias": np.zeros(DIM)}
    x = drawn_inputs(14)
    tokens, query = length_one(x["frames"][0]), length_one(x["sentence"][0])
    _, shares = pooled_by(query, tokens, identity, "s2f")
    normalised = layer_norm(tokens, identity, "s2f.layer_norm1", 1e-5)
    half = DIM // 2
    mean = np.concatenate([shares[0] @ normalised[:, :half], shares[1] @ normalised[:, half:]])
    pool = method.sentence_frame
    every = torch.ones(1, FRAMES, dtype=torch.bool)
    found = pool(torch.from_numpy(query)[None], torch.from_numpy(tokens)[None], every)[0, 0]
    close(unit(found), length_one(mean - mean.mean()), within=1e-12)  # the direction, exactly
    close(found, layer_norm(mean, identity, "s2f.layer_norm3", 1e-12), within=1e-3)  # the length, but for eps
    asked = torch.from_numpy(query)[None]
    close(
        pool.cosines(asked, torch.from_numpy(tokens)[None], every).item(),
        query @ length_one(mean - mean.mean()),
        within=1e-12,
    )
    for layer in (pool.query, pool.key, pool.value, pool.pooled, pool.forth):
        assert torch.equal(layer.weight, torch.eye(DIM).double())


ALIKE = np.array([[1.0, 0.8, 0.6, 0.0], [0.8, 1.0, 0.4, 0.0], [0.6, 0.4, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def with_products(products: ndarray) -> Tensor:
    """Unit vectors whose products these are."""
    return torch.from_numpy(np.linalg.cholesky(products))


def test_connectivity_on_a_hand_made_matrix():
    vectors = with_products(ALIKE)
    close(connectivity(vectors), [1.4 / 3, 1.2 / 3, 1.0 / 3, 0.0])
    close(connectivity(vectors, itself=True), [0.6, 0.55, 0.5, 0.25])
    close(connectivity(vectors, softmax=True, itself=True), [(softmax(row) * row).mean() for row in ALIKE])
    assert influential(connectivity(vectors), ratio=0.8).tolist() == [True, True, False, False]
    assert influential(connectivity(vectors, itself=True), ratio=0.7).tolist() == [True, True, True, False]


def wholes(vectors: Tensor) -> Tokens:
    """Tokens of nothing but a whole: enough for the global level."""
    return Tokens(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool))


def plain(dim: int = 4, **changed) -> XMLNet:
    """The global level alone, at scale 1, no other loss: hands can follow it."""
    given = {"terms": ("global",), "terms_eval": ("global",), "beta": 0.0, "summary": 0.0, "scale": 1.0, "layers": 1}
    return XMLNet(dim, XMLNet.Config(**given | changed)).double().eval()


def over_kept(logits: Tensor, positives: Tensor, out: Tensor) -> Tensor:
    """Cross-entropy of each positive against itself and the negatives of its row that are kept, one by one."""
    rows = []
    for i in range(len(logits)):
        right = [j for j in range(logits.shape[1]) if positives[i, j]]
        wrong = [j for j in range(logits.shape[1]) if not positives[i, j] and not out[i, j]]
        rows.append(torch.stack([
            cross_entropy(logits[i, [j, *wrong]][None], torch.tensor([0])) for j in right
        ]).mean())  # fmt: skip
    return torch.stack(rows).mean()


def both_ways(logits: Tensor, positives: Tensor, of_text: list[int], of_video: list[int]) -> Tensor:
    """`over_kept` of rows without the videos `of_text`, and of columns without the texts `of_video`."""
    out = torch.zeros(2, *logits.shape, dtype=torch.bool)
    out[0, :, of_text] = True
    out[1, of_video] = True
    return (over_kept(logits, positives, out[0]) + over_kept(logits.T, positives.T, out[1].T)) / 2


def test_masked_info_nce_is_cross_entropy_over_the_kept_columns():
    """All terms of the loss, gradients too: what flags the items is no part of it."""
    method = small(scale=5.0, gamma_mode="ratio", gamma_text=0.8, gamma_video=0.9, intra=0.8, summary=0.5)
    words, frames = ours(drawn_inputs(15))
    text, video = method.encode_text(words), method.encode_video(frames)
    pairs = torch.eye(PAIRS, dtype=torch.bool)
    s, v = text.vectors[:, 0], video.vectors[:, 0].detach()
    out_text = influential(connectivity(s), ratio=0.8, most=0.5).nonzero().flatten().tolist()
    out_video = influential(connectivity(v), ratio=0.9, most=0.5).nonzero().flatten().tolist()
    assert 0 < len(out_text) < PAIRS
    assert 0 < len(out_video) < PAIRS
    k, v = method.log_scale.exp(), video.vectors[:, 0]
    found = method.loss(text, video, pairs)
    close(found["nce"].detach(), both_ways(k * method.score(text, video), pairs, out_text, out_video).detach(), 1e-8)
    close(found["summary"].detach() / 0.5, both_ways(k * s @ v.T, pairs, out_text, out_video).detach(), 1e-8)

    def contrast(anchor: Tensor, logits: Tensor, out: list[int]) -> Tensor:
        left_out = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
        left_out[:, out] = True
        own = 0.8 * k * anchor @ anchor.T
        wide = torch.cat([logits, own], dim=1)
        return over_kept(wide, torch.cat([pairs, 0 * pairs > 0], 1), torch.cat([left_out, left_out | pairs], 1))

    wanted = (
        contrast(s, k * s @ method.to_video @ v.T, out_text) + contrast(v, k * v @ method.to_text @ s.T, out_video)
    ) / 2
    close(found["bilinear"].detach() / 0.5, wanted.detach(), 1e-8)
    (mine,) = torch.autograd.grad(found["bilinear"] / 0.5, method.to_video, retain_graph=True)
    (theirs,) = torch.autograd.grad(wanted, method.to_video)
    close(mine, theirs.numpy(), 1e-8)


def test_a_positive_is_never_masked():
    """Every item is flagged, and a row still has its own; the loss is then that of nothing to tell it from: zero."""
    vectors = with_products(np.full((4, 4), 0.9) + 0.1 * np.eye(4))
    method = plain(gamma_mode="ratio", gamma_text=1e-6, gamma_video=1e-6, most=1.0)
    pairs = torch.eye(4, dtype=torch.bool)
    tokens = wholes(vectors.requires_grad_())
    loss = method.loss(tokens, tokens, pairs)["nce"]
    assert method.statistics["texts pruned"] == 1.0
    assert loss.item() == 0.0
    loss.backward()
    assert vectors.grad is not None
    assert bool(vectors.grad.isfinite().all())
    # three of four flagged: those three still are the positives of their rows, against the one that is left
    most = plain(gamma_mode="quantile", prune=1.0, most=0.75)
    scores = vectors.detach() @ vectors.detach().T
    close(most.loss(tokens, tokens, pairs)["nce"].detach(), both_ways(scores, pairs, [0, 1, 2], [0, 1, 2]), 1e-8)


@pytest.mark.parametrize("fn_side", ["anchor", "candidate", "either"])
def test_gamma_without_end_gives_plain_info_nce(fn_side):
    method = plain(DIM, gamma_mode="ratio", gamma_text=math.inf, gamma_video=math.inf, fn_side=fn_side, scale=20.0)
    words, frames = ours(drawn_inputs(16))
    text, video = method.encode_text(words), method.encode_video(frames)
    pairs = torch.eye(PAIRS, dtype=torch.bool)
    logits, right = method.log_scale.exp() * method.score(text, video), torch.arange(PAIRS)
    wanted = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    close(method.loss(text, video, pairs)["nce"].detach(), wanted.detach(), 1e-8)
    assert method.statistics["videos pruned"] == 0.0


def test_same_video_duplicates_are_excluded_in_known_mode():
    """Texts 0 and 1 are of video 0: neither is a negative of the other's, whatever is alike otherwise."""
    texts, videos = with_products(ALIKE), with_products(ALIKE)[:3]
    positives = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()
    scores = texts @ videos.T
    method = plain(fn_mode="known")
    found = method.loss(wholes(texts), wholes(videos), positives)["nce"]
    close(found.detach(), both_ways(scores, positives, [], []), 1e-8)
    column = scores[:, 0]  # of video 0: each of its two texts against texts 2 and 3 alone
    by_hand = torch.stack([column[[i, 2, 3]].logsumexp(0) - column[i] for i in (0, 1)]).mean()
    close(over_kept(scores.T[:1], positives.T[:1], torch.zeros(1, 4).bool()), by_hand)
    joint = plain(fn_mode="none").loss(wholes(texts), wholes(videos), positives)["nce"]
    both = column.logsumexp(0) - column[:2].logsumexp(0)  # "none": they share a numerator
    rest = torch.stack([scores[:, j].logsumexp(0) - scores[j + 1, j] for j in (1, 2)])
    rows = torch.stack([scores[i].logsumexp(0) - scores[i, j] for i, j in enumerate((0, 0, 1, 2))]).mean()
    close(joint.detach(), (rows + torch.cat([both[None], rest]).mean()) / 2)


@torch.no_grad()
@pytest.mark.parametrize("preset", ["default", "paper", "released"])
def test_scores_from_stored_tokens_equal_end_to_end_scores(preset):
    """Encoded one by one, padded anew, scored by another model with these weights, in fp32."""
    config = XMLNet.Config() if preset == "default" else getattr(XMLNet.Config, preset)()
    method = XMLNet(DIM, replace(config, layers=LAYERS)).eval()
    for weight in method.parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    x = drawn_inputs(17, 5, 4)
    if preset == "released":  # to which padding is no padding: full lengths
        x |= {"word_mask": np.ones_like(x["word_mask"]), "frame_mask": np.ones_like(x["frame_mask"])}
    words, frames = ours(x)
    words = Words(words.vectors.float(), words.mask, words.sentence.float())
    frames = Frames(frames.vectors.float(), frames.mask, frames.spans.float())
    scores = method.score(method.encode_text(words), method.encode_video(frames))
    other = XMLNet(DIM, method.config).eval()
    other.load_state_dict(method.state_dict())
    texts = Tokens.cat([method.encode_text(words[i : i + 1]).trimmed() for i in range(5)])
    videos = Tokens.cat([method.encode_video(frames[j : j + 1]).trimmed() for j in range(4)])
    close(other.score(texts, videos), scores.numpy(), within=1e-4)
    close(method.summary(videos) @ method.summary(texts).T, method.levels(texts, videos, ("global",))["global"].T, 1e-6)


# --- false negatives -------------------------------------------------------------------------------------------------

E1, E2, E3, E4 = torch.eye(4).double()
FIVE = torch.stack([E1, E1, E2, E1, E3])  # connectivity 1/2, 1/2, 0, 1/2, 0
THREE = torch.stack([E1, E1, E4])  # connectivity 1/2, 1/2, 0
OWN = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()

SIDES = {
    # by their texts' means the videos have 1/3, 1/2, 0; 1/3 is 0.67 of the most. By their videos the texts have
    # 1/2 four times, and 0
    "anchor": ([1], [0, 1, 2, 3]),
    "candidate": ([0, 1], [0, 1, 3]),
    # half of `most` for each: one video by texts (1) and one by videos (0); two texts either way, the first two
    "either": ([0, 1], [0, 1]),
}


@pytest.mark.parametrize("fn_side", SIDES)
def test_whose_modality_tells_with_three_texts_of_one_video(fn_side):
    of_text, of_video = SIDES[fn_side]
    method = plain(gamma_mode="ratio", most=1.0, fn_side=fn_side)
    found = method.loss(wholes(FIVE), wholes(THREE), OWN)["nce"]
    close(found.detach(), both_ways(FIVE @ THREE.T, OWN, of_text, of_video), 1e-8)


@pytest.mark.parametrize(
    ("fn_side", "of_text", "of_video"),
    [("anchor", [], [0, 1, 2, 3]), ("candidate", [0, 1], []), ("either", [0], [0, 1])],
)
def test_each_modality_has_its_own_gamma(fn_side, of_text, of_video):
    """Texts flag nobody: what is left out is left out by the videos' connectivity."""
    method = plain(gamma_mode="ratio", gamma_text=math.inf, most=1.0, fn_side=fn_side)
    found = method.loss(wholes(FIVE), wholes(THREE), OWN)["nce"]
    close(found.detach(), both_ways(FIVE @ THREE.T, OWN, of_text, of_video), 1e-8)


def test_pairwise_mode_leaves_out_what_is_alike_in_either_modality():
    """Texts 0, 1, 3 are equal, and videos 0, 1: no text of one is a negative of the other. All of 2 stays."""
    method = plain(fn_mode="pairwise", theta=0.99)
    found = method.loss(wholes(FIVE), wholes(THREE), OWN)["nce"]
    scores, out = FIVE @ THREE.T, torch.zeros(5, 3, dtype=torch.bool)
    out[[0, 1, 2], 1] = True  # text 2 by its video alone
    out[3, 0] = True
    wanted = (over_kept(scores, OWN, out) + over_kept(scores.T, OWN.T, out.T)) / 2
    close(found.detach(), wanted, 1e-8)
    assert method.statistics["texts pruned"] == pytest.approx(6 / 20)
    assert method.statistics["videos pruned"] == pytest.approx(2 / 6)
    plain_loss = plain(fn_mode="known").loss(wholes(FIVE), wholes(THREE), OWN)["nce"]
    never = plain(fn_mode="pairwise", theta=1.0).loss(wholes(FIVE[2:]), wholes(THREE[[0, 2, 2]]), torch.eye(3).bool())
    assert float(plain_loss.detach()) != pytest.approx(float(found.detach()))
    assert math.isfinite(float(never["nce"].detach()))


@pytest.mark.parametrize("fn_side", ["anchor", "candidate", "either"])
@pytest.mark.parametrize(("gamma_mode", "prune"), [("quantile", 0.9), ("quantile", 0.15), ("ratio", 0.0)])
def test_never_more_than_most_of_the_candidates_are_left_out(fn_side, gamma_mode, prune):
    """Features that all point alike, many texts a video, very unequally: half of the candidates stay all the same."""
    draw = torch.Generator().manual_seed(0)
    for videos in (1, 2, 5, 8):
        owner = torch.cat([torch.arange(videos), torch.randint(0, max(1, videos // 2), (3 * videos,), generator=draw)])
        positives = owner[:, None] == torch.arange(videos)
        text = unit(5 + torch.randn(len(owner), 4, generator=draw, dtype=torch.float64))
        video = unit(5 + torch.randn(videos, 4, generator=draw, dtype=torch.float64))
        method = plain(fn_side=fn_side, gamma_mode=gamma_mode, prune=prune, most=0.5)
        assert math.isfinite(float(method.loss(wholes(text), wholes(video), positives)["nce"].detach()))
        connected = [connectivity(text), connectivity(video)]
        excluded = method._excluded(connected, [positives, positives], positives)
        assert excluded is not None
        of_text, of_video = excluded
        sides = 2 if fn_side == "either" else 1
        bound = min(0.5, prune * sides) if gamma_mode == "quantile" else 0.5
        assert int(of_text[0].sum()) <= bound * videos
        assert int(of_video[:, 0].sum()) <= bound * len(owner)
        if gamma_mode == "ratio" and fn_side == "anchor":
            assert int(of_text[0].sum()) == videos // 2  # without the bound it would have been all


def test_statistics_on_hand_made_duplicates():
    """Texts 0 and 1 are of one video and like each other; the two most connected are flagged."""
    texts = with_products(ALIKE)
    positives = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()
    method = plain(prune=0.5)
    terms = method.loss(wholes(texts), wholes(texts[1:]), positives)
    assert set(terms) == {"nce"}
    assert all(type(value) is float for value in method.statistics.values())
    wanted = {
        "texts pruned": 0.5,
        "texts likeness": (0.8 + 0.6 + 0.4) / 6,
        "texts recall": 1.0,  # 0 for 1, and 1 for 0
        "texts precision": 2 / 6,  # of the pairs with 0 or 1 as the other: three each
        "videos pruned": 1 / 3,
        "videos likeness": 0.4 / 3,
    }
    assert method.statistics == pytest.approx(wanted)
    wholes_of_one = wholes(texts[:1])
    plain().loss(wholes_of_one, wholes_of_one, positives[:1, :1])  # a batch of one has nothing to count
    fresh = plain()
    fresh.loss(wholes_of_one, wholes_of_one, positives[:1, :1])
    assert fresh.statistics == {}


# --- switches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms", [(term,) for term in TERMS] + [("global", "video_word"), TERMS[1:], ("frame_word", "sentence_frame")]
)
@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_some_terms_alone_train_and_score(terms, combine):
    method = small(terms=terms, terms_eval=terms[:1], combine=combine)
    words, frames = ours(drawn_inputs(18, 4, 3))
    text, video = method.encode_text(words), method.encode_video(frames)
    weight = (
        1.0 if combine == "mean" or terms[0] in ("global", "frame_word") else method.config.weights(terms)[terms[0]]
    )
    close(method.score(text, video).detach(), weight * method.levels(text, video, terms[:1])[terms[0]].detach().numpy())
    positives = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]).bool()
    sum(method.train().loss(text, video, positives).values()).backward()
    for name, weight in method.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
    made = {name.split(".")[0] for name, _ in method.named_parameters()}
    assert ("sentence_frame" in made, "video_word" in made) == ("sentence_frame" in terms, "video_word" in terms)
    assert ("words_to_frames" in made) == ("frame_word" in terms)


def test_unequal_texts_and_videos_are_refused_where_video_word_is_not_transposed():
    method = released(drawn_weights(0))
    assert method.config.paired
    words, frames = ours(drawn_inputs(19, 5, 4))
    text, video = method.encode_text(words), method.encode_video(frames)
    message = "5 texts and 4 videos are not as many; train on pairs, text i with video i, or set transposed=True"
    with pytest.raises(ValueError, match=message):
        method.loss(text, video, torch.ones(5, 4, dtype=torch.bool))
    assert method.score(text, video).shape == (5, 4)  # its evaluation has no such term
    without = replace(method.config, terms=("global", "frame_word"))
    assert not without.paired
    assert not XMLNet.Config().paired


# the same file without these tests' own check of types, which is first to complain about a wrong name
UNCHECKED = registry.find("methods", inspect.getfile(XMLNet), Method).Config
BAD = {
    "terms": [(), ("globl",), ("global", "global"), "global"],
    "terms_eval": [(), ("words",), None],
    "combine": ["average"],
    "pooled": ["mean"],
    "fn_mode": ["all", None],
    "fn_side": ["both"],
    "gamma_mode": ["share"],
    "statistic": ["median"],
    "alpha": [-0.1, 1.1, math.nan],
    "temperature": [0.0, -1.0],
    "layers": [0],
    "words": [0],
    "frames": [-1],
    "dropout": [-0.1, 1.5],
    "scale": [0.0, 101.0],
    "summary": [-1.0],
    "beta": [-0.5, math.nan],
    "gamma_text": [0.0],
    "gamma_video": [-0.7],
    "prune": [1.5, -0.1],
    "most": [2.0],
    "theta": [1.5],
    "intra": [-0.8],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_a_bad_value_is_named_with_what_may_be(field, value):
    with pytest.raises(ValueError, match=rf"^{field} is .*; (give a tuple of some of global|it may be )"):
        UNCHECKED(**{field: value})


def test_every_field_that_can_be_wrong_is_tried():
    free = {"identity", "masked", "transposed", "itself"}  # True or False
    assert set(XMLNet.Config.__dataclass_fields__) - free == set(BAD)


def test_levels_that_weigh_nothing_are_untaught_or_mix_pairs_are_refused():
    with pytest.raises(ValueError, match=r"with alpha 0\.0 terms .*sentence_frame.* weighs nothing; add a level"):
        XMLNet.Config(terms=("sentence_frame",), alpha=0.0)
    with pytest.raises(ValueError, match=r"with alpha 1\.0 terms_eval .*video_word.* weighs nothing"):
        XMLNet.Config(terms_eval=("video_word",), alpha=1.0, combine="sum")
    with pytest.raises(ValueError, match="terms_eval has frame_word, sentence_frame, video_word, not taught by terms"):
        XMLNet.Config(terms=("global",))
    with pytest.raises(ValueError, match="take video_word out of terms_eval"):
        XMLNet.Config(transposed=False)


def test_more_words_than_it_was_made_for_are_refused():
    method = small(words=WORDS, frames=FRAMES)
    words, frames = ours(drawn_inputs(20, 2, 2))
    text, video = method.encode_text(words), method.encode_video(frames)
    with pytest.raises(ValueError, match="6 tokens, but the mixing matrix was made for 5"):
        method.score(text.padded(WORDS + 2), video)


def test_laws_are_broken_only_where_padding_is_attended():
    every = {
        "padding changes nothing",
        "stored tokens give the scores of the live model",
        "two processes learn as one",
    }
    released = XMLNet.Config.released()
    assert set(released.breaks()) == every
    assert set(replace(released, terms_eval=("global",)).breaks()) == every - {
        "stored tokens give the scores of the live model"
    }
    assert XMLNet.Config(masked=False, terms=("global",), terms_eval=("global",)).breaks() == {}
    assert XMLNet.Config().breaks() == XMLNet.Config.paper().breaks() == {}


def test_a_configuration_from_a_file_is_the_same():
    method = XMLNet(DIM, XMLNet.Config.released())
    settings = method.settings() | {"terms": list(TERMS), "terms_eval": ["global", "frame_word"]}
    assert XMLNet.configured(**settings) == XMLNet.Config.released()


# --- presets, by hand ------------------------------------------------------------------------------------------------

E = math.e


def test_the_default_by_hand():
    """Four pairs along four axes, k = 1: nobody is connected; three losses, each log((e + 3) / e)."""
    method = plain(beta=0.5, summary=0.5)
    tokens = wholes(torch.eye(4).double())
    terms = method.loss(tokens, tokens, torch.eye(4, dtype=torch.bool))
    one = math.log((E + 3) / E)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {"nce": one, "bilinear": one / 2, "summary": one / 2}
    )
    # 0.15 of seven is one: the first of the three equal ones, which then is nobody's negative
    seven = torch.eye(7).double()[[0, 0, 0, 1, 2, 3, 4]]
    terms = plain(7, beta=0.0).loss(wholes(seven), wholes(seven), torch.eye(7, dtype=torch.bool))
    rows = [math.log((3 * E + 4) / E)] + 2 * [math.log((2 * E + 4) / E)] + 4 * [math.log((E + 5) / E)]
    assert terms["nce"].item() == pytest.approx(sum(rows) / 7)


def test_the_papers_preset_by_hand():
    """The same four pairs: `bilinear` has three more negatives a row, of its own modality, at logit 0.8 * 0."""
    config = XMLNet.Config.paper()
    assert (config.combine, config.terms_eval, config.fn_mode, config.summary) == ("mean", TERMS, "connectivity", 0.0)
    method = XMLNet(4, replace(config, terms=("global",), terms_eval=("global",), scale=1.0, layers=1)).double().eval()
    tokens = wholes(torch.eye(4).double())
    terms = method.loss(tokens, tokens, torch.eye(4, dtype=torch.bool))
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {"nce": math.log((E + 3) / E), "bilinear": 0.5 * math.log((E + 6) / E)}
    )
    # pairs 0 and 1 are alike: both are as connected as can be, and of four no more than two go
    two = torch.eye(4).double()[[0, 0, 1, 2]]
    terms = method.loss(wholes(two), wholes(two), torch.eye(4, dtype=torch.bool))
    rows = 2 * [math.log((E + 2) / E)] + 2 * [math.log((E + 1) / E)]
    assert terms["nce"].item() == pytest.approx(sum(rows) / 4)
    rows = 2 * [math.log((E + 2 + 2) / E)] + 2 * [math.log((E + 1 + 1) / E)]
    assert terms["bilinear"].item() == pytest.approx(0.5 * sum(rows) / 4)


def test_the_released_preset_by_hand():
    """Products of `ALIKE`: items 0 to 2 are within 0.7 of the most connected, so 3 alone is a further negative,
    for itself too: e^0.8 beside its positive's e."""
    config = replace(XMLNet.Config.released(), terms=("global",), terms_eval=("global",), scale=1.0, layers=1)
    method = XMLNet(4, config).double().eval()
    tokens = wholes(with_products(ALIKE))
    terms = method.loss(tokens, tokens, torch.eye(4, dtype=torch.bool))
    sums = np.exp(ALIKE).sum(axis=1)
    assert terms["nce"].item() == pytest.approx(np.log(sums / E).mean())  # nobody is left out
    assert terms["bilinear"].item() == pytest.approx(0.5 * np.log(np.add(sums, [1, 1, 1, E**0.8]) / E).mean())
    assert method.statistics["texts pruned"] == 0.75


def test_at_step_0_the_frame_word_level_is_the_best_cosine():
    """One word, two frames at cosines 1 and 0.6: so cold that softmax is max; SUMA and AOSM agree."""
    one, two = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    words = Words(torch.tensor([[[2.0, 0.0]]]), one, torch.tensor([[0.0, 3.0]]))
    frames = Frames(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]), two, torch.tensor([[[0.0, 1.0], [1.0, 2.0]]]))
    for pooled in ("max", "attended"):
        method = XMLNet(2, XMLNet.Config(terms_eval=("frame_word",), pooled=pooled)).eval()
        assert method.score(method.encode_text(words), method.encode_video(frames)).item() == pytest.approx(1.0)


def test_dropout_is_drawn_in_training_alone():
    method = small()
    words, frames = ours(drawn_inputs(21))
    text, video = method.encode_text(words), method.encode_video(frames)
    positives = torch.eye(PAIRS, dtype=torch.bool)
    still = [method.loss(text, video, positives)["nce"].item() for _ in range(2)]
    moved = [method.train().loss(text, video, positives)["nce"].item() for _ in range(2)]
    assert still[0] == still[1]
    assert len({*still, *moved}) == 3
    assert isinstance(method.sentence_frame, CrossAttentionPool)
