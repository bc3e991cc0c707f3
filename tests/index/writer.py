"""A process to be killed: told to, it writes to an index for ever, and says of each change that it is done."""

from __future__ import annotations

import random
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from rushes.index.lance import LanceIndex
from rushes.index.records import Records
from rushes.index.store import Store
from rushes.types import Segment, Tokens

DIM = 32


@dataclass(frozen=True)
class Video:
    fingerprint: str
    size: int
    step: int


def videos(folder: str) -> Records[Video]:
    return Records(Store(folder), "videos", Video, key="fingerprint")


def vector(video: str, row: int) -> torch.Tensor:
    """What row `row` of a video must hold, whoever asks."""
    return torch.randn(DIM, generator=torch.Generator().manual_seed(hash((int(video), row)) % 2**31)).clamp(-4, 4)


def batch(video: str, size: int) -> tuple[list[Segment], torch.Tensor, Tokens]:
    vectors = torch.stack([vector(video, row) for row in range(size)])
    segments = [Segment(f"{video}:{row}", video, float(row), row + 1.0) for row in range(size)]
    return segments, vectors, Tokens(vectors[:, None].repeat(1, 3, 1), torch.ones(size, 3).bool())


def main(folder: str, seed: int, parent: Connection) -> None:
    """Begins when told anything."""
    torch.set_num_threads(1)
    choose = random.Random(seed)
    index = LanceIndex(folder, DIM, create=True)
    records, there, step = videos(folder), {}, 0
    parent.recv()
    while True:
        change = choose.choices(["add", "remove", "optimize", "put"], [8, 2, 1, 4])[0]
        video = str(step) if change == "add" or not there else choose.choice(sorted(there))
        size = choose.randint(1, 60)
        if change == "remove" and not there:
            continue
        parent.send(("begin", step, change, video, size))
        if change == "add":
            index.add(*batch(video, size))
            there[video] = size
        elif change == "remove":
            assert index.remove([video]) == there.pop(video)
        elif change == "optimize":
            index.optimize()
        else:
            records.put(Video(video, size, step), Video("last", size, step))
        parent.send(("done", step, change, video, size))
        step += 1
