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
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core is faster than one process on all
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from filelock import FileLock, Timeout

from rushes.data import load as load_data
from rushes.data import reels
from rushes.data.base import Split
from rushes.evaluate.compare import Run as Compared
from rushes.evaluate.compare import bootstrap, over_seeds, paired_bootstrap, paired_randomisation
from rushes.evaluate.run import Evaluation, encode_videos, evaluate, of_scores, score_texts
from rushes.losses import connectivity, influential, potential_positives
from rushes.methods.base import ALONE
from rushes.methods.hcmi import HCMI
from rushes.model import load as load_model
from rushes.train.features import Features, compute, source_of
from rushes.train.loop import train
from rushes.train.material import Material, stamp, start
from rushes.train.recipes import family
from rushes.train.run import Run
from rushes.train.source import Batches, Pool
from rushes.types import Tokens

METHODS = ("meanpool", "seqtransf", "xpool", "wti", "xclip", "xmlnet", "hcmi", "dmae")
PROTOCOLS = {"shot": 32, "paragraph": 64, "order": 64}  # and words of a text, at most
RATES = (1e-4, 3e-4, 1e-3)
EPOCHS = {"shot": 4, "paragraph": 2, "order": 2}
UNSEEN, UNSEEN_EPOCHS = "unseen", 20  # of 222 reels: 40 steps
SEEDS = 5
ABLATION_SEEDS = 2
PARTS = ("tuning", *PROTOCOLS, UNSEEN, "ablations")
UNTRAINED = "best frame, untrained"

# name -> method, switches: one thing is changed at a time
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "xmlnet: global alone": ("xmlnet", {"terms": ("global",), "terms_eval": ("global",)}),
    "xmlnet: frame-word alone": ("xmlnet", {"terms": ("frame_word",), "terms_eval": ("frame_word",)}),
    "xmlnet: no cross-attention": (
        "xmlnet",
        {"terms": ("global", "frame_word"), "terms_eval": ("global", "frame_word")},
    ),
    "xmlnet: false negatives by pairs": ("xmlnet", {"fn_mode": "pairwise"}),
    "xmlnet: false negatives of the same video only": ("xmlnet", {"fn_mode": "known"}),
    "xmlnet: false negatives left in": ("xmlnet", {"fn_mode": "none"}),
    "hcmi: no denoising": ("hcmi", {"denoise": False}),
    "hcmi: potential positives excluded": ("hcmi", {"potential": "excluded"}),
    "hcmi: no marginal samples": ("hcmi", {"marginal": 0.0}),
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

