"""Two processes that learn from unequal shares of a batch, beside one that has it all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.methods.base import ALONE, Batch, Gather, Method
from rushes.train.cases import Broken, Case, Seen, backward, cases, descend, kept_after_all, told, total
from rushes.train.gather import distributed

TWO_PROCESSES = "two processes learn as one"
PATIENCE = 45.0  # seconds to start, learn two steps in every case, and end
TEXTS_OF_RANK_0, VIDEOS_OF_RANK_0 = 3, 3

Weights = dict[str, Tensor]


def learnt_by_two(
    names: Sequence[str], dim: int, seeds: Sequence[int], patience: float = PATIENCE
) -> dict[str, list[list[Weights]]]:
    """For each method its cases, for each case both processes' weights after two steps.

    Broken if a process fails, or they are not done after `patience` seconds. Plain processes, not a fork or spawn of
    this one: nothing of the caller's script is run again.
    """
    path = os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = "import sys; from rushes.train.pair import work; work(sys.argv[1], int(sys.argv[2]))"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        order = json.dumps(
            {"names": list(names), "dim": dim, "seeds": list(seeds), "folder": name, "patience": patience}
        )
        workers = [
            subprocess.Popen([sys.executable, "-c", program, order, str(rank)], env=environment) for rank in (0, 1)
        ]
        try:
            _wait(workers, patience)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        for rank in (0, 1):
            words = folder / f"{rank}.error"
            if words.exists():
                raise Broken(f"process {rank}: {words.read_text()}")
        if any(worker.returncode for worker in workers):
            raise Broken(f"the processes ended with {[worker.returncode for worker in workers]} and said nothing")
        files = [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]
    learnt: dict[str, list[list[Weights]]] = {}
    for number, method in enumerate(names):
        count = 1 + max((int(key.split("/")[1]) for key in files[0] if key.startswith(f"{number}/")), default=-1)
        learnt[method] = [
            [
                {key.split("/", 2)[2]: value for key, value in file.items() if key.startswith(f"{number}/{case}/")}
                for file in files
            ]
            for case in range(count)
        ]
    return learnt


def compared(found: Sequence[Case], learnt: Sequence[Sequence[Weights]]) -> Seen:
    """Two processes with unequal shares of a batch have, after two steps, the weights of one that had it all.

    In float64, and in training mode if steps draw nothing at random. What a loss makes of its own process's share alone
    (instead of the gathered tokens), or a normalisation over it, shows as a large difference. Broken says how large.
    """
    worst, drawn, on_purpose = 0.0, False, []
    for number, case in enumerate(found):
        start, method = _learner(case), _learner(case)
        _learn(method, case.batch(), ALONE)
        drawn = drawn or not method.training
        moved = max(_apart(method, dict(start.named_parameters())), 1e-12)
        ways = [_apart(method, learnt[number][rank] if number < len(learnt) else {}) / moved for rank in (0, 1)]
        equal = all(way < 1e-3 for way in ways)  # exact methods are at 1e-15, those that work in fp32 inside at 1e-6
        if TWO_PROCESSES in case.config.breaks():
            if equal:
                raise Broken(kept_after_all(case, TWO_PROCESSES))
            on_purpose.append(f"{case.name}: {case.config.breaks()[TWO_PROCESSES]}")
        elif not equal:
            raise Broken(f"{case.name}: two processes end {max(ways):.2g} of two steps' way from a single process")
        else:
            worst = max(worst, *ways)
    mode = "; in eval mode, where steps draw at random" if drawn else ""
    return f"largest difference {worst:.1g} of the way of two steps{mode}", tuple(dict.fromkeys(on_purpose))


def work(order: str, rank: int) -> None:
    """One of the two processes: learn from its share in every case, and leave the weights or what went wrong."""
    task = json.loads(order)
    folder, name = Path(task["folder"]), ""
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/meet",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=task["patience"]),
        )
        learnt: Weights = {}
        for number, name in enumerate(task["names"]):
            method_class = registry.find("methods", name, Method)
            for turn, case in enumerate(cases(method_class, task["dim"], task["seeds"])):
                method = _learner(case)
                _learn(method, share(case.batch(), rank), distributed())
                for part, weight in method.named_parameters():
                    learnt[f"{number}/{turn}/{part}"] = weight.detach().clone()
        save_file(learnt, folder / f"{rank}.safetensors")
        dist.barrier()  # nobody leaves while the other still talks to it
    except Exception as error:
        (folder / f"{rank}.error").write_text(f"{name}: {told(error, name if name.endswith('.py') else f'{name}.py')}")
        os._exit(1)  # at once: the other process waits for what will never come
    os._exit(0)  # all is written, and torch's own threads now and then abort an interpreter that takes itself down


def share(batch: Batch, rank: int) -> Batch:
    """The unequal share of one process, no wider than its own longest text and video."""
    text = slice(TEXTS_OF_RANK_0) if rank == 0 else slice(TEXTS_OF_RANK_0, None)
    video = slice(VIDEOS_OF_RANK_0) if rank == 0 else slice(VIDEOS_OF_RANK_0, None)
    words = batch.words[text]
    word = int(words.mask.sum(dim=1).max())
    content = None if words.content is None else words.content[:, :word]

    def some(frames: Frames) -> Frames:
        mine = frames[video]
        frame = int(mine.mask.sum(dim=1).max())
        return Frames(mine.vectors[:, :frame], mine.mask[:, :frame], mine.spans[:, :frame])

    return Batch(
        Words(words.vectors[:, :word], words.mask[:, :word], words.sentence, content),
        some(batch.frames),
        batch.video_of_text[text],
        batch.video[video],
        None if batch.second is None else some(batch.second),
    )


def exact(batch: Batch) -> Batch:
    """The same batch in float64."""

    def double(frames: Frames) -> Frames:
        return Frames(frames.vectors.double(), frames.mask, frames.spans.double())

    words = replace(batch.words, vectors=batch.words.vectors.double(), sentence=batch.words.sentence.double())
    second = None if batch.second is None else double(batch.second)
    return replace(batch, words=words, frames=double(batch.frames), second=second)


def _wait(workers: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    deadline = time.monotonic() + patience
    while any(worker.poll() is None for worker in workers):
        if time.monotonic() > deadline:
            raise Broken(f"two processes were not done after {patience:.0f} s: do both gather the same things?")
        if any(worker.returncode for worker in workers):
            return  # the other would wait for it in vain
        time.sleep(0.02)


def _learner(case: Case) -> Method:
    return case.method().double().train(_draws_nothing(case))


def _draws_nothing(case: Case) -> bool:
    """Does a training step come out the same whatever the random state is?"""
    method, sums = case.method().train(), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        sums.append(total(method.step(case.batch())).item())
    return sums[0] == sums[1]


def _learn(method: Method, batch: Batch, gather: Gather) -> None:
    """Two steps of plain gradient descent in float64, gradients averaged over processes as DDP does."""
    for _ in range(2):
        backward(method, exact(batch), gather)
        if gather is not ALONE:
            for weight in method.parameters():
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dist.all_reduce(weight.grad)
                weight.grad /= dist.get_world_size()
        descend(method)


def _apart(method: Method, other: Weights) -> float:
    """The largest difference of any weight; infinite if one is missing or not a number."""
    worst = 0.0
    for name, weight in method.named_parameters():
        if name not in other:
            return float("inf")
        apart = float((weight - other[name]).detach().abs().max()) if weight.numel() else 0.0
        worst = max(worst, apart if apart == apart else float("inf"))
    return worst
