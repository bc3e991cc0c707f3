"""`rushes check`: the laws that every method keeps, on any method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rushes.cli.options import Json, print_json
from rushes.cli.progress import bar


def check(
    method: Annotated[str, typer.Argument(help="A method's name, or a path ending in .py.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Run the laws on METHOD: padding, independence, permutation, save and load, gradients, spans, two processes."""
    from rushes.train import laws

    with bar("laws") as show:
        verdicts = laws.check(
            method, on_progress=(lambda done, total, law: show(done, total, law, done)) if show else None
        )
    if as_json:
        print_json([asdict(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            mark = "kept  " if verdict.kept else "BROKEN"
            typer.echo(f"{mark}  {verdict.law}  ({verdict.seconds:.1f} s)")
            if not verdict.kept:
                typer.echo(f"        {verdict.detail}")
            for configuration in verdict.on_purpose:
                typer.echo(f"        broken on purpose by {configuration}")
    if not all(verdict.kept for verdict in verdicts):
        raise typer.Exit(1)
