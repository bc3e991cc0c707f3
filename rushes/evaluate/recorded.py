"""An evaluation's folder, read again: what comparing two of them needs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rushes.evaluate.compare import Run, Statistic
from rushes.evaluate.metrics import Ranks, Ties
from rushes.evaluate.report import COLUMNS, FORMAT


@dataclass(frozen=True, eq=False)
class Recorded:
    """An evaluation's folder, read again: what comparing needs."""

    folder: Path
    card: Mapping[str, Any]
    ids: Mapping[str, Sequence[str]]  # by direction
    groups: Mapping[str, Sequence[str]]
    ranks: Mapping[str, Ranks]
    several: frozenset[str]  # directions in which a query has several positives, of which ranks know the best only

    @property
    def ties(self) -> Ties:
        return self.card["ties"]

    def run(self, direction: str, metric: str) -> Run:
        """One number a query. LookupError for a direction or metric that is not there."""
        if direction not in self.ranks:
            raise LookupError(f"{self.folder} has no direction {direction!r}; it has {', '.join(self.ranks)}")
        if direction in self.several and metric.startswith(("nDCG", "mAP")):
            raise LookupError(
                f"{metric} needs the ranks of all positives; {self.folder} keeps the best of each query only: take "
                "R@k, MdR, MnR or MRR"
            )
        statistic: Statistic = "median" if metric == "MdR" else "mean"
        values = self.ranks[direction].per_query(metric, self.ties)
        return Run(self.ids[direction], values, self.groups[direction], statistic)


def read(folder: Path, raw: bool = False) -> Recorded:
    """The card and the ranks of an evaluation; `raw` takes those before post-processing."""
    path = folder / "card.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no card.json; give a folder that `rushes evaluate` wrote")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        format = about["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no card of an evaluation ({error!r}); evaluate again") from error
    if format > FORMAT:
        raise ValueError(f"{path} has format {format}, this Rushes reads {FORMAT}; update Rushes")
    if about["over_seeds"]:
        raise ValueError(
            f"{folder} holds the mean of {about['over_seeds']['runs']} runs; give the folder of one of them"
        )
    table = folder / ("ranks_raw.csv" if raw and about["post_processing"] else "ranks.csv")
    rows: dict[str, list[list[str]]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        if tuple(next(lines, ())) != COLUMNS:
            raise ValueError(f"{table} has other columns than {', '.join(COLUMNS)}; evaluate again")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(COLUMNS) or not all(line[place].isdecimal() for place in range(4, 8)):
                raise ValueError(f"{table}, line {number} is no row of ranks: {','.join(line)[:80]!r}; evaluate again")
            rows.setdefault(line[0], []).append(line)
    ranks, several = {}, set()
    for name, lines in rows.items():
        above, tied, own_tied, positives = np.array([line[4:8] for line in lines]).astype(int).T
        metrics = about["metrics"][name]
        if (positives > 1).any():
            several.add(name)
        ranks[name] = Ranks(
            queries=len(lines),
            gallery=metrics["gallery"],
            query=np.arange(len(lines)),
            above=above,
            tied=tied,
            own_above=np.zeros_like(above),
            own_tied=own_tied,
            convention=metrics.get("convention"),
        )
    return Recorded(
        folder,
        about,
        {name: [line[1] for line in lines] for name, lines in rows.items()},
        {name: [line[2] for line in lines] for name, lines in rows.items()},
        ranks,
        frozenset(several),
    )
