"""Cuts a stream of passing frames into segments: shots, or windows that overlap."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from rushes.video import sample
from rushes.video.pixels import telling

if TYPE_CHECKING:  # a third of a second, which who wants a single frame should not wait
    from scenedetect.detector import SceneDetector

SMALL = (96, 64)  # pixels, width and height of what the detector sees; the aspect is of no matter to a difference


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A kept frame: its second on the video's clock, and its pixels, uint8 [height width 3] RGB, contiguous."""

    time: float
    pixels: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """A finished segment and the times of the frames kept of it; each of them has been delivered before.

    Seconds; start <= time < end for each of `times`, which is never empty. `thumbnail`, where one was asked for, is the
    most telling of those frames (`pixels.telling`) as a small WebP.
    """

    start: float
    end: float
    times: tuple[float, ...]
    thumbnail: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A decoded frame that nobody has converted yet."""

    time: float
    picture: VideoFrame
    aspect: float = 1.0  # width of its pixels over their height


@dataclass(frozen=True, slots=True)
class End:
    """The video is over at `time` (seconds): the last word of every stream of looks."""

    time: float


Convert = Callable[[Look], np.ndarray]
Picture = Callable[[Look], bytes]


class _Best:
    """Holds the most telling of the kept frames as decoded, one for each `share` seconds, until it becomes a picture:
    one conversion a segment, and never more than three decoded frames in memory."""

    def __init__(self, picture: Picture | None, share: float = math.inf):
        self.picture = picture
        self.share = share
        self.held: dict[float, tuple[float, Look]] = {}

    def offer(self, frame: Frame, look: Look) -> None:
        if self.picture is None:
            return
        score, place = telling(frame.pixels), frame.time // self.share
        if place not in self.held or score > self.held[place][0]:
            self.held[place] = score, look

    def of(self, places: Iterable[float]) -> bytes | None:
        """The picture of some shares; what comes before them is let go."""
        wanted = list(places)
        held = [self.held[place] for place in wanted if place in self.held]
        self.held = {place: best for place, best in self.held.items() if place >= wanted[0]}
        if self.picture is None or not held:
            return None
        return self.picture(max(held, key=lambda best: best[0])[1])


class _Keep:
    """Chooses a segment's frames as they pass: for each target of the grid the frame that a player shows then."""

    def __init__(self, start: float, rate: float, convert: Callable[[Look], Frame], best: _Best, earliest: float = 0.0):
        self.start = start
        self.rate = rate
        self.convert = convert
        self.best = best
        self.earliest = max(start, earliest)
        self.number = 0  # of the next target
        self.shown: Look | None = None
        self.waiting: list[tuple[Frame, Look]] = []  # kept, not yet delivered
        self.times: list[float] = []  # delivered
        self.first: Look | None = None  # until something is delivered: every segment has a frame

    def see(self, look: Look) -> None:
        self.until(look.time)
        self.shown = look
        if self.first is None and not self.times and look.time >= self.earliest:
            self.first = look

    def until(self, time: float) -> None:
        """Settle all targets before `time`."""
        while sample.target(self.start, self.rate, self.number) < time:
            self.number += 1
            shown = self.shown
            if shown is None or shown.time < self.earliest:
                continue
            last = self.waiting[-1][0].time if self.waiting else self.times[-1] if self.times else None
            if last is None or last < shown.time:
                self.waiting.append((self.convert(shown), shown))

    def deliver(self) -> Iterator[Frame]:
        for frame, look in self.waiting:
            self.times.append(frame.time)
            self.best.offer(frame, look)
            yield frame
        self.waiting = []
        if self.times:
            self.first = None

    def close(self, end: float) -> Iterator[Frame | Span]:
        """The frames before `end` that are still to be delivered, then the span."""
        self.until(end)
        self.waiting = [kept for kept in self.waiting if kept[0].time < end]
        if not self.waiting and not self.times and self.first is not None:
            self.waiting = [(self.convert(self.first), self.first)]
        yield from self.deliver()
        yield Span(self.start, end, tuple(self.times), self.best.of([0.0]))


class Detector:
    """One of scenedetect's detectors behind `feed`: a small picture in, the cuts that are now certain out.

    It is told to ignore lengths, because it counts frames and we count seconds, and is made anew at each boundary, so
    that what it says of a shot depends on nothing before that shot. `lag` is how many frames late it speaks.
    """

    def __init__(self, inner: SceneDetector, lag: int = 0):
        self.inner = inner
        self.lag = lag
        self.count = 0
        self.times: deque[float] = deque(maxlen=lag + 1)

    def feed(self, time: float, small: np.ndarray) -> list[float]:
        """Times of cuts; a cut is the first frame of the new shot."""
        from scenedetect.common import FrameTimecode

        code = FrameTimecode(self.count, Fraction(25))  # a name for the frame, not a time
        self.times.append(time)
        found = self.inner.process_frame(code, small)
        self.count += 1
        return [self.times[cut.frame_num - self.count] for cut in found]


