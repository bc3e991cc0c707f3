"""The formulas of similarities, layers and losses in plain loops over real tokens, to compare the package with.

Everything is numpy in float64 and knows nothing of the package; a padded token is never looked at.
"""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray


def softmax(x: ndarray) -> ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def unit(x: ndarray) -> ndarray:
    return x / max(float(np.sqrt((x * x).sum())), 1e-12)


def cosine(x: ndarray, y: ndarray) -> float:
    return float(unit(x) @ unit(y))


def sigmoid(x: ndarray) -> ndarray:
    return 1 / (1 + np.exp(-x))


def places(mask: ndarray) -> list[int]:
    return [i for i, here in enumerate(mask) if here]


def all_pairs(texts: int, videos: int, score) -> ndarray:
    return np.array([[score(t, v) for v in range(videos)] for t in range(texts)])


# --- similarities ----------------------------------------------------------------------------------------------------


def weighted_token_interaction(text, video, word_mask, frame_mask, a, b) -> ndarray:
    def score(t, v):
        words, frames = places(word_mask[t]), places(frame_mask[v])
        by_words = sum(a[t, i] * max(text[t, i] @ video[v, j] for j in frames) for i in words)
        by_frames = sum(b[v, j] * max(text[t, i] @ video[v, j] for i in words) for j in frames)
        return (by_words + by_frames) / 2

    return all_pairs(len(text), len(video), score)


def equal(mask: ndarray) -> ndarray:
    return np.array([[1 / sum(row) if here else 0.0 for here in row] for row in mask])


def neighbour_interaction(text, video, word_mask, frame_mask, a, b, factor) -> ndarray:
    def score(t, v):
        words, frames = places(word_mask[t]), places(frame_mask[v])
        by_words = 0.0
        for i in words:
            found = [text[t, i] @ video[v, j] for j in frames]
            k = frames[int(np.argmax(found))]
            others = [(video[v, k] @ video[v, j], j) for j in frames if j != k]
            trust, neighbour = max(others) if others else (0.0, k)
            added = factor * trust * (text[t, i] @ video[v, neighbour]) if trust > 0 else 0.0
            by_words += a[t, i] * (max(found) + added)
        by_frames = sum(b[v, j] * max(text[t, i] @ video[v, j] for i in words) for j in frames)
        return (by_words + by_frames) / 2

    return all_pairs(len(text), len(video), score)


def mixed(y: ndarray, matrix: ndarray | None, real: list[int], temperature: float) -> ndarray:
    """Weights of real tokens: a softmax, as a row vector times the rows and columns of the matrix that are real."""
    weights = softmax(y / temperature)
    return weights if matrix is None else weights @ matrix[np.ix_(real, real)]


def attention_over_similarity(text, video, word_mask, frame_mask, words_mixing, frames_mixing, pooled, temperature):
    """Scores, and the two ways by which they come: [text video] each."""
    by_frames, by_words = np.zeros((2, len(text), len(video)))
    word1, word2 = words_mixing or (None, None)
    frame1, frame2 = frames_mixing or (None, None)
    for t in range(len(text)):
        for v in range(len(video)):
            words, frames = places(word_mask[t]), places(frame_mask[v])
            m = text[t][words] @ video[v][frames].T
            f = np.array([mixed(m[:, j], word1, words, temperature) @ m[:, j] for j in range(len(frames))])
            w = np.array([mixed(m[i], frame1, frames, temperature) @ m[i] for i in range(len(words))])
            last_f, last_w = (m.max(axis=0), m.max(axis=1)) if pooled == "max" else (f, w)
            by_frames[t, v] = mixed(f, frame2, frames, temperature) @ last_f
            by_words[t, v] = mixed(w, word2, words, temperature) @ last_w
    return (by_frames + by_words) / 2, by_frames, by_words


def attention_over_tokens(one, many, mask, mixing, temperature) -> ndarray:
    def score(x, y):
        real = places(mask[y])
        s = many[y][real] @ one[x]
        return mixed(s, mixing, real, temperature) @ s

    return all_pairs(len(one), len(many), score)


# --- layers, by the names of their parameters ------------------------------------------------------------------------


