"""How fast each policy reads a video, next to a plain decode of every frame in the same run.

    python benchmarks/decode.py [seconds of film, 10] [rounds, 2]

Prints, for H.264 of 720p and 1080p with a key frame every 10 s (so that `fast` has gaps to fill) and every 2 s: times
real time, source frames a second, the ratio to the plain decode, and what share of the time the shot detector took
(against windows, which need none). The best of some rounds: on a busy machine only ratios mean anything.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import av
import cv2
import numpy as np

from rushes.video.decode import read
from rushes.video.sample import POLICIES
from rushes.video.worker import Decoder

RATE = 25


def clip(path: Path, width: int, height: int, gop: int, seconds: int) -> Path:
    """Hills with grass on them, seen by a moving camera, a hard cut every 4 s, some noise in each frame."""
    random = np.random.default_rng(0)
    options = {"preset": "veryfast", "g": str(gop), "crf": "23", "x264-params": "scenecut=0"}
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        grain = [random.normal(0, 4, (height, width, 1)).astype(np.float32) for _ in range(5)]
        for number in range(seconds * RATE):
            if number % (4 * RATE) == 0:
                hills = cv2.resize(random.uniform(0, 255, (9, 16, 3)).astype(np.float32), (width + 400, height + 400))
                wide = (
                    hills
                    + cv2.resize(random.normal(0, 15, (450, 800, 1)).astype(np.float32), (width + 400, height + 400))[
                        ..., None
                    ]
                )
            step = number % (4 * RATE)
            view = wide[step * 2 : step * 2 + height, step * 3 : step * 3 + width] + grain[number % 5]
            frame = av.VideoFrame.from_ndarray(view.clip(0, 255).astype(np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def plain(path: Path, threads: int) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        for _ in container.decode(stream):
            pass


def best(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            begun = perf_counter()
            run()
            times[name] = min(times[name], perf_counter() - begun)
    return times


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    threads = min(4, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder, Decoder(threads=threads) as decoder:
        for width, height in ((1280, 720), (1920, 1080)):
            for gop in (250, 50):
                path = clip(Path(folder) / f"{height}-{gop}.mp4", width, height, gop, seconds)

                def reader(
                    how: Callable, policy: str, segments: str, path: Path = path, **more
                ) -> Callable[[], object]:
                    return lambda: sum(1 for _ in how(path, policy=policy, segments=segments, **more))

                runs: dict[str, Callable[[], object]] = {"plain decode": lambda path=path: plain(path, threads)}
                for policy in POLICIES:
                    runs[policy] = reader(read, policy, "shots", threads=threads)
                    runs[f"{policy}, windows"] = reader(read, policy, "windows", threads=threads)
                runs["balanced, child"] = reader(decoder.read, "balanced", "shots")
                times = best(runs, rounds)
                print(
                    f"{height}p, key frame every {gop / RATE:.0f} s, {path.stat().st_size * 8e-6 / seconds:.1f} Mbit/s"
                )
                for name, time in times.items():
                    share = ""
                    if name in POLICIES:
                        share = f", shot detection {max(0.0, 1 - times[f'{name}, windows'] / time):4.0%} of it"
                    print(
                        f"  {name:18s} {seconds / time:7.1f} x real time {seconds * RATE / time:7.0f} frames/s "
                        f"{times['plain decode'] / time:6.2f} x plain{share}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
