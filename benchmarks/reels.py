"""How well do the methods find reels, and which of their parts matter? Every run that docs/results.md speaks of.

    python benchmarks/reels.py run --root PICTURES --features DIR --out DIR      # start it once for each core
    python benchmarks/reels.py table --out DIR                                   # the tables of docs/results.md

Equal effort: each method trains for the same number of epochs of the same batches, on the same frozen features; three
learning rates are tried for each, with one seed, under "shot", and the one that is best on val (MRR) is used for all
else of that method. The epoch is the best on val. The test split is scored once a run and chooses nothing.
Runs that are there are not repeated, and several processes share the work, so it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core is faster than one process on all
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from filelock import FileLock, Timeout

from rushes.data import load as load_data
from rushes.data.base import Split
from rushes.evaluate.compare import Run as Compared
from rushes.evaluate.compare import bootstrap, over_seeds, paired_bootstrap, paired_randomisation
from rushes.evaluate.run import Evaluation, evaluate, of_scores
from rushes.model import load as load_model
from rushes.train.features import Features, compute, source_of
from rushes.train.loop import train
from rushes.train.material import stamp
from rushes.train.recipes import family
from rushes.train.run import Run

METHODS = ("meanpool", "seqtransf", "xpool", "wti", "xclip", "xmlnet", "hcmi", "dmae")
PROTOCOLS = {"shot": 32, "paragraph": 64, "order": 64}  # and words of a text, at most
RATES = (1e-4, 3e-4, 1e-3)
EPOCHS = 4
SEEDS = 5
ABLATION_SEEDS = 3
UNTRAINED = "best frame, untrained"

# name -> method, switches: one thing is changed at a time
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "xmlnet: global alone": ("xmlnet", {"terms": ("global",), "terms_eval": ("global",)}),
    "xmlnet: frame-word alone": ("xmlnet", {"terms": ("frame_word",), "terms_eval": ("frame_word",)}),
    "xmlnet: no cross-attention": (
        "xmlnet",
        {"terms": ("global", "frame_word"), "terms_eval": ("global", "frame_word")},
    ),
    "xmlnet: trained on all, evaluated on two": ("xmlnet", {"terms_eval": ("global", "frame_word")}),
    "xmlnet: false negatives by pairs": ("xmlnet", {"fn_mode": "pairwise"}),
    "xmlnet: false negatives of the same video only": ("xmlnet", {"fn_mode": "known"}),
    "xmlnet: false negatives left in": ("xmlnet", {"fn_mode": "none"}),
    "hcmi: frame-word alone": ("hcmi", {"weights": (1.0, 0.0, 0.0)}),
    "hcmi: frame-word and clip-phrase": ("hcmi", {"weights": (0.5, 0.5, 0.0)}),
    "hcmi: no denoising": ("hcmi", {"denoise": False}),
    "hcmi: potential positives excluded": ("hcmi", {"potential": "excluded"}),
    "hcmi: no marginal samples": ("hcmi", {"marginal": 0.0}),
    "dmae: sentence alone": ("dmae", {"interaction": "wti"}),
    "dmae: sentence alone, no visual attention": ("dmae", {"interaction": "wti", "neighbour": 0.0}),
    "dmae: no textual attention": ("dmae", {"textual": False}),
    "dmae: no visual attention": ("dmae", {"neighbour": 0.0}),
    "dmae: learnt weights": ("dmae", {"interaction": "att_wti"}),
    "dmae: learnt weights, InfoNCE": ("dmae", {"interaction": "att_wti", "loss": "info_nce"}),
    "dmae: learnt weights, no triplets": ("dmae", {"interaction": "att_wti", "partial": "off", "fourth": False}),
    "dmae: learnt weights, video triplets": ("dmae", {"interaction": "att_wti", "partial": "video", "fourth": False}),
    "dmae: learnt weights, text triplets": ("dmae", {"interaction": "att_wti", "partial": "text", "fourth": False}),
    "dmae: learnt weights, InfoNCE, no triplets": (
        "dmae",
        {"interaction": "att_wti", "loss": "info_nce", "partial": "off", "fourth": False},
    ),
}


@dataclass(frozen=True)
class Job:
    """One training with its evaluation."""

    protocol: str
    name: str  # the method's, or the ablation's
    rate: float
    seed: int
    method: str
    switches: dict[str, Any] = field(default_factory=dict)

    def folder(self, out: Path) -> Path:
        name = self.name.replace(": ", "/").replace(" ", "-").replace(",", "")
        return out / self.protocol / name / f"{self.rate:g}-{self.seed}"

    def run(self, root: Path, features: Path) -> Run:
        return replace(
            family.reels(self.method, self.switches),
            root=str(root),
            features=str(features),
            protocol=self.protocol,
            words=PROTOCOLS[self.protocol],
            epochs=EPOCHS,
            rate=self.rate,
            seed=self.seed,
            tracker="none",
        )


def tuning() -> Iterator[Job]:
    for method in METHODS:
        for rate in RATES:
            yield Job("shot", method, rate, 0, method)


def main_jobs(protocol: str, out: Path) -> Iterator[Job]:
    for seed in range(SEEDS):
        for method in METHODS:
            yield Job(protocol, method, chosen_rate(out, method), seed, method)


def ablations(out: Path) -> Iterator[Job]:
    for seed in range(ABLATION_SEEDS):
        for name, (method, switches) in ABLATIONS.items():
            yield Job("shot", name, chosen_rate(out, method), seed, method, switches)


def chosen_rate(out: Path, method: str) -> float:
    """The rate with the best MRR on val; LookupError while one of them is not trained yet."""
    found = {}
    for rate in RATES:
        result = read(Job("shot", method, rate, 0, method).folder(out))
        if result is None:
            raise LookupError(f"{method} is not trained with all rates yet; `run --part tuning` first")
        found[rate] = result["val"]["t2v MRR"]
    return max(found, key=found.__getitem__)


def read(folder: Path) -> dict[str, Any] | None:
    file = folder / "test.json"
    return json.loads(file.read_text()) if file.is_file() else None


# ---------------------------------------------------------------------------------------------------------- running


def work(jobs: Sequence[Job], root: Path, features: Path, out: Path) -> bool:
    """Do what nobody does; whether all is done."""
    whole = True
    for job in jobs:
        folder = job.folder(out)
        if read(folder) is not None:
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{folder}.lock", timeout=0):
                if read(folder) is None:
                    _do(job, folder, root, features)
        except Timeout:
            whole = False
    return whole


def _do(job: Job, folder: Path, root: Path, features: Path) -> None:
    run = job.run(root, features)
    started = os.times()
    train(run, folder, resume=folder.exists())
    spent = os.times()
    split, read_features = held(str(root), job.protocol, "test", str(features))
    model = load_model(str(folder))
    found = evaluate(model.method, split, read_features, frames=run.frames, words=run.words, repetitions=1)
    history = json.loads((folder / "history.json").read_text())
    result = {
        "job": {"protocol": job.protocol, "name": job.name, "rate": job.rate, "seed": job.seed},
        "seconds": round(spent.user + spent.system - started.user - started.system, 1),
        "val": history["selected"]["val"],
        "epoch": history["selected"]["epoch"] + 1,
        **plain(found),
    }
    (folder / "test.part").write_text(json.dumps(result))
    (folder / "test.part").replace(folder / "test.json")
    shutil.rmtree(folder / "checkpoints")
    if job.seed:
        (
            folder / "model.safetensors"
        ).unlink()  # 110 MB each, with the backbone; one seed's models are kept to search with
    print(
        f"{job.protocol:<10} {job.name:<48} {job.rate:<7g} seed {job.seed}  val MRR {result['val']['t2v MRR']:.4f}  "
        f"test R@1 {result['metrics']['t2v R@1']:5.1f}  {result['seconds']:6.0f} s",
        file=sys.stderr,
        flush=True,
    )


def plain(found: Evaluation) -> dict[str, Any]:
    """What the tables need of an evaluation."""
    ranks = found.ranking.t2v
    assert ranks is not None
    return {
        "metrics": {
            f"{direction} {name}": value
            for direction, one in found.metrics().items()
            for name, value in json.loads(json.dumps(one.printed(), default=float)).items()
            if isinstance(value, (int, float, str)) and name not in ("convention",)
        },
        "first": ranks.per_query("R@1", "expected").tolist(),
        "mrr": ranks.per_query("MRR", "expected").tolist(),
        "group": found.group_of_text.tolist(),
    }


@cache
def held(root: str, protocol: str, split: str, features: str) -> tuple[Split, Features]:
    """A split, and the small model's features of it."""
    benchmark = load_data("reels", Path(root), protocol)
    source = source_of(benchmark, split, root, stamp)
    made = compute(benchmark, split, source, load_model("small").backbone, features, name="small")
    return benchmark[split], Features(made.folder, benchmark[split])


