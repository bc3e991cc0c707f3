"""`rushes evaluate`: a model's numbers on a benchmark's split, in a folder with all that belongs beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes.cli.metrics import Rescore, TiePolicy
from rushes.cli.options import Json, print_json
from rushes.cli.progress import Show, bar

if TYPE_CHECKING:
    from rushes.backbones.base import Words
    from rushes.data.base import Benchmark, Split
    from rushes.evaluate.report import Setting
    from rushes.evaluate.run import Captions, Evaluation
    from rushes.model import Model
    from rushes.train.features import Drawn, Files

THUMBNAIL = 96  # pixels of the shorter side


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Installed models, folders, or hub ids; several seeds of one give mean and deviation.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str, typer.Option(help="A benchmark (msrvtt, reels, ...), or a folder with captions.csv.", show_default=False)
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="The benchmark's folder.", exists=True, file_okay=False, show_default="this folder"),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="One of the benchmark's protocols.", show_default="its default")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split.")] = "test",
    rescore: Annotated[
        Rescore | None,
        typer.Option(help="dsl and sinkhorn look at all test queries (transductive); qbnorm at training captions."),
    ] = None,
    beta: Annotated[
        float, typer.Option(help="Inverse temperature of --rescore; choose it on a validation split.")
    ] = 20.0,
    bank: Annotated[
        int | None,
        typer.Option(
            help="Training captions in the bank of qbnorm, at most; makes sinkhorn inductive.",
            show_default="5000",
            min=1,
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a video, at most.", show_default="as in training, or 12", min=1)
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(help="Tokens of a text, at most.", show_default="as in training, or the backbone's", min=1),
    ] = None,
    ties: Annotated[TiePolicy, typer.Option(help="What equal scores count.")] = TiePolicy.expected,
    seed: Annotated[
        int | None, typer.Option(help="Of the training, for the card.", show_default="the model's run.json")
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(help="How the weights were chosen, for the card.", show_default="the model's run.json"),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Where features are kept.", show_default="ROOT/.rushes/features", file_okay=False),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out videos that cannot be had; the card lists them.")
    ] = False,
    depth: Annotated[int, typer.Option(help="Videos a text in run.trec.", min=1)] = 1000,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write report.html.")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(help="Where to.", show_default="evaluations/MODEL-DATA-PROTOCOL-SPLIT", file_okay=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank a split's videos for its texts, and texts for videos; write card, ranks, a TREC run and a page."""
    if bank is not None and rescore not in (Rescore.qbnorm, Rescore.sinkhorn):
        raise typer.BadParameter("is for --rescore qbnorm or sinkhorn", param_hint="--bank")
    if len(models) > 1 and seed is not None:
        raise typer.BadParameter(f"{len(models)} models have a seed each; their run.json tells it", param_hint="--seed")

    from rushes.data import NAMES, load
    from rushes.evaluate import page as drawn
    from rushes.evaluate import report

    name, place = (data, root or Path()) if data in NAMES else ("folder", Path(data))
    if data not in NAMES and not place.is_dir():
        raise typer.BadParameter(f"{data} is no folder, and no benchmark: {', '.join(NAMES)}", param_hint="--data")
    if data not in NAMES and root is not None:
        raise typer.BadParameter(f"--data {data} is the folder already", param_hint="--root")
    if page:
        drawn.available()  # said before hours of work, not after
    benchmark = load(name, place, protocol)
    wanted = benchmark[split]
    wish = _Wish(
        name=name,
        root=place,
        rescore=rescore,
        beta=beta,
        bank=bank,
        ties=ties,
        seed=seed,
        selection=selection,
        frames=frames,
        words=words,
        features=features,
        allow_missing=allow_missing,
        device=device,
    )
    label = "-".join([benchmark.name, benchmark.protocol, split, *([rescore.value] if rescore else [])])
    folder = out or Path("evaluations") / f"{Path(models[0]).name}-{label}"
    folders = [folder] if len(models) == 1 else [folder / f"{n}-{Path(one).name}" for n, one in enumerate(models, 1)]
    for one in (folder, *folders):
        report.demand_room(one)
    cards = []
    for model, target in zip(models, folders, strict=True):
        with bar("items") as show:
            evaluation, setting, pictures = _evaluated(model, benchmark, wanted, wish, page, show)
        card = report.write(evaluation, setting, target, thumbnails=pictures, page=page, depth=depth)
        cards.append(card)
        if not as_json:
            _tell(card, target)
    if len(cards) > 1:
        card = report.over_seeds(cards)
        report.write_card(card, folder)
        cards = [card]
        if not as_json:
            _tell(card, folder)
    if as_json:
        print_json(cards[0])


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """The options, as they were given."""

    name: str
    root: Path
    rescore: Rescore | None
    beta: float
    bank: int | None
    ties: TiePolicy
    seed: int | None
    selection: str | None
    frames: int | None
    words: int | None
    features: Path | None
    allow_missing: bool
    device: str


