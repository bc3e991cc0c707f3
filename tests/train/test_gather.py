"""Two processes with unequal halves learn exactly as one, through DistributedDataParallel itself."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rushes import registry
from rushes.methods.base import ALONE, Batch, Gather, Method
from rushes.train.cases import Case
from rushes.train.gather import distributed, gather_numbers, gather_tokens
from rushes.train.pair import exact, share
from rushes.types import Tokens

METHODS = ("wti", "meanpool")
DIM = 16


class Step(nn.Module):
    """A training step as DistributedDataParallel wraps it: the loss comes out of `forward`."""

    def __init__(self, method: Method, gather: Gather):
        super().__init__()
        self.method = method
        self.gather = gather

    def forward(self, batch: Batch) -> torch.Tensor:
        return torch.stack(list(self.method.step(batch, self.gather).values())).sum()


def case(name: str) -> Case:
    method_class = registry.find("methods", name, Method)
    return Case(method_class, method_class.Config(scale=20.0), name, DIM, seed=0)


def learn(step: nn.Module, batch: Batch) -> None:
    """Two steps with momentum, so that the first step's error would be seen in the second."""
    optimizer = torch.optim.SGD(step.parameters(), lr=1e-2, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        step(batch).backward()
        optimizer.step()


def shares() -> list[Tokens]:
    """Tokens of two processes: 3 and 1 rows, of 2 and 4 columns, with fields that are there and fields that are not."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for rows, columns in ((3, 2), (1, 4)):
        mask = torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=draw)
        made.append(
            Tokens(
                torch.randn(rows, columns, 5, generator=draw),
                mask,
                level=torch.randint(0, 3, (rows, columns), generator=draw),
                weights=torch.rand(rows, columns, generator=draw) * mask,
            )
        )
    return made


def work(rank: int, folder: str) -> None:
    """What each of the two processes does; results are left in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=150)
    )
    gather = distributed()
    left: dict[str, torch.Tensor] = {}

    own = shares()[rank]
    vectors = own.vectors.clone().requires_grad_()
    everyone = gather.tokens(Tokens(vectors, own.mask, None, own.level, own.weights))
    assert everyone.spans is None
    (everyone.vectors * (1 + torch.arange(20.0).reshape(4, 1, 5)) * (rank + 1)).sum().backward()
    assert vectors.grad is not None
    left |= {"vectors": everyone.vectors.detach(), "mask": everyone.mask, "gradient": vectors.grad}
    left |= {"level": everyone.level, "weights": everyone.weights}  # type: ignore[dict-item]
    left["numbers"] = gather.numbers(torch.tensor([7, 7, -1] if rank == 0 else []).long())

    for name in METHODS:
        step = Step(case(name).method().double().train(), gather)
        learn(DistributedDataParallel(step), exact(share(case(name).batch(), rank)))
        left |= {f"{name}.{part}": weight.detach() for part, weight in step.method.named_parameters()}
    save_file({name: tensor.contiguous() for name, tensor in left.items()}, f"{folder}/{rank}.safetensors")
    dist.barrier()  # nobody leaves while the other still talks to it
    os._exit(0)  # all is written, and torch's own threads now and then abort an interpreter that takes itself down


def run_two(folder: Path) -> list[dict[str, torch.Tensor]]:
    """What the two processes left."""
    root = str(Path(__file__).resolve().parents[2])
    program = "import sys; from tests.train.test_gather import work; work(int(sys.argv[1]), sys.argv[2])"
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(rank), str(folder)], env=environment) for rank in (0, 1)
    ]
    try:
        assert [worker.wait(timeout=150) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    return [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]


def test_two_processes_learn_exactly_as_one(tmp_path):
    """And see all rows, and send each row's gradient home: one test, since two processes take seconds to start."""
    left = run_two(tmp_path)
    everybody_has_all_rows_in_the_order_of_ranks(left)
    backward_sums_what_both_processes_want(left)
    for name in METHODS:
        start = dict(case(name).method().double().named_parameters())
        method = case(name).method().double().train()
        learn(Step(method, ALONE), exact(case(name).batch()))
        for part, weight in method.named_parameters():
            assert (weight - start[part]).abs().max() > 1e-6, f"{name}: {part} did not learn"
            for rank in (0, 1):
                apart = (weight - left[rank][f"{name}.{part}"]).abs().max()
                assert apart < 1e-10, f"{name}: {part} on process {rank}"


def everybody_has_all_rows_in_the_order_of_ranks(left: list[dict[str, torch.Tensor]]) -> None:
    wanted = Tokens.cat(shares())
    for rank in (0, 1):
        assert torch.equal(left[rank]["mask"], wanted.mask)
        for field in ("vectors", "level", "weights"):
            assert torch.equal(left[rank][field][wanted.mask], getattr(wanted, field)[wanted.mask])
            assert left[rank][field].dtype == getattr(wanted, field).dtype
        assert left[rank]["numbers"].tolist() == [7, 7, -1]


def backward_sums_what_both_processes_want(left: list[dict[str, torch.Tensor]]) -> None:
    """Process r weighs row i, number d of all tokens by (1 + 5 i + d)(r + 1): together 3 (1 + 5 i + d)."""
    whole = 3 * (1 + torch.arange(20.0).reshape(4, 1, 5))
    assert torch.equal(left[0]["gradient"], whole[:3].expand(3, 2, 5))
    assert torch.equal(left[1]["gradient"], whole[3:].expand(1, 4, 5))


def test_one_process_gathers_nothing():
    assert distributed() is ALONE


def test_a_group_of_one_process_is_alone_too(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert distributed() is ALONE
        tokens = shares()[0]
        assert torch.equal(gather_tokens(tokens).vectors, tokens.vectors)
        assert gather_numbers(torch.tensor([3, 1])).tolist() == [3, 1]
    finally:
        dist.destroy_process_group()