# what only the score looks at: the whole method as it was trained, evaluated otherwise
EVALUATED: dict[str, tuple[str, dict[str, Any]]] = {
    "xmlnet: trained on all levels, scored by two": ("xmlnet", {"terms_eval": ("global", "frame_word")}),
    "hcmi: frame-word alone": ("hcmi", {"weights": (1.0, 0.0, 0.0)}),
    "hcmi: clip-phrase alone": ("hcmi", {"weights": (0.0, 1.0, 0.0)}),
    "hcmi: video-sentence alone": ("hcmi", {"weights": (0.0, 0.0, 1.0)}),
    "hcmi: frame-word and clip-phrase": ("hcmi", {"weights": (0.5, 0.5, 0.0)}),
    "dmae: sentence alone": ("dmae", {"interaction": "ti"}),
    "dmae: no textual attention": ("dmae", {"textual": False}),
    "dmae: no visual attention": ("dmae", {"neighbour": 0.0}),
    "dmae: sentence alone, no visual attention": ("dmae", {"interaction": "ti", "neighbour": 0.0}),
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
            family.reels(self.method, self.switches, self.rate),
            root=str(root),
            features=str(features),
            protocol="shot" if self.protocol == UNSEEN else self.protocol,
            words=PROTOCOLS.get(self.protocol, PROTOCOLS["shot"]),
            epochs=UNSEEN_EPOCHS if self.protocol == UNSEEN else EPOCHS[self.protocol],
            select="last" if self.protocol == UNSEEN else "best",
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


def unseen_jobs(out: Path) -> Iterator[Job]:
    """Trained on val's reels, whose photos the backbone has never seen: no split is left to choose an epoch on."""
    for seed in range(SEEDS):
        for method in METHODS:
            yield Job(UNSEEN, method, chosen_rate(out, method), seed, method)


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
    if job.protocol == UNSEEN:
        pool = Pool(*held(str(root), "shot", "val", str(features)))
        material = partial(_material, pool)
        train(run, folder, resume=folder.exists(), prepare=material)
    else:
        train(run, folder, resume=folder.exists())
    spent = os.times()
    assert run.protocol is not None
    split, read_features = held(str(root), run.protocol, "test", str(features))
    model = load_model(str(folder))
    found = evaluate(model.method, split, read_features, frames=run.frames, words=run.words, repetitions=1)
    history = json.loads((folder / "history.json").read_text())
    result = {
        "job": {"protocol": job.protocol, "name": job.name, "rate": job.rate, "seed": job.seed},
        "seconds": round(spent.user + spent.system - started.user - started.system, 1),
        "val": history["selected"].get("val"),
        "epoch": history["selected"]["epoch"] + 1,
        **plain(found),
    }
    (folder / "test.part").write_text(json.dumps(result))
    (folder / "test.part").replace(folder / "test.json")
    shutil.rmtree(folder / "checkpoints")
    if job.protocol == "shot" and job.name == job.method and job.seed < ABLATION_SEEDS:
        _evaluated(job, folder.parents[2], root, features)
    if job.seed:
        (
            folder / "model.safetensors"
        ).unlink()  # 110 MB each, with the backbone; one seed's models are kept to search with
    val = f"val MRR {result['val']['t2v MRR']:.4f}" if result["val"] else " " * 14
    print(
        f"{job.protocol:<10} {job.name:<48} {job.rate:<7g} seed {job.seed}  {val}  "
        f"test R@1 {result['metrics']['t2v R@1']:5.1f}  {result['seconds']:6.0f} s",
        file=sys.stderr,
        flush=True,
    )


def _evaluated(job: Job, out: Path, root: Path, features: Path) -> None:
    """A trained method, scored by some of its parts."""
    run, (split, stored) = job.run(root, features), held(str(root), job.protocol, "test", str(features))
    for name, (method, switches) in EVALUATED.items():
        folder = replace(job, name=name).folder(out)
        if method != job.method or read(folder) is not None:
            continue
        whole = load_model(str(job.folder(out))).method
        other = type(whole)(whole.dim, replace(whole.config, **switches))
        other.load_state_dict(whole.state_dict())
        found = evaluate(other, split, stored, frames=run.frames, words=run.words, repetitions=1)
        _keep(folder, found)


def _material(pool: Pool, run: Run, accelerator: Any) -> Material:
    return Material(start(run), pool, None, pool.split.digest(), (), frozen="backbone.")


def _keep(folder: Path, found: Evaluation) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.json").write_text(json.dumps(plain(found)))


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


def untrained(protocol: str, root: Path, features: Path, out: Path) -> None:
    """The sentence against each frame, the best counts: what the backbone gives without any training."""
    folder = out / protocol / "untrained"
    if read(folder) is not None:
        return
    split, stored = held(str(root), protocol, "test", str(features))
    frames = stored.frames(range(len(split.videos)), 12)
    texts = stored.words(range(len(split.captions)))
    unit = torch.nn.functional.normalize
    sentence, vectors = unit(texts.sentence, dim=-1), unit(frames.vectors, dim=-1)
    cosines = torch.einsum("td,vfd->tvf", sentence, vectors)
    scores = cosines.masked_fill(~frames.mask, -torch.inf).amax(dim=2)
    _keep(folder, of_scores(split, scores.numpy()))


def before(protocol: str, root: Path, features: Path, out: Path) -> None:
    """Each method of seed 0 before its first step: what it owes to the features and to how it is made."""
    split, stored = held(str(root), protocol, "test", str(features))
    for name in METHODS:
        job = Job(protocol, name, RATES[0], 0, name)
        folder = replace(job, name=f"{name}: before training").folder(out)
        if read(folder) is None:
            run = job.run(root, features)
            found = evaluate(start(run).method, split, stored, frames=run.frames, words=run.words, repetitions=1)
            _keep(folder, found)


def before_table(out: Path) -> str:
    lines = [f"| | {' | '.join(PROTOCOLS)} |", f"|---|{'---|' * len(PROTOCOLS)}"]
    for name in METHODS:
        jobs = [Job(protocol, f"{name}: before training", RATES[0], 0, name) for protocol in PROTOCOLS]
        found = [read(job.folder(out)) for job in jobs]
        cells = ["-" if one is None else f"{float(one['metrics']['t2v R@1']):.1f}" for one in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------- detectors


@torch.no_grad()
def detectors(root: Path, features: Path, out: Path) -> None:
    """What the trained models of seed 0 take for false negatives, over an epoch's batches, against the true ones.

    A pair of a caption and a video of its batch is a true one if the video shows the caption's picture though it was
    made for another (`reels.sharing`). Share: of the negatives, how many the detector takes; precision: how many of
    these are true; recall: how many of the true it takes; lift: precision over the share of true ones.
    """
    split, stored = held(str(root), "shot", "train", str(features))
    true: dict[int, set[int]] = {}
    for caption, video, _ in reels.sharing(root, "shot", "train").tolist():
        true.setdefault(caption, set()).add(video)
    found: dict[str, dict[str, int]] = {}
    for name in ("xmlnet", "hcmi"):
        job = Job("shot", name, chosen_rate(out, name), 0, name)
        method = load_model(str(job.folder(out))).method
        batches = Batches(Pool(split, stored), job.run(root, features), views=2)
        for step in range(batches.steps):
            batch, (texts, videos) = batches.batch(step), batches.rows(step)
            assert batch.second is not None
            text = method.encode_text(batch.words)
            first, second = method.encode_video(batch.frames), method.encode_video(batch.second)
            positives = batch.positives(ALONE)
            is_true = torch.tensor([[video in true.get(int(row), ()) for video in videos.tolist()] for row in texts])
            for label, taken in _verdicts(method, text, first, second, positives).items():
                counts = found.setdefault(label, dict.fromkeys(("negatives", "true", "taken", "right"), 0))
                for what, pairs in (
                    ("negatives", ~positives),
                    ("true", is_true & ~positives),
                    ("taken", taken & ~positives),
                    ("right", taken & is_true & ~positives),
                ):
                    counts[what] += int(pairs.sum())
    (out / "detectors.json").write_text(json.dumps(found, indent=2))


def _verdicts(method: Any, text: Tokens, first: Tokens, second: Tokens, positives: torch.Tensor) -> dict[str, Any]:
    """Caption by video: what each detector takes for no negative, as in training."""
    own = positives.float()
    if isinstance(method, HCMI):
        alike = potential_positives(method.summary(first), method.summary(second))
        both = {"denoising": alike, "denoising, both ways": alike & alike.T}
        return {f"hcmi, {name}": own @ one.float() > 0 for name, one in both.items()}
    sides = text.vectors[:, 0], first.vectors[:, 0]
    connected = [connectivity(side) for side in sides]
    by_texts, by_videos = (influential(one, share=method.config.prune, most=method.config.most) for one in connected)
    verdicts = {
        "xmlnet, connected videos": by_videos[None].expand(positives.shape),
        "xmlnet, connected texts' videos": (own.T @ by_texts.float() > 0)[None].expand(positives.shape),
    }
    for theta in (0.7, 0.8, 0.9):
        alike = [torch.nn.functional.normalize(side, dim=1) for side in sides]
        texts, videos = ((one @ one.T > theta).float() for one in alike)
        verdicts[f"xmlnet, pairs alike above {theta}"] = texts @ own + own @ videos > 0
    return verdicts


def detectors_table(out: Path) -> str:
    found = json.loads((out / "detectors.json").read_text())
    lines = ["| detector | share | precision | recall | lift |", "|---|---|---|---|---|"]
    for name, one in found.items():
        share = one["taken"] / one["negatives"]
        precision = one["right"] / one["taken"] if one["taken"] else 0.0
        lines.append(
            f"| {name} | {100 * share:.2f} % | {100 * precision:.2f} % | {100 * one['right'] / one['true']:.1f} % | "
            f"{precision * one['negatives'] / one['true']:.1f} |"
        )
    true, negatives = (sum(one[what] for one in found.values()) for what in ("true", "negatives"))
    return "\n".join(lines) + f"\n\nOf all negatives {100 * true / negatives:.3f} % are true pairs."


# ------------------------------------------------------------------------------------------------------------ order


@torch.no_grad()
def twins(root: Path, features: Path, out: Path) -> None:
    """Of the texts of "order", how many put the true film above its twins, by the models of seed 0; ties are halves."""
    split, stored = held(str(root), "order", "test", str(features))
    row = {video.id: number for number, video in enumerate(split.videos)}
    found: dict[str, dict[str, list[float]]] = {}
    for name in METHODS:
        job = Job("order", name, chosen_rate(out, name), 0, name)
        if read(job.folder(out)) is None:
            continue
        run, method = job.run(root, features), load_model(str(job.folder(out))).method
        videos = encode_videos(method, stored, len(split.videos), run.frames)
        scores = score_texts(method, stored, range(len(split.captions)), videos, run.words)
        true = scores[split.pairs[:, 0], split.pairs[:, 1]]
        found[name] = {}
        for twin in ("order", "swap"):
            other = [row[f"{split.videos[video].id}-{twin}"] for video in split.pairs[:, 1].tolist()]
            apart = true - scores[split.pairs[:, 0], other]
            found[name][twin] = ((apart > 0) + 0.5 * (apart == 0)).astype(float).tolist()
    (out / "twins.json").write_text(json.dumps(found))


def twins_table(out: Path) -> str:
    lines = ["| | above its photos in another order | above one photo exchanged |", "|---|---|---|"]
    for name, sides in json.loads((out / "twins.json").read_text()).items():
        cells = []
        for values in sides.values():
            interval = bootstrap(Compared(range(len(values)), values))
            cells.append(f"{100 * np.mean(values):.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    print(f"\n### Before training\n\n{before_table(out)}")
    rows = [row(out, UNSEEN, method, method, SEEDS) for method in METHODS]
    nothing = read(out / "shot" / "untrained")
    if nothing is not None and any(one.results for one in rows):
        against = Row(UNTRAINED, None, [nothing])
        print(f"\n### shot, trained on the photos of val\n\n{table([against, *rows], against)}")
    for paper in ("xmlnet", "hcmi", "dmae"):
        parts_table(out, "shot", paper, ABLATION_SEEDS)
    for paper in ("xmlnet", "hcmi", "dmae"):
        parts_table(out, "paragraph", paper, 1)
    if (out / "detectors.json").is_file():
        print(f"\n### Detectors of false negatives\n\n{detectors_table(out)}")
    if (out / "twins.json").is_file():
        print(f"\n### Twins\n\n{twins_table(out)}")
    print("\nRates tried, MRR on val:\n")
    for method in METHODS:
        found = [read(Job("shot", method, rate, 0, method).folder(out)) for rate in RATES]
        cells = [f"{rate:g}: {one['val']['t2v MRR']:.4f}" for rate, one in zip(RATES, found, strict=True) if one]
        print(f"- {method}: {', '.join(cells)}")


def parts_table(out: Path, protocol: str, paper: str, seeds: int) -> None:
    whole = row(out, protocol, paper, paper, seeds)
    parts = [
        row(out, protocol, name, method, seeds, switches)
        for name, (method, switches) in (ABLATIONS | EVALUATED).items()
        if method == paper
    ]
    if whole.results and any(one.results for one in parts):
        print(f"\n### Parts of {paper}, {protocol}\n\n{table([whole, *parts], whole)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--root", type=Path, help="a folder of captioned pictures, as `rushes data reels` takes it")
    parser.add_argument("--features", type=Path, help="where features are kept, as in `rushes features --out`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    args = parser.parse_args()
    if args.what == "table":
        tables(args.out)
        return
    if args.root is None or args.features is None:
        parser.error("run needs --root and --features")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    whole = True
    for part in args.part or PARTS:
        if part == "tuning":
            jobs = list(tuning())
        elif part == UNSEEN:
            jobs = list(unseen_jobs(args.out))
        elif part == "ablations":
            detectors(args.root, args.features, args.out)
            twins(args.root, args.features, args.out)
            jobs = list(ablations(args.out))
            for job in (*main_jobs("shot", args.out), *main_jobs("paragraph", args.out)):
                if job.seed == 0 and read(job.folder(args.out)) is not None:  # tuned rates are known after its training
                    _evaluated(job, args.out, args.root, args.features)
        else:
            untrained(part, args.root, args.features, args.out)
            before(part, args.root, args.features, args.out)
            jobs = list(main_jobs(part, args.out))
        whole = work(jobs, args.root, args.features, args.out) and whole
    print("done; `table` prints the tables" if whole else "another process works on the rest", file=sys.stderr)


if __name__ == "__main__":
    main()
