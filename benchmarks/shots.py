"""Which shot detector finds true cuts and nothing else: films composed of photos, cut, faded, flashed, shaken.

    python benchmarks/shots.py [FOLDER_OF_PHOTOS, else those of scikit-image] [reels of each kind, 1]

Prints, for each detector and each kind of film, cuts found / true cuts and false cuts. A found cut may be off by 0.2 s,
or lie anywhere inside a fade.
"""

from __future__ import annotations

import sys
import tempfile
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import numpy as np
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector

from rushes.video import sample
from rushes.video.decode import looks
from rushes.video.shots import Detector, Span, by_shots, dense, sparse

SIZE = (640, 360)
RATE = 25
KINDS = ("still", "cuts", "pan", "whip", "shake", "fade", "flash", "noise", "dark")


def view(photo: np.ndarray, x: float, y: float, zoom: float) -> np.ndarray:
    """A 640 x 360 look at a photo; x and y in [0, 1] move the camera, `zoom` is the share of the photo's width seen."""
    height, width = photo.shape[:2]
    wide = width * zoom
    high = wide * 9 / 16
    if high > height * zoom:
        wide, high = height * zoom * 16 / 9, height * zoom
    left, top = x * (width - wide), y * (height - high)
    move = np.float32([[SIZE[0] / wide, 0, -left * SIZE[0] / wide], [0, SIZE[1] / high, -top * SIZE[1] / high]])
    return cv2.warpAffine(photo, move, SIZE, flags=cv2.INTER_AREA)


def camera(kind: str, second: float, length: float, random: np.random.Generator, way: np.ndarray) -> tuple:
    part = second / length
    x, y, zoom = way[0] + (way[1] - way[0]) * part, way[2], 0.7
    if kind in ("still", "noise"):
        x, zoom = way[0], 0.8
    if kind == "whip":  # a quick turn of the camera in the middle of the shot
        x = 0.5 + 0.5 * np.tanh((second - length / 2) * 5)
        zoom = 0.5
    if kind == "shake":
        x, y = x + random.normal(0, 0.02), y + random.normal(0, 0.02)
    return float(np.clip(x, 0, 1)), float(np.clip(y, 0, 1)), zoom


def reel(kind: str, photos: list[Path], seed: int, path: Path) -> list[tuple[float, float]]:
    """Write a film of 6 shots; the seconds within which each cut may be found."""
    random = np.random.default_rng(seed)
    chosen = [cv2.imread(str(photos[index])) for index in random.choice(len(photos), 6, replace=False)]
    truth, frames = [], []
    for number, photo in enumerate(chosen):
        length = random.uniform(2.0, 4.0)
        way = random.uniform(0, 1, 3)
        if number:
            truth.append((len(frames) / RATE, len(frames) / RATE))
        flash = random.integers(10, int(length * RATE) - 15)
        for count in range(int(length * RATE)):
            picture = view(photo, *camera(kind, count / RATE, length, random, way)).astype(np.float32)
            if kind == "flash" and flash <= count < flash + 1 + number % 3:
                picture = picture * 0.2 + 205
            if kind == "dark":
                picture *= 0.25
            if kind == "noise":
                picture += random.normal(0, 12, picture.shape)
            frames.append(picture)
    if kind == "fade":
        half = 10  # frames
        for index, (start, _) in enumerate(truth):
            cut = round(start * RATE)
            before, after = frames[cut - half - 1].copy(), frames[cut + half].copy()
            for step in range(-half, half):
                share = (step + half) / (2 * half)
                frames[cut + step] = before * (1 - share) + after * share
            truth[index] = ((cut - half) / RATE, (cut + half) / RATE)
    options = {"preset": "veryfast", "crf": "34" if kind == "noise" else "26", "g": "50" if kind == "noise" else "250"}
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(RATE), options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for picture in frames:
            image = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="bgr24")
            output.mux(stream.encode(image))
        output.mux(stream.encode())
    return truth


def found(path: Path, policy: str, detector) -> list[float]:
    rule = sample.policy(policy)
    passing = looks(path, rule, 0.0, 2)
    blank = np.zeros((1, 1, 3), np.uint8)
    events = by_shots(passing, rule.rate, lambda look: blank, 0.0, detector)
    return [event.start for event in events if isinstance(event, Span)][1:]


def score(truth: list[tuple[float, float]], cuts: list[float]) -> tuple[int, int]:
    """Hits and false alarms; two cuts in one fade are one hit and one false alarm."""
    left = list(cuts)
    hits = 0
    for start, end in truth:
        near = [cut for cut in left if start - 0.2 <= cut <= end + 0.2]
        if near:
            hits += 1
            left.remove(near[0])
    return hits, len(left)


DETECTORS = {
    "adaptive 3": dense,
    "adaptive 2": lambda: Detector(AdaptiveDetector(2.0, min_scene_len=0), lag=2),
    "content 20": lambda: Detector(ContentDetector(20.0, min_scene_len=0)),
    "content 27": sparse,
    "content 35": lambda: Detector(ContentDetector(35.0, min_scene_len=0)),
    "histogram": lambda: Detector(HistogramDetector(min_scene_len=0)),
    "hash": lambda: Detector(HashDetector(min_scene_len=0)),
}


def folder() -> Path:
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise SystemExit("scikit-image is not installed; name a folder of photos")
    return Path(package.origin).parent / "data"


def main() -> None:
    photos = [path for path in sorted(folder().iterdir()) if path.suffix in (".jpg", ".png")]
    reels = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as place:
        films = []
        for kind in KINDS:
            for seed in range(reels):
                path = Path(place) / f"{kind}-{seed}.mp4"
                films.append((kind, path, reel(kind, photos, seed * 100 + KINDS.index(kind), path)))
        for policy in ("balanced", "thorough"):
            print(f"{policy:12s}" + "".join(f"{kind:>12s}" for kind in KINDS) + "         F1")
            for name, detector in DETECTORS.items():
                row, total = "", np.zeros(3)
                for kind in KINDS:
                    hits = alarms = cuts = 0
                    for _, path, truth in (film for film in films if film[0] == kind):
                        hit, alarm = score(truth, found(path, policy, detector))
                        hits, alarms, cuts = hits + hit, alarms + alarm, cuts + len(truth)
                    row += f"{f'{hits}/{cuts} +{alarms}':>12s}"
                    total += hits, alarms, cuts
                print(f"{name:12s}{row}      {2 * total[0] / (total[0] + total[1] + total[2]):.3f}", flush=True)


if __name__ == "__main__":
    main()
