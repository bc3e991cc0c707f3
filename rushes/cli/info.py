"""`rushes info`: what an index holds, and what could not be indexed."""

from __future__ import annotations

from dataclasses import asdict

import typer

from rushes.cli.options import Folder, Json, Store, clock, print_json


def info(folder: Folder, store: Store = None, as_json: Json = False) -> None:
    """Show what the index of FOLDER holds, with the failure ledger."""
    import rushes

    known = rushes.open(folder, store).info()
    if as_json:
        data = asdict(known)
        data["hours"] = round(known.hours, 4)
        for failure in data["failures"]:
            del failure["id"]
        print_json(data)
        return
    unfinished = f" ({known.unfinished} unfinished)" if known.unfinished else ""
    typer.echo(f"videos    {known.videos}{unfinished} in {known.files} files, {known.hours:.2f} hours")
    typer.echo(f"segments  {known.segments} by {known.segments_by}, policy {known.policy}")
    typer.echo(f"model     {known.model}, method {known.method}")
    typer.echo(f"store     {known.store}, {known.size_bytes / 1e6:.1f} MB")
    typer.echo(f"failures  {len(known.failures)}")
    for failure in known.failures:
        where = "" if failure.start is None else f" from {clock(failure.start)}"
        where += "" if failure.end is None else f" to {clock(failure.end)}"
        typer.echo(f"  {failure.video}{where}  [{failure.code}] {failure.reason}")
