"""HCMI: the reference's acceptance tests, (a) to (i), in their order; then targets, switches, edges."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rushes.backbones.base import Frames, Words
from rushes.layers import SlotAggregation
from rushes.losses import hardest_negative_triplet, potential_positives
from rushes.methods.base import CLIP, FRAME, WHOLE, Batch, Gather
from rushes.methods.hcmi import HCMI, LEVELS, _seconds
from rushes.train.cases import Broken, cases
from rushes.train.pair import compared, learnt_by_two, share
from rushes.types import Tokens

DIM, SEEDS = 64, (0,)
CASE = cases(HCMI, DIM, SEEDS)[0]  # five texts and four videos of unequal lengths, two views, noise for padding
DOMINANT = 100.0  # of a softmax's logits: the rest is nothing


def shaken(config: HCMI.Config | None = None, dim: int = DIM, size: float = 0.1) -> HCMI:
    """A method in which nothing is at its start, where zeros would hide mistakes."""
    torch.manual_seed(0)
    method = HCMI(dim, config).eval()
    with torch.no_grad():
        for weight in method.parameters():
            weight += size * torch.randn_like(weight)
        method.log_scale.fill_(math.log(10.0))
    return method


def means_only(method: HCMI) -> HCMI:
    """W_a and w at zero."""
    with torch.no_grad():
        for part in (method.to_clips, method.to_video, method.to_phrases, method.to_sentence):
            part.choice.weight.zero_()
    return method


def singles(vectors: Sequence[Sequence[float]]) -> Frames:
    """Videos of one frame each: clips and video are this frame, as the method starts."""
    frames = torch.tensor(vectors)[:, None]
    return Frames(frames, torch.ones(frames.shape[:2], dtype=torch.bool), torch.tensor([[[0.0, 1.0]]] * len(frames)))


def word_and_sentence(words: Sequence[Sequence[float]], sentences: Sequence[Sequence[float]]) -> Words:
    """Texts of one word each: phrases are this word, as the method starts; the sentence is the backbone's."""
    vectors = torch.tensor(words)[:, None]
    return Words(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool), torch.tensor(sentences))


# --- (a) to (c): aggregation -----------------------------------------------------------------------------------------


def test_a_without_choice_video_is_the_mean_of_its_frames_and_sentence_is_eot():
    method = means_only(HCMI(DIM).eval())
    words, frames = CASE.words(), CASE.frames()
    assert method.temporal is not None
    each = method.temporal(frames.vectors, frames.mask)
    clips, _ = method.to_clips(each, frames.mask)
    video, _ = method.to_video(clips, torch.ones(clips.shape[:2], dtype=torch.bool))
    for row, count in enumerate(frames.mask.sum(dim=1).tolist()):
        torch.testing.assert_close(video[row, 0], each[row, :count].mean(dim=0), atol=1e-5, rtol=0)
    sentences = method.encode_text(words).vectors[:, 0]
    eot = words.sentence / words.sentence.norm(dim=1, keepdim=True)
    torch.testing.assert_close(sentences, eot, atol=1e-5, rtol=0)
    summaries = method.encode_video(frames).vectors[:, 0]
    torch.testing.assert_close(summaries, video[:, 0] / video[:, 0].norm(dim=1, keepdim=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [HCMI.Config(), HCMI.Config(layers=0), HCMI.Config(interaction="mean")],
    ids=["default", "no layers", "mean"],
)
def test_b_changing_any_padding_changes_nothing(config):
    method = shaken(config)
    batch = CASE.batch()
    assert batch.second is not None
    text, video, losses = method.encode_text(batch.words), method.encode_video(batch.frames), method.step(batch)

    def other(vectors: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[..., None], vectors, 1e4 * torch.randn_like(vectors))

    words = replace(batch.words, vectors=other(batch.words.vectors, batch.words.mask))
    views = [
        Frames(other(view.vectors, view.mask), view.mask, torch.where(view.mask[..., None], view.spans, 7e6))
        for view in (batch.frames, batch.second)
    ]
    text_again, video_again = method.encode_text(words), method.encode_video(views[0])
    for before, after in ((text, text_again), (video, video_again)):
        torch.testing.assert_close(after.vectors[after.mask], before.vectors[before.mask])
        torch.testing.assert_close(after.weights, before.weights)
    assert video.spans is not None
    assert video_again.spans is not None
    assert torch.equal(video_again.spans[video.mask], video.spans[video.mask])
    for level, scores in method.levels(text, video).items():
        torch.testing.assert_close(method.levels(text_again, video_again)[level], scores)
    losses_again = method.step(replace(batch, words=words, frames=views[0], second=views[1]))
    for name, value in losses.items():
        torch.testing.assert_close(losses_again[name], value)


@pytest.mark.parametrize("slots", [1, 3, 9], ids=lambda slots: f"{slots} slots of 6 tokens")
def test_c_columns_of_shares_sum_to_one_and_padding_has_none(slots):
    layer = SlotAggregation(DIM, slots)
    torch.nn.init.normal_(layer.choice.weight)
    frames = CASE.frames()
    found, shares = layer(frames.vectors, frames.mask)
    assert found.shape == (4, slots, DIM)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4, slots))
    assert not shares[~frames.mask].any()
    assert bool((shares[frames.mask] >= 0).all())