def untrained(root: Path, features: Path, out: Path) -> None:
    """The sentence against each frame, the best counts: what the backbone gives without any training."""
    for protocol in PROTOCOLS:
        folder = out / protocol / "untrained"
        if read(folder) is not None:
            continue
        split, stored = held(str(root), protocol, "test", str(features))
        frames = stored.frames(range(len(split.videos)), 12)
        texts = stored.words(range(len(split.captions)))
        unit = torch.nn.functional.normalize
        sentence, vectors = unit(texts.sentence, dim=-1), unit(frames.vectors, dim=-1)
        cosines = torch.einsum("td,vfd->tvf", sentence, vectors)
        scores = cosines.masked_fill(~frames.mask, -torch.inf).amax(dim=2)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.json").write_text(json.dumps(plain(of_scores(split, scores.numpy()))))


# ----------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Row:
    """All seeds of one line of a table."""

    name: str
    rate: float | None
    results: list[dict[str, Any]]

    def metric(self, name: str) -> list[float]:
        return [float(one["metrics"][name]) for one in self.results]

    def compared(self) -> Compared:
        """R@1 a query, averaged over seeds; queries of a video go together."""
        values = np.mean([one["first"] for one in self.results], axis=0)
        return Compared(range(len(values)), values, self.results[0]["group"])


