"""What scoring all pairs costs each method: time against the bare matrix product, extra memory, and what bf16 changes.

    python benchmarks/scoring.py [METHOD ...] [--texts 1000] [--videos 1000] [--words 32] [--frames 12] [--dim 512]

The unit is the product of all words with all frames, (texts x words) x dim by dim x (videos x frames), in fp32, in
blocks of 1,024 rows into a reused output: half of it timed before a method, half after, in one process, on one thread.
Every method runs in a process of its own, on the same random features, all tokens real, in its default configuration:

  score    `score_all` from ready tokens, all texts against all videos, CPU seconds over the unit's; the median of three
  encode   tokens from features, both sides, once an item: what a method does for one text or video by itself
  memory   how far the resident set grew while scoring, the scores themselves included
  bf16     the same scores from tokens stored in bf16: the largest difference, and how many texts order videos otherwise
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import torch

from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.methods.base import Method
from rushes.scoring import BUDGET, score_all
from rushes.similarity import unit

PROMISED = {  # of the unit: what a method must not exceed, multiplications that cannot be avoided times 1.3 included
    "meanpool": 0.2,
    "seqtransf": 0.2,
    "wti": 1.2,
    "hcmi": 1.6,
    "dmae": 1.6,
    "xclip": 2.5,
    "xpool": 2.7 * 1.3,
    "xmlnet": 6.7 * 1.3,
}
PEERS = {"meanpool": 0.09, "seqtransf": 59, "wti": 3.5, "xclip": 4.8, "xpool": 8.3}  # public code, on the same work
MEMORY = 256  # MB
SIZES = {"texts": 1000, "videos": 1000, "words": 32, "frames": 12, "dim": 512}


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    print(
        f"{arguments.texts} x {arguments.videos} pairs, {arguments.words} words x {arguments.frames} frames x "
        f"{arguments.dim}, fp32, one thread"
    )
    print(
        f"{'':10} {'score':>7} {'at most':>8} {'public':>7} {'encode':>7} {'memory':>8}   bf16: difference, reordered"
    )
    failed = False
    for name in arguments.methods or list(PROMISED):
        sizes = [f"--{size}={getattr(arguments, size)}" for size in SIZES]
        command = [sys.executable, __file__, name, "--one", *sizes]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        most = PROMISED.get(name)
        told = [f"{most:8.1f}" if most else " " * 8, f"{PEERS[name]:7.2g}" if name in PEERS else " " * 7]
        print(
            f"{name:10} {found['score']:7.3f} {' '.join(told)} {found['encode']:7.2f} {found['memory']:5.0f} MB   "
            f"{found['difference']:.1e}, {found['reordered']:.1%} (first place {found['first']:.1%})",
            flush=True,
        )
        failed |= bool(most) and (found["score"] > most or found["memory"] > MEMORY)
    if failed:
        raise SystemExit("a method is slower or larger than promised")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One method, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name = arguments.methods[0]
    method = registry.find("methods", name, Method)(arguments.dim).eval()
    words = features(arguments.texts, arguments.words, arguments.dim)
    frames = features(arguments.videos, arguments.frames, arguments.dim)
    content = torch.rand(arguments.texts, arguments.words) < 0.5
    real_words, real_frames = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (words, frames))
    spans = torch.arange(arguments.frames + 1.0).unfold(0, 2, 1).expand(arguments.videos, -1, -1)

    def encode() -> tuple:
        text = method.encode_text(Words(words, real_words, words[:, 0], content))
        return text, method.encode_video(Frames(frames, real_frames, spans))

    with torch.inference_mode():
        text, video = encode()
        score_all(method, text[:64], video[:64])
        unit_before = product(words, frames, 0.5)
        gc.collect()
        before = resident(reset=True)
        scores = score_all(method, text, video, BUDGET)
        memory = resident() - before
        seconds = statistics.median([spent(lambda: score_all(method, text, video, BUDGET)) for _ in range(3)])
        encoding = spent(encode)
        whole = unit_before + product(words, frames, 0.5)
        rough = score_all(method, text.to(torch.bfloat16), video.to(torch.bfloat16), BUDGET)
    order, other = (matrix.argsort(dim=1, descending=True, stable=True) for matrix in (scores, rough))
    return {
        "score": seconds / whole,
        "encode": encoding / whole,
        "memory": memory / 2**20,
        "difference": float((scores - rough).abs().max()),
        "reordered": float((order != other).any(dim=1).float().mean()),
        "first": float((order[:, 0] != other[:, 0]).float().mean()),
    }


def features(items: int, tokens: int, dim: int) -> torch.Tensor:
    return unit(torch.randn(items, tokens, dim))


def product(words: torch.Tensor, frames: torch.Tensor, share: float) -> float:
    """CPU seconds of the first `share` of the bare product."""
    left, right = words.flatten(0, 1), frames.flatten(0, 1).T
    out = torch.empty(1024, right.shape[1])
    rows = range(0, int(len(left) * share), 1024)
    return spent(
        lambda: [torch.mm(left[row : row + 1024], right, out=out[: len(left[row : row + 1024])]) for row in rows]
    )


def spent(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def resident(reset: bool = False) -> int:
    """Bytes: the largest resident set so far, or since the last reset the one now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all of ours unless given")
    for size, default in SIZES.items():
        parser.add_argument(f"--{size}", type=int, default=default)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
