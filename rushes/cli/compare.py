"""`rushes compare`: whether two evaluations of the same queries differ by more than luck."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rushes.cli.options import Json, print_json

Evaluated = Annotated[
    Path,
    typer.Argument(help="A folder that `rushes evaluate` wrote.", exists=True, file_okay=False, show_default=False),
]


class Of(StrEnum):
    t2v = "t2v"
    v2t = "v2t"
    v2t_groups = "v2t_groups"


def compare(
    run_a: Evaluated,
    run_b: Evaluated,
    metric: Annotated[str, typer.Option(help="R@k, MdR, MnR, MRR, nDCG@k or mAP.")] = "R@1",
    direction: Annotated[Of, typer.Option(help="Which ranking.")] = Of.t2v,
    raw: Annotated[bool, typer.Option("--raw", help="Before post-processing, where there was any.")] = False,
    repetitions: Annotated[int, typer.Option(help="Of either test.", min=100)] = 10_000,
    as_json: Json = False,
) -> None:
    """Print RUN_B less RUN_A with its interval, and how often luck alone gives as much.

    Queries of one video succeed and fail together, so whole videos are drawn.

    What it cannot see is the luck of the training seed: two seeds of one method may differ by as much. Evaluate
    several of each.
    """
    from rushes.evaluate.compare import paired_bootstrap, paired_randomisation
    from rushes.evaluate.metrics import LOWER_IS_BETTER
    from rushes.evaluate.recorded import read

    first, second = read(run_a, raw), read(run_b, raw)
    if first.ties != second.ties:
        raise ValueError(f"{run_a} counts ties as {first.ties}, {run_b} as {second.ties}; evaluate one again")
    one, other = first.run(direction.value, metric), second.run(direction.value, metric)
    try:
        interval = paired_bootstrap(one, other, repetitions=repetitions)
    except ValueError as error:
        raise ValueError(f"{run_a} and {run_b} cannot be compared: {error}") from error
    splits = [run.card["data"]["digest"] for run in (first, second)]
    if splits[0] != splits[1]:
        raise ValueError(
            f"{run_a} is of split {splits[0]}, {run_b} of {splits[1]}: the queries have the same ids, but their texts, "
            "their videos or the gallery differ"
        )
    test = paired_randomisation(one, other, repetitions=repetitions)
    done = [None if raw else run.card["post_processing"] for run in (first, second)]
    kinds = [one["kind"] if one else "none" for one in done]
    share = 100 if metric.startswith("R@") else 1
    assert interval.low is not None
    assert interval.high is not None
    data: dict[str, Any] = {
        "metric": metric,
        "direction": direction.value,
        "lower_is_better": metric in LOWER_IS_BETTER,
        "queries": interval.queries,
        "groups": interval.groups,
        "first": share * interval.first,
        "second": share * interval.second,
        "difference": share * interval.difference,
        "low": share * interval.low,
        "high": share * interval.high,
        "level": interval.level,
        "p_randomisation": test.p,
        "p_bootstrap": interval.p,
        "repetitions": repetitions,
        "post_processing": done,
    }
    if kinds[0] != kinds[1]:
        typer.echo(f"post-processing differs: {kinds[0]} and {kinds[1]}; --raw compares what was before it", err=True)
    if as_json:
        print_json(data | {"tests": [asdict(test), asdict(interval)]})
        return
    better = ", lower is better" if metric in LOWER_IS_BETTER else ""
    typer.echo(f"{metric} {direction.value}{better}: {interval.queries} queries of {interval.groups} videos")
    for path, value in ((run_a, data["first"]), (run_b, data["second"])):
        typer.echo(f"  {value:9.3f}  {path}")
    typer.echo(
        f"  {data['difference']:+9.3f}  {interval.level:.0%} interval {data['low']:+.3f} to {data['high']:+.3f}"
        " (paired bootstrap)"
    )
    typer.echo(f"  p {test.p:7.4f}  paired randomisation, two-sided; {interval.p:.4f} by the bootstrap")