def _evaluated(
    name: str, benchmark: Benchmark, split: Split, wish: _Wish, page: bool, show: Show | None
) -> tuple[Evaluation, Setting, dict[str, bytes]]:
    from rushes.evaluate.page import shown_videos
    from rushes.evaluate.run import evaluate
    from rushes.library.scan import fingerprint
    from rushes.model import load
    from rushes.train.features import Features, compute, source_of
    from rushes.train.source import Picked, Reader, some

    model = load(name, wish.device)
    setting, frames, words = _setting(model, name, benchmark, split, wish)
    say = None if show is None else lambda done, total, what: show(done, total, what, done)
    with closing(source_of(benchmark, split.name, wish.root, fingerprint)) as source:
        made = compute(
            benchmark,
            split.name,
            source,
            model.backbone,
            wish.features or wish.root / ".rushes" / "features",
            name=name,
            tagger=model.method.tagger or "closed-class",
            allow_missing=wish.allow_missing,
            on_progress=(lambda now: say(now.done, now.total, now.what)) if say else None,
        )
        stored = Features(made.folder, split)
        read: Reader = stored
        there = stored.there.nonzero()[0].tolist()
        whole = split
        if lost := [video.id for video, has in zip(split.videos, stored.there, strict=True) if not has]:
            if not wish.allow_missing or not there:
                first = made.failures[0]["reason"] if made.failures else "its file is missing"
                raise FileNotFoundError(
                    f"{len(lost)} of {len(split.videos)} videos of split {split.name!r} have no frames: {lost[0]} "
                    f"({first}); mend them, or leave them out with --allow-missing, which the card then says"
                )
            split = some(whole, there)
            read = Picked.of(read, whole, split)
            typer.echo(
                f"{len(lost)} of {len(whole.videos)} videos are left out, with them "
                f"{len(whole.captions) - len(split.captions)} captions: this is not the published split",
                err=True,
            )
        setting = replace(
            setting,
            frames=f"{frames} at most, the middles of equal stretches of {stored.manifest['sampling']} sampling",
            decoder=stored.manifest["decoder"],
            missing=tuple(lost),
        )
        evaluation = evaluate(
            model.method,
            split,
            read,
            frames=frames,
            words=words,
            rescore=wish.rescore.value if wish.rescore else None,
            beta=wish.beta,
            bank=_bank(model, benchmark, split, wish),
            ties=wish.ties.value,
            on_progress=say,
        )
        rows = {video.id: row for row, video in enumerate(whole.videos)}
        pictures = _thumbnails(source, {id: rows[id] for id in shown_videos(evaluation)}) if page else {}
    return evaluation, setting, pictures


