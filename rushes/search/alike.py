"""Which moments of a library are like a clip: nearest frames vote for an offset, pictures decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64

from rushes.index.base import Index
from rushes.model import Model
from rushes.search.parts import finest
from rushes.search.register import agreement, register
from rushes.similarity import fp32, unit
from rushes.types import Hit, Moment, Segment, Tokens
from rushes.video.probe import VideoError
from rushes.video.sketch import Sketch

MOST_FRAMES = 240  # of the clip, evenly spread
ASKED = 24  # of these, that candidates are looked for by
NEAR = 64  # segments near to each
MOST_SEGMENTS = 4096  # whose tokens are read
SAMPLE = 512  # segments that tell how alike frames of this library are anyway
TENTH = 1.9  # median deviations above the median that a tenth of a normal curve lies
STEP = 0.1  # seconds between the offsets that are voted for
SMOOTH = 0.6  # seconds: frames are a second apart, so true votes scatter by half of that to either side
APART = 2.0  # seconds between two answers from one video
TRIED = 3  # offsets of one video
VERIFIED = 6  # stretches whose pictures are compared
WORTH = 0.5  # share of the best one's likeness; those below are compared only if none above is the same
SURE = 0.75  # agreement from which pictures are the same; unrelated ones reach 0.5, see docs/video-queries.md
HOLDS = 0.6  # agreement of a single picture down to which the stretch goes on
SLACK = 1.6  # seconds around the voted offset in which pictures may lie
BEYOND = 5.0  # seconds of pictures before and after a stretch, into which it may turn out to go on
SKETCHED = 30.0  # seconds of a clip that are compared, at most
CLIP_RATE = 10.0  # pictures a second of the clip

Look = Callable[[str, float, float], Sketch]  # the pictures of a library's video from a second to another


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A query that is a video, encoded as the library's videos are.

    tokens   a row for each of its segments, in order of time; spans are seconds of the clip
    length   seconds
    sketch   its pictures, up to SKETCHED seconds of them; None compares no pictures
    """

    tokens: Tokens
    length: float
    sketch: Sketch | None = None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Where a clip and a video run side by side: seconds of the video minus seconds of the clip, and how well."""

    video: str
    offset: float
    begin: float  # seconds of the clip
    end: float
    alike: float
    best: float  # likeness of a frame
    peak: float
    same: float = 0.0

    @property
    def score(self) -> float:
        return (self.alike * (3 + self.peak) / 4 + self.same) / 2


@torch.inference_mode()
def alike(
    model: Model,
    index: Index,
    clip: Clip,
    *,
    videos: Sequence[str] | None = None,
    most: int = 50,
    look: Look | None = None,
    mirrored: bool = False,
) -> list[Hit]:
    """The stretches of the library that are like the clip, best first, with the seconds on both sides.

    `hit.start` and `hit.end` are seconds of the library's video, `hit.of_query` those of the clip that they are like;
    `hit.segment` has the id of the stored segment in which most of the stretch lies. A clip that is in a video
    twice gives two hits; stretches of one video are at least two seconds apart in offset.

    How: 1. frames of the clip, and its segments' summaries, find candidates. 2. In each video every pair of frames
    votes for an offset, the video's second minus the clip's. A clip's frame has one vote, shared among the video's
    frames by how much like it they are: where a picture stands still, many offsets get a little of it and none gets
    much, so what wins is what few offsets explain. 3. Along the best offsets the stretch is cut where likeness ends.
    4. If `look` gives pictures and the clip has a sketch, the best few are laid over each other picture by picture
    (`register`), which tells the same footage from footage that is alike, and the offset to a few hundredths of a
    second. Where that fails, `mirrored` tries the clip's pictures turned left to right.

        score = (alike (3 + peak) / 4 + same) / 2                    in [0, 1]
        alike   mean likeness of the clip's frames, 0 outside of the stretch; a frame's likeness is
                (cosine - c) / (1 - c), c being what a frame has in common with a tenth of this library anyway
        peak    1 - (votes of the best offset more than two seconds away) / (votes of this one), at least 0: how sure
                the place in time is. Small for a still picture, which fits many offsets, and for what is there twice
        same    mean correlation of the pictures if it is at least 0.75, else 0

    So above a half only what was verified picture by picture; below, what is merely alike. `hit.scores` has the three
    of them. A video whose pictures cannot be read stays unverified. Equal scores are ordered by video and time.
    """
    if most < 1:
        raise ValueError(f"most is {most}; ask for at least one hit")
    times, vectors = _frames(clip.tokens)
    if not len(times):
        return []
    chosen = _spread(len(times), MOST_FRAMES)
    times, vectors = times[chosen], vectors[chosen]
    segments = _candidates(model, index, clip, vectors, videos)
    if not segments:
        return []
    known: dict[str, list[Segment]] = {}
    near: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of each video: seconds, and cosines with the clip's frames
    for video, rows in _by_video(index, segments, clip.length).items():
        known[video] = [segment for segment, _, _ in rows]
        at = np.concatenate([row for _, row, _ in rows])
        frames = np.concatenate([row for _, _, row in rows])
        _, first = np.unique(at.round(2), return_index=True)  # windows share frames
        near[video] = at[first], vectors @ frames[first].T
    best = np.max([cosines.max(axis=1) for _, cosines in near.values()], axis=0)
    # where the whole library looks like the clip, as a library of one scene does, the best frame is still like it
    common = np.minimum(_common(index, vectors), best - (1 - best) / 4).clip(0.0, 1.0)
    found = [
        one
        for video, (at, cosines) in near.items()
        for one in _stretches(video, times, at, cosines, common, clip.length)
    ]
    found.sort(key=_order)
    if look is not None and clip.sketch is not None and len(clip.sketch):
        found = _verified(found, clip, look, mirrored)
    return [_hit(one, known[one.video], clip.length) for one in _distinct(found)[:most]]


# ---------------------------------------------------------------------- candidates


def _frames(tokens: Tokens) -> tuple[Float64[np.ndarray, "frame"], Float32[np.ndarray, "frame dim"]]:
    """Middle seconds and unit vectors of the finest tokens, in order of time, each second once."""
    if tokens.spans is None:
        raise ValueError("these tokens do not tell the seconds that they saw; the model's method must keep spans")
    known = finest(tokens)
    times = tokens.spans[known].double().mean(dim=1).numpy()
    vectors = unit(fp32(tokens.vectors[known])).numpy()
    _, first = np.unique(times.round(3), return_index=True)
    return times[first], vectors[first]


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _candidates(
    model: Model, index: Index, clip: Clip, vectors: Float32[np.ndarray, "frame dim"], videos: Sequence[str] | None
) -> list[str]:
    """Ids of stored segments, the nearest first: by single frames and by the summaries of the clip's segments."""
    best: dict[str, float] = {}
    summaries = fp32(model.method.summary(clip.tokens))
    asked = [(torch.from_numpy(vectors[row]), "frame") for row in _spread(len(vectors), ASKED)]
    asked += [(summaries[row], "summary") for row in _spread(len(summaries), ASKED)]
    for vector, by in asked:
        for rank, (name, _) in enumerate(index.nearest(vector, NEAR, by=by, videos=videos)):  # type: ignore[arg-type]
            best[name] = best.get(name, 0.0) + 1.0 / (10 + rank)
    return sorted(best, key=lambda name: (-best[name], name))


