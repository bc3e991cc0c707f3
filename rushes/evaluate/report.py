"""The folder that an evaluation leaves: a card that says what the number is, ranks a query, a TREC run, a page."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rushes.evaluate import compare
from rushes.evaluate.answers import Answers, answers, blocks
from rushes.evaluate.page import page as drawn
from rushes.evaluate.run import Evaluation

FORMAT = 1  # of card.json and ranks.csv; raise it when an older reader would go wrong
DEPTH = 1000  # videos a text in run.trec, as TREC has it
UNKNOWN = "not told"
FILES = ("card.json", "ranks.csv", "ranks_raw.csv", "run.trec", "qrels.txt", "report.html")
COLUMNS = (
    "direction",
    "query",
    "group",
    "rank",
    "above",
    "tied",
    "own_tied",
    "positives",
    "score",
    "top",
    "top_score",
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a number depends on that its scores do not tell. What is left out is published as "not told"."""

    benchmark: str
    protocol: str
    model: str = UNKNOWN
    model_digest: str | None = None
    method: str = UNKNOWN
    switches: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = UNKNOWN
    frames: str = UNKNOWN  # how many of a video, and which: "12 at most, evenly spread"
    decoder: str = UNKNOWN
    seeds: tuple[int, ...] = ()
    selection: str = UNKNOWN  # how the weights were chosen: "last epoch", "best R@1 on val"
    missing: tuple[str, ...] = ()  # videos of the split that could not be had, and so are not in the gallery

    def __post_init__(self) -> None:
        if re.search(r"\btest\b", self.selection, re.IGNORECASE):
            raise ValueError(
                f"the selection rule {self.selection!r} names the test set: a model chosen there has no honest number "
                "on it; choose on a validation split, or take the last epoch"
            )


# --- writing ----------------------------------------------------------------------------------------------------------