def test_c_a_slot_that_nobody_chooses_is_still_a_mean():
    """All tokens alike and sure of the other slot: U underflows to 0 for all of them, U / sum U must not be 0 / 0."""
    layer = SlotAggregation(DIM, slots=2)
    token = torch.randn(DIM)
    with torch.no_grad():
        layer.choice.weight[0] = -3 * layer.norm(token)
        layer.choice.weight[1] = -layer.choice.weight[0]
    tokens, real = token.expand(1, 5, DIM), torch.ones(1, 5, dtype=torch.bool)
    assert layer.choice(layer.norm(tokens)).softmax(dim=2)[0, :, 0].tolist() == [0.0] * 5
    found, shares = layer(tokens, real)
    torch.testing.assert_close(shares, torch.full((1, 5, 2), 0.2))
    torch.testing.assert_close(found, token.expand(1, 2, DIM))
    found.sum().backward()
    assert layer.choice.weight.grad is not None
    assert bool(layer.choice.weight.grad.isfinite().all())


# --- (d): the whole model once more, one pair at a time, in numpy and float64 ----------------------------------------


@dataclass(frozen=True)
class Naive:
    """HCMI from the formulas, for one text and one video without padding."""

    weights: dict[str, np.ndarray]
    config: HCMI.Config
    heads: int

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, x: np.ndarray, name: str, eps: float) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def block(self, x: np.ndarray, name: str, eps: float) -> np.ndarray:
        count, dim = x.shape
        width = dim // self.heads
        inputs = self.linear(self.norm(x, f"{name}.norm_attention", eps), f"{name}.inputs")
        queries, keys, values = np.split(inputs, 3, axis=1)
        attended = np.zeros_like(x)
        for head in range(self.heads):
            own = slice(head * width, (head + 1) * width)
            for n in range(count):
                share = softmax(np.array([queries[n, own] @ keys[m, own] for m in range(count)]) / math.sqrt(width))
                attended[n, own] = sum(share[m] * values[m, own] for m in range(count))
        x = x + self.linear(attended, f"{name}.attended")
        wide = self.linear(self.norm(x, f"{name}.norm_forward", eps), f"{name}.wide")
        return x + self.linear(wide / (1 + np.exp(-1.702 * wide)), f"{name}.narrow")

    def merge(self, x: np.ndarray, name: str) -> np.ndarray:
        z = self.block(x, f"{name}.block", 1e-5)
        logits = self.linear(self.norm(z, f"{name}.norm", 1e-5), f"{name}.choice")
        if logits.shape[1] == 1:
            return (softmax(logits[:, 0]) @ z)[None]
        chosen = np.stack([softmax(row) for row in logits])
        return np.stack([sum(u[n] * z[n] for n in range(len(z))) / u.sum() for u in chosen.T])

    def video(self, frames: np.ndarray) -> list[np.ndarray]:
        """V^f, V^c, V^v."""
        each = frames
        if self.config.layers:
            each = frames + self.weights["temporal.positions"][: len(frames)]
            for layer in range(self.config.layers):
                each = self.block(each, f"temporal.blocks.{layer}", 1e-12)
            each = frames + each
        clips = self.merge(each, "to_clips")
        return [each, clips, self.merge(clips, "to_video")]

    def text(self, words: np.ndarray, sentence: np.ndarray) -> list[np.ndarray]:
        """T^w, T^p, T^s."""
        phrases = self.merge(words, "to_phrases")
        return [words, phrases, sentence + self.weights["gate"] * self.merge(phrases, "to_sentence")]

    def importance(self, x: np.ndarray, name: str) -> np.ndarray:
        if self.config.interaction == "mean":
            return np.full(len(x), 1 / len(x))
        hidden = self.linear(x, f"token_weights.{name}.head.0")
        return softmax(self.linear(np.maximum(hidden, 0), f"token_weights.{name}.head.2")[:, 0])

    def levels(self, text: list[np.ndarray], video: list[np.ndarray]) -> list[float]:
        """s_fw, s_cp, s_vs of one pair."""
        found = []
        for x, y, names in zip(text[:2], video[:2], (("word", "frame"), ("phrase", "clip")), strict=True):
            cosines = [[cosine(a, b) for b in y] for a in x]
            of_x, of_y = (self.importance(tokens, name) for tokens, name in zip((x, y), names, strict=True))
            by_x = sum(of_x[a] * max(cosines[a][b] for b in range(len(y))) for a in range(len(x)))
            by_y = sum(of_y[b] * max(cosines[a][b] for a in range(len(x))) for b in range(len(y)))
            found.append((by_x + by_y) / 2)
        return [*found, cosine(text[2][0], video[2][0])]


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def naive(method: HCMI, heads: int = 1) -> Naive:
    weights = {name: weight.detach().double().numpy() for name, weight in method.state_dict().items()}
    return Naive(weights, method.config, heads)


