"""Does a trained method find the right moment of real films more often than mean pooling does?

    rushes data reels --pictures PICTURES --split test --count 100 --render --out FILMS
    python benchmarks/moments.py FILMS meanpool=RUN wti=RUN ...

Each model indexes the films as any folder, by shots and by windows, and is asked for every caption of captions.csv:

    video      the first hit is of the right film
    segment    and its segment holds the middle of the shot that the caption tells of
    IoU        of its best moment with that shot, 0 in another film, mean over captions
    IoU >= .5  share of captions whose best moment has at least that
    R@5 video  the right film is among the first five, a hit a film

Under each number the difference to the first model, paired, with an interval over films.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

import rushes
from rushes.evaluate.compare import Run, paired_bootstrap
from rushes.types import Hit

MEASURES = ("video", "segment", "IoU", "IoU >= .5", "R@5 video")


def measured(hits: list[Hit], films: list[Hit], film: str, start: float, end: float) -> tuple[float, ...]:
    """What one caption gets. `hits` are segments, `films` a hit a film."""
    best = hits[0]
    right = best.segment.video == film
    moment = best.moments[0]
    both = max(0.0, min(end, moment.end) - max(start, moment.start))
    iou = both / (max(end, moment.end) - min(start, moment.start)) if right else 0.0
    inside = right and best.start <= (start + end) / 2 <= best.end
    found = film in [hit.segment.video for hit in films[:5]]
    return float(right), float(inside), iou, float(iou >= 0.5), float(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("models", nargs="+", help="NAME=FOLDER; the first is what the others are compared with")
    args = parser.parse_args()
    with (args.films / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["video"] for row in rows]
    for by in ("shots", "windows"):
        print(f"\n### By {by}: {len(rows)} captions, {len(set(names))} films\n")
        print(f"| method | segments | {' | '.join(MEASURES)} |\n|---|---|{'---|' * len(MEASURES)}")
        base: np.ndarray | None = None
        for given in args.models:
            name, _, folder = given.partition("=")
            with tempfile.TemporaryDirectory() as store:
                library = rushes.open(args.films, store)
                report = library.refresh(model=folder, segments=by)
                found = []
                for row in rows:
                    hits = library.search(row["caption"], 5)
                    films = library.search(row["caption"], 5, group="video")
                    found.append(measured(hits, films, row["video"], float(row["start"]), float(row["end"])))
            values = np.array(found)
            cells = [f"{value:.3f}" for value in values.mean(axis=0)]
            if base is None:
                base = values
            else:
                for column in range(len(MEASURES)):
                    first, second = (Run(range(len(rows)), one[:, column], names) for one in (base, values))
                    apart = paired_bootstrap(first, second)
                    cells[column] += f" ({apart.difference:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}])"
            print(f"| {name} | {report.segments} | {' | '.join(cells)} |", flush=True)
            if report.failed:
                sys.exit(f"{report.failed} films could not be indexed")


if __name__ == "__main__":
    main()
