"""`rushes serve`: search a folder's videos in the browser, and over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushes.cli.options import Folder, Store


def serve(
    folder: Folder,
    port: Annotated[int, typer.Option(help="0 takes one that is free.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="The address to bind; any but a loopback one needs a token.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(help="Read the token from this file, which only you may read.", exists=True, dir_okay=False),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A further name that browsers may use; may be repeated.")
    ] = None,
    store: Store = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    log_queries: Annotated[bool, typer.Option("--log-queries", help="Write what is searched for to stderr.")] = False,
) -> None:
    """Serve FOLDER: the page at http://127.0.0.1:8000/, the HTTP API below /v1. Index it there, if it is not yet."""
    import rushes

    try:
        from rushes.serve.run import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("rushes"):
            raise
        raise RuntimeError(f"the server needs {error.name}; `pip install 'rushes[serve]'` installs it") from None

    run(
        rushes.open(folder, store),
        host=host,
        port=port,
        token_file=token_file,
        allow_hosts=allow_host or (),
        open_page=open_page,
        log_queries=log_queries,
    )