def real(vectors: Tensor, mask: Tensor) -> list[np.ndarray]:
    return [row[own].double().numpy() for row, own in zip(vectors, mask, strict=True)]


@pytest.mark.parametrize(
    ("config", "dim", "heads"),
    [
        (HCMI.Config(layers=2, weights=(0.5, 0.3, 0.2)), 16, 1),
        (HCMI.Config(layers=0, interaction="mean", clips=9, phrases=1, expansion=2), 16, 1),
        (HCMI.Config(layers=1), 128, 2),
    ],
    ids=["weighted", "mean, more clips than frames, one phrase", "two heads"],
)
def test_d_scores_are_those_of_a_naive_double_loop(config, dim, heads):
    """Texts of 7, 3, 1, 5 and 4 words, videos of 6, 3, 1 and 5 frames; nothing at its start; in float64."""
    method = shaken(config, dim).double()
    case = replace(CASE, dim=dim)
    words, frames = case.words(), case.frames()
    words = replace(words, vectors=words.vectors.double(), sentence=words.sentence.double())
    frames = replace(frames, vectors=frames.vectors.double())
    text, video = method.encode_text(words), method.encode_video(frames)
    loops = naive(method, heads)
    of_videos = [loops.video(rows) for rows in real(frames.vectors, frames.mask)]
    sentences = words.sentence.numpy()
    of_texts = [loops.text(rows, sentences[n]) for n, rows in enumerate(real(words.vectors, words.mask))]
    wanted = torch.tensor([[loops.levels(one, other) for other in of_videos] for one in of_texts])
    assert wanted.dtype == torch.float64
    found = method.levels(text, video)
    for place, level in enumerate(LEVELS):
        torch.testing.assert_close(found[level], wanted[..., place], atol=1e-10, rtol=0)
    torch.testing.assert_close(method.score(text, video), wanted @ torch.tensor(config.weights).double())
    for row, (single, clips, whole) in enumerate(of_videos):  # tokens lie as promised: whole, clips, frames
        stored = np.concatenate([whole, clips, single])
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        torch.testing.assert_close(video.vectors[row, : len(stored)], torch.from_numpy(stored))


# --- (e), (f): which pairs are potential positives -------------------------------------------------------------------


def naive_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    count, views = len(first), (first, second)
    alike = np.zeros((count, count), dtype=bool)
    for i in range(count):
        for j in range(count):
            mean = sum(cosine(views[k][i], views[m][j]) for k in (0, 1) for m in (0, 1)) / 4
            alike[i, j] = i != j and mean >= cosine(first[i], second[i])
    return alike


def test_e_equal_views_find_exact_duplicates_alone():
    """Also where rounding puts the duplicates' cosine a bit below the threshold, as it does for some of these sizes."""
    for count in (3, 7, 33, 64, 128, 131):
        for dim in (24, 512):
            videos = torch.randn(count, dim)
            videos[-1] = 3 * videos[0]
            wanted = torch.zeros(count, count, dtype=torch.bool)
            wanted[0, -1] = wanted[-1, 0] = True
            assert torch.equal(potential_positives(videos, videos), wanted), (count, dim)


def test_e_in_a_step_with_equal_views():
    method, batch = shaken(), CASE.batch()
    method.step(replace(batch, second=batch.frames))
    assert method.statistics["potential positives among strangers"] == 0
    same = batch.frames[[0, 1, 0]]
    method.step(Batch(batch.words[:3], same, torch.arange(3), torch.arange(3), same))
    assert method.statistics["potential positives among strangers"] == pytest.approx(2 / 6)


FIRST = ((1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.6, 0.8))
SECOND = ((0.5, 0.5, 0.5, 0.5), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.6, 0.8))


def test_f_the_boundary_belongs_to_the_positives():
    """The first two: (1 + 0 + 1/2 + 1/2) / 4 = 1/2, which is the cosine of the first's views; the second's is 0.

    The third is equal in both views, so finds nobody; others find it with (0 + 0.7 + 0 + 0.7) / 4 = 0.35 and 0.
    """
    first, second = torch.tensor(FIRST), torch.tensor(SECOND)
    by_hand = [[False, True, False], [True, False, True], [False, False, False]]  # 0 >= 0 is a boundary too
    assert potential_positives(first, second).tolist() == by_hand
    assert naive_alike(first.double().numpy(), second.double().numpy()).tolist() == by_hand
    second[1] = torch.tensor([0.0, 0.99, -0.1, -0.1])  # a little further off
    assert potential_positives(first, second)[0].tolist() == [False, False, False]