def dense() -> Detector:
    """For frames that follow each other closely: a cut stands out from the changes just before and after it.
    Of the detectors tried it is the one that a quick turn of the camera does not fool; benchmarks/shots.py."""
    from scenedetect.detectors import AdaptiveDetector

    return Detector(AdaptiveDetector(3.0, min_scene_len=0, window_width=2), lag=2)


def sparse() -> Detector:
    """For frames that are seconds apart, as key frames are: neighbours tell nothing, the change itself decides."""
    from scenedetect.detectors import ContentDetector

    return Detector(ContentDetector(27.0, min_scene_len=0))


class _Shots:
    """Shots of LONGEST seconds at most and SHORTEST at least, where the video allows it.

    A boundary waits as a candidate until the shot behind it has lasted SHORTEST seconds; a flash (the old picture comes
    back meanwhile) is dropped. What follows a boundary depends on nothing before it: detector, grid and lengths start
    afresh there, so a read that resumes at a boundary gives what an undisturbed one gives.
    """

    def __init__(
        self,
        rate: float,
        convert: Convert,
        detector: Callable[[], Detector],
        small: Callable[[VideoFrame], np.ndarray],
        picture: Picture | None,
    ):
        self.rate = rate
        self.picture = picture
        self.detector = detector
        self.small = small
        self.raw = convert
        self.converted: Frame | None = None  # the two grids often keep the same frame
        self.detect = detector()
        self.line: deque[tuple[Look, np.ndarray]] = deque()  # fed to the detector, not yet decided
        self.cuts: set[float] = set()
        self.current: _Keep | None = None
        self.pending: _Keep | None = None
        self.forced = False  # the candidate is no cut but the length of the shot
        self.tail: list[tuple[float, np.ndarray]] = []  # what the candidate has shown
        self.before: np.ndarray | None = None  # what was seen just before the candidate
        self.last: tuple[Look, np.ndarray] | None = None

    def convert(self, look: Look) -> Frame:
        if self.converted is None or self.converted.time != look.time:
            self.converted = Frame(look.time, self.raw(look))
        return self.converted

    def add(self, look: Look) -> Iterator[Frame | Span]:
        small = self.small(look.picture)
        self.line.append((look, small))
        self.cuts.update(self.detect.feed(look.time, small))
        if len(self.line) > self.detect.lag:
            yield from self.decide(*self.line.popleft())

    def decide(self, look: Look, small: np.ndarray) -> Iterator[Frame | Span]:
        if self.current is None:
            self.current = self.keep(look.time)
        while True:
            if self.pending is None:
                self.propose(look, small)
            if self.pending is None or look.time - self.pending.start < sample.SHORTEST:
                break
            if not self.forced and self.flashed():
                self.cuts.discard(self.pending.start)
                self.pending = None
            else:
                yield from self.accept()
                self.restart([*self.tail, (look.time, small), *((late.time, tiny) for late, tiny in self.line)])
                self.tail = []
        self.current.see(look)
        if self.pending is not None:
            self.pending.see(look)
            if not self.tail or self.tail[-1][0] < look.time:
                self.tail.append((look.time, small))
        else:
            yield from self.current.deliver()
        self.last = (look, small)

    def keep(self, start: float) -> _Keep:
        return _Keep(start, self.rate, self.convert, _Best(self.picture))

    def propose(self, look: Look, small: np.ndarray) -> None:
        """Make a candidate of this frame or of the one before, if there is reason to."""
        assert self.current is not None
        length = look.time - self.current.start
        cut = look.time in self.cuts and length >= sample.SHORTEST
        near = self.last is None or look.time - self.last[0].time < sample.SHORTEST
        if length > sample.WINDOW + 1e-6 and not (cut and near):
            assert self.last is not None
            long_enough = self.last[0].time - self.current.start >= sample.SHORTEST
            at = self.last if long_enough else (look, small)
            self.forced = True
        elif cut:
            at = (look, small)
            self.forced = False
        else:
            return
        self.pending = self.keep(at[0].time)
        self.before = self.last[1] if self.last else None
        self.tail = []
        if at[0] is not look:
            self.pending.see(at[0])
            self.tail = [(at[0].time, at[1])]

    def flashed(self) -> bool:
        if self.before is None or len(self.tail) < 2:
            return False
        away = difference(self.before, self.tail[0][1])
        return min(difference(self.before, small) for _, small in self.tail[1:]) < 0.35 * away

    def accept(self) -> Iterator[Frame | Span]:
        assert self.current is not None
        assert self.pending is not None
        yield from self.current.close(self.pending.start)
        self.current, self.pending = self.pending, None

    def restart(self, seen: Iterable[tuple[float, np.ndarray]]) -> None:
        self.detect = self.detector()
        self.cuts = set()
        for time, small in seen:
            self.cuts.update(self.detect.feed(time, small))

    def finish(self, end: float) -> Iterator[Frame | Span]:
        while self.line:
            yield from self.decide(*self.line.popleft())
        if self.current is None:
            return
        if self.pending is None and self.last is not None and end - self.current.start > sample.WINDOW + 1e-6:
            look = self.last[0]
            if look.time - self.current.start >= sample.SHORTEST:
                self.pending, self.forced = self.keep(look.time), True
                self.pending.see(look)
        if (
            self.pending is not None
            and end - self.pending.start >= sample.SHORTEST
            and (self.forced or not self.flashed())
        ):
            yield from self.accept()
        yield from self.current.close(max(end, self.last[0].time + 1e-3) if self.last else end)


