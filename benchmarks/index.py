"""How long the index takes as a library grows, beside a plain product of the same matrices in the same run.

    python benchmarks/index.py                              nearest and fetch at 1k, 10k, 100k segments
    python benchmarks/index.py --sizes 20000 --dim 512
    python benchmarks/index.py ann --sizes 100000           recall and time of the ANN index against the scan

The segments are made up: those of one video lie around a centre of its own, tokens around their segment. Times are
medians and depend on the machine; the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rushes.index import lance
from rushes.index.lance import LanceIndex
from rushes.types import Segment, Tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="latency", choices=["latency", "ann"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="segments")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=8, help="a segment")
    parser.add_argument("--batch", type=int, default=500, help="segments a commit")
    arguments = parser.parse_args()
    ask = {"latency": latency, "ann": ann}[arguments.question]
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            many = arguments.question != "ann"
            index = LanceIndex(folder, arguments.dim, create=True, approximate_from=2 * size if many else size)
            ask(index, size, arguments.tokens, arguments.batch)


def latency(index: LanceIndex, size: int, token: int, batch: int) -> None:
    added, summaries = fill(index, size, token, batch)
    frames = torch.cat([tokens.vectors.flatten(0, 1).half() for _, tokens in index.batches()])
    queries = iter(lambda: normalize(torch.randn(index.dim), dim=0), None)
    ids = [segment.id for segment in index.segments()]
    print(f"\n{size:,} segments x {token} tokens x {index.dim}: {size / added:,.0f} segments/s added, {batch} a commit")
    print(f"{'':44}{'ms':>9}  {'ratio to':<10}")

    def row(name: str, ms: float, base: float | None = None, of: str = "") -> float:
        print(f"{name:44}{ms:9.2f}" + (f"  {ms / base:5.2f} x {of}" if base else ""), flush=True)
        return ms

    def pick(count: int) -> list[str]:
        return [ids[at] for at in torch.randint(0, size, (min(count, size),)).tolist()]

    plain = row("torch: fp32 product of summaries, top 100", median(lambda: (summaries @ next(queries)).topk(100)))
    row("nearest by summary, a process's first", once(lambda: index.nearest(next(queries), 100)), plain, "torch")
    row("nearest by summary, k=100", median(lambda: index.nearest(next(queries), 100)), plain, "torch")
    row("nearest by summary, k=1000", median(lambda: index.nearest(next(queries), 1000)), plain, "torch")
    few = [f"v{number}" for number in range(5)]
    row("nearest by summary, 5 videos", median(lambda: index.nearest(next(queries), 100, videos=few)), plain, "torch")
    table = index._table()

    def scan() -> object:
        search = table.search(next(queries).numpy(), vector_column_name="summary").distance_type("dot")  # pyright: ignore
        return search.select(["id", "_distance"]).limit(100).to_arrow()

    row("the table's own scan, k=100", median(scan), plain, "torch")
    loud = row("torch: fp32 product of tokens, best of each", median(lambda: by_product(frames, next(queries), token)))
    row("nearest by frame, first", once(lambda: index.nearest(next(queries), 100, by="frame")), loud, "torch")
    row("nearest by frame, k=100", median(lambda: index.nearest(next(queries), 100, by="frame")), loud, "torch")
    for count in (50, 200, 1000):
        row(f"fetch {count}", median(lambda count=count: index.fetch(pick(count))), plain, "torch")
    index.optimize()
    for count in (50, 200, 1000):
        row(f"fetch {count}, after optimize", median(lambda count=count: index.fetch(pick(count))), plain, "torch")
    index.nearest(next(queries), 100)
    grown = LanceIndex(index._store.place)
    grown.add(*one_batch(torch.Generator().manual_seed(1), size, 20, token, index.dim))
    row("nearest by summary, first after a commit", once(lambda: index.nearest(next(queries), 100)), plain, "torch")
    row("everything streamed (exact=True), no scores", once(lambda: [None for _ in index.batches()]), plain, "torch")


def by_product(frames: Tensor, query: Tensor, token: int, rows: int = 65536) -> Tensor:
    """The best token of each segment; halves are converted in blocks, as whole they would double the memory."""
    blocks = [part.float() @ query for part in frames.split(rows)]
    return torch.cat(blocks).view(-1, token).amax(dim=1).topk(100)[1]


def ann(index: LanceIndex, size: int, token: int, batch: int, asked: int = 50) -> None:
    """Recall@10 of the ANN index of the summaries by its settings, and its time beside the scan's."""
    fill(index, size, 1, 5000)
    near = index.fetch([f"s{row * 7 % size}" for row in range(asked)])[1].vectors[:, 0]
    queries = normalize(near + noise(torch.Generator().manual_seed(3), near.shape, 0.5), dim=-1)
    scan = [dict(index.nearest(query, 10)) for query in queries]
    exact = median(lambda: index.nearest(queries[0], 10))
    print(f"\n{size:,} segments x {index.dim}: scan in memory {exact:.2f} ms")
    print(f"ANN index built in {once(index.optimize) / 1e3:.1f} s")
    for lance.NPROBES, lance.REFINE in ((20, 1), (20, 10), (40, 10), (80, 10), (160, 10)):
        found = [dict(index.nearest(query, 10)) for query in queries]
        recall = sum(len(a.keys() & b.keys()) for a, b in zip(scan, found, strict=True)) / (10 * asked)
        ms = median(lambda: index.nearest(queries[0], 10))
        setting = f"nprobes {lance.NPROBES:3}, refine {lance.REFINE:3}"
        print(f"{setting}: recall@10 {recall:.3f}, {ms:7.2f} ms, {ms / exact:5.2f} x scan", flush=True)


def fill(index: LanceIndex, size: int, token: int, batch: int) -> tuple[float, Tensor]:
    """Seconds spent adding, and the summaries as they were before."""
    spent, summaries = 0.0, []
    for part in parts(size, token, index.dim, batch):
        began = time.perf_counter()
        index.add(*part)
        spent += time.perf_counter() - began
        summaries.append(part[1])
    return spent, torch.cat(summaries)


def parts(size: int, token: int, dim: int, batch: int) -> Iterator[tuple[list[Segment], Tensor, Tokens]]:
    random = torch.Generator().manual_seed(0)
    for first in range(0, size, batch):
        yield one_batch(random, first, min(batch, size - first), token, dim)


def one_batch(
    random: torch.Generator, first: int, size: int, token: int, dim: int, a_video: int = 20
) -> tuple[list[Segment], Tensor, Tokens]:
    rows = range(first, first + size)
    centres = noise(random, (size // a_video + 1, dim), 1)[torch.arange(size) // a_video]
    own = normalize(centres + noise(random, (size, dim), 0.7), dim=-1)
    vectors = normalize(own[:, None] + noise(random, (size, token, dim), 1), dim=-1)
    spans = torch.stack([torch.arange(token), torch.arange(token) + 1.0], dim=-1).expand(size, token, 2)
    segments = [Segment(f"s{row}", f"v{row // a_video}", 2.0 * row, 2.0 * row + 2) for row in rows]
    return segments, normalize(vectors.mean(dim=1), dim=-1), Tokens(vectors, torch.ones(size, token).bool(), spans)


def noise(random: torch.Generator, shape: tuple[int, ...] | torch.Size, length: float) -> Tensor:
    """Random vectors of about this length."""
    return torch.randn(shape, generator=random) * length / shape[-1] ** 0.5


def median(ask: Callable[[], object], times: int = 9) -> float:
    ask()
    return statistics.median(once(ask) for _ in range(times))


def once(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