def test_f_random_views_agree_with_the_loop():
    base = torch.randn(6, 8)[[0, 0, 1, 1, 2, 3, 4, 5]]
    views = [base + 0.7 * torch.randn_like(base) for _ in range(2)]
    found = potential_positives(*views)
    assert found.tolist() == naive_alike(*(view.double().numpy() for view in views)).tolist()
    assert 0 < int(found.sum()) < 56
    assert not torch.equal(found, found.T)


def test_f_thresholds_are_not_rounded_to_half_precision():
    """Lookalikes just below the threshold, under the autocast of mixed-precision training."""
    videos = torch.randn(32, 512)[torch.arange(128) % 32] + torch.randn(512) + 0.1 * torch.randn(128, 512)
    views = [videos + 0.25 * torch.randn(128, 512) for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = potential_positives(*views)
    assert torch.equal(found, potential_positives(*views))
    assert 0 < int(found.sum()) < 20


# --- (g), and targets: the losses of a step, once more by loops ------------------------------------------------------


def naive_step(
    views: Sequence[np.ndarray], words: np.ndarray, sentences: np.ndarray, of_text: list[int], config: Any, scale: float
) -> dict[str, float]:
    """The losses of videos of one frame and texts of one word, text t being of row of_text[t] of the videos.

    There s_fw = s_cp = cos(word, frame) and s_vs = cos(sentence, frame).
    """
    count = len(views[0])
    alike = naive_alike(*views) if config.denoise else np.zeros((count, count), dtype=bool)
    if config.mutual:
        alike = alike & alike.T
    losses = [
        naive_losses(
            {
                "frame_word": [[cosine(word, frame) for frame in view] for word in words],
                "clip_phrase": [[cosine(word, frame) for frame in view] for word in words],
                "video_sentence": [[cosine(sentence, frame) for frame in view] for sentence in sentences],
            },
            alike,
            of_text,
            config,
            scale,
        )
        for view in (views if config.denoise and config.second else views[:1])
    ]
    return {name: sum(terms[name] for terms in losses) / len(losses) for name in losses[0]}


def naive_losses(
    scores: dict[str, list[list[float]]], alike: np.ndarray, of_text: list[int], config: Any, scale: float
) -> dict[str, float]:
    texts, videos = range(len(of_text)), range(len(alike))

    def one_way(rows: Any, columns: Any, score: Any, same: Any, found: Any) -> float:
        """-mean over rows of sum_j q_ij log softmax_j, q_ij = P_ij / sum_j P_ij over all columns."""
        total = 0.0
        for i in rows:
            if config.potential == "positives":
                positive, against = [j for j in columns if same(i, j) or found(i, j)], list(columns)
            else:
                positive = [j for j in columns if same(i, j)]
                against = [j for j in columns if same(i, j) or not found(i, j)]
            bottom = math.log(sum(math.exp(scale * score(i, j)) for j in against))
            total += sum(bottom - scale * score(i, j) for j in positive) / len(positive)
        return total / len(rows)

    def same(t: int, v: int) -> bool:
        return of_text[t] == v

    terms = {}
    for level, matrix in scores.items():
        table = np.array(matrix)
        t2v = one_way(texts, videos, lambda t, v, m=table: m[t, v], same, lambda t, v: alike[of_text[t], v])
        v2t = one_way(
            videos, texts, lambda v, t, m=table: m[t, v], lambda v, t: same(t, v), lambda v, t: alike[v, of_text[t]]
        )
        terms[level] = (t2v + v2t) / 2
    matrix, hinges = scores["video_sentence"], []
    negative = [
        [of_text[t] != v and not alike[of_text[t], v] and not alike[v, of_text[t]] for v in videos] for t in texts
    ]
    for t, v in enumerate(of_text):
        worst_video = max((matrix[t][k] for k in videos if negative[t][k]), default=-math.inf)
        worst_text = max((matrix[j][v] for j in texts if negative[j][v]), default=-math.inf)
        short = [max(worst - matrix[t][v] + config.margin, 0.0) for worst in (worst_video, worst_text)]
        hinges.append(sum(short) / 2)
    if config.marginal:
        terms["marginal"] = config.marginal * sum(hinges) / len(hinges)
    return terms


SWITCHED = [
    HCMI.Config(layers=0),
    HCMI.Config(layers=0, mutual=True),
    HCMI.Config(layers=0, potential="excluded"),
    HCMI.Config(layers=0, potential="excluded", mutual=True, second=False),
    HCMI.Config(layers=0, second=False),
    HCMI.Config(layers=0, denoise=False),
    HCMI.Config(layers=0, marginal=0.0),
    HCMI.Config(layers=0, marginal=0.3, margin=0.4),
]


def changed(config: HCMI.Config) -> str:
    """What differs from the first."""
    default = HCMI.Config(layers=0)
    names = ("denoise", "potential", "mutual", "second", "marginal", "margin")
    return ", ".join(f"{n}={getattr(config, n)}" for n in names if getattr(config, n) != getattr(default, n)) or "all"


@pytest.mark.parametrize("config", SWITCHED, ids=changed)
def test_g_a_step_computes_what_the_loops_say(config):
    """Seven texts of six videos, which lie in three pairs of lookalikes; potential positives are not symmetric."""
    topics = torch.randn(3, 8)[[0, 0, 1, 1, 2, 2]]
    views = [topics + 0.6 * torch.randn_like(topics) for _ in range(2)]
    of_text = [0, 1, 2, 3, 4, 5, 0]
    words, sentences = topics[of_text] + torch.randn(7, 8), topics[of_text] + torch.randn(7, 8)
    loops = [view.double().numpy() for view in views]
    alike = naive_alike(*loops)
    assert alike.any()
    assert (alike != alike.T).any()
    method = HCMI(8, config).eval()
    with torch.no_grad():
        method.log_scale.fill_(math.log(5.0))
    numbers = torch.tensor([50, 10, 40, 20, 60, 30])
    batch = Batch(
        word_and_sentence(words.tolist(), sentences.tolist()),
        singles(views[0].tolist()),
        numbers[of_text],
        numbers,
        singles(views[1].tolist()) if config.denoise else None,
    )
    wanted = naive_step(loops, words.double().numpy(), sentences.double().numpy(), of_text, config, 5.0)
    found = method.step(batch)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value, rel=1e-5), name
    if config.marginal:
        assert found["marginal"].item() > 0