def _by_video(
    index: Index, ids: Sequence[str], length: float
) -> dict[str, list[tuple[Segment, np.ndarray, np.ndarray]]]:
    """The candidates and what lies around them in time, as far as the clip may reach: seconds and vectors, by video."""
    segments, _ = _fetched(index, ids)
    everything: dict[str, list[Segment]] = {}
    for segment in index.segments(sorted({segment.video for segment in segments})):
        everything.setdefault(segment.video, []).append(segment)
    wanted: dict[str, Segment] = {}
    for segment in segments:
        for other in everything.get(segment.video, ()):
            if other.start < segment.end + length + SLACK and other.end > segment.start - length - SLACK:
                wanted.setdefault(other.id, other)
        if len(wanted) >= MOST_SEGMENTS:
            break
    rows: dict[str, list[tuple[Segment, np.ndarray, np.ndarray]]] = {}
    names = list(wanted)
    for first in range(0, len(names), 1024):
        some, tokens = _fetched(index, names[first : first + 1024])
        for row, segment in enumerate(some):
            times, vectors = _frames(tokens[row : row + 1])
            rows.setdefault(segment.video, []).append((segment, times, vectors))
    for known in rows.values():
        known.sort(key=lambda row: (row[0].start, row[0].id))
    return rows


def _fetched(index: Index, ids: Sequence[str]) -> tuple[list[Segment], Tokens]:
    return index.fetch(ids, skip=True)


