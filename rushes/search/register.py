"""Lays one sketch over another: at which offset in time, and with which crop, two stretches show the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64

from rushes.video.sketch import SIDE, Sketch

GRID = 20  # pixels of a side that are compared
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the width, or height, that a crop may have left
PLACES = (0.0, 0.5, 1.0)  # of what a crop left, between the edges
FINE = (-0.02, 0.0, 0.02)
STEP = 0.02  # seconds between offsets that are tried
ROUGH_STEP = 0.08
FLAT = 2.0  # grey levels: a picture that varies less shows nothing to compare
LAST = 0.2  # seconds that the last picture is shown
CLOSE = 1.0  # seconds: offsets nearer than that are the same place


Crop = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a clip lies on a video.

    offset     seconds of the video minus seconds of the clip
    agreement  mean correlation of the pictures at that offset, -1 to 1
    margin     how much better that is than the best offset more than a second away: near 0 for a still picture
    crop       what part of the video's picture the clip shows: share and place across, share and place down
    mirrored   whether the clip shows it left to right
    """

    offset: float
    agreement: float
    margin: float
    crop: Crop
    mirrored: bool


def register(clip: Sketch, video: Sketch, offsets: tuple[float, float], *, mirrored: bool = False) -> Fit | None:
    """The best fit with an offset in this range (seconds, lowest and highest); None where there is nothing to compare.

    Pictures are compared by the correlation of their grey levels, so brightness and contrast play no part. The clip may
    show a part of the video's picture, from 80 % of its width and height on, anywhere in it and the same at all times;
    letterbox bars are not looked for. A moving camera and a crop off the centre look alike within one shot: where no
    cut or movement inside the picture tells them apart, the offset is off by some tenths of a second.
    """
    if not len(clip) or not len(video):
        return None
    seen = _seen(clip, mirrored)
    some = np.unique(np.linspace(0, len(clip) - 1, min(len(clip), 24)).round().astype(int))
    sparse = np.unique(np.searchsorted(video.times, np.arange(video.times[0], video.times[-1] + 1e-9, 0.1)))
    sparse = sparse[sparse < len(video)]
    rough = np.arange(offsets[0], offsets[1] + ROUGH_STEP / 2, ROUGH_STEP)
    tried = [
        (float(_curve(seen[some], clip.times[some], view, video.times[sparse], rough).max()), crop)
        for crop, view in _crops(video.pictures[sparse], SHARES, PLACES)
    ]
    finer = np.arange(offsets[0], offsets[1] + STEP / 2, STEP)
    best: tuple[float, np.ndarray, Crop] | None = None
    for _, crop in sorted(tried, key=lambda pair: -pair[0])[:3]:
        for nearby in _nearby(crop):
            curve = _curve(seen, clip.times, _view(video.pictures, nearby), video.times, finer)
            if best is None or curve.max() > best[0]:
                best = float(curve.max()), curve, nearby
    assert best is not None
    agreement, curve, crop = best
    peak = int(curve.argmax())
    away = curve[np.abs(finer - finer[peak]) > CLOSE]
    margin = agreement - float(away.max()) if len(away) else 0.0
    return Fit(_middle(finer, curve, peak), agreement, margin, crop, mirrored)


def agreement(clip: Sketch, video: Sketch, fit: Fit) -> Float64[np.ndarray, "frame"]:
    """Correlation of each of the clip's pictures with what the video shows then; 0 where it shows nothing."""
    view = _view(video.pictures, fit.crop)
    when = clip.times + fit.offset
    place, inside = _place(video.times, when)
    return np.where(inside, (_seen(clip, fit.mirrored) * view[place]).sum(axis=1), 0.0).astype(np.float64)


def _seen(clip: Sketch, mirrored: bool) -> Float32[np.ndarray, "frame dim"]:
    return _view(clip.pictures[:, :, ::-1] if mirrored else clip.pictures, (1.0, 0.0, 1.0, 0.0))


def _place(times: np.ndarray, when: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which picture a player shows at these seconds, and whether it shows one."""
    place = np.searchsorted(times, when + 1e-6, side="right") - 1
    return np.clip(place, 0, None), (place >= 0) & (when < times[-1] + LAST)


def _middle(offsets: np.ndarray, curve: np.ndarray, peak: int) -> float:
    """The peak, or the middle of the plateau that it is on: a hundredth of the curve's reach is no difference."""
    floor = curve[peak] - max(1e-3, 0.01 * (curve[peak] - float(curve.min())))
    left = right = peak
    while left > 0 and curve[left - 1] >= floor:
        left -= 1
    while right < len(curve) - 1 and curve[right + 1] >= floor:
        right += 1
    return float((offsets[left] + offsets[right]) / 2)


def _curve(
    seen: Float32[np.ndarray, "frame dim"],
    at: np.ndarray,
    view: Float32[np.ndarray, "shown dim"],
    times: np.ndarray,
    offsets: np.ndarray,
) -> Float64[np.ndarray, "offset"]:
    """Mean correlation at each offset: of the pictures that the video shows then. Where it shows none, 0."""
    product = seen @ view.T
    place, inside = _place(times, at[None, :] + offsets[:, None])
    values = product[np.arange(len(at))[None, :], place]
    return np.where(inside, values, 0.0).mean(axis=1)


def _crops(pictures: np.ndarray, shares: tuple[float, ...], places: tuple[float, ...]) -> list[tuple[Crop, np.ndarray]]:
    axes = [(share, place) for share in shares for place in (places if share < 1 else (0.0,))]
    found = []
    for down in axes:
        rows = np.einsum("gs,tsx->tgx", _axis(*down), pictures.astype(np.float32))
        # a crop seldom takes much from one side alone
        near = [across for across in axes if abs(across[0] - down[0]) < 0.11]
        found += [((*across, *down), _flat(rows @ _axis(*across).T)) for across in near]
    return found


def _nearby(crop: Crop) -> list[Crop]:
    across, left, down, top = crop
    found = [(min(1.0, across + wider), left, min(1.0, down + taller), top) for wider in FINE for taller in FINE]
    found += [(across, min(1.0, max(0.0, left + aside)), down, top) for aside in (-0.25, 0.25)]
    found += [(across, left, down, min(1.0, max(0.0, top + aside))) for aside in (-0.25, 0.25)]
    return list(dict.fromkeys(found))


def _view(pictures: np.ndarray, crop: Crop) -> Float32[np.ndarray, "frame dim"]:
    across, left, down, top = crop
    return _flat(pictures.astype(np.float32) @ _axis(across, left).T, _axis(down, top))


@cache
def _axis(share: float, place: float) -> Float32[np.ndarray, "grid side"]:
    """Averages of a line of SIDE pixels over GRID equal parts of a crop of it."""
    edges = ((1 - share) * place + share * np.arange(GRID + 1) / GRID) * SIDE
    pixels = np.arange(SIDE)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = np.clip(overlap, 0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def _flat(pictures: np.ndarray, down: np.ndarray | None = None) -> Float32[np.ndarray, "frame dim"]:
    """Pictures as vectors whose products are correlations; 0 for one that shows nothing."""
    small = pictures if down is None else np.einsum("gs,tsx->tgx", down, pictures)
    vectors = small.reshape(len(small), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    shows = lengths > FLAT * vectors.shape[1] ** 0.5
    return np.where(shows, vectors / np.maximum(lengths, 1e-6), 0.0).astype(np.float32)
