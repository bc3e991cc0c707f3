"""The training loop."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rushes.evaluate.metrics import LOWER_IS_BETTER, Positives, rank, summarise
from rushes.model import Model
from rushes.scoring import score_all
from rushes.train import checkpoint
from rushes.train.cache import Encoder, mixed
from rushes.train.card import write
from rushes.train.gather import distributed
from rushes.train.material import Material, prepared
from rushes.train.optim import average, optimiser, schedule
from rushes.train.run import Run, differences
from rushes.train.source import Batches, Pool, Reading, loaded
from rushes.types import Tokens

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, after a step."""

    step: int
    steps: int
    epoch: int
    loss: float
    items: int  # videos or captions seen since this start


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and has saved where it is."""


def train(
    run: Run,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    prepare: Callable[[Run, Accelerator], Material] = prepared,
) -> Path:
    """Carry out a run; the trained model is the folder `out`, with run.json, history.json and a card beside it.

    A run that was killed goes on with `resume` from its last checkpoint, and on a CPU ends bit-equal to one that never
    stopped. All that a step draws comes from the seed and its number. Under `accelerate launch` each process calls
    this, and takes its share of every batch: the gradients are those of one process, and only dropout differs.

    A folder that holds a run is an error without `resume`, save that a smoke run replaces another. SIGINT and SIGTERM
    save and raise Stopped. FloatingPointError where a loss is no number.
    """
    folder = Path(out)
    accelerator = _accelerator(run, folder)
    main, device = accelerator.is_main_process, accelerator.device
    if main and run.smoke and not resume and _holds_smoke(folder):
        shutil.rmtree(folder)
    accelerator.wait_for_everyone()
    saved = checkpoint.newest(folder / "checkpoints")
    if saved is not None and not resume:
        raise FileExistsError(f"{folder} holds a run that got to {saved.name}; --resume goes on, or give another --out")
    _seed(run.seed)
    material = prepare(run, accelerator)
    run, model = run.whole(), material.model.to(device)
    method, batches = model.method, Batches(material.train, run, model.method.config.views, model.method.config.paired)
    reading = Reading(model.backbone, method.tagger, run.words, device, lambda: accelerator.autocast())
    names = {weight: name for name, weight in model.named_parameters() if weight.requires_grad}
    weights, steps = list(names), run.epochs * batches.steps
    raw = optimiser(model, run)
    rates, optimizer = schedule(raw, run, steps), accelerator.prepare(raw)

    state: dict[str, Any] = {"run": run.plain(), "data": material.digest, "history": [], "sums": {}, "best": None}
    done = 0
    if saved is not None:
        _demand_same(run, material.digest, checkpoint.read(saved), saved)
        state = checkpoint.restore(saved, model, raw, names)
        done = rates.last_epoch = state["step"]
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
    elif main:
        folder.mkdir(parents=True, exist_ok=True)
        run.save(folder / "run.json")
    if main:
        accelerator.init_trackers("rushes", config={name: str(value) for name, value in run.plain().items()})
    accelerator.wait_for_everyone()

    def save(step: int) -> None:
        if main:
            learnt = {name: tensor for name, tensor in model.state_dict().items() if material.learns(name)}
            state["scaler"] = None if accelerator.scaler is None else accelerator.scaler.state_dict()
            checkpoint.save(folder / "checkpoints", step, learnt, raw, state, names)
            checkpoint.prune(folder / "checkpoints", [state["best"]["step"]] if state["best"] else [])

    begun, number = time.monotonic(), accelerator.process_index
    with _asked_to_stop() as asked:
        for step, batch in enumerate(batches.ahead(range(done, steps), number, accelerator.num_processes), start=done):
            _seed(mixed(run.seed, step))
            model.train()
            encoder = Encoder(distributed(), reading, run.micro, mixed(run.seed, step, number))
            numbers = {"video_of_text": batch.video_of_text.to(device), "video": batch.video.to(device)}
            terms = method.step(replace(batch, **numbers), encoder.gather)
            values = _checked(terms, step)
            accelerator.backward(torch.stack(list(terms.values())).sum())
            encoder.finish()
            stop = average(weights, asked.is_set())
            accelerator.clip_grad_norm_(weights, run.clip)
            optimizer.step()
            rate = rates.get_last_lr()[-1]
            rates.step()
            optimizer.zero_grad()

            total = sum(values.values())
            state["sums"] = {name: state["sums"].get(name, 0.0) + value for name, value in values.items()}
            logged = {f"loss/{name}": value for name, value in values.items()} | {"loss": total, "rate": rate}
            accelerator.log(logged | {f"step/{name}": value for name, value in method.statistics.items()}, step=step)
            if on_progress is not None and main:
                items = (step + 1 - done) * batches.size
                on_progress(Progress(step + 1, steps, step // batches.steps, total, items))
            ends = (step + 1) % batches.steps == 0
            if ends and main:
                entry = _epoch(step, batches, state["sums"], time.monotonic() - begun)
                if material.val is not None:
                    entry["val"] = validated(model, material.val, run, reading)
                    accelerator.log({f"val/{name}": value for name, value in entry["val"].items()}, step=step)
                    if run.select == "best":
                        state["best"] = _better(state["best"], step + 1, entry["val"][run.metric], run.metric)
                state["history"].append(entry)
            if ends:
                state["sums"] = {}
            best = run.select == "best" and main and state["best"]["step"] == step + 1 if ends else False
            if best or stop or step + 1 == steps or (step + 1) % run.save_every == 0:
                save(step + 1)
            if stop and step + 1 < steps:
                accelerator.wait_for_everyone()
                accelerator.end_training()
                raise Stopped(
                    f"stopped after step {step + 1} of {steps}, saved in {folder}; --resume goes on from there"
                )

    accelerator.wait_for_everyone()  # nobody reads what is not there yet
    if main:
        if run.select == "best":
            checkpoint.weights(folder / "checkpoints" / f"step-{state['best']['step']:07d}", model)
        model.save(folder)
        write(folder, run, state, material)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return folder


@torch.no_grad()
def validated(model: Model, pool: Pool, run: Run, reading: Reading) -> dict[str, float]:
    """Both directions' metrics on a split, as they are printed; one where some video has no caption."""
    method, split = model.eval().method, pool.split

    def tokens(read: Callable[[range], Any], encode: Callable[[Any], Tokens], count: int) -> Tokens:
        size = run.micro or run.batch
        starts = range(0, count, size)
        parts = [encode(reading(loaded(read(range(start, min(count, start + size)))))) for start in starts]
        return Tokens.cat(parts)

    texts = tokens(pool.reader.words, method.encode_text, len(split.captions))
    videos = tokens(lambda rows: pool.reader.frames(rows, run.frames), method.encode_video, len(split.videos))
    relation = Positives.of_pairs(split.pairs, len(texts), len(videos))
    whole = len(set(split.pairs[:, 1].tolist())) == len(videos)
    ranking = rank(score_all(method, texts, videos).cpu().numpy(), relation, ["t2v", "v2t"] if whole else ["t2v"])
    found = {}
    for direction, ranks in (("t2v", ranking.t2v), ("v2t", ranking.v2t)):
        if ranks is not None:
            numbers = summarise(ranks).printed()
            found |= {f"{direction} {name}": float(numbers[name]) for name in _measured(numbers)}
    return found


