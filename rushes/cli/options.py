"""Arguments that several verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Folder = Annotated[Path, typer.Argument(help="The folder of videos.", exists=True, file_okay=False, show_default=False)]
Store = Annotated[
    Path | None, typer.Option(help="Where the index lies.", show_default="FOLDER/.rushes", file_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def clock(seconds: float) -> str:
    """Seconds as people read them.

    >>> clock(75.26), clock(3600 * 2 + 5)
    ('1:15.3', '2:00:05.0')
    """
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36000)
    minutes, rest = divmod(rest, 600)
    text = f"{minutes:02d}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"
    return f"{hours}:{text}" if hours else text