def test_g_targets_are_uniform_and_row_wise_in_both_directions():
    """P by hand: 0 finds 1, nobody else finds anybody. So text 0 has two positives, texts 1 and 2 have one;
    video 0 has two, videos 1 and 2 have one: text 0 is no positive of video 1, text 1 is one of video 0."""
    method = HCMI(3, HCMI.Config(layers=0, marginal=0.0)).eval()
    with torch.no_grad():
        method.log_scale.zero_()
    alike = torch.tensor([[False, True, False], [False, False, False], [False, False, False]])
    axes = torch.eye(3).tolist()
    text, video = method.encode_text(word_and_sentence(axes, axes)), method.encode_video(singles(axes))
    losses = method._losses(text, video, torch.eye(3, dtype=torch.bool), alike)
    bottom = math.log(math.e + 2)  # scores are 1 on the diagonal, 0 beside it
    wanted = ((bottom - 1 + bottom) / 2 + 2 * (bottom - 1)) / 3  # in both directions the same
    assert [losses[level].item() for level in LEVELS] == pytest.approx([wanted] * 3)
    # a second sentence vector breaks the tie of the directions: s_vs(text 1, video 0) = 0.6, all else as before
    tilted = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
    text = method.encode_text(word_and_sentence(axes, tilted))
    found = method._losses(text, video, torch.eye(3, dtype=torch.bool), alike)["video_sentence"].item()
    e = math.exp
    rows = [  # text 0 and its videos 0, 1; text 1 and its video 1; text 2
        math.log(e(1) + 2) - 1 / 2,
        math.log(e(0.6) + e(0.8) + 1) - 0.8,
        math.log(e(1) + 2) - 1,
    ]
    columns = [  # video 0 and its texts 0, 1; video 1 and its text 1, not text 0; video 2
        math.log(e(1) + e(0.6) + 1) - (1 + 0.6) / 2,
        math.log(e(0.8) + 2) - 0.8,
        math.log(e(1) + 2) - 1,
    ]
    assert found == pytest.approx((sum(rows) / 3 + sum(columns) / 3) / 2)


def test_g_no_marginal_loss_beyond_the_margin():
    """Sentences and frames on axes: every margin is 1. Then theta = 1.2 is 0.2 too much, in both directions."""
    axes = torch.eye(3).tolist()
    for margin, wanted in ((0.1, 0.0), (0.99, 0.0), (1.2, 0.2)):
        method = HCMI(3, HCMI.Config(layers=0, margin=margin))
        text, video = method.encode_text(word_and_sentence(axes, axes)), method.encode_video(singles(axes))
        loss = method.loss(text, video, torch.eye(3, dtype=torch.bool))["marginal"]
        assert loss.item() == pytest.approx(wanted, abs=1e-6)


