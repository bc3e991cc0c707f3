"""`rushes methods` and `rushes models`: what there is to choose from."""

from __future__ import annotations

import typer

from rushes.cli.options import Json, print_json


def methods(as_json: Json = False) -> None:
    """List the methods, each with the first line of its file."""
    from rushes import registry
    from rushes.methods.base import Method

    rows = []
    for name in registry.names("methods"):
        found = registry.find("methods", name, Method)
        rows.append({"name": name, "about": _first_line(found)})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['name']:<12}  {row['about']}")


def models(as_json: Json = False) -> None:
    """List the installed models. CLIP and SigLIP checkpoints need no listing: give their hub id or folder."""
    import json

    from rushes.model import installed

    rows = []
    for name, folder in installed().items():
        config = json.loads((folder / "config.json").read_text())
        size = sum(path.stat().st_size for path in folder.iterdir())
        rows.append(
            {
                "name": name,
                "backbone": config["backbone"]["name"],
                "method": config["method"]["name"],
                "size_mb": round(size / 1e6, 1),
            }
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['name']:<12}  {row['backbone']} + {row['method']}, {row['size_mb']} MB")
    if not rows:
        typer.echo("no model is installed: `pip install ./packages/rushes-small` brings `small`", err=True)


def _first_line(found: type) -> str:
    import sys

    text = sys.modules[found.__module__].__doc__ or found.__doc__ or ""
    return text.strip().partition("\n")[0]