def write(
    evaluation: Evaluation,
    setting: Setting,
    folder: Path,
    *,
    thumbnails: Mapping[str, bytes] | None = None,
    page: bool = True,
    depth: int = DEPTH,
) -> dict[str, Any]:
    """Write card.json, ranks.csv, run.trec, qrels.txt and with `page` report.html into `folder`; gives the card.

    `thumbnails` are JPEG or PNG files by video id, of `shown_videos` at least. With post-processing ranks_raw.csv holds
    what was before it. FileExistsError for a folder that has files of anything else: results are not mixed.
    """
    demand_room(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").unlink(missing_ok=True)  # a folder with a card is a whole one
    about = card(evaluation, setting)
    found = answers(evaluation)
    if page:
        (folder / "report.html").write_text(drawn(evaluation, about, found, thumbnails or {}), encoding="utf-8")
    else:
        (folder / "report.html").unlink(missing_ok=True)
    _write_ranks(folder / "ranks.csv", evaluation, found)
    (folder / "ranks_raw.csv").unlink(missing_ok=True)
    if evaluation.post_processing is not None:
        plain = Evaluation(**{**vars(evaluation), "ranking": evaluation.raw})
        _write_ranks(folder / "ranks_raw.csv", plain, answers(plain, with_scores=False))
    _write_trec(folder, evaluation, depth, about)
    write_card(about, folder)
    return about


def write_card(about: Mapping[str, Any], folder: Path) -> None:
    """card.json, the last file of an evaluation to be written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def card(evaluation: Evaluation, setting: Setting) -> dict[str, Any]:
    """All that belongs beside the number, as JSON has it; docs/evaluation.md says what each entry is."""
    split, done = evaluation.split, evaluation.post_processing
    of_any = next(iter(next(iter(evaluation.intervals.values())).values()))
    return {
        "format": FORMAT,
        "rushes": version("rushes"),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "benchmark": setting.benchmark,
            "protocol": setting.protocol,
            "split": split.name,
            "digest": split.digest(),
            "queries": len(split.captions),
            "gallery": len(split.videos),
            "pairs": len(evaluation.positives.text),
            "missing": list(setting.missing),
        },
        "model": {
            "name": setting.model,
            "digest": setting.model_digest,
            "method": setting.method,
            "switches": dict(setting.switches),
            "backbone": setting.backbone,
        },
        "input": {"frames": setting.frames, "decoder": setting.decoder},
        "training": {"seeds": list(setting.seeds), "selection": setting.selection},
        "post_processing": None if done is None else asdict(done),
        "ties": evaluation.ties,
        "metrics": {name: one.printed() for name, one in evaluation.metrics().items()},
        "raw_metrics": {name: one.printed() for name, one in evaluation.metrics(raw=True).items()},
        "intervals": {
            name: {metric: [_printed(metric, one.low), _printed(metric, one.high)] for metric, one in by_metric.items()}
            for name, by_metric in evaluation.intervals.items()
        },
        "interval": {
            "level": of_any.level,
            "over": "videos",
            "groups": of_any.groups,
            "repetitions": of_any.repetitions,
            "seed": of_any.seed,
        },
        "over_seeds": None,
    }


def over_seeds(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of every metric over runs of one model that differ in their seed: a card of all of them.

    ValueError where anything else differs that a number depends on.
    """
    if len(cards) < 2:
        raise ValueError(f"{len(cards)} runs have no deviation; give two seeds or more")
    first = cards[0]
    for entry, names in {
        "data": ("digest", "protocol"),
        "model": ("method", "switches", "backbone"),
        "input": ("frames",),
        "training": ("selection",),
    }.items():
        for name in names:
            if len({json.dumps(one[entry][name], sort_keys=True) for one in cards}) > 1:
                raise ValueError(
                    f"the runs differ in {entry}.{name} ({', '.join(str(one[entry][name]) for one in cards[:4])}), "
                    "not in their seed alone"
                )
    if any(one["post_processing"] != first["post_processing"] for one in cards):
        raise ValueError("the runs differ in their post-processing, not in their seed alone")
    seeds = [seed for one in cards for seed in one["training"]["seeds"]]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the runs have the seeds {', '.join(map(str, seeds))}; each counts once")
    together: dict[str, Any] = {}
    for name, metrics in first["metrics"].items():
        numbers = [metric for metric in metrics if metric not in ("queries", "gallery", "convention")]
        found = {metric: compare.over_seeds([one["metrics"][name][metric] for one in cards]) for metric in numbers}
        together[name] = {metric: {"mean": one.mean, "deviation": one.deviation} for metric, one in found.items()}
    means = {
        name: {**metrics, **{metric: one["mean"] for metric, one in together[name].items()}}
        for name, metrics in first["metrics"].items()
    }
    raw = {
        name: {
            **metrics,
            **{
                metric: float(np.mean([one["raw_metrics"][name][metric] for one in cards])) for metric in together[name]
            },
        }
        for name, metrics in first["raw_metrics"].items()
    }
    return {
        **first,
        "model": {**first["model"], "name": [one["model"]["name"] for one in cards], "digest": None},
        "training": {**first["training"], "seeds": seeds},
        "metrics": means,
        "raw_metrics": raw,
        "intervals": None,  # each run's own card has its interval, of other videos; the deviation is of other seeds
        "interval": None,
        "over_seeds": {"runs": len(cards), "seeds": seeds, "metrics": together},
    }


def demand_room(folder: Path) -> None:
    """A new folder, or one that holds an evaluation, whole or begun; FileExistsError where there is anything else."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give a folder to write into")
    others = [
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name not in FILES and not (path / "card.json").is_file()
    ]
    if others and not (folder / "card.json").is_file():
        raise FileExistsError(f"{folder} holds {others[0]!r} and no card.json of an evaluation; give another folder")


def _write_ranks(path: Path, evaluation: Evaluation, found: Sequence[Answers]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for one in found:
            ranks = one.ranks
            first = np.flatnonzero(np.diff(ranks.query, prepend=-1))
            positives = np.diff(first, append=len(ranks.query))
            best = ranks.best(evaluation.ties)
            for row, pair in enumerate(first.tolist()):
                told = np.isfinite(one.own[row])
                table.writerow(
                    (
                        one.name,
                        one.queries[row],
                        one.groups[row],
                        f"{best[row]:g}" if best[row] < 1e5 else repr(float(best[row])),
                        ranks.above[pair],
                        ranks.tied[pair],
                        ranks.own_tied[pair],
                        positives[row],
                        repr(float(one.own[row])) if told else "",
                        one.gallery[one.top[row]] if told else "",
                        repr(float(one.top_score[row])) if told else "",
                    )
                )


def _write_trec(folder: Path, evaluation: Evaluation, depth: int, about: Mapping[str, Any]) -> None:
    """Text-to-video in the format of trec_eval, which ranx and ir-measures read: run.trec and qrels.txt."""
    if depth < 1:
        raise ValueError(f"a depth of {depth} lists no video; give 1 or more")
    texts = [_trec_id(one.id) for one in evaluation.split.captions]
    videos = [_trec_id(one.id) for one in evaluation.split.videos]
    tag = _trec_id("-".join(("rushes", str(about["model"]["method"])))).replace("/", "_")
    with (folder / "run.trec").open("w", encoding="utf-8") as file:
        for start, block in blocks(evaluation, "t2v"):
            digits = 9 if block.dtype == np.float32 else 17  # that give back every bit
            columns = _first(block, depth)
            for row, chosen in enumerate(columns):
                lines = (
                    f"{texts[start + row]} Q0 {videos[video]} {place} {block[row, video]:.{digits}g} {tag}\n"
                    for place, video in enumerate(chosen.tolist(), start=1)
                )
                file.writelines(lines)
    pairs = zip(evaluation.positives.text.tolist(), evaluation.positives.video.tolist(), strict=True)
    with (folder / "qrels.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{texts[text]} 0 {videos[video]} 1\n" for text, video in pairs)


def _first(scores: Float[np.ndarray, "query entry"], depth: int) -> Int[np.ndarray, "query depth"]:
    """The best `depth` entries of each query, best first, of equals the lower number first."""
    if depth >= scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")
    some = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
    order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _trec_id(name: str) -> str:
    """An id without blanks, which separate columns there: as in a URL, and only where it must be.

    >>> _trec_id("video7#0"), _trec_id("my clips/100%.mp4")
    ('video7#0', 'my%20clips/100%25.mp4')
    """
    return "".join(f"%{ord(one):02X}" if one.isspace() or one == "%" else one for one in name)


def _printed(metric: str, value: float) -> float:
    return round(100 * value, 10) if metric.startswith("R@") else value