def test_g_mining_never_takes_a_potential_positive():
    """Texts 0, 1 lie on one axis, as their videos do. Unless these are potential positives they are the hardest."""
    sentences, frames = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    method = HCMI(2, HCMI.Config(layers=0))
    text, video = method.encode_text(word_and_sentence(sentences, sentences)), method.encode_video(singles(frames))
    own, alike = torch.eye(3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool)
    assert method._losses(text, video, own, alike)["marginal"].item() == pytest.approx(0.1 * 2 / 3)
    alike[0, 1] = True  # found from one side: the pair is mined from neither
    assert method._losses(text, video, own, alike)["marginal"].item() == 0
    scores = torch.tensor([[0.2, 0.9], [0.9, 0.2]], requires_grad=True)
    loss = hardest_negative_triplet(scores, ignored=~torch.eye(2, dtype=torch.bool))
    assert loss.item() == 0
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]  # no negative is left: no NaN of it either


# --- (h), (i) --------------------------------------------------------------------------------------------------------


def test_h_stored_tokens_score_as_fresh_ones_do():
    method, words, frames = shaken(), CASE.words(), CASE.frames()
    text, video = method.encode_text(words), method.encode_video(frames)
    rows = [video[row : row + 1].trimmed().to(torch.float16) for row in range(len(video))]
    assert [row.mask.shape[1] for row in rows] == [1 + 4 + count for count in (6, 3, 1, 5)]
    stored = Tokens.cat(rows).padded(20)
    assert stored.vectors.dtype == torch.float16
    again = method.levels(method.encode_text(words).to(torch.float16), stored)
    for level, scores in method.levels(text, video).items():
        torch.testing.assert_close(again[level], scores, atol=1e-3, rtol=0)
    assert not torch.equal(method.score(text, stored), method.score(text, video))


def test_i_two_processes_learn_as_one():
    """Every configuration, two views where it takes two: both processes end with the weights of one that had all."""
    found = cases(HCMI, DIM, SEEDS)
    assert [case.name for case in found if case.config.views == 1] == ["denoise=False"]
    assert CASE.batch().second is not None
    learnt = learnt_by_two(["hcmi"], DIM, SEEDS, patience=150)["hcmi"]
    compared(found, learnt)
    shifted = [[{part: weight + 1e-3 for part, weight in rank.items()} for rank in case] for case in learnt]
    with pytest.raises(Broken, match="from a single process"):
        compared(found, shifted)


@pytest.mark.parametrize(
    "config", [HCMI.Config(), HCMI.Config(potential="excluded", mutual=True)], ids=["default", "turned"]
)
def test_i_the_loss_of_two_processes_is_that_of_one(config):
    """Without processes: what the second one sends is kept, and handed to the first one's gather."""
    method, batch = shaken(config), CASE.batch()
    alone = method.step(batch)
    statistics = method.statistics
    sent: list[Any] = []

    def keep(part: Any) -> Any:
        sent.append(part)
        return part

    method.step(share(batch, 1), Gather(tokens=keep, numbers=keep))
    assert len(sent) == 5  # text, first view, two sorts of numbers, second view
    together = method.step(
        share(batch, 0),
        Gather(
            tokens=lambda mine: Tokens.cat([mine, sent.pop(0)]), numbers=lambda mine: torch.cat([mine, sent.pop(0)])
        ),
    )
    assert sent == []
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value)
    assert method.statistics == pytest.approx(statistics)


# --- switches --------------------------------------------------------------------------------------------------------


def test_without_the_second_views_training_no_gradient_goes_through_it():
    for second in (True, False):
        method, batch = shaken(HCMI.Config(second=second)), CASE.batch()
        assert batch.second is not None
        views = [replace(view, vectors=view.vectors.requires_grad_()) for view in (batch.frames, batch.second)]
        graphs: list[bool] = []

        def gathered(tokens: Tokens, graphs: list[bool] = graphs) -> Tokens:
            graphs.append(tokens.vectors.requires_grad)
            return tokens

        losses = method.step(replace(batch, frames=views[0], second=views[1]), Gather(tokens=gathered))
        assert graphs == [True, True, second]  # of texts, first and second view
        torch.stack(list(losses.values())).sum().backward()
        assert views[0].vectors.grad is not None
        assert bool(views[0].vectors.grad.any())
        if second:
            assert views[1].vectors.grad is not None
            assert bool(views[1].vectors.grad.any())
        else:
            assert views[1].vectors.grad is None


def test_two_views_are_wanted_and_missed():
    assert HCMI.Config().views == 2
    assert HCMI.Config(denoise=False).views == 1
    batch = replace(CASE.batch(), second=None)
    with pytest.raises(ValueError, match=r"two views of each video: fill Batch\.second, or set denoise=False"):
        shaken().step(batch)
    losses = shaken(HCMI.Config(denoise=False)).step(batch)
    assert set(losses) == {*LEVELS, "marginal"}


