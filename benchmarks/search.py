"""What the first stage of a search costs and what it loses: latency by library size, recall@10 against exact by depth.

    python benchmarks/search.py --pictures DIR --captions FILE [--sizes 1000 10000 100000] [--queries 500]

Segments are composed of real pictures' frame features: each holds 1 to 6 pictures of 1 to 3 frames each, as shots and
windows do, and a little noise on every frame, so that two frames of one picture are near but not equal. Queries are the
captions of pictures that some segment shows. FILE is `picture,caption`, one a line, with a head line.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import cv2
import numpy as np
import torch

import rushes
from rushes.backbones.base import Frames
from rushes.index.lance import LanceIndex
from rushes.model import Model
from rushes.search.pipeline import search
from rushes.types import Segment, Tokens

DEPTHS = (50, 100, 200, 500, 1000)
NOISE = 0.15  # of a feature's length, about how far two frames of one shot lie apart


def main() -> None:
    arguments = parse()
    torch.set_num_threads(2)
    model = rushes.load(arguments.model)
    captions = read_captions(arguments.captions)
    names = sorted(name for name in captions if (arguments.pictures / name).is_file())[: arguments.limit]
    features = encode_pictures(model, [arguments.pictures / name for name in names], arguments.cache)
    random = np.random.default_rng(0)
    queries = [captions[names[place]] for place in random.permutation(len(names))[: arguments.queries]]
    texts = [model.texts([query]) for query in queries]
    for size in arguments.sizes:
        print(f"\n{size} segments")
        folder = Path(tempfile.mkdtemp())
        try:
            index = build(model, features, size, folder)
            latency(model, index, texts[:50])
            recall(model, index, texts)
        finally:
            shutil.rmtree(folder)


def latency(model: Model, index: LanceIndex, texts: list[Tokens]) -> None:
    """Milliseconds a search, median; the first, which fills caches, apart."""
    print(f"{'way':<22}{'first ms':>10}{'median ms':>11}{'worst ms':>10}{'of exact':>10}")
    exact = timed(lambda text: search(model.method, index, text, exact=True), texts[:10])
    print(f"{'exact':<22}{exact[0]:>10.1f}{exact[1]:>11.1f}{exact[2]:>10.1f}{1:>10.3f}")
    for by in ("summary", "frame"):
        for depth in DEPTHS:
            row = timed(lambda text, by=by, depth=depth: search(model.method, index, text, by=by, depth=depth), texts)
            print(
                f"{f'{by}, depth {depth}':<22}{row[0]:>10.1f}{row[1]:>11.1f}{row[2]:>10.1f}{row[1] / exact[1]:>10.3f}"
            )


def recall(model: Model, index: LanceIndex, texts: list[Tokens]) -> None:
    """Share of the exact ten best that two stages find, and how often the exact best is found."""
    deepest = {by: [candidates(model, index, text, by, max(DEPTHS)) for text in texts] for by in ("summary", "frame")}
    truth = [[hit.segment.id for hit in search(model.method, index, text, exact=True)] for text in texts]
    print(f"{'recall@10 of exact':<22}" + "".join(f"{depth:>8}" for depth in DEPTHS))
    for by, found in deepest.items():
        row = []
        for depth in DEPTHS:
            # the method re-ranks alike in both ways, so a hit of the exact ten is lost only by the first stage
            shares = [len(set(best) & set(near[:depth])) / len(best) for best, near in zip(truth, found, strict=True)]
            row.append(statistics.mean(shares))
        print(f"{by:<22}" + "".join(f"{share:>8.4f}" for share in row))
        firsts = [
            statistics.mean(best[0] in near[:depth] for best, near in zip(truth, found, strict=True))
            for depth in DEPTHS
        ]
        print(f"{'  the best itself':<22}" + "".join(f"{share:>8.4f}" for share in firsts))


def candidates(model: Model, index: LanceIndex, text: Tokens, by: str, depth: int) -> list[str]:
    return [name for name, _ in index.nearest(model.method.summary(text)[0], depth, by=by)]  # type: ignore[arg-type]


def timed(ask, texts: list[Tokens]) -> tuple[float, float, float]:
    times = []
    for text in texts:
        began = time.perf_counter()
        ask(text)
        times.append((time.perf_counter() - began) * 1000)
    return times[0], statistics.median(times[1:]), max(times[1:])


def build(model: Model, features: torch.Tensor, size: int, folder: Path, batch: int = 2000) -> LanceIndex:
    random = torch.Generator().manual_seed(size)
    index = LanceIndex(folder, dim=model.method.dim, create=True)
    for start in range(0, size, batch):
        segments, vectors, spans = [], [], []
        for number in range(start, min(size, start + batch)):
            shown = torch.randint(1, 7, (1,), generator=random).item()
            places = torch.randint(len(features), (int(shown),), generator=random)
            places = places.repeat_interleave(torch.randint(1, 4, (int(shown),), generator=random))
            each = features[places]
            noise = torch.randn(each.shape, generator=random) / each.shape[1] ** 0.5
            vectors.append(each + NOISE * each.norm(dim=1, keepdim=True) * noise)
            edges = torch.arange(len(places) + 1, dtype=torch.float64)
            spans.append(torch.stack([edges[:-1], edges[1:]], dim=1))
            segments.append(Segment(f"v{number // 100}:{number:09d}", f"v{number // 100}", 0.0, float(len(places))))
        tokens = model.videos(Frames.pack(vectors, spans))
        index.add(segments, model.method.summary(tokens).detach(), tokens)
    index.optimize()
    return index


def encode_pictures(model: Model, paths: list[Path], cache: Path | None) -> torch.Tensor:
    if cache is not None and cache.is_file():
        return torch.load(cache, weights_only=True)
    size = model.backbone.image_size
    vectors = []
    for start in range(0, len(paths), 32):
        images = [
            cv2.resize(cv2.imread(str(path)), (size, size), interpolation=cv2.INTER_AREA)
            for path in paths[start : start + 32]
        ]
        pixels = torch.from_numpy(np.stack(images)[..., ::-1].copy()).permute(0, 3, 1, 2)
        vectors.append(model.frames(pixels))
    features = torch.cat(vectors)
    if cache is not None:
        torch.save(features, cache)
    return features


def read_captions(path: Path) -> dict[str, str]:
    captions: dict[str, str] = {}
    with path.open(newline="") as stream:
        rows = csv.reader(stream)
        next(rows)
        for row in rows:
            captions.setdefault(row[0], ",".join(row[1:]))
    return captions


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/flickr8k/images"))
    parser.add_argument("--captions", type=Path, default=Path("../shared/data/flickr8k/captions.txt"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--limit", type=int, default=100_000, help="pictures used, at most")
    parser.add_argument("--cache", type=Path, help="a file to keep frame features in between runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