def _common(index: Index, vectors: Float32[np.ndarray, "frame dim"]) -> Float32[np.ndarray, "frame"]:
    """The cosine that each of the clip's frames would exceed with a tenth of a sample of the library if the clip were
    not in it: that of a normal curve with the sample's median and median deviation, which a few true matches among a
    small library's frames do not move."""
    for _, tokens in index.batches(SAMPLE):
        sample = unit(fp32(tokens.vectors[finest(tokens)])).numpy()
        cosines = vectors @ sample.T
        middle = np.median(cosines, axis=1)
        return middle + TENTH * np.median(np.abs(cosines - middle[:, None]), axis=1)
    return np.zeros(len(vectors), np.float32)


# ---------------------------------------------------------------------- votes


def _stretches(
    video: str,
    times: Float64[np.ndarray, "frame"],
    at: Float64[np.ndarray, "other"],
    cosines: Float32[np.ndarray, "frame other"],
    common: Float32[np.ndarray, "frame"],
    length: float,
) -> list[_Stretch]:
    """The best offsets of one video, each with the stretch that it explains."""
    likeness = np.clip((cosines - common[:, None]) / np.maximum(1e-3, 1 - common[:, None]), 0.0, 1.0)
    offsets, votes = _votes(times, at, likeness)
    step = float(np.median(np.diff(times))) if len(times) > 1 else length
    found, left = [], votes
    for _ in range(TRIED):
        peak = int(left.argmax())
        if left[peak] <= 0:
            break
        offset = float(offsets[peak])
        one = _along(times, at, likeness, offset, step, length)
        far = votes[np.abs(offsets - offset) >= APART]
        if one is not None:
            sure = max(0.0, 1 - float(far.max()) / float(votes[peak])) if len(far) else 1.0
            found.append(_Stretch(video, offset, *one, sure))
        left = np.where(np.abs(offsets - offset) < APART, 0.0, left)
    return found


def _votes(
    times: Float64[np.ndarray, "frame"], at: Float64[np.ndarray, "other"], likeness: Float32[np.ndarray, "frame other"]
) -> tuple[Float64[np.ndarray, "offset"], Float64[np.ndarray, "offset"]]:
    """Offsets in steps of 0.1 s, and the share of the clip's votes that each got: a triangle of SMOOTH seconds to
    either side of each pair's own. A frame's vote is worth its best likeness, and is shared by likeness to the 8th."""
    best = likeness.max(axis=1, keepdims=True)
    shares = (likeness / np.maximum(best, 1e-6)) ** 8
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-6) * best / len(times)
    pairs = at[None, :] - times[:, None]
    low = float(pairs.min()) - SMOOTH
    bins = int(np.ceil((float(pairs.max()) + SMOOTH - low) / STEP)) + 1
    places = ((pairs - low) / STEP).round().astype(int)
    counts = np.bincount(places.ravel(), weights=shares.ravel(), minlength=bins)
    half = round(SMOOTH / STEP)
    kernel = 1 - np.abs(np.arange(-half, half + 1)) / (half + 1)
    return low + STEP * np.arange(bins), np.convolve(counts, kernel, mode="same")


def _along(
    times: np.ndarray, at: np.ndarray, likeness: np.ndarray, offset: float, step: float, length: float
) -> tuple[float, float, float, float] | None:
    """The stretch of the clip that runs beside the video at this offset: where likeness, less half of its best, sums
    up to the most. Its first and last second in the clip, its likeness spread over the whole clip, and its best."""
    reach = np.maximum(SMOOTH, step / 2)
    near = np.abs(at[None, :] - times[:, None] - offset) <= reach
    row = np.where(near, likeness, 0.0).max(axis=1)
    floor = row.max() / 2
    if floor <= 0:
        return None
    first, last = _run(row - floor)
    alike = float(row[first : last + 1].sum() / len(times))
    begin, end = max(0.0, float(times[first]) - step / 2), min(length, float(times[last]) + step / 2)
    return begin, end, alike, float(row.max())


def _run(values: np.ndarray) -> tuple[int, int]:
    """First and last place of the run with the largest sum.

    >>> _run(np.array([-1.0, 2.0, -1.0, 3.0, -5.0, 1.0]))
    (1, 3)
    """
    total, best, begin, run = 0.0, -np.inf, 0, (0, 0)
    for place, value in enumerate(values):
        if total <= 0:
            total, begin = 0.0, place
        total += value
        if total > best:
            best, run = total, (begin, place)
    return run


