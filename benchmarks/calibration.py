"""Is a confidence of 0.7 right in 7 of 10 cases, in a small library and in a large one, with and without an answer?

    python benchmarks/calibration.py --root PICTURES --features DIR [--model small]      # the tables of docs/results.md
    python benchmarks/calibration.py --root PICTURES --features DIR --fit                # the fit made anew before

The model's own calibration, fitted on pictures of val, is measured on those of test: libraries are drawn from their
shots (and, for the largest, from shots of training pictures that the fit has not seen), and asked for captions and
phrases of one to three content words; for half of the searches nothing relevant is left in the library. Beside it
stands what others do: one curve in the raw score, which is a fixed threshold on it, fitted to the same val searches.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from rushes.cli.calibrate import OTHER_REELS, SIZES, drawn, fitted, material, material_of_fit, others_of, shots_of_split
from rushes.model import load
from rushes.search.calibrate import Calibration, Curve, Fit, Searches, calibration_error, fit
from rushes.train.judged import PHRASES, STRANGE, WHOLE, Judged

TESTED = (5, 20, 200, 900, 5000)
REELS = 1472  # of training, whose shots fill the largest libraries; those that the fit has seen are left out
BINS, DRAWS = 15, 200
NAMES = {WHOLE: "captions", **{count: f"{count} content word{'s' * (count > 1)}" for count in PHRASES}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="captioned pictures")
    parser.add_argument("--features", type=Path, required=True, help="as `rushes features` keeps them")
    parser.add_argument("--model", default="small")
    parser.add_argument("--fit", action="store_true", help="fit anew instead of reading the model's calibration")
    parser.add_argument("--seed", type=int, default=1, help="of the test libraries")
    asked = parser.parse_args()
    model = load(asked.model)
    known = fitted(model, asked.root, asked.features) if asked.fit else Calibration.of(model)
    if known is None:
        raise SystemExit(f"{asked.model} has no calibration; run `rushes calibrate`, or add --fit")

    before = material_of_fit(model, asked.root, asked.features)
    own = shots_of_split(model, asked.root, asked.features, "test")
    others = others_of(model, asked.root, asked.features, slice(OTHER_REELS, REELS))
    tested = material(model, asked.root, "test", own, others, known.elsewhere, odd=True)
    for kind, judged in tested.judged.items():
        if kind not in known.fits:
            continue
        fitted_on = before.judged[kind]
        val = Searches.join(
            [drawn(fitted_on, kind, size, before.own) for size in SIZES if size <= fitted_on.scores.shape[1]]
        )
        naive = naively(val)
        print(f"\n## {kind}\n")
        sizes = [size for size in TESTED if size <= judged.scores.shape[1]]
        parts = {size: drawn(judged, kind, size, tested.own, seed=asked.seed) for size in sizes}
        by_size(parts, judged, known.fits[kind], naive)
        reliability(Searches.join(list(parts.values())), known.fits[kind].curve)
        if kind == "text":
            by_query(parts, judged, known.fits[kind])


def naively(val: Searches) -> Fit:
    """One curve in the raw score for all queries and libraries."""
    return fit(alone(val))


def alone(hits: Searches) -> Searches:
    """The same hits without what is known of query and library."""
    one = np.ones(len(hits))
    return replace(hits, centre=0 * one, spread=one, tail=0 * one, segments=one)


def by_size(parts: dict[int, Searches], judged: Judged, known: Fit, naive: Fit) -> None:
    print("| segments | hits | relevant | ECE (95 %) | ECE, raw score | Brier | raw | AUC | raw | ECE of best hits |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    every = {f"{size:,}": hits for size, hits in parts.items()} | {"all": Searches.join(list(parts.values()))}
    for name, hits in every.items():
        told, plain, true, best = known.curve.of(hits), naive.curve.of(alone(hits)), hits.relevant, hits.rank == 1
        cells = (
            name,
            f"{len(hits):,}",
            f"{true.mean():.3f}",
            with_interval(told, hits, judged),
            f"{calibration_error(plain, true, BINS):.3f}",
            f"{brier(told, hits):.4f}",
            f"{brier(plain, hits):.4f}",
            f"{auc(told, true):.3f}",
            f"{auc(plain, true):.3f}",
            f"{calibration_error(told[best], true[best], BINS):.3f}",
        )
        print(f"| {' | '.join(cells)} |")
    print("\nNo match, by the best hit:\n")
    print("| segments | mean confidence, answer there and first | there, not first | not there | strange | ", end="")
    print("missed | let through | strange let through | raw: missed | let through | strange let through | ", end="")
    print("good: share | right |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for size, hits in parts.items():
        hits = hits[hits.rank == 1]
        told, plain = known.curve.of(hits), naive.curve.of(alone(hits))
        right, there, odd = hits.relevant, hits.present, of_words(hits, judged, STRANGE)
        absent = ~there & ~odd
        rates = []
        for confidence, threshold in ((told, known.weak), (plain, naive.weak)):
            none = confidence < threshold
            rates += [share(none, right), share(~none, absent), share(~none, odd)]
        good = told >= known.good
        means = [mean(told, rows) for rows in (right, there & ~right, absent, odd)]
        print(f"| {size:,} | {' | '.join(means)} | {' | '.join(rates)} | {good.mean():.3f} | {share(right, good)} |")


def by_query(parts: dict[int, Searches], judged: Judged, known: Fit) -> None:
    """What the mean hides: kinds of queries."""
    print("\n| queries | " + " | ".join(f"{size:,} segments: confidence, relevant" for size in parts) + " |")
    print("|---" * (len(parts) + 1) + "|")
    for words, name in NAMES.items():
        cells = []
        for hits in parts.values():
            these = hits[of_words(hits, judged, words)]
            cells.append(f"{known.curve.of(these).mean():.3f}, {these.relevant.mean():.3f}")
        print(f"| {name} | {' | '.join(cells)} |")


def reliability(hits: Searches, curve: Curve, bins: int = 10) -> None:
    told = curve.of(hits)
    print("\n| confidence from | to | mean | relevant | hits |\n|---|---|---|---|---|")
    for low in np.arange(bins) / bins:
        inside = (told >= low) & (told < low + 1 / bins)
        if inside.any():
            means = f"{told[inside].mean():.3f} | {hits.relevant[inside].mean():.3f}"
            print(f"| {low:.1f} | {low + 1 / bins:.1f} | {means} | {inside.sum():,} |")


def with_interval(told: np.ndarray, hits: Searches, judged: Judged) -> str:
    """ECE and its 95 % interval, pictures drawn with replacement: queries of a picture stay together."""
    pictures = np.unique([one.picture for one in judged.asked], return_inverse=True)[1]
    of_hit = pictures[hits.query.astype(int)]
    order = np.argsort(of_hit, kind="stable")
    starts = np.searchsorted(of_hit[order], np.arange(pictures.max() + 2))
    random, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        some = random.integers(pictures.max() + 1, size=pictures.max() + 1)
        rows = np.concatenate([order[starts[one] : starts[one + 1]] for one in some])
        found.append(calibration_error(told[rows], hits.relevant[rows], BINS))
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{calibration_error(told, hits.relevant, BINS):.3f} ({low:.3f} to {high:.3f})"


def of_words(hits: Searches, judged: Judged, words: int) -> np.ndarray:
    return np.isin(hits.query.astype(int), judged.rows(words))


def brier(told: np.ndarray, hits: Searches) -> float:
    return float(np.mean((told - hits.relevant) ** 2))


def auc(told: np.ndarray, relevant: np.ndarray) -> float:
    """The chance that a relevant hit has the higher confidence of the two; ties count half."""
    values, place = np.unique(told, return_inverse=True)
    true, false = (np.bincount(place[rows], minlength=len(values)) for rows in (relevant, ~relevant))
    below = np.cumsum(false) - false
    return float((true * (below + false / 2)).sum() / max(1, true.sum() * false.sum()))


def share(what: np.ndarray, among: np.ndarray) -> str:
    return f"{what[among].mean():.3f}" if among.any() else "-"


def mean(told: np.ndarray, rows: np.ndarray) -> str:
    return f"{told[rows].mean():.3f}" if rows.any() else "-"


if __name__ == "__main__":
    main()