def by_shots(
    events: Iterable,
    rate: float,
    convert: Convert,
    start: float = 0.0,
    detector: Callable[[], Detector] = dense,
    small: Callable[[VideoFrame], np.ndarray] | None = None,
    picture: Picture | None = None,
) -> Iterator:
    """Looks in, frames and shots out; any other event passes through, except the end."""
    shots = _Shots(rate, convert, detector, small or smaller(), picture)
    for event in events:
        if isinstance(event, Look):
            if event.time >= start - 1e-6:
                yield from shots.add(event)
        elif isinstance(event, End):
            yield from shots.finish(event.time)
        else:
            yield event


def by_windows(
    events: Iterable, rate: float, convert: Convert, start: float = 0.0, picture: Picture | None = None
) -> Iterator:
    """Looks in, frames and windows out; any other event passes through, except the end.

    Windows start at every STEP seconds and share one grid, so a frame belongs to two windows and is sent once. A window
    in which no frame starts shows the one before it: that is sent again, with the window's start as its time.
    The last window is the first that reaches the end.
    """
    number = round(start / sample.STEP)
    if abs(number * sample.STEP - start) > 1e-6:
        raise ValueError(f"windows start every {sample.STEP} s, none at {start} s; resume at a window's start")
    best = _Best(picture, sample.STEP)
    keep = _Keep(number * sample.STEP, rate, lambda look: Frame(look.time, convert(look)), best)

    def closed(number: int, end: float) -> Iterator[Frame | Span]:
        begin = sample.window(number)[0]
        keep.times = [time for time in keep.times if time >= begin]
        times = [time for time in keep.times if time < end]
        if not times and keep.shown is not None:
            again = Frame(begin, convert(keep.shown))
            best.offer(again, keep.shown)
            yield again
            times = [begin]
        if times:
            yield Span(begin, end, tuple(times), best.of([number, number + 1]))

    for event in events:
        if isinstance(event, Look):
            keep.until(event.time)
            yield from keep.deliver()
            while sample.window(number)[1] <= event.time:
                yield from closed(number, sample.window(number)[1])
                number += 1
            keep.see(event)
        elif isinstance(event, End):
            end = max(event.time, keep.shown.time + 1e-3 if keep.shown else 0.0)
            keep.until(end)
            yield from keep.deliver()
            while sample.window(number)[0] < end and not (number and sample.window(number - 1)[1] >= end):
                yield from closed(number, min(sample.window(number)[1], end))
                number += 1
        else:
            yield event


def smaller() -> Callable[[VideoFrame], np.ndarray]:
    """Makes BGR pictures of SMALL size, straight from whatever format was decoded: scaled before it is converted, a
    frame costs a twentieth of its decoding. One scaler for all frames, because making one costs as much as using it."""
    scaler = VideoReformatter()

    def small(frame: VideoFrame) -> np.ndarray:
        return scaler.reformat(frame, *SMALL, format="bgr24", interpolation="AREA", threads=1).to_ndarray()

    return small


def difference(one: np.ndarray, two: np.ndarray) -> float:
    """Mean difference of two pictures, 0 to 255."""
    import cv2

    return float(cv2.absdiff(one, two).mean())
