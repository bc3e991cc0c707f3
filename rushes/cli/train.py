"""`rushes train`: a method learns from a benchmark, by a recipe or by options."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes.cli.options import Json, print_json
from rushes.cli.progress import Show, bar

if TYPE_CHECKING:
    from rushes.train.loop import Progress
    from rushes.train.run import Run


class Preset(StrEnum):
    released = "released"
    paper = "paper"


class Select(StrEnum):
    last = "last"
    best = "best"


class EpochOf(StrEnum):
    videos = "videos"
    captions = "captions"


class Precision(StrEnum):
    no = "no"
    fp16 = "fp16"
    bf16 = "bf16"


def train(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|METHOD]", help="A recipe as dmae/msrvtt, a method's name, or a path ending in .py."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A benchmark: msrvtt, reels, folder, ...")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder with annotations and videos.", exists=True, file_okay=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="One of the benchmark's protocols.", show_default="its default")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="An installed model, a folder, or a CLIP or SigLIP hub id.", show_default="small")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The model's folder.", show_default="runs/METHOD-DATA-SEED", file_okay=False)
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Where the backbone's features are kept.", show_default="ROOT/.rushes/features"),
    ] = None,
    end_to_end: Annotated[
        bool | None, typer.Option("--end-to-end/--cached", help="The backbone learns too, from decoded frames.")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="The method as its authors released it, or as the paper's text has it.")
    ] = None,
    switches: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A switch of the method; may be repeated.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="How often all is gone through.")] = None,
    epoch_of: Annotated[EpochOf | None, typer.Option(help="What an epoch goes through.")] = None,
    captions: Annotated[int | None, typer.Option(help="Captions drawn of each video, in an epoch of videos.")] = None,
    batch: Annotated[int | None, typer.Option(help="Videos or captions a step, all processes together.")] = None,
    micro: Annotated[
        int | None, typer.Option(help="Encode so many at a time, and still compare all: gradient caching.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a video, at most.")] = None,
    words: Annotated[int | None, typer.Option(help="Words of a text, at most.")] = None,
    draw: Annotated[bool | None, typer.Option("--draw/--even", help="Draw frames at random in training.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate of new modules.")] = None,
    backbone_rate: Annotated[float | None, typer.Option(help="Learning rate of the backbone.")] = None,
    decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of steps in which the rates rise.")] = None,
    clip: Annotated[float | None, typer.Option(help="The gradients' norm, at most.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the backbone's arithmetic.")] = None,
    select: Annotated[Select | None, typer.Option(help="The last epoch, or the best on the split val.")] = None,
    metric: Annotated[str | None, typer.Option(help='What "best" looks at, as "t2v R@1".')] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is drawn.")] = None,
    workers: Annotated[int | None, typer.Option(help="Videos decoded at a time, end to end.")] = None,
    tracker: Annotated[str | None, typer.Option(help="tensorboard, another one of Accelerate's, or none.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A few videos and steps: does all of it run?")] = False,
    recipes: Annotated[bool, typer.Option("--list", help="List the recipes and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train by a recipe, or METHOD on --data. With several GPUs: accelerate launch -m rushes train ..."""
    if recipes:
        _list(as_json)
        return
    if what is None:
        raise typer.BadParameter("name a recipe (--list shows them) or a method", param_hint="RECIPE|METHOD")
    fields = {
        "root": root,
        "features": features,
        **dict(protocol=protocol, backbone=backbone, end_to_end=end_to_end, epochs=epochs, captions=captions),
        **dict(epoch_of=epoch_of, batch=batch, micro=micro, frames=frames, words=words, draw=draw, rate=rate),
        **dict(backbone_rate=backbone_rate, decay=decay, warmup=warmup, clip=clip, precision=precision),
        **dict(select=select, metric=metric, seed=seed, workers=workers, tracker=tracker, save_every=save_every),
    }
    told = {name: _plain(value) for name, value in fields.items() if value is not None}
    run = _run(what, data, told, preset, switches or [])
    run = run.small() if smoke else run
    folder = out or Path("runs") / f"{Path(run.method).stem}-{run.data}-{run.seed}{'-smoke' if smoke else ''}"

    from rushes.library.scan import fingerprint
    from rushes.train.loop import Stopped, train
    from rushes.train.material import prepared

    first = os.environ.get("RANK", "0") == "0"
    with bar("items") as show:

        def on_progress(now: Progress) -> None:
            assert show is not None
            show(now.step, now.steps, f"epoch {now.epoch + 1}, loss {now.loss:.3f}", now.items)

        try:
            train(
                run,
                folder,
                resume=resume,
                on_progress=on_progress if show else None,
                prepare=partial(prepared, fingerprint=fingerprint, show=_features(show) if show else None),
            )
        except Stopped as stopped:
            typer.echo(f"rushes: {stopped}", err=True)
            _leave(130)
    if first:
        _tell(folder, as_json)
    _leave(0)


