"""Makes a moment of any video into an mp4 that every browser plays."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from rushes.video import sample
from rushes.video.decode import looks
from rushes.video.picture import ROUNDED, outside
from rushes.video.probe import opened, seekable, start_time, turn
from rushes.video.sandbox import Limits, run
from rushes.video.shots import End, Look

LONGEST = 60.0  # seconds; for more, play the file itself
LARGEST = 1280  # pixels, width and height at most
FASTEST = 30.0  # frames a second at most
TICKS = 90000  # a second: fine enough for every frame rate there is
RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # of AAC that browsers play
SIMPLE = {"g": "60", "bf": "0"}  # without B-frames, times need no edit list, and the last frame's length is its own
GAP = 0.02  # seconds that the sound may be off before silence is put in, or something cut out
LIMITS = Limits(seconds=240.0, cpu_seconds=480, memory_bytes=3 << 30, written_bytes=512 << 20)
NAME = "clip.mp4"


def clip(file: BinaryIO, start: float, end: float, folder: Path, limits: Limits = LIMITS) -> Path:
    """The seconds from `start` to `end` as an mp4 in `folder`: H.264 in yuv420p, AAC if there is sound, its index in
    front, from second 0 on. It begins with the frame shown at `start`, upright, with square pixels, at most LARGEST
    pixels wide and high and FASTEST frames a second; it ends with the video if that is earlier. Runs in the sandbox.

    ValueError for an empty or too long moment, or one outside the video; VideoError for a file that does not give it.
    """
    check(start, end)
    target = folder / NAME
    arguments = {"start": start, "end": end, "target": str(target)}
    run("rushes.video.clip:clip_task", arguments, source=file, folder=folder, limits=limits)
    return target


def check(start: float, end: float) -> None:
    """ValueError for what no clip can be."""
    if not (math.isfinite(start) and math.isfinite(end)) or start < 0 or end <= start:
        raise ValueError(f"there is no moment from {start} s to {end} s; give a start from 0 on and an end after it")
    if end - start > LONGEST + 1e-6:
        raise ValueError(f"a clip of {end - start:g} s; ask for at most {LONGEST:g} s, or play the video itself")


def clip_task(source: str, start: float, end: float, target: str) -> tuple[dict[str, Any], bytes]:
    """In the sandbox: `clip`."""
    passing = looks(source, sample.policy("thorough"), start, 2, quick=True)
    head: list[Look | End] = []
    for event in passing:
        if isinstance(event, Look | End):
            head.append(event)
            if isinstance(event, End) or len(head) == 2:
                break
    if not head or not isinstance(head[0], Look) or (isinstance(head[1], End) and start >= head[1].time):
        last = head[-1].time if head and isinstance(head[-1], End) else 0.0
        raise ValueError(outside(start, last))
    options = {"movflags": "+faststart"}
    with (
        av.open(target, "w", format="mp4", options=options) as output,
        opened(source) as (sound, _),
        closing(passing),
    ):
        picture = _Picture(output, head[0], start, end)
        streams = [picture.packets(chain(head, passing))]
        heard = _heard(sound)
        if heard is not None:
            streams.append(_Sound(output, sound, heard, start, end).packets())
        for _, _, packet in heapq.merge(*streams, key=lambda item: item[:2]):
            output.mux(packet)
    return {"seconds": picture.seconds, "frames": picture.count, "sound": heard is not None}, b""


class _Picture:
    """The frames of a moment, encoded."""

    def __init__(self, output: OutputContainer, first: Look, start: float, end: float):
        self.start, self.end = start, end
        self.seconds, self.count = 0.0, 0
        self.lengths: dict[int | None, int] = {}  # in ticks, by time stamp
        self.scaler = VideoReformatter()
        self.quarters, self.mirrored = turn(first.picture)
        width, height = max(1.0, first.picture.width * first.aspect), float(first.picture.height)
        scale = min(1.0, LARGEST / width, LARGEST / height)
        self.width, self.height = (max(16, 2 * round(side * scale / 2)) for side in (width, height))
        stream = output.add_stream("libx264", rate=Fraction(30), options={"preset": "veryfast", "crf": "23", **SIMPLE})
        assert isinstance(stream, VideoStream)
        turned = self.quarters % 2 == 1
        stream.width, stream.height = (self.height, self.width) if turned else (self.width, self.height)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709, and limited range
        context.color_range = 1
        context.thread_count = 2
        self.stream = stream

    def packets(self, events: Iterator[Any]) -> Iterator[tuple[float, int, Packet]]:
        for look, until in self.kept(events):
            frame = self.frame(look)
            begin = max(0.0, look.time - self.start)
            frame.time_base = Fraction(1, TICKS)
            frame.pts = round(begin * TICKS)
            self.lengths[frame.pts] = max(1, round((until - self.start) * TICKS) - frame.pts)
            self.count += 1
            self.seconds = until - self.start
            yield from self.timed(self.stream.encode(frame))
        yield from self.timed(self.stream.encode(None))

    def timed(self, packets: list[Packet]) -> Iterator[tuple[float, int, Packet]]:
        for packet in packets:
            packet.duration = self.lengths.pop(packet.pts, 1)  # the encoder does not say how long the last one stays
            yield _timed(packet, 0)

    def kept(self, events: Iterator[Any]) -> Iterator[tuple[Look, float]]:
        """The frames that are shown, each with the second until which it is."""
        held: Look | None = None
        until = self.end
        for event in events:
            if isinstance(event, End):
                until = min(until, max(event.time, self.start + 1 / FASTEST))
                break
            if not isinstance(event, Look):
                continue
            if held is None or event.time <= self.start + ROUNDED:
                held = event
            elif event.time >= self.end - ROUNDED:
                break
            elif event.time - held.time >= 1 / FASTEST - 0.004:
                yield held, event.time
                held = event
        if held is not None:
            yield held, until

    def frame(self, look: Look) -> VideoFrame:
        stored = look.picture
        untagged = stored.colorspace == 2 and stored.height >= 720
        small = self.scaler.reformat(
            stored,
            width=self.width,
            height=self.height,
            format="yuv420p",
            interpolation="BICUBIC",
            src_colorspace=Colorspace.ITU709 if untagged else None,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        pixels = small.to_ndarray()
        if self.quarters or self.mirrored:
            pixels = self.upright(pixels)
        return VideoFrame.from_ndarray(pixels, format="yuv420p")  # without what was said of the stored one

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        width, height = self.width, self.height
        planes = [pixels[:height]]
        planes += [plane.reshape(height // 2, width // 2) for plane in np.split(pixels[height:].reshape(-1), 2)]
        turned = [np.rot90(plane[:, ::-1] if self.mirrored else plane, -self.quarters) for plane in planes]
        wide = turned[0].shape[1]
        return np.concatenate([plane.reshape(-1) for plane in turned]).reshape(-1, wide)


def _heard(container: InputContainer) -> AudioStream | None:
    """The audio stream that a player plays; None where there is none that can be decoded."""
    able = [stream for stream in container.streams.audio if stream.codec_context is not None]
    default = [stream for stream in able if stream.disposition & Disposition.default]
    return next(iter(default or able), None)


class _Sound:
    """The sound of a moment, sample by sample on the video's clock, encoded."""

    def __init__(
        self, output: OutputContainer, container: InputContainer, source: AudioStream, start: float, end: float
    ):
        self.container, self.source = container, source
        self.start, self.length = start, end - start
        rate = source.rate or RATES[0]
        self.rate = rate if rate in RATES else RATES[0]
        self.layout = "mono" if source.channels == 1 else "stereo"
        stream = output.add_stream("aac", rate=self.rate, layout=self.layout)
        assert isinstance(stream, AudioStream)
        stream.bit_rate = 128_000
        self.stream = stream

    def packets(self) -> Iterator[tuple[float, int, Packet]]:
        for position, samples in self.blocks():
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
            frame.sample_rate, frame.pts, frame.time_base = self.rate, position, Fraction(1, self.rate)
            yield from (_timed(packet, 1) for packet in self.stream.encode(frame))
        yield from (_timed(packet, 1) for packet in self.stream.encode(None))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Samples without a gap from the start to the end, or to where the sound ends."""
        done, whole = 0, round(self.length * self.rate)
        for second, samples in self.decoded():
            at = round((second - self.start) * self.rate)
            if not done or abs(at - done) > GAP * self.rate:
                if at > done:
                    silence = np.zeros((len(samples), min(at, whole) - done), np.float32)
                    yield done, silence
                    done += silence.shape[1]
                samples = samples[:, max(0, done - at) :]
            samples = samples[:, : whole - done]
            if samples.shape[1]:
                yield done, samples
                done += samples.shape[1]
            if done >= whole:
                return

    def decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        """Seconds on the video's clock, and samples [channel sample], from just before the start on."""
        zero = start_time(self.container)
        if seekable(self.container) and self.start > 1:
            try:
                self.container.seek(int((self.start - 1 + zero) * av.time_base))
            except FFmpegError:
                self.container.seek(0)
        base = float(self.source.time_base or 0)
        resampler: AudioResampler | None = None
        packets = self.container.demux(self.source)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, FFmpegError):  # the picture tells of damage; the sound just ends
                return
            if packet.pts is not None and packet.pts * base - zero < self.start - 1:
                continue
            if packet.pts is not None and packet.pts * base - zero > self.start + self.length + 1:
                return
            try:
                frames = packet.decode()
            except (FFmpegError, EOFError):
                continue
            for frame in frames:
                if frame.pts is None or frame.time_base is None:
                    continue
                second = float(frame.pts * frame.time_base) - zero
                try:
                    resampler = resampler or self.resampler()
                    pieces = resampler.resample(frame)
                except ValueError:  # the stream has changed its rate or channels
                    resampler = self.resampler()
                    pieces = resampler.resample(frame)
                for piece in pieces:
                    yield second, piece.to_ndarray()
                    second += piece.samples / self.rate

    def resampler(self) -> AudioResampler:
        return AudioResampler(format="fltp", layout=self.layout, rate=self.rate)


def _timed(packet: Packet, kind: int) -> tuple[float, int, Packet]:
    stamp = packet.dts if packet.dts is not None else packet.pts or 0
    return float(stamp * (packet.time_base or 0)), kind, packet
