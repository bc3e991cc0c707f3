"""`rushes leaks`: whether a scorer lets the answer into its scores, on any method, file or model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.cli.options import Json, print_json
from rushes.cli.progress import bar

if TYPE_CHECKING:
    from rushes.evaluate.subjects import Subject


def leaks(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="METHOD|FILE.py|MODEL",
            help="A method's name; a file with a function score(texts, videos) or a method; a model's name or folder.",
            show_default=False,
        ),
    ],
    tolerance: Annotated[
        float,
        typer.Option(help="What scores may differ by, as a share of their deviation; raise it for half precision."),
    ] = 1e-3,
    as_json: Json = False,
) -> None:
    """Test whether scores depend on anything but their text and their video; 1 is returned where they do.

    The gallery permuted, a query alone, another video or caption in its place, other blocks, unequal counts; and for
    a method or a file whether unrelated texts and videos score at chance.
    """
    if not 0 < tolerance < 1:
        raise typer.BadParameter(f"{tolerance:g} must lie between 0 and 1", param_hint="--tolerance")
    found = {}
    with bar("configurations") as show:
        for done, one in enumerate(_subjects(subject)):
            if show:
                show(done, max(3, done + 1), one.name, done)
            found[one.name] = one.leaks(tolerance), one.notes
    leaky = any(finding.leaks for findings, _ in found.values() for finding in findings)
    if as_json:
        print_json(
            {
                "subject": subject,
                "leaks": leaky,
                "found": {
                    name: {"notes": list(notes), "tests": [asdict(finding) for finding in findings]}
                    for name, (findings, notes) in found.items()
                },
            }
        )
    else:
        for name, (findings, notes) in found.items():
            typer.echo(name)
            for note in notes:
                typer.echo(f"  ({note})")
            for finding in findings:
                typer.echo(f"  {'LEAKS' if finding.leaks else 'clean'}  {finding.test:<20}  {finding.detail}")
                for line in wrap(finding.advice, 100):
                    typer.echo(f"           {line}")
    if leaky:
        raise typer.Exit(1)


def _subjects(name: str) -> Iterator[Subject]:
    """What the name means: a file, a method that the registry knows, or a model."""
    from rushes import registry
    from rushes.evaluate import subjects

    if name.endswith(".py"):
        return subjects.of_file(Path(name))
    methods = registry.names("methods")
    if name in methods:
        from rushes.methods.base import Method

        return subjects.of_method(registry.find("methods", name, Method))
    from rushes.model import load

    try:
        return subjects.of_model(load(name))
    except LookupError as error:
        raise LookupError(f"{error}; methods are {', '.join(methods)}") from error
