"""What a video file is: container, codec, size as displayed, rate, length."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Opened by these demuxers only. Missing on purpose: everything that can name another file or host from its inside
# (hls, dash, concat, imf, sdp, image sequences), so that a hostile playlist reads nothing.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,asf,h264,hevc,vvc,obu,ivf,m4v,mjpeg,ogg,gif,"
    "apng,rm,nut,dv,mxf,gxf,wtv,yuv4mpegpipe,vc1,nsv,swf,mp3,wav,flac,aac,aiff,ac3,eac3,amr,caf,w64,ape,tta,wv"
)
SEEKABLE = {"mov", "matroska"}  # an index of exact times; elsewhere a seek lands anywhere, in MPEG-TS 128 frames off
PROMISING = {"mov", "matroska", "avi"}  # the length stands in the header; elsewhere FFmpeg guesses it
OPEN_LIMIT = 60.0  # seconds of reading before FFmpeg gives up on a file system that does not answer


class VideoError(Exception):
    """A file that gives no frames. `code` is for programs, `reason` for people.

    empty, not-a-file, missing, unreadable   the file itself
    not-a-video, no-video-stream, no-decoder, no-frames   what is in it
    timeout, crashed   what decoding it did (only `worker.Decoder` can tell)
    """

    def __init__(self, code: str, reason: str):
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Probe:
    """A video file as its headers and its first frame tell."""

    container: str
    codec: str
    width: int  # pixels as displayed: after rotation, with square pixels
    height: int
    rotation: int  # degrees clockwise that a player turns the stored picture by: 0, 90, 180 or 270
    rate: float | None  # frames a second, on average
    duration: float | None  # seconds of the video stream; None where nothing tells
    seekable: bool  # False: read from the start (MPEG-TS, raw streams, AVI, ...)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a player must know to play a file: FFmpeg's names, "" where there is none.

    container   "mp4", "mov", "webm", "matroska", "mpegts", "avi", ...
    pixels      format of the stored pixels, as "yuv420p"
    audio       codecs of all audio streams, in order, with commas
    """

    container: str
    video: str
    pixels: str
    audio: str


def probe(path: str | os.PathLike[str]) -> Probe:
    """Look at a file; VideoError says what is wrong with it. Decodes one frame: only that knows the rotation."""
    with opened(path) as (container, stream):
        frame = first_frame(container, stream, path)
        width, height = shown_size(frame, stream)
        return Probe(
            container=container.format.name,
            codec=stream.codec_context.name,
            width=width,
            height=height,
            rotation=turn(frame)[0] * 90,
            rate=frame_rate(stream),
            duration=duration(container, stream),
            seekable=seekable(container),
        )


def kind(container: InputContainer, stream: VideoStream) -> Kind:
    """What `container` is, from its headers."""
    sound = ",".join(str(s.codec_context.name) if s.codec_context else "unknown" for s in container.streams.audio)
    return Kind(_format(container), stream.codec_context.name, stream.codec_context.pix_fmt or "", sound)


def kind_task(source: str) -> tuple[dict[str, str], bytes]:
    """In the sandbox: what a file is."""
    with opened(source) as (container, stream):
        return asdict(kind(container, stream)), b""