# ---------------------------------------------------------------------- pictures


def _verified(found: list[_Stretch], clip: Clip, look: Look, mirrored: bool) -> list[_Stretch]:
    """The first few with their pictures compared, and all in their new order."""
    first = [one for one in found[:VERIFIED] if one.alike >= WORTH * found[0].alike]
    others = [one for one in found[:VERIFIED] if one.alike < WORTH * found[0].alike]
    with ThreadPoolExecutor(2) as pool:  # each waits for a process of its own
        done = list(pool.map(lambda one: _compared(one, clip, look, mirrored), first))
        if not any(one.same for one in done):  # else those are not worth their time
            others = list(pool.map(lambda one: _compared(one, clip, look, mirrored), others))
    return sorted([*done, *others, *found[VERIFIED:]], key=_order)


def _compared(one: _Stretch, clip: Clip, look: Look, mirrored: bool) -> _Stretch:
    """The stretch as its pictures tell it, where they are the same; as it was, where they are not."""
    assert clip.sketch is not None
    part = _part(clip.sketch, one.begin, one.end)
    whole = _part(clip.sketch, one.begin - BEYOND, one.end + BEYOND)
    start, end = (float(whole.times[place]) + one.offset for place in (0, -1)) if len(whole) else (0.0, 0.0)
    start, end = max(0.0, start - SLACK), end + SLACK + 1 / CLIP_RATE
    if not len(part) or end <= start:
        return one
    try:
        pictures = look(one.video, start, end)
    except (VideoError, OSError):
        return one
    within = one.offset - SLACK, one.offset + SLACK
    # more pictures first: a cut among them tells the second where a moving camera and a crop look alike; the voted
    # stretch alone where the clip is put together from several videos
    tries = [(some, turned) for turned in ((False, True) if mirrored else (False,)) for some in (whole, part)]
    fits = (register(some, pictures, within, mirrored=turned) for some, turned in tries)
    fit = next((fit for fit in fits if fit is not None and fit.agreement >= SURE), None)
    if fit is None:
        return one
    agree = agreement(whole, pictures, fit)
    first, last = _run(agree - HOLDS)
    same = float(np.clip(agree[first : last + 1].mean(), 0.0, 1.0))
    begin, end = float(whole.times[first]), min(clip.length, float(whole.times[last]) + 1 / CLIP_RATE)
    if first == 0 and begin < 2 / CLIP_RATE:
        begin = 0.0
    return replace(one, offset=fit.offset, begin=begin, end=max(end, begin + 1 / CLIP_RATE), same=same)


def _part(sketch: Sketch, start: float, end: float) -> Sketch:
    inside = (sketch.times >= start - 1e-6) & (sketch.times < end)
    return Sketch(sketch.times[inside], sketch.pictures[inside])


# ---------------------------------------------------------------------- answers


def _distinct(found: Sequence[_Stretch]) -> list[_Stretch]:
    """Without those that repeat a better one: most of the same seconds of the video beside most of the same seconds of
    the clip, only moved a little."""
    kept: list[_Stretch] = []
    for one in found:
        if not any(one.video == other.video and _repeats(one, other) for other in kept):
            kept.append(one)
    return kept


def _repeats(one: _Stretch, other: _Stretch) -> bool:
    clip = min(one.end, other.end) - max(one.begin, other.begin)
    video = min(one.end + one.offset, other.end + other.offset) - max(
        one.begin + one.offset, other.begin + other.offset
    )
    return min(clip, video) > min(one.end - one.begin, other.end - other.begin) / 2


def _hit(one: _Stretch, segments: Sequence[Segment], length: float) -> Hit:
    begin, end = one.begin, min(one.end, length)
    last = max(segment.end for segment in segments)
    start = max(0.0, begin + one.offset)
    stop = min(last, end + one.offset)
    if stop <= start:
        stop = start + max(0.1, end - begin)
    home = max(segments, key=lambda s: (min(s.end, stop) - max(s.start, start), -s.start, s.id))
    scores = {"alike": one.alike, "same": one.same, "peak": one.peak}
    return Hit(
        Segment(home.id, one.video, start, stop),
        one.score,
        (Moment(start, stop, one.best),),
        scores=scores,
        of_query=(start - one.offset, stop - one.offset),
    )


def _order(one: _Stretch) -> tuple[float, str, float]:
    return (-one.score, one.video, one.begin + one.offset)