def _setting(
    model: Model, name: str, benchmark: Benchmark, split: Split, wish: _Wish
) -> tuple[Setting, int, int | None]:
    """What the card says of the model, and how many frames and words it was trained with."""
    from rushes.evaluate.report import UNKNOWN, Setting
    from rushes.train.run import Run

    file = Path(name) / "run.json"
    run = Run.load(file) if file.is_file() else None
    selection, seeds = UNKNOWN, ()
    if run is not None:
        selection = "last epoch" if run.select == "last" else f"best {run.metric} on val"
        selection += ", of a smoke run" if run.smoke else ""
        seeds = (run.seed,)
        if run.select == "best" and split.name == "val":
            typer.echo(f"{name} was chosen on val, which flatters its numbers there", err=True)
    setting = Setting(
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        model=name,
        model_digest=model.digest(),
        method=model.method_name,
        switches=model.method.settings(),
        backbone=f"{run.backbone}{', trained too' if run.end_to_end else ''}" if run else type(model.backbone).__name__,
        seeds=seeds if wish.seed is None else (wish.seed,),
        selection=wish.selection or selection,
    )
    frames = wish.frames or (run.frames if run else 12)
    return setting, frames, wish.words or (run.words if run else None)


def _bank(model: Model, benchmark: Benchmark, split: Split, wish: _Wish) -> Captions | None:
    """Captions of the training split, evenly chosen, read as they are wanted."""
    from rushes.evaluate.run import Captions

    if wish.rescore is not Rescore.qbnorm and wish.bank is None:
        return None
    train = benchmark["train"]
    if shared := {video.id for video in train.videos} & {video.id for video in split.videos}:
        raise ValueError(
            f"{len(shared)} videos are in split 'train' and in {split.name!r} both, as {min(shared)!r}: a bank of the "
            "split's own captions knows the answers"
        )
    most = wish.bank or 5000
    count = len(train.captions)
    rows = range(count) if count <= most else [number * count // most for number in range(most)]
    return Captions(_Texts(model, [one.text for one in train.captions]), rows, f"train {train.digest()}")


@dataclass(frozen=True, eq=False)
class _Texts:
    """Words of texts, read by the model when they are asked for."""

    model: Model
    texts: list[str]

    def words(self, rows: Sequence[int]) -> Words:
        return self.model.words([self.texts[row] for row in rows])


def _thumbnails(source: Files | Drawn, rows: dict[str, int]) -> dict[str, bytes]:
    """A JPEG of the third frame that is looked at, or the last before: the first is often black."""
    import cv2

    from rushes.video.decode import Frame
    from rushes.video.probe import VideoError

    found = {}
    for id, row in rows.items():
        pixels = None
        try:
            with closing(source.read(row, THUMBNAIL, False)) as events:  # type: ignore[type-var]
                for number, event in enumerate(one for one in events if isinstance(one, Frame)):
                    pixels = event.pixels
                    if number == 2:
                        break
        except (VideoError, OSError) as error:
            typer.echo(f"no thumbnail of {id}: {error}", err=True)
        if pixels is not None:
            found[id] = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return found


def _tell(card: dict[str, Any], folder: Path) -> None:
    from rushes.evaluate.metrics import METRICS

    data, done = card["data"], card["post_processing"]
    typer.echo(f"{data['queries']} texts x {data['gallery']} videos, split {data['digest']}", err=True)
    typer.echo(" " * 22 + "".join(f"{name:>9}" for name in METRICS))
    tables = [("", card["metrics"])]
    if done:
        typer.echo(f"re-scored by {done['name']}, which is {done['kind']}, at beta {done['beta']:g}", err=True)
        tables = [(f" {done['name']}", card["metrics"]), ("", card["raw_metrics"])]
    spread = card["over_seeds"]
    for by, table in tables:
        for name, one in table.items():
            _line(name + (by if done and name[:3] in done["directions"] else ""), one)
            if spread and table is card["metrics"]:
                _line("  deviation", {metric: two["deviation"] for metric, two in spread["metrics"][name].items()})
    if card["intervals"]:
        level = card["interval"]["level"]
        for name, one in card["intervals"].items():
            low, high = one["R@1"]
            typer.echo(f"{name} R@1: {low:.1f} to {high:.1f}, {level:.0%} interval over videos", err=True)
    typer.echo(folder)


def _line(label: str, values: dict[str, Any]) -> None:
    from rushes.evaluate.metrics import METRICS

    cells = (f"{values[name]:9.{1 if name[:2] in ('R@', 'Md', 'Mn') else 4}f}" for name in METRICS)
    typer.echo(f"{label:<22}" + "".join(cells))