def _format(container: InputContainer) -> str:
    """One name for the container; FFmpeg has one demuxer for mp4 and mov, and one for WebM and Matroska."""
    name = family(container)
    if name == "mov":
        # files without a brand are older than mp4
        return "mov" if container.metadata.get("major_brand", "qt").strip() == "qt" else "mp4"
    if name == "matroska":
        with open(container.name.removeprefix("file:"), "rb") as file:
            head = file.read(64)
        webm = b"\x42\x82\x84webm"  # the document's type, in its first element
        return "webm" if webm in head else "matroska"
    return name


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream. Local regular files only: no device, FIFO, folder, or address is ever opened."""
    container = _open(Path(path))
    try:
        yield container, video_stream(container, path)
    finally:
        container.close()


def _open(path: Path) -> InputContainer:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise VideoError("missing", f"{path} does not exist; was it moved?") from None
    except OSError as error:
        raise VideoError("unreadable", f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):  # before opening: opening a FIFO waits for a writer
        raise VideoError("not-a-file", f"{path} is not a regular file; give a video file")
    if info.st_size == 0:
        raise VideoError("empty", f"{path} is empty; copy it again")
    try:
        container = av.open(
            "file:" + os.path.abspath(path),  # a file may be called "http:..."; it stays a file
            options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",
            timeout=OPEN_LIMIT,
        )
    except PermissionError:
        raise VideoError("unreadable", f"{path} may not be read; check its permissions") from None
    except (FFmpegError, ValueError, OSError) as error:
        raise VideoError("not-a-video", f"{path} is no video that FFmpeg can read ({_told(error)})") from None
    return cast(InputContainer, container)


def video_stream(container: InputContainer, path: str | os.PathLike[str]) -> VideoStream:
    """The default video stream, else the first. A cover picture in a music file is no video."""
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise VideoError("no-video-stream", f"{path} has no video stream, only {_kinds(container)}")
    decodable = [stream for stream in films if stream.codec_context is not None]
    if not decodable:
        raise VideoError("no-decoder", f"{path} is in a codec that this FFmpeg cannot decode; convert it first")
    default = [s for s in decodable if s.disposition & Disposition.default]
    return (default or decodable)[0]


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def first_frame(container: InputContainer, stream: VideoStream, path: str | os.PathLike[str]) -> VideoFrame:
    """The first frame that decodes."""
    failed: Exception | None = None
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    return frame
            except FFmpegError as error:
                failed = error
    except FFmpegError as error:
        failed = error
    told = f" ({_told(failed)})" if failed else ""
    raise VideoError("no-frames", f"{path} has a video stream but not one frame that decodes{told}")


def family(container: InputContainer) -> str:
    """The first of the container's names: "mov" for mp4, "matroska" for webm."""
    return container.format.name.split(",")[0]


def seekable(container: InputContainer) -> bool:
    return family(container) in SEEKABLE


def frame_rate(stream: VideoStream) -> float | None:
    """Frames a second on average; for the lengths of last frames and for missing time stamps only."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0.001 < rate < 1000:  # a raw stream may claim 90000
            return float(rate)
    return None


def start_time(container: InputContainer) -> float:
    """Second zero of a player's clock, on the container's clock."""
    return (container.start_time or 0) / av.time_base


def duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds from the player's zero to the end of the video stream; else the container's length; else None."""
    end = stream_end(container, stream)
    if end is not None:
        return end
    return None if container.duration is None else container.duration / av.time_base


def stream_end(container: InputContainer, stream: VideoStream) -> float | None:
    """Where the video stream itself ends, if its header tells."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - start_time(container)
    told = stream.metadata.get("DURATION")  # Matroska keeps a stream's own length as text, 00:01:02.500000000
    if told:
        try:
            hours, minutes, seconds = told.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start_time(container)
        except ValueError:
            return None
    return None


def shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height in pixels as a player shows the frame: square pixels, turned."""
    width = max(1, round(frame.width * pixel_aspect(stream)))
    return (frame.height, width) if turn(frame)[0] % 2 else (width, frame.height)


def pixel_aspect(stream: VideoStream) -> float:
    """Width of a stored pixel over its height; 1 where nothing tells."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect and 0.1 < aspect < 10 else 1.0


def turn(frame: VideoFrame) -> tuple[int, bool]:
    """How to show a frame: quarter turns clockwise, after mirroring left to right if True.

    The display matrix maps the stored x, y to a x + c y, b x + d y (y down), up to a shift; it is rounded to the
    nearest of the eight ways to lay a picture on a table.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 cannot list side data with a photograph's EXIF in it; it tells the turn, not a mirror
        return round(-frame.rotation / 90) % 4, False
    if matrix is None:
        return 0, False
    numbers = memoryview(bytes(matrix)).cast("i")
    a, b, c, d = (numbers[index] / 65536 for index in (0, 1, 3, 4))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), mirrored
    return (1 if b > 0 else 3), mirrored
