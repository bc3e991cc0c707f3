"""How sure a number is, and whether two runs differ: resampling over videos, with all queries of a video together.

Captions of one video succeed and fail together, so a query is no independent draw: intervals over queries of MSVD (40
captions a video) would be several times too narrow. Whatever is resampled, flipped or left out here is a whole group.

None of this knows about seeds: an interval says what other videos of the same kind would give, not what the next
training run would. `over_seeds` says that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Num
from numpy.typing import ArrayLike

Statistic = Literal["mean", "median"]
BLOCK_BYTES = 32 << 20  # of repetitions that are computed at once; results do not depend on it


@dataclass(frozen=True, eq=False)
class Run:
    """One number a query, of one run: its rank, or what `Ranks.per_query` gives (0 or 1 for recall).

    `groups` holds the video of each query; None makes each query its own group. `statistic` is what is published: the
    mean of the numbers, or for MdR the median.
    """

    ids: Sequence[Hashable] | np.ndarray
    values: Num[np.ndarray, "query"]
    groups: Sequence[Hashable] | np.ndarray | None = None
    statistic: Statistic = "mean"

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiub":
            raise ValueError(f"a run has one number a query, at least one; not {values.dtype} {values.shape}")
        if broken := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{broken} of {len(values)} queries have NaN or infinite values")
        for what, found in (("ids", self.ids), ("groups", self.groups)):
            if found is not None and len(found) != len(values):
                raise ValueError(f"{len(found)} {what} for {len(values)} queries")
        if len(set(self.ids)) != len(values):
            raise ValueError(
                f"{len(values) - len(set(self.ids))} of {len(values)} query ids are repeated; ids are unique"
            )
        if self.statistic not in get_args(Statistic):
            raise ValueError(f"no statistic {self.statistic!r}; there are {', '.join(get_args(Statistic))}")


@dataclass(frozen=True)
class Interval:
    """An estimate with the percentile interval of its bootstrap."""

    estimate: float
    low: float
    high: float
    level: float
    statistic: Statistic
    queries: int
    groups: int
    repetitions: int
    seed: int


@dataclass(frozen=True)
class Difference:
    """The second run less the first. `p` is two-sided; low and high are None where the test gives none."""

    first: float
    second: float
    difference: float
    p: float
    low: float | None
    high: float | None
    level: float | None
    test: Literal["paired randomisation", "paired bootstrap"]
    statistic: Statistic
    queries: int
    groups: int
    repetitions: int
    seed: int


@dataclass(frozen=True)
class Seeds:
    """Mean and sample standard deviation (n - 1 below) over runs that differ in their seed only."""

    mean: float
    deviation: float
    seeds: int


def bootstrap(run: Run, level: float = 0.95, repetitions: int = 10_000, seed: int = 0) -> Interval:
    """The statistic with an interval: groups are drawn with replacement, their queries come along.

    Percentile bootstrap (Efron 1979) of clusters (Field and Welsh 2007): between the (1 - level)/2 and (1 + level)/2
    quantiles of the repetitions. With few groups (some 20) it is too narrow: 95 % then cover 92, measured.

    >>> bootstrap(Run("abcd", np.array([1.0, 1, 1, 1]))).low
    1.0
    """
    _demand(level, repetitions)
    values, group = np.asarray(run.values, np.float64), _numbers(run.groups, len(run.values))
    draws = _resampled(values[None], group, run.statistic, repetitions, seed)[:, 0]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    estimate = _statistic(values, run.statistic)
    groups = int(group.max()) + 1
    return Interval(estimate, float(low), float(high), level, run.statistic, len(values), groups, repetitions, seed)


def paired_bootstrap(
    first: Run, second: Run, level: float = 0.95, repetitions: int = 10_000, seed: int = 0
) -> Difference:
    """The difference of two runs over the same queries with an interval: both are resampled alike.

        p = min(1, 2 (1 + min(#{d* <= 0}, #{d* >= 0})) / (1 + repetitions))

    Koehn 2004, two-sided, in clusters; the 1 keeps p from being 0. Queries are matched by id, in whatever order.

    >>> a, b = Run("abcd", np.array([0.0, 0, 0, 1])), Run("dcba", np.array([1.0, 1, 1, 1]))
    >>> paired_bootstrap(a, b).difference
    0.75
    """
    _demand(level, repetitions)
    both, group = _paired(first, second)
    draws = _resampled(both, group, first.statistic, repetitions, seed)
    differences = draws[:, 1] - draws[:, 0]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (1 + int(beyond)) / (1 + repetitions))
    return _difference(both, group, first.statistic, p, (float(low), float(high), level), repetitions, seed)


def paired_randomisation(first: Run, second: Run, repetitions: int = 10_000, seed: int = 0) -> Difference:
    """Whether two runs over the same queries differ: if not, which is which of a group's results is a coin toss.

        p = (1 + #{ |d*| >= |d| }) / (1 + repetitions)

    Fisher's randomisation test, as Smucker et al. 2007 recommend it for retrieval; all queries of a group are swapped
    together or not at all. Two equal runs have p = 1.

    >>> a, b = Run("abcd", np.array([0.0, 1, 1, 0])), Run("abcd", np.array([0.0, 1, 1, 0]))
    >>> paired_randomisation(a, b).p
    1.0
    """
    _demand(0.5, repetitions)
    both, group = _paired(first, second)
    differences = _swapped(both, group, first.statistic, repetitions, seed)
    observed = abs(_statistic(both[1], first.statistic) - _statistic(both[0], first.statistic))
    # sums in another order differ in the last digits; without slack a swap of nothing could count as smaller
    slack = 1e-12 * (1 + np.abs(both).max())
    p = (1 + int((np.abs(differences) >= observed - slack).sum())) / (1 + repetitions)
    return _difference(both, group, first.statistic, p, None, repetitions, seed)


def over_seeds(values: ArrayLike) -> Seeds:
    """Mean and sample deviation of one metric over seeds; a single seed has no deviation and is an error.

    >>> over_seeds([0.44, 0.46])
    Seeds(mean=0.45, deviation=0.014142135623730963, seeds=2)
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"a deviation takes the values of at least two seeds; not of shape {array.shape}")
    if broken := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{broken} of {len(array)} seeds have NaN or infinite values")
    return Seeds(float(array.mean()), float(array.std(ddof=1)), len(array))


# --- resampling -------------------------------------------------------------------------------------------------------


def _demand(level: float, repetitions: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie between 0 and 1, as in 0.95")
    if repetitions < 1:
        raise ValueError(f"{repetitions} repetitions; at least 1, better 10,000")


def _numbers(labels: Sequence[Hashable] | np.ndarray | None, queries: int) -> Int[np.ndarray, "query"]:
    """Groups as 0, 1, ... in order of appearance; each query its own without labels."""
    if labels is None:
        return np.arange(queries)
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in labels])


def _paired(first: Run, second: Run) -> tuple[Float[np.ndarray, "run query"], Int[np.ndarray, "query"]]:
    """Both runs' values in the order of the first, and the group of each query."""
    if first.statistic != second.statistic:
        raise ValueError(f"one run is a {first.statistic}, the other a {second.statistic}")
    row = {name: number for number, name in enumerate(second.ids)}
    missing = [name for name in first.ids if name not in row]
    if missing or len(first.ids) != len(second.ids):
        extra = len(second.ids) - (len(first.ids) - len(missing))
        raise ValueError(
            f"{len(missing)} queries are in the first run only, {extra} in the second only"
            + (f" (the first: {missing[0]!r})" if missing else "")
            + "; a pair answers the same queries"
        )
    order = np.array([row[name] for name in first.ids])
    if (first.groups is None) != (second.groups is None):
        raise ValueError("one run has groups, the other none")
    if first.groups is not None and second.groups is not None:
        moved = [
            one
            for one, other in zip(range(len(order)), order, strict=True)
            if first.groups[one] != second.groups[other]
        ]
        if moved:
            raise ValueError(
                f"{len(moved)} of {len(order)} queries are in another group in the second run; the first is "
                f"{first.ids[moved[0]]!r}"
            )
    both = np.stack([np.asarray(first.values, np.float64), np.asarray(second.values, np.float64)[order]])
    return both, _numbers(first.groups, len(order))


def _statistic(values: Float[np.ndarray, "query"], statistic: Statistic) -> float:
    return float(values.mean() if statistic == "mean" else np.median(values))


def _blocks(repetitions: int, row_bytes: int) -> Iterator[int]:
    """Numbers of repetitions that fit into `BLOCK_BYTES` each."""
    size = max(1, BLOCK_BYTES // row_bytes)
    while repetitions > 0:
        yield min(size, repetitions)
        repetitions -= size


def _resampled(
    values: Float[np.ndarray, "run query"],
    group: Int[np.ndarray, "query"],
    statistic: Statistic,
    repetitions: int,
    seed: int,
) -> Float[np.ndarray, "repetition run"]:
    """The statistic of each run under draws of groups with replacement."""
    generator = np.random.default_rng(seed)
    groups = int(group.max()) + 1
    sizes, sums = np.bincount(group), np.stack([np.bincount(group, one) for one in values])
    orders = np.argsort(values, axis=1)
    found = []
    for size in _blocks(repetitions, 8 * (3 * groups + (3 * len(group) if statistic == "median" else 0))):
        drawn = generator.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups)
        if statistic == "mean":
            found.append(weights @ sums.T / (weights @ sizes)[:, None])
        else:
            medians = [_medians(one[o], weights[:, group[o]]) for one, o in zip(values, orders, strict=True)]
            found.append(np.stack(medians, axis=1))
    return np.concatenate(found)


def _medians(values: Float[np.ndarray, "query"], weights: Int[np.ndarray, "some query"]) -> Float[np.ndarray, "some"]:
    """Ordinary medians of ascending values, each as often as its weight says."""
    reached = weights.cumsum(axis=1)
    total = reached[:, -1:]
    low = (reached >= (total + 1) // 2).argmax(axis=1)
    high = (reached >= total // 2 + 1).argmax(axis=1)
    return (values[low] + values[high]) / 2


def _swapped(
    both: Float[np.ndarray, "run query"],
    group: Int[np.ndarray, "query"],
    statistic: Statistic,
    repetitions: int,
    seed: int,
) -> Float[np.ndarray, "repetition"]:
    """The difference of two runs when each group's results are exchanged by the toss of a coin."""
    generator = np.random.default_rng(seed)
    groups = int(group.max()) + 1
    gains = np.bincount(group, both[1] - both[0])
    found = []
    for size in _blocks(repetitions, 8 * (groups + (4 * len(group) if statistic == "median" else 0))):
        swap = generator.random((size, groups)) < 0.5
        if statistic == "mean":
            found.append(np.where(swap, -1.0, 1.0) @ gains / len(group))
        else:
            of_query = swap[:, group]
            first, second = np.where(of_query, both[1], both[0]), np.where(of_query, both[0], both[1])
            found.append(np.median(second, axis=1) - np.median(first, axis=1))
    return np.concatenate(found)


def _difference(
    both: Float[np.ndarray, "run query"],
    group: Int[np.ndarray, "query"],
    statistic: Statistic,
    p: float,
    interval: tuple[float, float, float] | None,
    repetitions: int,
    seed: int,
) -> Difference:
    low, high, level = interval or (None, None, None)
    first, second = (_statistic(one, statistic) for one in both)
    return Difference(
        first=first,
        second=second,
        difference=second - first,
        p=p,
        low=low,
        high=high,
        level=level,
        test="paired bootstrap" if interval else "paired randomisation",
        statistic=statistic,
        queries=len(group),
        groups=int(group.max()) + 1,
        repetitions=repetitions,
        seed=seed,
    )