def test_without_denoising_a_step_is_the_plain_loss():
    method, batch = shaken(HCMI.Config(denoise=False)), CASE.batch()
    text, video = method.encode_text(batch.words), method.encode_video(batch.frames)
    positives = batch.video_of_text[:, None] == batch.video[None, :]
    for name, value in method.loss(text, video, positives).items():
        torch.testing.assert_close(method.step(batch)[name], value)


def test_level_weights():
    text, video = shaken().encode_text(CASE.words()), shaken().encode_video(CASE.frames())
    levels = shaken().levels(text, video)
    for place, level in enumerate(LEVELS):
        weights = tuple(float(place == other) for other in range(3))
        torch.testing.assert_close(shaken(HCMI.Config(weights=weights)).score(text, video), levels[level])
    assert not torch.allclose(levels["frame_word"], levels["clip_phrase"], atol=1e-3)
    mean = torch.stack(list(levels.values())).mean(dim=0)
    torch.testing.assert_close(shaken().score(text, video), mean)
    torch.testing.assert_close(levels["video_sentence"], shaken().summary(text) @ shaken().summary(video).T)


def test_a_configuration_survives_json():
    config = HCMI.Config(clips=3, weights=(0.5, 0.25, 0.25), potential="excluded")
    read = json.loads(json.dumps(HCMI(8, config).settings()))
    assert isinstance(read["weights"], list)
    assert HCMI.configured(**read) == config


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"weights": [0.5, 0.5]}, r"weights are \(0.5, 0.5\); give one for each of frame_word, clip_phrase"),
        ({"clips": 0}, "0 clips and 8 phrases; each level needs at least one token"),
    ],
)
def test_impossible_configurations_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        HCMI.configured(**switches)


def test_tokens_of_another_method_are_refused():
    bare = Tokens(torch.ones(1, 20, 8), torch.ones(1, 20, dtype=torch.bool))
    with pytest.raises(ValueError, match="encoded by another method"):
        HCMI(8).score(bare, bare)


# --- the start -------------------------------------------------------------------------------------------------------


def test_new_slots_are_nearly_the_mean_and_the_gate_is_shut():
    method = HCMI(512, HCMI.Config(layers=0))
    frames, real = torch.randn(4, 12, 512), torch.ones(4, 12, dtype=torch.bool)
    with torch.no_grad():
        clips, shares = method.to_clips(frames, real)
    mean = frames.mean(dim=1, keepdim=True).expand_as(clips)
    assert float(torch.cosine_similarity(clips, mean, dim=2).min()) > 0.85  # of frames that are as unlike as can be
    assert float(torch.cosine_similarity(clips, mean, dim=2).max()) < 0.9999  # but not the same
    assert 0.3 < float(shares.clamp_min(1e-9).log().std()) < 0.6  # 0.02 sqrt(512) = 0.45
    assert method.gate.item() == 0


def test_gradients_reach_everything_within_three_steps():
    """The aggregation to a sentence waits for its gate, and so gets its first gradient in the second step."""
    method = CASE.method().train()
    reached: dict[str, int] = {}
    for step in (1, 2, 3):
        torch.stack(list(method.step(CASE.batch()).values())).sum().backward()
        with torch.no_grad():
            for name, weight in method.named_parameters():
                assert weight.grad is not None
                if weight.grad.any():
                    reached.setdefault(name, step)
                weight -= 1e-3 * weight.grad
                weight.grad = None
    assert set(reached) == {name for name, _ in method.named_parameters()}
    assert reached["gate"] == 1
    assert min(step for name, step in reached.items() if name.startswith("to_sentence")) == 2


def test_as_many_parameters_as_the_reference_counts():
    """4 blocks and 77 places of seqTransf, 4 aggregations with a block each, 4 weight heads: 26.3 million."""
    block, places, head = 3_152_384, 77 * 512, 512 * 512 + 512 + 512
    aggregations = 4 * (block + 2 * 512) + (4 + 1 + 8 + 1) * 512
    count = sum(weight.numel() for weight in HCMI(512).parameters())
    assert count == 4 * block + places + aggregations + 4 * head + 2 == 26_322_434


# --- spans, edges, statistics ----------------------------------------------------------------------------------------