def _run(what: str, data: str | None, told: dict[str, Any], preset: Preset | None, switches: list[str]) -> Run:
    from rushes.train.run import Run

    if "/" in what and not what.endswith(".py"):
        from rushes.train.recipes import find

        if data is not None:
            raise typer.BadParameter(f"the recipe {what} has its data; give a method instead", param_hint="--data")
        run = replace(find(what)(), **told)
    else:
        if data is None:
            raise typer.BadParameter(f"what is {what} to learn from? as --data reels", param_hint="--data")
        if "select" not in told:
            told["select"] = "best" if _has_val(data, told.get("root", "."), told.get("protocol")) else "last"
        run = Run(method=what, data=data, **told)
    set_by_hand = typed(run.method_class().Config, switches)
    return replace(run, switches={**_preset(run, preset), **run.switches, **set_by_hand})


def _preset(run: Run, preset: Preset | None) -> dict[str, Any]:
    from dataclasses import asdict

    if preset is None:
        return {}
    config = run.method_class().Config
    if not hasattr(config, preset.value):
        raise typer.BadParameter(f"{run.method} has no preset {preset.value!r}", param_hint="--preset")
    return asdict(getattr(config, preset.value)())


def _has_val(data: str, root: str, protocol: str | None) -> bool:
    from rushes.data import load

    return {"train", "val"} <= set(load(data, root, protocol).splits)


def typed(config: type, pairs: list[str]) -> dict[str, Any]:
    """`key=value` as the configuration's fields have it; typer.BadParameter where it does not fit.

    >>> from rushes.methods.dmae import DMAE
    >>> typed(DMAE.Config, ["hidden=2", "partial=off", "masked=false", "margin=0.2"])
    {'hidden': 2, 'partial': 'off', 'masked': False, 'margin': 0.2}
    """
    import json
    from dataclasses import asdict
    from typing import Literal, get_args, get_origin, get_type_hints

    hints, known, found = get_type_hints(config), asdict(config()), {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            have = ", ".join(known) or "none"
            raise typer.BadParameter(f"{pair!r} sets no switch; there are {have}", param_hint="--set")
        kind = hints[key]
        try:
            value = json.loads(text.lower() if kind is bool else text)
        except ValueError:
            value = text
        if get_origin(kind) is Literal:
            wanted = ", ".join(str(option) for option in get_args(kind))
            value = next((option for option in get_args(kind) if str(option) == text), None)
            fits = value is not None
        elif get_origin(kind) is tuple:
            wanted, fits = 'a list, as ["a", "b"]', isinstance(value, list)
        else:
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, str(kind))
            value = float(value) if kind is float and type(value) is int else value
            fits = type(value) is kind if kind in (bool, int, float, str) else True
        if not fits:
            raise typer.BadParameter(f"{key} is {text!r}; give {wanted}", param_hint="--set")
        found[key] = value
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value.value if isinstance(value, StrEnum) else value


def _features(show: Show) -> Show:
    return lambda done, total, what, count: show(done, total, f"features of {what}", count)


def _list(as_json: bool) -> None:
    from rushes.train.recipes import find, names

    rows = [{"name": name, "about": (find(name).__doc__ or "").strip().partition("\n")[0]} for name in names()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['name']:<22}  {row['about']}")


def _tell(folder: Path, as_json: bool) -> None:
    import json

    result = json.loads((folder / "history.json").read_text())["selected"]
    if as_json:
        print_json({"model": str(folder), **result})
        return
    loss = sum(result["loss"].values())
    typer.echo(f"epoch {result['epoch'] + 1}, step {result['step']}, loss {loss:.4f}", err=True)
    numbers = {name: value for name, value in result.get("val", {}).items() if name.partition(" ")[2] in ("R@1", "MRR")}
    if numbers:
        typer.echo("on val: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), err=True)
    typer.echo(str(folder))


def _leave(status: int) -> None:
    """End with this status. One of several processes ends at once: all is written, the group is dissolved, and torch's
    own threads now and then abort an interpreter that takes itself down after a group (some 1 in 40)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if status:
        raise typer.Exit(status)
