"""What ranking a benchmark's whole gallery costs: memory above the stored tokens, time against the bare products.

    python benchmarks/ranking.py [--case activitynet msrvtt-full] [--texts N | --whole] [--method wti] [--dim 512]

    activitynet   4,917 x 4,917, 64 words x 64 frames a pair          1.0e13 multiplications at 512 numbers a token
    msrvtt-full  59,800 x 2,990, 32 words x 12 frames a pair, 20 captions a video          3.5e13

Tokens are random, in fp16, all real. Whole cases take hours on a few cores, so that by default the first texts only
(`--texts`) are scored, against ALL videos; the rest of the matrix, which has its full size, is filled with random
numbers, and all of it is ranked, both ways. So that memory is that of the whole case, a whole block of 512 texts, as an
evaluation takes them, is scored too, against some videos: it goes by tiles, which get no larger with more videos.
Seconds are of the first texts, and what all would take is said as an estimate.

  score   `score_all`, CPU seconds over those of the bare products of as many words with all frames, in fp32, one
          thread, in blocks of 1,024 rows into a reused output; half timed before, half after, in the same process
  rank    CPU seconds of `rank`, both directions, the whole matrix
  memory  how far the resident set grew at most above the stored tokens, the matrix of scores included
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import numpy as np
import torch
from scoring import resident, spent

from rushes import registry
from rushes.evaluate.metrics import Positives, rank
from rushes.evaluate.run import TEXTS
from rushes.methods.base import Method
from rushes.scoring import score_all
from rushes.similarity import unit
from rushes.types import Tokens

LIMIT = 2000  # MB above the stored tokens: what is promised


@dataclass(frozen=True)
class Case:
    texts: int
    videos: int
    words: int
    frames: int
    quick: int  # texts scored by default

    def products(self, texts: int, dim: int) -> float:
        return float(texts) * self.words * self.videos * self.frames * dim


CASES = {
    "activitynet": Case(4917, 4917, 64, 64, quick=48),
    "msrvtt-full": Case(59_800, 2990, 32, 12, quick=640),
}


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(CASES[arguments.case[0]], arguments)))
        return
    failed = False
    for name in arguments.case:
        command = [sys.executable, __file__, "--one", *sys.argv[1:], "--case", name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        case, scored = CASES[name], found["scored"]
        part = "all" if scored == case.texts else f"the first {scored:,}"
        print(f"{name}: {case.texts:,} x {case.videos:,}, {case.words} words x {case.frames} frames x {arguments.dim}")
        print(f"  stored tokens   {found['stored']:8,.0f} MB")
        print(
            f"  memory          {found['memory']:8,.0f} MB above them, the scores ({found['scores']:,.0f} MB) among it"
        )
        ratio = found["score"] / found["bare"]
        print(f"  score           {found['score']:8.1f} s, {part} texts: {ratio:.2f} times the bare products")
        print(f"  rank            {found['rank']:8.1f} s, the whole matrix, both ways")
        if scored < case.texts:
            hours = found["score"] * case.texts / scored / 3600
            print(f"  all texts would take some {hours:.1f} hours of one core to score (an estimate from the part)")
        sys.stdout.flush()
        failed |= found["memory"] > LIMIT
    if failed:
        raise SystemExit("more memory than promised")


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, float]:
    """One case, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    method = registry.find("methods", arguments.method, Method)(arguments.dim).eval()
    scored = case.texts if arguments.whole else min(case.texts, arguments.texts or case.quick)
    texts = stored(scored, case.words, arguments.dim)  # the others are not looked at
    videos = stored(case.videos, case.frames, arguments.dim)
    owners = np.arange(case.texts) * case.videos // case.texts
    with torch.inference_mode():
        score_all(method, texts[:2], videos[:2])
        bare = product(texts, videos, slice(0, scored // 2))
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or what was freed would hide what comes
        before = resident(reset=True)
        scores = np.random.default_rng(0).standard_normal((case.texts, case.videos), np.float32)
        seconds = spent(lambda: fill(scores, method, texts, videos))
        block = stored(TEXTS, case.words, arguments.dim).to(torch.float32)  # as an evaluation encodes them
        score_all(method, block, videos[:256])
        del block
        ranking = spent(lambda: rank(scores, Positives.of_videos(owners, case.videos)))
        memory = resident() - before
        bare += product(texts, videos, slice(scored // 2, scored))
    tokens = (case.texts * case.words + case.videos * case.frames) * arguments.dim * 2
    return {
        "scored": scored,
        "stored": tokens / 1e6,
        "scores": scores.nbytes / 1e6,
        "memory": memory / 1e6,
        "score": seconds,
        "bare": bare,
        "rank": ranking,
    }


def fill(scores: np.ndarray, method: Method, texts: Tokens, videos: Tokens) -> None:
    for start in range(0, len(texts), TEXTS):
        block = score_all(method, texts[start : start + TEXTS], videos)
        scores[start : start + len(block)] = block.numpy()


def stored(items: int, tokens: int, dim: int) -> Tokens:
    """As an index has them: fp16, made a few at a time, so that making them is not the peak."""
    vectors = torch.empty(items, tokens, dim, dtype=torch.float16)
    for start in range(0, items, 64):
        part = vectors[start : start + 64]
        part.copy_(unit(torch.randn(part.shape)))
    weights = torch.full((items, tokens), 1 / tokens, dtype=torch.float16)
    return Tokens(vectors, torch.ones(items, tokens, dtype=torch.bool), weights=weights)


def product(texts: Tokens, videos: Tokens, part: slice) -> float:
    """CPU seconds of the bare products of some texts' words with all frames, without what raises them to fp32."""
    left = texts.vectors[part].flatten(0, 1).float()
    seconds = 0.0
    step = 4096  # frames at a time, so that a block of the product stays small
    out = torch.empty(1024, step)
    for column in range(0, videos.vectors.shape[0] * videos.vectors.shape[1], step):
        right = videos.vectors.flatten(0, 1)[column : column + step].float().T
        into = out[:, : right.shape[1]]
        for row in range(0, len(left), 1024):
            some = left[row : row + 1024]
            seconds += spent(lambda some=some, right=right, into=into: torch.mm(some, right, out=into[: len(some)]))
    return seconds


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--texts", type=int, help="texts to score; the rest is random numbers")
    parser.add_argument("--whole", action="store_true", help="score all texts: hours")
    parser.add_argument("--method", default="wti", help="one whose tokens are as the backbone's, with weights")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