def test_clips_saw_the_frames_that_chose_them():
    """Two kinds of frames, each sure of its clip; as the method starts no clip is sure, and each saw everything."""
    vectors = torch.tensor([[[4.0, 0.0, 0.0, -4.0]] * 2 + [[0.0, 4.0, -4.0, 0.0]] * 2 + [[9.0, 9.0, 9.0, 0.0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    seconds = torch.tensor([[[50.0, 51.0], [51.0, 52.0], [52.0, 53.0], [53.0, 55.0], [0.0, 999.0]]])
    method = means_only(HCMI(4, HCMI.Config(layers=0, clips=2)))
    video = method.encode_video(Frames(vectors, mask, seconds))
    assert video.level is not None
    assert video.level[0].tolist() == [WHOLE, CLIP, CLIP, FRAME, FRAME, FRAME, FRAME, FRAME]
    assert video.spans is not None
    assert video.spans[0, :3].tolist() == [[50.0, 55.0]] * 3
    with torch.no_grad():
        method.to_clips.choice.weight.copy_(DOMINANT * torch.tensor([[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, -1.0, 0.0]]))
    sure = method.encode_video(Frames(vectors, mask, seconds))
    assert sure.spans is not None
    assert sure.spans[0, :3].tolist() == [[50.0, 55.0], [50.0, 52.0], [52.0, 55.0]]
    assert sure.spans[0, 3:].tolist() == seconds[0].tolist()
    torch.testing.assert_close(sure.vectors[0, 1], sure.vectors[0, 3])  # such a clip is its frames


def test_half_of_the_largest_share_is_enough():
    """Four frames and padding: clip 0 has half twice, clip 1 a frame on either side of one that it left out."""
    shares = torch.tensor([[[0.5, 0.4], [0.25, 0.1], [0.24, 0.4], [0.01, 0.1], [0.0, 0.0]]])
    seconds = torch.tensor([[[10.0, 11.0], [11.0, 12.0], [12.0, 13.0], [13.0, 14.0], [0.0, 99.0]]])
    assert _seconds(shares, seconds).tolist() == [[[10.0, 12.0], [10.0, 13.0]]]


def test_one_frame_and_one_word_are_all_their_levels():
    """More slots than tokens are copies of the one token, with weights that still sum to one in each level."""
    method = HCMI(8, HCMI.Config(layers=0))
    text = method.encode_text(word_and_sentence([[1.0] * 8], [[0.0] * 7 + [1.0]]))
    video = method.encode_video(singles([[2.0] + [0.0] * 7]))
    assert text.mask.all()
    assert video.mask.all()
    torch.testing.assert_close(video.vectors, video.vectors[:, :1].expand(1, 6, 8))
    torch.testing.assert_close(text.vectors[:, 1:], text.vectors[:, 1:2].expand(1, 9, 8))
    for tokens, merged in ((text, 8), (video, 4)):
        assert tokens.weights is not None
        sums = [part.sum().item() for part in tokens.weights[0].split([1, merged, 1])]
        assert sums == pytest.approx([1, 1, 1])
    assert method.score(text, video).item() == pytest.approx((1 / math.sqrt(8) + 1 / math.sqrt(8) + 0) / 3)
    assert video.spans is not None
    assert video.spans[0].tolist() == [[0.0, 1.0]] * 6


def test_statistics_of_a_batch_by_hand():
    """Rows 0 and 1 are one video, and find each other; so do the strangers 2 and 3, both ways; 4 finds nobody."""
    first = [[1.0, 0.0, 0.0, 0.0]] * 2 + [[0.0, 1.0, 0.0, 0.0]] * 2 + [[0.0, 0.0, 0.0, 1.0]]
    second = [[0.8, 0.0, 0.6, 0.0]] * 2 + [[0.0, 0.8, 0.0, 0.6]] * 2 + [[0.0, 0.0, 0.0, 1.0]]
    numbers = torch.tensor([7, 7, 1, 2, 3])
    method = HCMI(4, HCMI.Config(layers=0))
    words = word_and_sentence(first, first)
    method.step(Batch(words, singles(first), numbers, numbers, singles(second)))
    assert method.statistics == pytest.approx(
        {
            "cosine between clips": 1.0,  # copies of one frame
            "cosine between phrases": 1.0,
            "potential positives among strangers": 2 / 18,  # 20 ordered pairs, of which 2 are known
            "recall of known pairs": 1.0,
            "precision by known pairs": 0.5,
        }
    )
    numbers = torch.arange(5)  # nobody is known, nothing to recall
    method.step(Batch(words, singles(first), numbers, numbers, singles(second)))
    assert method.statistics["potential positives among strangers"] == pytest.approx(4 / 20)
    assert "recall of known pairs" not in method.statistics


def test_the_cosine_between_clips_by_hand():
    """Two clips, each sure of one of two orthogonal frames; a single clip has no other to be compared with."""
    frames = Frames(
        torch.tensor([[[4.0, 0.0, 0.0, -4.0], [0.0, 4.0, -4.0, 0.0]]]),
        torch.tensor([[True, True]]),
        torch.tensor([[[0.0, 1.0], [1.0, 2.0]]]),
    )
    words, number = word_and_sentence([[1.0, 0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]]), torch.tensor([1])
    method = HCMI(4, HCMI.Config(layers=0, clips=2, phrases=1, denoise=False))
    with torch.no_grad():
        method.to_clips.choice.weight.copy_(DOMINANT * torch.tensor([[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, -1.0, 0.0]]))
    method.step(Batch(words, frames, number, number))
    assert method.statistics == pytest.approx({"cosine between clips": 0.0}, abs=1e-6)