def norm(x: ndarray, p: dict[str, ndarray], name: str, eps: float = 1e-5) -> ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x: ndarray, p: dict[str, ndarray], name: str) -> ndarray:
    return p[f"{name}.weight"] @ x + p[f"{name}.bias"]


def attention(queries, keys, values, heads: int) -> ndarray:
    """Of every query, over all keys; heads are stretches of columns."""
    out, width = np.zeros_like(queries), queries.shape[1] // heads
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        for i in range(len(queries)):
            shares = softmax(np.array([queries[i, own] @ key[own] for key in keys]) / math.sqrt(width))
            out[i, own] = sum(share * value[own] for share, value in zip(shares, values, strict=True))
    return out


def block(tokens: ndarray, p: dict[str, ndarray], prefix: str, heads: int, eps: float) -> ndarray:
    """A pre-norm transformer block on the real tokens of one row."""
    dim = tokens.shape[1]
    inputs = np.array([linear(norm(x, p, f"{prefix}norm_attention", eps), p, f"{prefix}inputs") for x in tokens])
    found = attention(inputs[:, :dim], inputs[:, dim : 2 * dim], inputs[:, 2 * dim :], heads)
    tokens = tokens + np.array([linear(x, p, f"{prefix}attended") for x in found])
    wide = [linear(norm(x, p, f"{prefix}norm_forward", eps), p, f"{prefix}wide") for x in tokens]
    return tokens + np.array([linear(x * sigmoid(1.702 * x), p, f"{prefix}narrow") for x in wide])


def temporal(frames, mask, p, layers: int, heads: int) -> ndarray:
    out = np.zeros_like(frames)
    for v in range(len(frames)):
        real = places(mask[v])
        seen = frames[v][real] + p["positions"][real]
        for layer in range(layers):
            seen = block(seen, p, f"blocks.{layer}.", heads, 1e-12)
        out[v, real] = frames[v][real] + seen
    return out


def slots(tokens, mask, p, count: int, heads: int) -> tuple[ndarray, ndarray]:
    out, shares = np.zeros((len(tokens), count, tokens.shape[2])), np.zeros((*mask.shape, count))
    for row in range(len(tokens)):
        real = places(mask[row])
        seen = block(tokens[row][real], p, "block.", heads, 1e-5)
        logits = np.array([p["choice.weight"] @ norm(x, p, "norm") for x in seen])
        if count == 1:
            found = softmax(logits[:, 0])[:, None]
        else:
            found = np.array([softmax(x) for x in logits])
            found = found / found.sum(axis=0)
        shares[row, real] = found
        for m in range(count):
            out[row, m] = sum(found[n, m] * seen[n] for n in range(len(real)))
    return out, shares


def token_weights(features, mask, p, hidden: int) -> ndarray:
    out = np.zeros(mask.shape)
    for row in range(len(features)):
        logits = []
        for x in features[row][places(mask[row])]:
            for layer in range(hidden):
                x = np.maximum(linear(x, p, f"head.{2 * layer}"), 0)
            logits.append(float(p[f"head.{2 * hidden}.weight"][0] @ x))
        out[row, places(mask[row])] = softmax(np.array(logits))
    return out


def cross_attention_pool(queries, sets, mask, p, heads: int) -> ndarray:
    """O of each pair: [set query dim]."""
    out = np.zeros((len(sets), *queries.shape))
    asked = [linear(norm(q, p, "norm_input"), p, "query") for q in queries]
    for s in range(len(sets)):
        tokens = [norm(x, p, "norm_input") for x in sets[s][places(mask[s])]]
        keys = np.array([linear(x, p, "key") for x in tokens])
        values = np.array([linear(x, p, "value") for x in tokens])
        for q, one in enumerate(asked):
            r = norm(linear(attention(one[None], keys, values, heads)[0], p, "pooled"), p, "norm_pooled")
            out[s, q] = norm(r + linear(r, p, "forth"), p, "norm_output")
    return out


# --- losses ----------------------------------------------------------------------------------------------------------


