"""`rushes features`: what a backbone sees and reads of a benchmark, computed once."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.cli.index import Policy
from rushes.cli.options import Json, print_json
from rushes.cli.progress import bar

if TYPE_CHECKING:
    from rushes.train.features import Progress, Report

TOLD = 5  # failures that are told; all stand in the manifest


def features(
    name: Annotated[str, typer.Argument(help="A benchmark: msrvtt, reels, folder, ...", show_default=False)],
    root: Annotated[
        Path,
        typer.Option(
            help="The folder with annotations and videos; of reels, that of pictures.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    backbone: Annotated[
        str, typer.Option(help="An installed model, a folder, or a CLIP or SigLIP hub id: its backbone is used.")
    ] = "small",
    protocol: Annotated[
        str | None, typer.Option(help="One of the benchmark's protocols.", show_default="its default")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="A split; may be given more than once.", show_default="all")
    ] = None,
    policy: Annotated[Policy, typer.Option(help="Which frames are looked at, as in `rushes index`.")] = Policy.balanced,
    out: Annotated[
        Path | None,
        typer.Option(help="Where features are kept.", show_default="ROOT/.rushes/features", file_okay=False),
    ] = None,
    tagger: Annotated[str, typer.Option(help="What tells content words: closed-class or spacy.")] = "closed-class",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Write videos without a file down as missing, and go on.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed in an earlier run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute frame and word features of benchmark NAME; what is there already stays, a stopped run goes on.

    1 is returned where videos failed: they are listed, and asking for their frames is an error.
    """
    from rushes.data import load
    from rushes.library.scan import fingerprint
    from rushes.model import load as load_model
    from rushes.train.features import compute, missing_of, source_of

    benchmark = load(name, root, protocol)
    wanted = {one: benchmark[one] for one in split or benchmark.splits}
    model = load_model(backbone, device)
    reports: list[Report] = []
    sources = {one: source_of(benchmark, one, root, fingerprint, policy.value) for one in wanted}
    for one, source in sources.items():
        missing_of(wanted[one], source, allow_missing)  # before hours of work on another split
    for one, source in sources.items():
        with closing(source), bar("frames") as show:

            def on_progress(now: Progress, one: str = one) -> None:
                assert show is not None
                show(now.done, now.total, f"{one}: {now.what}", now.frames)

            report = compute(
                benchmark,
                one,
                source,
                model.backbone,
                out or root / ".rushes" / "features",
                name=backbone,
                tagger=tagger,
                allow_missing=allow_missing,
                retry_failed=retry_failed,
                on_progress=on_progress if show else None,
            )
        reports.append(report)
        _tell(report)
    if as_json:
        print_json([asdict(report) for report in reports])
    else:
        for report in reports:
            typer.echo(report.folder)
    if any(report.failures for report in reports):
        raise typer.Exit(1)


def _tell(report: Report) -> None:
    say = [
        f"{report.split}: {report.videos:,} videos, {report.frames:,} frames ({report.computed_frames:,} computed now)",
        f"{report.captions:,} captions, {report.words:,} words ({report.computed_texts:,} texts computed now)",
    ]
    say += [f"{report.cut_texts:,} texts lost their end"] if report.cut_texts else []
    say += [f"{len(report.missing):,} videos missing"] if report.missing else []
    say += [f"{len(report.damage):,} damaged stretches"] if report.damage else []
    say += [f"{len(report.failures):,} videos FAILED"] if report.failures else []
    typer.echo("; ".join(say), err=True)
    for failed in report.failures[:TOLD]:
        typer.echo(f"  {failed['video']}: {failed['reason']}", err=True)
    if len(report.failures) > TOLD:
        typer.echo(f"  ... all of them stand in {report.folder}/manifest.json", err=True)