def row(out: Path, protocol: str, name: str, method: str, seeds: int, switches: dict[str, Any] | None = None) -> Row:
    rate = chosen_rate(out, method)
    jobs = [Job(protocol, name, rate, seed, method, switches or {}) for seed in range(seeds)]
    return Row(name, rate, [found for job in jobs if (found := read(job.folder(out))) is not None])


def table(rows: Sequence[Row], against: Row) -> str:
    """Markdown: means over seeds, their deviation, an interval over videos, and the paired test."""
    lines = [
        "| | rate | seeds | R@1 | sd | 95 % over videos | R@5 | R@10 | MRR | v2t R@1 | "
        f"R@1 less {against.name} | p | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        if not one.results:
            continue
        first = one.metric("t2v R@1")
        interval = bootstrap(one.compared())
        spread = f"{over_seeds(first).deviation:.1f}" if len(first) > 1 else "-"
        means = [np.mean(one.metric(f"t2v {name}")) for name in ("R@5", "R@10")]
        back = f"{np.mean(one.metric('v2t R@1')):.1f}" if "v2t R@1" in one.results[0]["metrics"] else "-"
        apart, p = "-", "-"
        if one.name != against.name:
            difference = paired_bootstrap(against.compared(), one.compared())
            assert difference.low is not None
            assert difference.high is not None
            apart = f"{100 * difference.difference:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
            p = f"{paired_randomisation(against.compared(), one.compared()).p:.4f}"
        seconds = f"{np.mean([r['seconds'] for r in one.results]):.0f}" if "seconds" in one.results[0] else "0"
        lines.append(
            f"| {one.name} | {'-' if one.rate is None else f'{one.rate:g}'} | {len(first)} | {np.mean(first):.1f} | "
            f"{spread} | {100 * interval.low:.1f} to {100 * interval.high:.1f} | {means[0]:.1f} | {means[1]:.1f} | "
            f"{np.mean(one.metric('t2v MRR')):.3f} | {back} | {apart} | {p} | {seconds} |"
        )
    return "\n".join(lines)


def tables(out: Path) -> None:
    for protocol in PROTOCOLS:
        rows = [row(out, protocol, method, method, SEEDS) for method in METHODS]
        nothing = read(out / protocol / "untrained")
        if nothing is not None:
            rows.insert(0, Row(UNTRAINED, None, [nothing]))
        base = next(one for one in rows if one.name == "meanpool")
        if base.results:
            print(f"\n### {protocol}\n\n{table(rows, base)}")
    for paper in ("xmlnet", "hcmi", "dmae"):
        whole = row(out, "shot", paper, paper, ABLATION_SEEDS)
        parts = [
            row(out, "shot", name, method, ABLATION_SEEDS, switches)
            for name, (method, switches) in ABLATIONS.items()
            if method == paper
        ]
        if whole.results and any(one.results for one in parts):
            print(f"\n### Parts of {paper}\n\n{table([whole, *parts], whole)}")
    print("\nRates tried, MRR on val:\n")
    for method in METHODS:
        found = [read(Job("shot", method, rate, 0, method).folder(out)) for rate in RATES]
        cells = [f"{rate:g}: {one['val']['t2v MRR']:.4f}" for rate, one in zip(RATES, found, strict=True) if one]
        print(f"- {method}: {', '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--root", type=Path, help="a folder of captioned pictures, as `rushes data reels` takes it")
    parser.add_argument("--features", type=Path, help="where features are kept, as in `rushes features --out`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("tuning", *PROTOCOLS, "ablations"), action="append", help="default: all")
    args = parser.parse_args()
    if args.what == "table":
        tables(args.out)
        return
    if args.root is None or args.features is None:
        parser.error("run needs --root and --features")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    whole = True
    for part in args.part or ("tuning", *PROTOCOLS, "ablations"):
        if part == "tuning":
            jobs = list(tuning())
        elif part == "ablations":
            jobs = list(ablations(args.out))
        else:
            jobs = list(main_jobs(part, args.out))
        whole = work(jobs, args.root, args.features, args.out) and whole
    if whole:
        untrained(args.root, args.features, args.out)
        tables(args.out)
    else:
        print("another process works on the rest", file=sys.stderr)


if __name__ == "__main__":
    main()