def row_loss(logits: ndarray, positives: ndarray, several: str, excluded=None, extra=None) -> float:
    """Mean over rows with a positive of what each pays."""
    paid = []
    for i in range(len(logits)):
        right = places(positives[i])
        if not right:
            continue
        wrong = [j for j in range(logits.shape[1]) if j not in right and not (excluded is not None and excluded[i, j])]
        against = [math.exp(logits[i, j]) for j in wrong]
        if extra is not None:
            against += [math.exp(x) for x in extra[i]]
        good = [math.exp(logits[i, j]) for j in right]
        if several == "joint":
            paid.append(-math.log(sum(good) / (sum(good) + sum(against))))
        elif several == "uniform":
            paid.append(sum(-math.log(g / (sum(good) + sum(against))) for g in good) / len(good))
        else:
            paid.append(sum(-math.log(g / (g + sum(against))) for g in good) / len(good))
    return sum(paid) / len(paid)


def info_nce(scores, positives, scale, several="joint", back=None, excluded=None) -> float:
    of_text, of_video = excluded or (None, None)
    back = positives if back is None else back
    rows = row_loss(scale * scores, positives, several, of_text)
    return (rows + row_loss(scale * scores.T, back.T, several, None if of_video is None else of_video.T)) / 2


def neg_nce(scores, positives, scale, weight, margin, clamped) -> float:
    above = []
    for i in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            beaten = [scores[i, p] for p in places(positives[i])] + [scores[p, j] for p in places(positives[:, j])]
            if not positives[i, j] and any(margin + scores[i, j] > s for s in beaten):
                above.append((i, j))

    def one_way(s, positives, above):
        def bounded(p):
            return min(max(p, 1e-6), 1 - 1e-6) if clamped else p

        share = np.array([softmax(scale * row) for row in s])
        rows = [i for i in range(len(s)) if positives[i].any()]
        attract = [-math.log(bounded(sum(share[i, p] for p in places(positives[i])))) for i in rows]
        left = {(i, j): sum(share[i, k] for k in range(s.shape[1]) if k != j) for i, j in above}  # 1 - P, no rounding
        repel = [-math.log(1 - bounded(1 - rest) if clamped else rest) for rest in left.values()]
        return sum(attract) / len(attract) + (weight * sum(repel) / len(repel) if repel else 0.0)

    return (one_way(scores, positives, above) + one_way(scores.T, positives.T, [(j, i) for i, j in above])) / 2


def triplet(scores, positives, margin, ignored=None) -> float:
    paid = []
    for t, v in zip(*positives.nonzero(), strict=True):
        rows = [
            j for j in range(scores.shape[1]) if not positives[t, j] and not (ignored is not None and ignored[t, j])
        ]
        cols = [
            i for i in range(scores.shape[0]) if not positives[i, v] and not (ignored is not None and ignored[i, v])
        ]
        of_text = max(0.0, max(scores[t, j] for j in rows) - scores[t, v] + margin) if rows else 0.0
        of_video = max(0.0, max(scores[i, v] for i in cols) - scores[t, v] + margin) if cols else 0.0
        paid.append((of_text + of_video) / 2)
    return sum(paid) / len(paid)


def connectivity(vectors, softmaxed: bool, itself: bool) -> list[float]:
    found = []
    for i in range(len(vectors)):
        cosines = np.array([cosine(vectors[i], vectors[j]) for j in range(len(vectors)) if itself or j != i])
        if len(cosines) == 0:
            found.append(0.0)
        else:
            found.append(float((softmax(cosines) * cosines if softmaxed else cosines).sum() / len(cosines)))
    return found


def influential(connected: list[float], ratio=None, share=None, most=1.0) -> list[bool]:
    order = sorted(range(len(connected)), key=lambda i: -connected[i])
    if ratio is not None:
        top = max(connected)
        order = [i for i in order if top > 0 and connected[i] >= ratio * top]
    else:
        order = order[: math.floor(round(share * len(connected), 9))]
    order = order[: math.floor(round(most * len(connected), 9))]
    return [i in order for i in range(len(connected))]


def potential_positives(first, second) -> list[list[bool]]:
    def alike(i, j):
        return sum(cosine(x[i], y[j]) for x in (first, second) for y in (first, second)) / 4

    count = len(first)
    return [[i != j and alike(i, j) >= cosine(first[i], second[i]) for j in range(count)] for i in range(count)]
