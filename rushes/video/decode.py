"""Reads a video once: kept frames, finished segments, damage, in the order of its clock."""

from __future__ import annotations

import heapq
import math
import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from time import monotonic

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from rushes.video import sample
from rushes.video.pixels import rgb, thumbnail, upright
from rushes.video.probe import (
    PROMISING,
    VideoError,
    family,
    frame_rate,
    opened,
    pixel_aspect,
    seekable,
    start_time,
    stream_end,
)
from rushes.video.shots import End, Frame, Look, Span, by_shots, by_windows, dense, sparse

__all__ = ["Damage", "Frame", "Span", "VideoError", "events", "read"]

SEGMENTS = ("shots", "windows")
RETRIES = 100  # times in a row that the container may fail to give a packet
TICK = 0.5  # seconds of the wall clock between signs of life


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch without usable frames: `code` "damaged" (bad packets) or "truncated" (the file ends too early).

    Seconds. The stretch covers the damage and may be a few frames longer.
    """

    code: str
    reason: str
    start: float
    end: float


def read(
    path: str | os.PathLike[str],
    *,
    policy: str = "balanced",
    segments: str = "shots",
    size: int = 224,
    squash: bool = True,
    start: float = 0.0,
    threads: int | None = None,
    thumbnails: int = 0,
) -> Iterator[Frame | Span | Damage]:
    """A video's kept frames in time order, each segment as a Span once its frames are out, and what was damaged.

    policy    "fast", "balanced" or "thorough", see `sample.POLICIES`
    segments  "shots", or "windows" that overlap by half
    squash    True: frames are size x size pixels; False: the shorter side is `size`, the aspect stays
    start     seconds; 0, or the end of a shot or start of a window that an earlier read gave: what follows is then
              exactly what that read gave from there on
    threads   that the decoder may use; None = at most 4
    thumbnails  pixels: each span carries its most telling frame as a WebP of at most that width and height; 0 = none

    VideoError for a file that gives no frames; damage inside a file is an event, not an error.
    """
    for event in events(path, policy, segments, size, squash, start, threads, thumbnails):
        if event is not None:
            yield event


def events(
    path: str | os.PathLike[str],
    policy: str,
    segments: str,
    size: int,
    squash: bool,
    start: float,
    threads: int | None = None,
    thumbnails: int = 0,
) -> Iterator[Frame | Span | Damage | None]:
    """`read`, with a None now and then where decoding goes on but has nothing to deliver."""
    rule = sample.policy(policy)
    if segments not in SEGMENTS:
        raise LookupError(f"rushes.video has no segments {segments!r}; it has {', '.join(SEGMENTS)}")
    if size < 1 or start < 0:
        raise ValueError(f"size {size} pixels and start {start} s must be positive; start may be 0")
    threads = threads or min(4, os.cpu_count() or 1)
    convert = _Converter(size, squash)
    picture = (lambda look: thumbnail(look.picture, look.aspect, thumbnails)) if thumbnails else None
    passing = looks(path, rule, start, threads)
    if segments == "shots":
        detector = sparse if rule.skip == "NONKEY" or _slow(path) else dense
        cut = by_shots(passing, rule.rate, convert, start, detector, picture=picture)
    else:
        cut = by_windows(passing, rule.rate, convert, start, picture)
    seen = 0
    for event in cut:
        seen += isinstance(event, Frame)
        yield event
    if not seen and rule.skip == "NONKEY":  # no frame calls itself a key frame: some AVI, some cameras
        yield from events(path, "balanced", segments, size, squash, start, threads, thumbnails)
    elif not seen and start == 0:
        raise VideoError("no-frames", f"{path} has a video stream but not one frame that decodes")


def _slow(path: str | os.PathLike[str]) -> bool:
    """Whether the video has fewer than 5 frames a second: slides, time lapse, some cameras."""
    with opened(path) as (_, stream):
        return (frame_rate(stream) or 25.0) < 5.0


def looks(
    path: str | os.PathLike[str], rule: sample.Policy, start: float, threads: int, *, quick: bool = False
) -> Generator[Look | Damage | End | None]:
    """Decoded frames from the one shown at `start` on. A seek that lands too late is taken back and done earlier.

    quick   where the container cannot seek, read but do not decode what lies before: for who wants a moment only, since
            the damage there is not known then
    """
    with opened(path) as (container, stream):
        step = 1.0 / (frame_rate(stream) or 25.0)
        may_seek = start > 0 and seekable(container) and not _untimed(container, stream)
        unread = _unread(container, stream, start) if quick and not may_seek else 0
    margin = 1.0 + 16 * step  # seconds; a key frame's own leading frames cannot be decoded after a seek to it
    for back in (margin, 8 * margin, None) if may_seek else (None,):
        origin = None if back is None or start <= back else start - back
        tape = _tape(path, rule, origin, threads, unread)
        head: list[Look | Damage | End | None] = []
        for event in tape:
            head.append(event)
            if isinstance(event, Look | End):
                break
        first = head[-1] if head else None
        landed = isinstance(first, Look) and first.time <= start
        if origin is None or landed:
            break
        tape.close()
    else:
        raise AssertionError("the last try reads from the file's start")
    before: Look | None = None
    for event in chain(head, tape):
        if isinstance(event, Look) and event.time < start:
            before = event
        elif isinstance(event, Damage) and event.end <= start:
            pass
        else:
            if before is not None and not isinstance(event, Damage) and event is not None:
                yield before
                before = None
            yield event


def _unread(container: InputContainer, stream: VideoStream, start: float) -> int:
    """How many packets lie before the key frame from which the frame shown at `start` can be decoded; 0 where times
    stamps are missing or jump back before that, so that only a decoder that has seen all knows the time."""
    if start <= 0 or _untimed(container, stream):
        return 0
    clock, number, found, latest = _Clock(container, stream), 0, 0, -math.inf
    for packet in _packets(container, stream):
        if isinstance(packet, Exception) or not packet.size:
            continue
        if packet.pts is None or packet.dts is None:
            return 0
        shown, decoded = clock.packet(packet), packet.dts * clock.base - clock.zero
        if decoded < latest - 1.0:
            return 0
        latest = max(latest, decoded)
        if packet.is_keyframe and shown <= start:
            found = number
        if decoded > start:  # what is decoded after its time is shown later still
            return found
        number += 1
    return found


def _untimed(container: InputContainer, stream: VideoStream) -> bool:
    """Whether frames have no presentation times of their own: a raw stream, or B-frames in AVI."""
    if family(container) == "avi":
        return bool(stream.codec_context.has_b_frames)
    return family(container) in {"h264", "hevc", "vvc", "m4v", "mpegvideo", "vc1", "obu"}


class _Clock:
    """Seconds since the container's start, never negative, never going back.

    A frame without a time stamp takes its decoding stamp, else a frame's length after the one before. Where no frame
    has one (`counted`), the n-th frame shown takes the time of the n-th packet: that needs every packet decoded.
    """

    def __init__(self, container: InputContainer, stream: VideoStream):
        self.base = float(stream.time_base or 0)
        self.zero = start_time(container)
        self.step = 1.0 / (frame_rate(stream) or 25.0)
        self.counted: deque[float] | None = deque() if _untimed(container, stream) else None
        self.packets = 0
        self.last = -1.0
        self.shift = 0.0  # seconds, after a stamp that jumped back

    def packet(self, packet: Packet) -> float:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if self.counted is not None:
            time = self.packets * self.step if packet.dts is None else packet.dts * self.base - self.zero
            self.counted.append(time)
        else:
            time = self.last + self.step if stamp is None else stamp * self.base - self.zero + self.shift
        self.packets += 1
        return max(0.0, time)

    def frame(self, frame: VideoFrame) -> float:
        if self.counted is not None:
            time = self.counted.popleft() if self.counted else self.last + self.step
        else:
            stamp = frame.pts if frame.pts is not None else frame.dts
            time = self.last + self.step if stamp is None else stamp * self.base - self.zero + self.shift
        if self.last >= 0 and time <= self.last:
            if self.last - time > 1.0:  # spliced streams start again at zero: go on from where we are
                self.shift += self.last + self.step - time
                time = self.last + self.step
            else:
                time = self.last + min(self.step, 1e-3)
        self.last = max(0.0, time)
        return self.last


class _Losses:
    """Which packets never became a frame, told from time stamps: a decoder may swallow a broken packet silently."""

    def __init__(self, clock: _Clock, skip: str):
        self.clock = clock
        self.skip = skip
        self.sent: list[tuple[float, bool]] = []  # heap of packets' seconds, and whether a frame must come of each
        self.out: float | None = None  # seconds of the last good frame
        self.hurt: tuple[float, float] | None = None  # first and last second known to be bad

    def send(self, time: float, key: bool) -> None:
        if self.clock.counted is None:
            heapq.heappush(self.sent, (time, key or self.skip == "DEFAULT"))

    def failed(self, time: float) -> None:
        """A packet raised an error. With threads it is known late, so the bad stretch starts at the last good frame."""
        if self.skip != "DEFAULT" or self.clock.counted is not None:
            self._extend(time if self.out is None else min(self.out + self.clock.step, time), time)

    def corrupt(self, time: float) -> None:
        self._extend(time, time)

    def good(self, time: float) -> Damage | None:
        """A frame came out right; so all before it that did not are lost."""
        lost, silent = [], 0
        while self.sent and self.sent[0][0] < time - 1e-6:
            second, due = heapq.heappop(self.sent)
            silent += 1
            if due:
                lost.append(second)
        while self.sent and self.sent[0][0] <= time + 1e-6:
            heapq.heappop(self.sent)
        if self.out is not None:
            gap = time - self.out
            if lost and gap > 1.5 * self.clock.step:  # a lost packet that leaves no gap never was a picture
                self._extend(lost[0], lost[-1])
            elif silent >= 16 and gap > 1.0 and self.skip == "NONREF":
                self._extend(self.out + self.clock.step, time)
        self.out = time
        if self.hurt is None or time <= self.hurt[1] + 1e-6:
            return None
        return self.close(time)

    def close(self, end: float) -> Damage | None:
        if self.hurt is None or end <= self.hurt[0]:
            self.hurt = None
            return None
        start, self.hurt = self.hurt[0], None
        return Damage("damaged", f"no usable frames from {start:.3f} s to {end:.3f} s", start, end)

    def rest(self) -> None:
        """The stream is over: what was sent and must have come is lost."""
        lost = [second for second, due in self.sent if due and (self.out is None or second > self.out)]
        if lost:
            self._extend(min(lost), max(lost))

    def _extend(self, start: float, end: float) -> None:
        if self.hurt is None:
            self.hurt = (start, end)
        else:
            self.hurt = (min(start, self.hurt[0]), max(end, self.hurt[1]))


def _tape(
    path: str | os.PathLike[str], rule: sample.Policy, origin: float | None, threads: int, unread: int = 0
) -> Generator[Look | Damage | End | None]:
    """One pass over a file from some key frame at or before `origin` (None = from its start, the first `unread` packets
    not decoded)."""
    with opened(path) as (container, stream), closing(_Filler(path, threads)) as filler:
        clock = _Clock(container, stream)
        skip = "DEFAULT" if clock.counted is not None else rule.skip
        _prepare(stream, skip, threads)
        if origin is not None:
            try:
                container.seek(int((origin + clock.zero) / clock.base), stream=stream)
            except FFmpegError:
                return  # no such place for this container; the caller reads from the start
        losses = _Losses(clock, skip)
        aspect = pixel_aspect(stream)
        gap = rule.gap if skip == "NONKEY" else None
        reach = _Reach(clock)
        key: Look | None = None
        beat = monotonic()
        for packet in _packets(container, stream):
            if monotonic() - beat > TICK:
                beat = monotonic()
                yield None
            if isinstance(packet, Exception):
                losses.failed(reach.last)
                continue
            time = reach.last
            if packet.size:
                time = clock.packet(packet)
                reach.see(packet, time)
                if clock.packets <= unread:
                    continue
                if skip == "NONKEY" and not packet.is_keyframe:
                    continue
                if not packet.is_discard:
                    losses.send(time, packet.is_keyframe)
                if packet.is_corrupt:  # MPEG-TS counts its pieces and knows that one is missing
                    losses.corrupt(time)
            try:
                frames = _alone(stream, packet) if skip == "NONKEY" and packet.size else packet.decode()
            except EOFError:
                continue
            except FFmpegError:
                losses.failed(time)
                if clock.counted:
                    clock.counted.popleft()
                continue
            for frame in frames:
                if frame.is_corrupt:
                    losses.corrupt(clock.frame(frame))
                    continue
                look = Look(clock.frame(frame), frame, aspect)
                damage = losses.good(look.time)
                if damage is not None:
                    yield damage
                if gap and key is not None:
                    yield from filler.between(key, look.time, sample.fills(key.time, look.time, gap))
                key = look
                yield look
        promised = _promised(container, stream)
        truncated = promised is not None and promised - reach.furthest > 0.5 + clock.step
        end = max(reach.end, clock.last + 1e-3)
        if promised is not None and promised > max(clock.last, reach.last) and not truncated:
            end = promised
        if gap and key is not None:
            yield from filler.between(key, end, sample.fills(key.time, end, gap))
        if truncated:
            assert promised is not None
            last = min(end, losses.hurt[0]) if losses.hurt else end
            reason = f"the file promises {promised:.3f} s of video and ends at {last:.3f} s; copy it again"
            yield Damage("truncated", reason, last, promised)
        else:
            losses.rest()
            damage = losses.close(end)
            if damage is not None:
                yield damage
        yield End(end)


def _alone(stream: VideoStream, packet: Packet) -> list[VideoFrame]:
    """A key frame decoded by itself: key frames of an open GOP, not being IDR, never come out if sent in a row."""
    try:
        return stream.codec_context.decode(packet) + stream.codec_context.decode(None)
    finally:
        stream.codec_context.flush_buffers()


class _Reach:
    """How far the packets of a file reach, in seconds."""

    def __init__(self, clock: _Clock):
        self.clock = clock
        self.last = 0.0  # when the last frame in order of showing is shown
        self.end = 0.0  # and until when
        self.furthest = 0.0
        self.lead: float | None = None  # between decoding and showing

    def see(self, packet: Packet, time: float) -> None:
        if packet.is_discard or packet.is_corrupt:
            return
        length = float(packet.duration or 0) * self.clock.base or self.clock.step
        if time >= self.last:
            self.last, self.end = time, time + length
        # mp4 stores lengths between decoding times, so only the sum of them up to the last is what the header promises
        if packet.dts is not None and packet.pts is not None:
            if self.lead is None:
                self.lead = (packet.pts - packet.dts) * self.clock.base
            self.furthest = max(self.furthest, packet.dts * self.clock.base - self.clock.zero + length + self.lead)
        self.furthest = max(self.furthest, self.end)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet | Exception]:
    """All packets of the stream, then the empty one that drains the decoder; a failure to read is an item too."""
    failures = 0
    packets = container.demux(stream)
    while failures < RETRIES:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            failures += 1
            yield error
            packets = container.demux(stream)
            continue
        failures = 0
        yield packet


def _prepare(stream: VideoStream, skip: str, threads: int) -> None:
    stream.thread_type = "AUTO"  # type: ignore[assignment]
    stream.codec_context.thread_count = threads
    stream.codec_context.skip_frame = skip  # type: ignore[assignment]


def _promised(container: InputContainer, stream: VideoStream) -> float | None:
    """Where the header says that the video stream ends."""
    if family(container) not in PROMISING:
        return None
    end = stream_end(container, stream)
    if end is None and len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return end


class _Filler:
    """Decodes single frames between two key frames, on a second handle of the file so that the first reads on.

    Each gap is decoded once, from its key frame forward. Where the container cannot seek, the handle only moves forward
    too, and leaves undecoded what lies between.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int):
        self.path = path
        self.threads = threads
        self.manager = None
        self.held: Packet | None = None

    def close(self) -> None:
        if self.manager is not None:
            self.manager.__exit__(None, None, None)
            self.manager = None

    def between(self, key: Look, end: float, targets: list[float]) -> Iterator[Look | None]:
        """The first frame at or after each target, before `end`."""
        if not targets or key.picture.pts is None:
            return
        if self.manager is None:
            self.manager = opened(self.path)
            self.container, self.stream = self.manager.__enter__()
            _prepare(self.stream, "NONREF", self.threads)
            self.packets = _packets(self.container, self.stream)
            self.clock = _Clock(self.container, self.stream)
        if seekable(self.container):
            try:
                self.container.seek(key.picture.pts, stream=self.stream)
            except FFmpegError:
                return
            self.packets = _packets(self.container, self.stream)
            self.held = None
        else:
            self.stream.codec_context.flush_buffers()
        self.clock.last = -1.0
        wanted = deque(targets)
        for frame in self._from(key.picture.pts):
            if frame is None:
                yield None
                continue
            time = self.clock.frame(frame)
            if time >= end:
                return
            if time >= wanted[0]:
                yield Look(time, frame, key.aspect)
                while wanted and wanted[0] <= time:
                    wanted.popleft()
                if not wanted:
                    return

    def _from(self, pts: int) -> Iterator[VideoFrame | None]:
        """Frames from the key frame `pts` up to the next key frame."""
        begun = False
        beat = monotonic()
        while True:
            packet = self.held or next(self.packets, None)
            self.held = None
            if packet is None:
                return
            if monotonic() - beat > TICK:
                beat = monotonic()
                yield None
            if isinstance(packet, Exception) or not (begun or (packet.is_keyframe and packet.pts == pts)):
                continue
            if begun and packet.is_keyframe and packet.size:
                self.held = packet
                packet = None
            try:
                frames = self.stream.codec_context.decode(packet)
            except FFmpegError:
                frames = []
            begun = True
            yield from (frame for frame in frames if not frame.is_corrupt)
            if packet is None:
                return


class _Converter:
    """Decoded frame -> RGB pixels of the wanted size, upright."""

    def __init__(self, size: int, squash: bool):
        self.size = size
        self.squash = squash
        self.scaler = VideoReformatter()

    def __call__(self, look: Look) -> np.ndarray:
        frame = look.picture
        if self.squash:
            width = height = self.size
        else:
            sides = frame.width * look.aspect, frame.height
            width, height = (max(1, round(side * self.size / min(sides))) for side in sides)
        return upright(rgb(frame, width, height, self.scaler), frame)
