"""The command line: one small file a verb. Data goes to stdout, talk to stderr; 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import os
import sys

import typer

from rushes.cli import (
    calibrate,
    check,
    compare,
    data,
    evaluate,
    features,
    index,
    info,
    leaks,
    metrics,
    names,
    search,
    serve,
    tag,
    train,
)

app = typer.Typer(
    name="rushes",
    help="Search a folder of videos by text; train and check the methods that do it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("tag")(tag.tag)
app.command("serve")(serve.serve)
app.command("info")(info.info)
app.command("check")(check.check)
app.command("features")(features.features)
app.command("metrics")(metrics.metrics)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("leaks")(leaks.leaks)
app.command("train")(train.train)
app.command("calibrate")(calibrate.calibrate)
app.command("methods")(names.methods)
app.command("models")(names.models)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the app; an error that a user can mend is one line that says how, not a traceback."""
    # Threads that wait by spinning fight whoever else is at work: beside two busy processes on two cores a text of six
    # words took 530 ms, and 12 ms so. It must be said before torch is imported, so here; see docs/LOG.md.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(_say(error, 1))
    except LookupError as error:
        if isinstance(error, (KeyError, IndexError)):
            raise  # ours to mend, not the user's
        sys.exit(_say(error, 2))
    except KeyboardInterrupt:
        typer.echo("rushes: stopped; what was done is kept, run the same command to go on", err=True)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if show:
        from rushes import __version__

        typer.echo(__version__)
        raise typer.Exit


def _say(error: Exception, status: int) -> int:
    typer.echo(f"rushes: error: {error}", err=True)
    return status