def _measured(numbers: dict[str, Any]) -> list[str]:
    from rushes.evaluate.metrics import METRICS

    return [name for name in METRICS if name in numbers]


def _better(best: dict[str, Any] | None, step: int, value: float, metric: str) -> dict[str, Any]:
    """The best epoch so far; of equal ones the first."""
    sign = -1 if metric.rpartition(" ")[2] in LOWER_IS_BETTER else 1
    if best is None or sign * value > sign * best["value"]:
        return {"step": step, "value": value}
    return best


def _epoch(step: int, batches: Batches, sums: dict[str, float], seconds: float) -> dict[str, Any]:
    loss = {name: value / batches.steps for name, value in sums.items()}
    return {"epoch": step // batches.steps, "step": step + 1, "loss": loss, "seconds": round(seconds, 1)}


def _checked(terms: dict[str, Tensor], step: int) -> dict[str, float]:
    """The losses as numbers; an error that names those that are none."""
    values = dict(zip(terms, torch.stack([term.detach().float() for term in terms.values()]).tolist(), strict=True))
    if wrong := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
        raise FloatingPointError(
            f"step {step}: {', '.join(wrong)}; all terms are {values}. Lower --rate or --backbone-rate, lengthen "
            "--warmup, or leave --precision at no; the last checkpoint is from before"
        )
    return values


def _holds_smoke(folder: Path) -> bool:
    """Whether the folder is of a smoke run, which may be thrown away."""
    file = folder / "run.json"
    return file.is_file() and Run.load(file).smoke


def _demand_same(run: Run, digest: str, state: dict[str, Any], path: Path) -> None:
    if apart := differences(run, state["run"]):
        raise ValueError(f"{path} is of another run: {'; '.join(apart)}; give the same options, or another --out")
    if digest != state["data"]:
        raise ValueError(f"{path} was trained on other data ({state['data']}, here is {digest}); bring it back")


def _seed(seed: int) -> None:
    from accelerate.utils import set_seed

    set_seed(seed)  # Python's, NumPy's and torch's


def _accelerator(run: Run, folder: Path) -> Accelerator:
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise LookupError(f"training needs accelerate ({error}); `pip install 'rushes[train]'`") from error
    known = [str(tracker) for tracker in get_available_trackers()]
    if run.tracker not in (*known, "none"):
        raise LookupError(f"no tracker {run.tracker!r} is installed; there is {', '.join([*known, 'none'])}")
    AcceleratorState._reset_state()  # a second run in this process may have another precision
    return Accelerator(
        mixed_precision=run.precision,
        log_with=None if run.tracker == "none" else run.tracker,
        project_dir=folder / "logs",
        # the first process may take hours to compute features while the others wait; whoever dies is seen at once
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=24))],
    )


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM; a second one is not caught. In another thread than the main one nothing is caught."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: Any) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
