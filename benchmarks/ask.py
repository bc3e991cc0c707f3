"""What a question costs in a library of many videos: `Library.ask` with everything it can do.

    python benchmarks/ask.py [--videos 100] [--segments 100] [--rounds 20]

One drawn film is indexed for its settings; the rest of the library is made up: videos of segments of 1 to 6 frames,
drawn at random around a few dozen topics, every second neighbour a copy of the one before, so that there is something
to merge. Milliseconds of processor time a question (the engine's threads included), median and 95th percentile, and
the milliseconds that pass; texts are other ones each time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from serve import draw

import rushes
from rushes.backbones.base import Frames
from rushes.library import Library
from rushes.library.rows import FileRow, VideoRow
from rushes.search.query import Part, Query, Then
from rushes.types import Segment

TOPICS = 48
SECONDS = 5.0


def begun(folder: Path) -> Library:
    """A library of one film."""
    draw(folder, 1)
    library = rushes.open(folder)
    library.refresh(model="small")
    return library


def fill(library: Library, videos: int, segments: int) -> None:
    """So many made-up videos, as if they had been indexed."""
    random = torch.Generator().manual_seed(0)
    model = library.model
    dim = model.backbone.dim
    topics = torch.randn(TOPICS, dim, generator=random)
    for number in range(videos):
        name = f"{number:032x}"
        counts = torch.randint(1, 7, (segments,), generator=random).tolist()
        frames = [topics[number % TOPICS] + 0.8 * torch.randn(count, dim, generator=random) for count in counts]
        frames = [frames[row - row % 2] for row in range(segments)]
        starts = [SECONDS * row for row in range(segments)]
        spans = []
        for start, vectors in zip(starts, frames, strict=True):
            edges = torch.linspace(start, start + SECONDS, len(vectors) + 1, dtype=torch.float64)
            spans.append(torch.stack([edges[:-1], edges[1:]], dim=1))
        tokens = model.videos(Frames.pack(frames, spans))
        placed = [Segment(f"{name}:{1000 * start:09.0f}", name, start, start + SECONDS) for start in starts]
        library.index.add(placed, model.method.summary(tokens), tokens)
        library._videos.put(VideoRow(name, "done", SECONDS * segments))
        library._files.put(FileRow(f"made up/{number:05d}.mp4", name, 1, 0))
    library.index.optimize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--segments", type=int, default=100, help="a video")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        library = begun(Path(place))
        fill(library, args.videos, args.segments)
        like = library.index.segments([f"{0:032x}"])[0].id
        questions = {
            "a text, encoded": lambda text: library.model.texts([text]),
            "a text": lambda text: library.ask(Query.of_text(text, merge=False)),
            "merged": lambda text: library.ask(Query.of_text(text)),
            "merged, 24 are enough": lambda text: library.ask(Query.of_text(text), enough=24),
            "grouped by video": lambda text: library.ask(Query.of_text(text, group="video")),
            "one avoided": lambda text: library.ask(Query.of_text(text, avoid=["a beach"]), enough=24),
            "like a segment": lambda text: library.ask(Query(parts=(Part(like=like), Part(text=text))), enough=24),
            "A, then B": lambda text: library.ask(Query.of_text(text, then=Then("snow")), enough=24),
        }
        print(f"{library.index.count()} segments\n\n| | processor, ms | 95 % | passed, ms |\n|---|---|---|---|")
        for name, ask in questions.items():
            ask("a first question")
            spent, passed = [], []
            for number in range(args.rounds):
                began, begun_at = time.process_time(), time.perf_counter()
                ask(f"a dog runs on the beach {number}")
                spent.append(1000 * (time.process_time() - began))
                passed.append(1000 * (time.perf_counter() - begun_at))
            cells = (np.median(spent), np.percentile(spent, 95), np.median(passed))
            print(f"| {name} | {' | '.join(f'{cell:.0f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
