"""How likely a hit is relevant: a query's scores placed against what it gets everywhere, then a fitted curve."""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import math
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from rushes.index.base import Index
from rushes.index.flat import Flat, flatten, unflatten
from rushes.methods.base import Method
from rushes.model import Model
from rushes.search.parts import likeness
from rushes.types import Tokens

FORMAT = 1  # of calibration.json; raise it when an older reader would go wrong
FILE = "calibration.json"
ROWS = 1024  # segments of a library that a query is compared with; 10 ms for `small`
ELSEWHERE = 128  # segments of the fitted pictures that every query is compared with as well
TRUST = 50.0  # of a library's own segments weigh as much as those from elsewhere together
GOOD = 0.5  # confidence of a good match's best hit
MISSED = 0.1  # share of searches with a relevant best hit that may be called none
FEATURES = ("score in a small library", "score in a large library", "standing")
FEATURES += ("size", "size squared", "centre", "spread", "tail")
RISING = 3  # the first of them, whose weights are not negative: a higher score is never less likely

Kind = Literal["text", "image"]
Match = Literal["good", "weak", "none"]

_backgrounds: weakref.WeakKeyDictionary[Any, tuple[Hashable, int, Background]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Some segments of an index, against whose scores those of a query's hits are placed.

    tokens    of the sample
    segments  in the whole index
    """

    tokens: Tokens
    segments: int

    @classmethod
    def of(cls, method: Method, index: Index, rows: int = ROWS) -> Background:
        """At most `rows` segments, those whose ids have the least hashes: the same for the same segments, whatever
        the order of indexing. Kept until the index changes. An empty index gives an empty sample.

        Raises ValueError for an index of another dimension than the method's.
        """
        if method.dim != index.dim:
            raise ValueError(f"the index keeps vectors of {index.dim} numbers, the method scores {method.dim}")
        if rows < 1:
            raise ValueError(f"a background of {rows} segments says nothing; take at least one")
        state = index.state()
        with _lock:
            held = _backgrounds.get(index)
            if held is not None and held[:2] == (state, rows):
                return held[2]
        ids = [segment.id for segment in index.segments()]
        chosen = heapq.nsmallest(rows, ids, key=_place)
        try:
            background = cls(index.fetch(chosen)[1], len(ids))
        except KeyError:  # another process removed some between the two reads
            return cls.of(method, index, rows)
        with _lock:
            _backgrounds[index] = (state, rows, background)
        return background


@dataclass(frozen=True, slots=True)
class Standing:
    """How one query's scores lie over segments that have mostly nothing to do with it.

        centre = median          spread = centre - 16th percentile          tail = (99th percentile - centre) / spread

    The lower half tells the spread, for the upper one may be full of true answers.
    """

    centre: float
    spread: float
    tail: float

    @classmethod
    def of(
        cls, own: Float64[np.ndarray, "segment"], elsewhere: Float64[np.ndarray, "segment"], trust: float = TRUST
    ) -> Standing:
        """Quantiles of the library's own sample and of segments from elsewhere, mixed; `trust` own segments are half.

            q = (n q_own + trust q_elsewhere) / (n + trust),    n own segments

        >>> Standing.of(np.array([]), np.linspace(0.0, 1.0, 101))
        Standing(centre=0.5, spread=0.34, tail=1.441...)
        """
        levels = (0.5, 0.16, 0.99)
        mixed = np.quantile(elsewhere, levels)
        if count := len(own):
            mixed = (count * np.quantile(own, levels) + trust * mixed) / (count + trust)
        centre, low, high = mixed.tolist()
        spread = max(centre - low, 1e-9)
        return cls(round(centre, 12), round(spread, 12), (high - centre) / spread)


@dataclass(frozen=True)
class Curve:
    """A logistic curve of a hit's features; those of the query are held within what the fit has seen.

        P = 1 / (1 + exp(-(b + sum_i w_i f_i)))

    Its slope in the score is w_0 (1 - u) + w_1 u + w_2 / spread with u = size / largest size: no weight of these is
    negative, so for one query the order by confidence is the order by score.
    """

    bias: float
    weights: tuple[float, ...]
    lowest: tuple[float, float, float, float]  # of size (its logarithm), centre, spread, tail
    highest: tuple[float, float, float, float]

    def __call__(
        self, scores: Float64[np.ndarray, "hit"], standing: Standing, segments: int
    ) -> Float64[np.ndarray, "hit"]:
        return self._probability(scores, math.log(max(1, segments)), standing.centre, standing.spread, standing.tail)

    def of(self, hits: Searches) -> Float64[np.ndarray, "hit"]:
        """Of hits of many searches at once."""
        return self._probability(hits.score, np.log(hits.segments), hits.centre, hits.spread, hits.tail)

    def _probability(self, scores: Float64[np.ndarray, "hit"], *told: Any) -> Float64[np.ndarray, "hit"]:
        """As a line in the score, whose rounding cannot turn an order round as that of a sum of features can."""
        held = [np.clip(one, low, high) for one, low, high in zip(told, self.lowest, self.highest, strict=True)]
        nothing, one = (features(np.full(1, value), held, self.highest[0]) for value in (0.0, 1.0))
        weights = np.array(self.weights)
        start = self.bias + (nothing * weights).sum(axis=-1)
        slope = ((one - nothing) * weights)[..., :RISING].sum(axis=-1)
        return 1 / (1 + np.exp(-np.clip(start + slope * scores, -30, 30)))


@dataclass(frozen=True)
class Fit:
    """What one kind of query was fitted to: the curve, the thresholds of `match`, and from what."""

    curve: Curve
    good: float  # from this confidence of the best hit on
    weak: float  # below it there is none
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence for one model. It holds for the weights and switches that it was fitted with, and for no others."""

    digest: str
    method: str
    switches: Mapping[str, Any]
    fits: Mapping[Kind, Fit]
    elsewhere: Tokens

    @classmethod
    def of(cls, model: Model) -> Calibration | None:
        """The calibration in the model's folder; None where there is none. One of other weights is ignored, with a
        warning that says so.
        """
        found, why = cls.read(model)
        if found is None and why:
            warnings.warn(why, stacklevel=2)
        return found

    @classmethod
    def read(cls, model: Model) -> tuple[Calibration | None, str]:
        """The calibration, or None and why one that is there does not count; "" where there is simply none.

        Raises ValueError for a file that is no calibration.
        """
        file = None if model.folder is None else model.folder / FILE
        if file is None or not file.is_file():
            return None, ""
        found = cls.load(file)
        if found.digest != model.digest() or found.method != model.method_name:
            return None, (
                f"{file} was fitted to other weights than those of {model.name!r}, so hits have no confidence; "
                f"`rushes calibrate {model.name} --root PICTURES` fits it anew"
            )
        if found.switches != _plain(model.method.settings()):
            return None, f"{file} was fitted to other switches of {found.method}, so hits have no confidence; fit anew"
        return found, ""

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Calibration:
        """What `save` wrote. Raises ValueError that names the file."""
        try:
            told = json.loads(Path(file).read_text())
            if told["rushes"] > FORMAT:
                raise ValueError(f"it has format {told['rushes']}, this Rushes reads {FORMAT}; update Rushes")
            fits = {kind: _fit(fit) for kind, fit in told["fits"].items()}
            return cls(told["digest"], told["method"], told["switches"], fits, _unpacked(told["elsewhere"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no calibration ({error}); delete it or run `rushes calibrate`") from error

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        told = {
            "rushes": FORMAT,
            "digest": self.digest,
            "method": self.method,
            "switches": self.switches,
            "fits": {kind: asdict(fit) for kind, fit in self.fits.items()},
            "elsewhere": _packed(self.elsewhere),
        }
        part = Path(f"{os.fspath(file)}.part")
        part.write_text(json.dumps(told, indent=1) + "\n")
        part.replace(file)

    @torch.inference_mode()
    def confidence(
        self,
        method: Method,
        query: Tokens,
        scores: Float[Tensor, "hit"],
        background: Background,
        kind: Kind = "text",
        segments: int | None = None,
    ) -> Float[Tensor, "hit"]:
        """The probability in [0, 1] that each hit is relevant; never falling with the score.

        query     the tokens of one text (scored by the method), or of one picture (`parts.likeness`)
        scores    the hits' own, by the same function
        segments  that were searched, where it was not the whole index but what a filter left of it

        Raises LookupError for a kind that was not fitted: `self.fits` says which are.
        """
        fit = self._fitted(kind)
        if len(query) != 1:
            raise ValueError(f"confidence is for one query, got {len(query)}; call it for each")
        standing = self.standing(method, query, background, kind)
        count = background.segments if segments is None else segments
        found = fit.curve(scores.double().cpu().numpy(), standing, count)
        return torch.from_numpy(found).to(scores.device)

    @torch.inference_mode()
    def standing(self, method: Method, query: Tokens, background: Background, kind: Kind = "text") -> Standing:
        """Where one query's scores lie over the library and elsewhere."""
        device = query.vectors.device
        own = _scores(kind, method, query, background.tokens.to(device)) if len(background.tokens) else np.zeros(0)
        return Standing.of(own, _scores(kind, method, query, self.elsewhere.to(device)))

    def match(self, best: float | None, kind: Kind = "text") -> Match:
        """How well a search went, by its best hit's confidence; None, no hit at all, is "none"."""
        fit = self._fitted(kind)
        if best is None or best < fit.weak:
            return "none"
        return "good" if best >= fit.good else "weak"

    def _fitted(self, kind: Kind) -> Fit:
        if kind not in self.fits:
            raise LookupError(f"confidence of {kind!r} queries was not fitted; {', '.join(self.fits) or 'nothing'} was")
        return self.fits[kind]


def scorer(kind: Kind, method: Method) -> Callable[[Tokens, Tokens], Float[Tensor, "query segment"]]:
    """How queries of a kind are scored, several at once."""
    if kind == "text":
        return method.score
    return lambda queries, tokens: torch.stack(
        [likeness(queries[row : row + 1], tokens) for row in range(len(queries))]
    )


def features(
    scores: Float64[np.ndarray, "hit"], told: Sequence[Any], largest: float
) -> Float64[np.ndarray, "hit feature"]:
    """`FEATURES` of hits. `told` are size (its logarithm), centre, spread, tail of the query: numbers, or one a hit."""
    size, centre, spread, tail = told
    share = np.clip(size / largest, 0.0, 1.0) if largest > 0 else 1.0
    columns = (scores * (1 - share), scores * share, (scores - centre) / spread, size, size**2, centre, spread, tail)
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float64)


# ------------------------------------------------------------------------------------------------------------ fitting


@dataclass(frozen=True, eq=False)
class Searches:
    """Hits of many searches in libraries of many sizes, drawn from judged pairs: rows of columns.

    relevant  of a hit; hits that nobody judged are left out
    rank      from 1; of the search, in what was left of its library
    search    the number of the search that the hit belongs to, and of `query` the row of its query
    present   whether the library held anything relevant
    """

    score: Float64[np.ndarray, "hit"]
    centre: Float64[np.ndarray, "hit"]
    spread: Float64[np.ndarray, "hit"]
    tail: Float64[np.ndarray, "hit"]
    segments: Float64[np.ndarray, "hit"]
    relevant: Bool[np.ndarray, "hit"]
    rank: Float64[np.ndarray, "hit"]
    search: Float64[np.ndarray, "hit"]
    query: Float64[np.ndarray, "hit"]
    present: Bool[np.ndarray, "hit"]

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: Any) -> Searches:
        return Searches(*(getattr(self, name)[rows] for name in Searches.__dataclass_fields__))

    @staticmethod
    def join(parts: Sequence[Searches]) -> Searches:
        """One after another; searches are numbered anew."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in Searches.__dataclass_fields__
        }
        begins = np.cumsum([0, *(part.search.max(initial=-1) + 1 for part in parts)])
        columns["search"] = np.concatenate([part.search + begin for part, begin in zip(parts, begins, strict=False)])
        return Searches(**columns)


def draw_searches(
    scores: Float[np.ndarray, "query segment"],
    elsewhere: Float[np.ndarray, "query other"],
    judged: np.ndarray,
    queries: Sequence[int] | np.ndarray,
    segments: int,
    *,
    present: bool,
    hits: int = 10,
    seed: int = 0,
) -> Searches:
    """Each query's first `hits` in a library of its own, of so many segments drawn from all that were scored.

    judged   1 relevant, 0 not, -1 unknown. Where `present`, one relevant segment is in the library, and others may be
             by chance; else none is, and nothing unknown. Queries for which that cannot be are left out.
    """
    random = np.random.default_rng([seed, segments, int(present)])
    rows: list[list[float]] = []
    every = np.arange(scores.shape[1])
    for number, query in enumerate(queries):
        verdict = judged[query]
        if present:
            true = np.flatnonzero(verdict == 1)
            if not len(true):
                continue
            one = int(random.choice(true))
            rest = random.choice(len(every) - 1, min(segments - 1, len(every) - 1), replace=False)
            library = np.concatenate([[one], rest + (rest >= one)])
        else:
            free = np.flatnonzero(verdict == 0)
            if not len(free):
                continue
            library = free[random.choice(len(free), min(segments, len(free)), replace=False)]
        found = scores[query, library].astype(np.float64)
        own = found if len(found) <= ROWS else found[random.choice(len(found), ROWS, replace=False)]
        standing = Standing.of(own, elsewhere[query].astype(np.float64))
        told = (standing.centre, standing.spread, standing.tail, len(library))
        for rank, place in enumerate(np.argsort(-found, kind="stable")[:hits], start=1):
            truth = verdict[library[place]]
            if truth >= 0:
                rows.append([found[place], *told, truth, rank, number, query, present])
    columns = np.array(rows, dtype=np.float64).reshape(-1, 10).T
    flags = {5: columns[5] > 0, 9: columns[9] > 0}
    return Searches(*(flags.get(place, column) for place, column in enumerate(columns)))


def fit(searches: Searches, *, ridge: float = 1e-3, about: Mapping[str, Any] | None = None) -> Fit:
    """The curve of the greatest likelihood over these hits, and the thresholds of `match` by their rule:

        good   the best hit is at least as likely relevant as not
        none   so unlikely that at most 1 in 10 of the searches whose best hit is relevant lie below

    Raises ValueError where scores tell nothing of relevance.
    """
    if not 0 < searches.relevant.sum() < len(searches):
        raise ValueError(
            f"{int(searches.relevant.sum())} of {len(searches)} hits are relevant; a fit needs some of both"
        )
    told = (np.log(searches.segments), searches.centre, searches.spread, searches.tail)
    lowest, highest = ([float(np.quantile(one, at)) for one in told] for at in (0.005, 0.995))
    lowest[0], highest[0] = float(told[0].min()), float(told[0].max())
    held = [np.clip(one, low, high) for one, low, high in zip(told, lowest, highest, strict=True)]
    rows = features(searches.score, held, highest[0])
    bias, weights = _logistic(rows, searches.relevant.astype(np.float64), ridge, RISING)
    if not (weights[:RISING] > 0).any():
        raise ValueError("higher scores are not more often relevant here; confidence cannot be fitted to this model")
    curve = Curve(bias, tuple(weights.tolist()), tuple(lowest), tuple(highest))  # type: ignore[arg-type]
    first = searches[searches.rank == 1]
    return Fit(curve, GOOD, weakest(curve.of(first), first.relevant), dict(about or {}))


def weakest(best: Float64[np.ndarray, "search"], relevant: Bool[np.ndarray, "search"], missed: float = MISSED) -> float:
    """The confidence below which a best hit is no match: a share `missed` of the relevant ones, or less, lies below.

    It is never above `GOOD`.

    >>> weakest(np.array([0.05, 0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True, True]), missed=0.4)
    0.1
    """
    return min(GOOD, float(np.quantile(best[relevant], missed, method="lower"))) if relevant.any() else GOOD


def calibration_error(
    confidence: Float64[np.ndarray, "hit"], relevant: Bool[np.ndarray, "hit"], bins: int = 15
) -> float:
    """Expected calibration error: the mean gap of confidence and truth over bins that hold equally many hits.

        ECE = sum_b (n_b / n) |mean confidence of b - share of relevant in b|

    >>> calibration_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, False, True, False]), bins=2)
    0.25
    """
    if not len(confidence):
        raise ValueError("there is no hit; a calibration error needs some")
    order = np.argsort(confidence, kind="stable")
    gaps = [
        len(part) * abs(confidence[part].mean() - relevant[part].mean())
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return float(sum(gaps) / len(confidence))


def _logistic(
    rows: Float64[np.ndarray, "hit feature"], truth: Float64[np.ndarray, "hit"], ridge: float, rising: int
) -> tuple[float, Float64[np.ndarray, "feature"]]:
    """Bias and weights of the greatest likelihood, the first `rising` weights not negative.

    Newton's method on standardised features; a weight that would be negative is left out, the most negative first.
    """
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    used = deviation > 1e-12
    scaled = np.where(used, (rows - mean) / np.where(used, deviation, 1.0), 0.0)
    while True:
        columns = np.flatnonzero(used)
        chosen = np.concatenate([np.ones((len(rows), 1)), scaled[:, columns]], axis=1)
        penalty = np.r_[0.0, np.full(len(columns), ridge)]
        weights = np.zeros(chosen.shape[1])
        for _ in range(50):
            found = 1 / (1 + np.exp(-np.clip(chosen @ weights, -30, 30)))
            gradient = chosen.T @ (found - truth) / len(rows) + penalty * weights
            hessian = (chosen * (found * (1 - found))[:, None]).T @ chosen / len(rows) + np.diag(penalty + 1e-9)
            step = np.linalg.solve(hessian, gradient)
            weights -= step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-9:
                break
        wrong = [
            (weight, column)
            for weight, column in zip(weights[1:], columns, strict=True)
            if column < rising and weight < 0
        ]
        if not wrong:
            break
        used[min(wrong)[1]] = False
    whole = np.zeros(rows.shape[1])
    whole[columns] = weights[1:] / deviation[columns]
    return float(weights[0] - whole @ mean), whole


# ------------------------------------------------------------------------------------------------------------ storage


def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _scores(kind: Kind, method: Method, query: Tokens, tokens: Tokens) -> Float64[np.ndarray, "segment"]:
    return scorer(kind, method)(query, tokens)[0].double().cpu().numpy()


def _plain(switches: Mapping[str, Any]) -> Any:
    """As they come back from JSON."""
    return json.loads(json.dumps(switches))


def _fit(told: Mapping[str, Any]) -> Fit:
    curve = told["curve"]
    lists = [tuple(curve[name]) for name in ("weights", "lowest", "highest")]
    return Fit(Curve(curve["bias"], *lists), told["good"], told["weak"], told["about"])


def _packed(tokens: Tokens) -> dict[str, Any]:
    flat = flatten(tokens)
    parts = {"vectors": flat.vectors, "level": flat.level, "weights": flat.weights}
    return {
        "dim": tokens.vectors.shape[2],
        "counts": flat.counts.tolist(),
        **{name: None if part is None else base64.b64encode(part.tobytes()).decode() for name, part in parts.items()},
    }


def _unpacked(told: Mapping[str, Any]) -> Tokens:
    def numbers(name: str, dtype: Any) -> Any:
        return None if told[name] is None else np.frombuffer(base64.b64decode(told[name]), dtype).copy()

    vectors = numbers("vectors", np.float16).reshape(-1, told["dim"])
    counts = np.array(told["counts"], dtype=np.int64)
    return unflatten(
        Flat(counts, vectors, None, numbers("level", np.int8), numbers("weights", np.float32)), told["dim"]
    )
