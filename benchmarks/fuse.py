"""What joining pictures and words in one ranking brings, and what it costs those who look for one of both.

    python benchmarks/fuse.py --pictures DIR --captions FILE --names FILE [--size 900]

A library of moments, one photo each; in half of all moments somebody says a caption of a photo that is nowhere to be
seen, so words mislead. Three kinds of queries, a third each, all captions that nothing was built from:
seen   a moment shows it, its words (if any) are of something else
said   a moment says it in other words (another caption of the same photo), and shows something else
both   a moment shows it and says it
quoted are the `said` ones asked for with four of the line's own words.
Shares of queries whose moment is first, and among the first ten, by what is seen alone, what is said alone, reciprocal
ranks of both lists (1 / (60 + rank)), and `fuse`.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import cv2
import numpy as np
import torch

import rushes
from rushes.backbones.base import Frames
from rushes.index.cues import Cues, Heard
from rushes.index.exact import ExactIndex
from rushes.index.store import Store
from rushes.model import Model
from rushes.search import fuse as fusing
from rushes.search.calibrate import Background
from rushes.search.parts import Scorer, Sought
from rushes.search.pipeline import Ranking, rank
from rushes.tagging import CLOSED_CLASS
from rushes.types import Cue, Segment

SECONDS = 4.0  # of a moment


def main() -> None:
    arguments = parse()
    torch.set_num_threads(2)
    model = rushes.load(arguments.model)
    captions = read_captions(arguments.captions)
    wanted = arguments.names.read_text().split()
    names = [name for name in wanted if (arguments.pictures / name).is_file()][: arguments.size]
    random = np.random.default_rng(arguments.seed)
    names = [names[place] for place in random.permutation(len(names))]
    third = len(names) // 3
    seen, said, both = names[:third], names[third : 2 * third], names[2 * third : 3 * third]
    spare = wanted[arguments.size :]  # photos that are in no moment, for words that mislead and pictures behind words
    lines: dict[str, str] = {}
    for name in seen[::2]:
        lines[name] = captions[spare[int(random.integers(len(spare)))]][0]
    features = dict(zip(names, encode(model, [arguments.pictures / name for name in names]), strict=True))
    shown = dict(features)
    for name, other in zip(said, np.roll(np.array(said), 1), strict=True):
        shown[name], lines[name] = features[str(other)], captions[name][0]  # asked for here, shown there
    for name in both:
        lines[name] = captions[name][0]
    index = build(model, shown)
    with tempfile.TemporaryDirectory() as folder:
        cues = Cues(Store(folder))
        cues.replace({"all": [Cue(name, 0.5, SECONDS - 0.5, line) for name, line in lines.items()]})
        cues.optimize()
        asked = {
            "seen": [(name, captions[name][1]) for name in seen],
            "said": [(name, captions[name][1]) for name in said],
            "quoted": [(name, quote(lines[name], random)) for name in said],
            "both": [(name, captions[name][1]) for name in both],
        }
        # who asks for what is said would also be right with the moment that shows it: both count
        other = {str(shows): name for name, shows in zip(np.roll(np.array(said), -1), said, strict=True)}
        table(model, index, cues, asked, {name: {name, other[name]} if name in other else {name} for name in names})


def table(
    model: Model, index: ExactIndex, cues: Cues, asked: dict[str, list[tuple[str, str]]], right: dict[str, set]
) -> None:
    sample = Background.of(model.method, index).tokens
    print(f"{'R@1 / R@10':<28}" + "".join(f"{f'{kind} ({len(rows)})':>18}" for kind, rows in asked.items()))
    ranks: dict[str, dict[str, list[int]]] = {}
    for kind, rows in asked.items():
        for name, text in rows:
            scorer = Scorer.of(model.method, [Sought(model.texts([text]))])
            ranking = rank(scorer, index, k=1, exact=True, depth=index.count())
            heard = cues.search(text, k=fusing.MOST_LINES, least=fusing.LEAST)
            for way, order in ways(ranking, heard, scorer, index, sample).items():
                good = right[name] if kind != "quoted" else {name}
                place = next((row + 1 for row, found in enumerate(order) if found in good), 10**6)
                ranks.setdefault(way, {}).setdefault(kind, []).append(place)
    for way, kinds in ranks.items():
        cells = [f"{np.mean(np.array(r) == 1):.3f} / {np.mean(np.array(r) <= 10):.3f}" for r in kinds.values()]
        print(f"{way:<28}" + "".join(f"{cell:>18}" for cell in cells))


def ways(ranking: Ranking, heard: Heard, scorer: Scorer, index: ExactIndex, sample) -> dict[str, list[str]]:
    visual = [one.segment.video for one in ranking.scored]
    words = list(dict.fromkeys(cue.video for cue in heard.cues))
    places = [{name: row for row, name in enumerate(order)} for order in (visual, words)]
    reciprocal = {name: sum(1 / (61 + place[name]) for place in places if name in place) for name in visual}
    found = {"seen alone": visual, "said alone": words}
    found["reciprocal ranks"] = sorted(visual, key=lambda name: -reciprocal[name])
    default = fusing.WORDS, fusing.HALF
    for worth, half in dict.fromkeys([default, (4.0, 5.0), (6.0, 3.0), (8.0, 15.0)]):
        fusing.WORDS, fusing.HALF = worth, half
        joined = fusing.fuse(ranking, heard, scorer=scorer, index=index, sample=sample)
        told = " (the default)" if (worth, half) == default else ""
        found[f"fuse {worth:g}, {half:g}{told}"] = [one.segment.video for one in joined.ranking.scored]
    fusing.WORDS, fusing.HALF = default
    return found


def quote(line: str, random: np.random.Generator) -> str:
    words = [word for word in line.lower().replace(".", " ").split() if word not in CLOSED_CLASS]
    chosen = sorted(random.permutation(len(words))[:4])
    return " ".join(words[place] for place in chosen) or line


def build(model: Model, shown: dict[str, torch.Tensor]) -> ExactIndex:
    index = ExactIndex(model.method.dim)
    segments = [Segment(f"{name}:0", name, 0.0, SECONDS) for name in shown]
    spans = [torch.tensor([[0.0, SECONDS]], dtype=torch.float64) for _ in shown]
    with torch.inference_mode():
        tokens = model.videos(Frames.pack([vector[None] for vector in shown.values()], spans))
        index.add(segments, model.method.summary(tokens), tokens)
    return index


def encode(model: Model, paths: list[Path]) -> list[torch.Tensor]:
    size, vectors = model.backbone.image_size, []
    for start in range(0, len(paths), 32):
        images = [read_picture(path, size) for path in paths[start : start + 32]]
        vectors += list(model.frames(torch.from_numpy(np.stack(images)[..., ::-1].copy()).permute(0, 3, 1, 2)))
    return vectors


def read_picture(path: Path, size: int) -> np.ndarray:
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is no picture that can be read; give another folder")
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def read_captions(path: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    with path.open(newline="") as stream:
        rows = csv.reader(stream)
        next(rows)
        for row in rows:
            captions.setdefault(row[0], []).append(",".join(row[1:]))
    return captions


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/flickr8k/images"))
    parser.add_argument("--captions", type=Path, default=Path("../shared/data/flickr8k/captions.txt"))
    parser.add_argument("--names", type=Path, default=Path("../shared/data/flickr8k/Flickr_8k.testImages.txt"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--size", type=int, default=750, help="photos in the library, at most; the rest mislead")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
