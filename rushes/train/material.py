"""What a run is made of, from its names: a model as it starts, the splits it may see, and their readers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rushes import data
from rushes.data import reels
from rushes.data.base import Benchmark, Split, hold_out
from rushes.model import Model, load
from rushes.train.cache import drawing
from rushes.train.features import Drawn, Features, Files, Fingerprint, compute
from rushes.train.run import Run
from rushes.train.source import Films, Picked, Pool, Reader, some

if TYPE_CHECKING:
    from accelerate import Accelerator

POLICY = "balanced"  # one frame a second, as `rushes features` and `rushes index` take them
SMOKE_VIDEOS, SMOKE_CAPTIONS = {"train": 16, "val": 6}, 2
Show = Callable[[float, float, str, float], None]  # done, total, what, count


@dataclass(frozen=True, eq=False)
class Material:
    """A model, what it learns from, and what it is chosen on. `digest` names the two splits."""

    model: Model
    train: Pool
    val: Pool | None
    digest: str
    notes: tuple[str, ...] = ()  # what a reader of the result must know of the data, with counts
    frozen: str | None = "backbone."  # weights whose names begin so do not learn; None: all do

    def learns(self, name: str) -> bool:
        return self.frozen is None or not name.startswith(self.frozen)


def stamp(path: Path) -> str:
    """A quick name for a file's content: path, size and time of its last change."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def prepared(
    run: Run, accelerator: Accelerator, *, fingerprint: Fingerprint = stamp, show: Show | None = None
) -> Material:
    """Load the splits and the backbone; where the backbone stays as it is, compute what is missing of its features.

    The first process computes, the others wait. The test split is never looked at.
    """
    model = start(run)
    model.to(accelerator.device)
    whole, notes = splits(run)
    digest = " ".join(whole[name].digest() for name in whole)
    pools: dict[str, Pool] = {}
    for name, split in whole.items():
        reader, there = _reader(run, accelerator, model, whole, name, fingerprint, show)
        if lost := len(split.videos) - len(there):
            notes += (
                f"{lost} of {len(split.videos)} videos of split {name!r} are missing or cannot be read: left out",
            )
            if not there:
                raise FileNotFoundError(f"{notes[-1]}; nothing is left; `rushes data doctor {run.data}` tells why")
            part = some(split, there)
            reader, split = Picked.of(reader, split, part), part
        pools[name] = Pool(split, reader)
    return Material(
        model, pools["train"], pools.get("val"), digest, notes, frozen=None if run.end_to_end else "backbone."
    )


def start(run: Run) -> Model:
    """The model before its first step: the same for the same seed, whatever was drawn before."""
    backbone, config = load(run.backbone).backbone, run.config()
    with drawing(run.seed):
        method = run.method_class()(backbone.dim, config)
    method.start_from(backbone)
    backbone.requires_grad_(run.end_to_end and run.backbone_rate > 0)
    for name in ("logit_scale", "logit_bias"):  # CLIP's and SigLIP's: a method has a temperature of its own
        for weight, tensor in backbone.named_parameters():
            if weight.endswith(name):
                tensor.requires_grad_(False)
    return Model(backbone, method)


def splits(run: Run) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits to train on and, where there is one, to choose on."""
    benchmark = data.load(run.data, run.root, run.protocol)
    found = {name: benchmark.splits[name] for name in ("train", "val") if name in benchmark.splits}
    notes: tuple[str, ...] = ()
    if run.smoke and "train" not in found and benchmark.splits:
        # a stranger's folder without splits: what a smoke run learns is not kept, so its test set may be learnt from
        name, only = next(iter(benchmark.splits.items()))
        found = _halves(only)
        notes = (f"there is no split 'train': this smoke run trains on {name!r}, a real one needs its own",)
    if "train" not in found:
        benchmark_has = ", ".join(benchmark.splits) or "none"
        why = benchmark.absent.get("train", f"its splits are {benchmark_has}")
        way = "write a column `split` with train, val and test into its captions file" if run.data == "folder" else ""
        raise LookupError(f"{run.data} in {run.root} has no split 'train': {why}" + (f"; {way}" if way else ""))
    if run.smoke:
        found = {
            name: some(split, range(min(len(split.videos), SMOKE_VIDEOS[name])), SMOKE_CAPTIONS)
            for name, split in found.items()
        }
    if run.select == "best" and "val" not in found:
        why = f": {benchmark.absent['val']}" if "val" in benchmark.absent else ""
        raise LookupError(
            f"{run.data} ({benchmark.protocol}) has no split 'val' to choose the best epoch on{why}; take --select "
            "last, or another protocol. The test set is never chosen on"
        )
    return found, notes


def _halves(split: Split) -> dict[str, Split]:
    """All but a quarter of the videos, and that quarter; the whole twice where there are fewer than four."""
    items = [(video, ()) for video in split.videos]
    rest, held = hold_out(items, len(items) // 4)
    row = {video.id: number for number, video in enumerate(split.videos)}
    parts = {"train": rest, "val": held} if held else {"train": rest, "val": rest}
    return {name: replace(some(split, [row[video.id] for video, _ in part]), name=name) for name, part in parts.items()}


def _reader(
    run: Run,
    accelerator: Accelerator,
    model: Model,
    whole: dict[str, Split],
    name: str,
    fingerprint: Fingerprint,
    show: Show | None,
) -> tuple[Reader, list[int]]:
    """What reads a split, and the rows of its videos that are there."""
    from accelerate.utils import broadcast_object_list

    root, protocol = Path(run.root), run.protocol or data.find(run.data).DEFAULT
    if run.end_to_end:
        films = Films(whole[name], lambda: source(run, whole[name], name, lambda _: ""), model.backbone, run.workers)
        with closing(source(run, whole[name], name, lambda _: "")) as once:
            return films, [row for row, one in enumerate(once.prints) if one is not None]
    out = Path(run.features) if run.features else root / ".rushes" / "features"
    folder = [""]
    if accelerator.is_main_process:
        with closing(source(run, whole[name], name, fingerprint)) as once:
            report = compute(
                Benchmark(run.data, protocol, whole),
                name,
                once,
                model.backbone,
                out,
                name=run.backbone,
                tagger=model.method.tagger or "closed-class",
                allow_missing=True,
                on_progress=(lambda now: show(now.done, now.total, f"{name}: {now.what}", now.done)) if show else None,
            )
        folder = [report.folder]
    broadcast_object_list(folder)
    features = Features(folder[0], whole[name])
    return features, features.there.nonzero()[0].tolist()


def source(run: Run, split: Split, name: str, fingerprint: Fingerprint) -> Files | Drawn:
    """Where the pixels of a split, or of some of its videos, come from."""
    root = Path(run.root)
    if run.data != "reels":
        return Files(root, split.videos, POLICY, fingerprint)
    protocol = run.protocol or reels.DEFAULT
    drawn = {reel.id: reel for reel in reels.reels_of(root, protocol, name)}
    return Drawn(root, [drawn[video.id] for video in split.videos], POLICY, fingerprint)
