"""Says what an uploaded file is, or why it is refused, before anything else reads it."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from rushes.video.probe import VideoError, duration, first_frame, shown_size, video_stream
from rushes.video.sandbox import Limits, run

LIMITS = Limits(seconds=20.0, cpu_seconds=20, memory_bytes=2 << 30)
HEAD_BYTES = 4096
THINNEST = 40  # times that one side may be longer than the other

# What the first bytes of each format are, and the one FFmpeg demuxer that may then read it: nothing is probed, so no
# playlist, no script, and no format that names other files is ever reached, whatever the file calls itself.
IMAGES = {
    "png": "png_pipe",
    "jpeg": "jpeg_pipe",
    "gif": "gif",
    "webp": "webp_pipe",
    "bmp": "bmp_pipe",
    "avif": "mov",
    "heic": "mov",
}
VIDEOS = {
    "mp4": "mov",
    "mov": "mov",
    "webm": "matroska",
    "matroska": "matroska",
    "avi": "avi",
    "flv": "flv",
    "ogg": "ogg",
    "mpegts": "mpegts",
    "mpeg": "mpeg",
    "asf": "asf",
}
NAMES = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}  # of demuxers that have several
BRANDS = {
    b"avif": "avif",
    b"avis": "avif",
    b"heic": "heic",
    b"heix": "heic",
    b"heim": "heic",
    b"mif1": "heic",
    b"msf1": "heic",
    b"qt  ": "mov",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How large an upload may be: `pixels` of one picture, `seconds` and `streams` of a video, bytes of the file."""

    pixels: int = 50_000_000  # 8K is 33 million
    seconds: float = 600.0
    streams: int = 16
    size_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Inspection:
    """An upload that decodes: size in pixels as displayed; `seconds` of a video, None for an image."""

    kind: Literal["image", "video"]
    format: str
    width: int
    height: int
    seconds: float | None


def inspected(path: str | os.PathLike[str], caps: Caps | None = None, limits: Limits = LIMITS) -> Inspection:
    """Look at an uploaded file: its first bytes, then, in the sandbox, its headers and its first picture.

    Animated pictures count as images, by their first picture. VideoError otherwise, with one of these codes:

    missing, not-a-file, empty      the path
    too-many-bytes                  the file, by its size alone
    unsupported                     no format, or no codec, of those that Rushes takes as an upload
    unreadable                      it begins like one, but nothing decodes
    too-many-pixels, too-thin       the picture, as its header or its first frame tells
    too-long, too-many-streams      the video, as its header tells; it may lie: what decodes it all has limits too
    timeout, crashed                the decoder took too long, or died, or needed too much memory
    """
    caps = caps or Caps()
    with _regular(Path(path)) as file:
        size = os.fstat(file.fileno()).st_size
        name = Path(path).name
        if size == 0:
            raise VideoError("empty", f"{name} is empty; send it again")
        if size > caps.size_bytes:
            raise VideoError("too-many-bytes", f"{name} has {size} bytes; at most {caps.size_bytes} are taken")
        head = file.read(HEAD_BYTES)
        format = named(head)
        if format is None:
            images, videos = ", ".join(IMAGES), ", ".join(VIDEOS)
            raise VideoError("unsupported", f"{name} is none of the formats taken: {images}; {videos}")
        if format == "webp" and head[12:16] == b"VP8X" and head[20] & 2:
            raise VideoError("unsupported", f"{name} is an animated WebP, which FFmpeg does not decode; send a still")
        _fits(*claimed(format, file), caps.pixels)
        arguments = {"format": format, "pixels": caps.pixels, "seconds": caps.seconds, "streams": caps.streams}
        try:
            facts, _ = run("rushes.video.inspect:task", arguments, source=file, limits=limits)
        except VideoError as error:  # where uploads lie is nobody's business
            raise VideoError(error.code, error.reason.replace(os.path.abspath(path), name)) from None
        except (ValueError, LookupError, TypeError) as error:  # of the decoder: here nothing is the caller's mistake
            raise VideoError("unreadable", f"{name}: {error}") from None
    try:
        width, height = int(facts["width"]), int(facts["height"])
        seconds = None if facts["seconds"] is None else float(facts["seconds"])
    except (KeyError, TypeError, ValueError):
        raise VideoError("crashed", f"{name} made the decoder talk nonsense") from None
    return Inspection("image" if format in IMAGES else "video", format, width, height, seconds)


def named(head: bytes) -> str | None:
    """The format that a file's first bytes are of; None for any that is not taken.

    >>> named(b"\\x89PNG\\r\\n\\x1a\\n"), named(b"#EXTM3U\\nfile:///etc/passwd"), named(b"<svg/>")
    ('png', None, None)
    """
    starts = {
        b"\x89PNG\r\n\x1a\n": "png",
        b"\xff\xd8\xff": "jpeg",
        b"GIF87a": "gif",
        b"GIF89a": "gif",
        b"BM": "bmp",
        b"FLV\x01": "flv",
        b"OggS\x00": "ogg",
        b"\x00\x00\x01\xba": "mpeg",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c": "asf",
    }
    for start, format in starts.items():
        if head.startswith(start):
            return format
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "avi"}.get(head[8:12])
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "webm" if b"\x42\x82\x84webm" in head[:64] else "matroska"
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "mp4")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    for start, step in ((0, 188), (4, 192)):
        if len(head) > start + 4 * step and all(head[start + step * number] == 0x47 for number in range(5)):
            return "mpegts"
    return None


def claimed(format: str, file: BinaryIO) -> tuple[int, int]:
    """Width and height as the header of an image says, before any decoder reads it; 0, 0 where it does not say them in
    a place known here, and for videos. The file is read from its start."""
    file.seek(0)
    head = file.read(64)
    try:
        if format == "png":
            return struct.unpack_from(">II", head, 16)
        if format == "gif":
            return struct.unpack_from("<HH", head, 6)
        if format == "bmp":
            width, height = struct.unpack_from("<ii", head, 18)
            return abs(width), abs(height)  # stored upside down if negative
        if format == "webp":
            kind = head[12:16]
            if kind == b"VP8X":
                return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
            if kind == b"VP8L":
                bits = int.from_bytes(head[21:25], "little")
                return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        if format == "jpeg":
            return _jpeg_size(file)
    except struct.error:
        pass
    return 0, 0


def _jpeg_size(file: BinaryIO) -> tuple[int, int]:
    place = 2
    for _ in range(256):  # markers; pictures have some ten
        file.seek(place)
        mark, kind, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            _, height, width = struct.unpack(">BHH", file.read(5))
            return width, height
        place += 2 + length
    return 0, 0


def task(source: str, format: str, pixels: int, seconds: float, streams: int) -> tuple[dict[str, Any], bytes]:
    """In the sandbox: `inspected`."""
    image = format in IMAGES
    ceiling = str(2 * pixels + (1 << 20))  # the decoder's own check comes first, of a size rounded up for its buffers
    demuxer = IMAGES.get(format) or VIDEOS[format]
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": NAMES.get(demuxer, demuxer),
        "max_pixels": ceiling,
        "max_streams": str(streams + 1),
    }
    try:
        container = av.open("file:" + source, format=demuxer, options=options, metadata_errors="replace")
    except (FFmpegError, ValueError, OSError) as error:
        raise VideoError("unreadable", f"it begins as {format}, but is none ({_told(error)})") from None
    with container:
        assert isinstance(container, InputContainer)
        if len(container.streams) > streams:
            raise VideoError("too-many-streams", f"it has more than {streams} streams")
        try:
            stream = video_stream(container, source)
        except VideoError as error:
            raise VideoError("unsupported", error.reason) from None
        length = duration(container, stream)
        _fits(stream.codec_context.width, stream.codec_context.height, pixels)
        if not image and length is not None and length > seconds:
            raise VideoError("too-long", f"it is {length:.0f} s long; at most {seconds:g} s are taken")
        stream.codec_context.options = {"max_pixels": ceiling}
        stream.codec_context.thread_count = 1
        width, height = _first(container, stream, source, pixels)
    return {"width": width, "height": height, "seconds": None if image else length or 0.0}, b""


def _first(container: InputContainer, stream: VideoStream, source: str, pixels: int) -> tuple[int, int]:
    try:
        frame = first_frame(container, stream, source)
    except VideoError as error:
        raise VideoError("unreadable", error.reason) from None
    _fits(frame.width, frame.height, pixels)
    return shown_size(frame, stream)


def _fits(width: int, height: int, pixels: int) -> None:
    if width * height > pixels:
        raise VideoError("too-many-pixels", f"it is {width} x {height} pixels; at most {pixels} in all are taken")
    if width and height and max(width, height) > THINNEST * min(width, height):
        raise VideoError("too-thin", f"it is {width} x {height} pixels; one side may be {THINNEST} times the other")


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _regular(path: Path) -> BinaryIO:
    """The file, opened without waiting for anybody and without following a link."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise VideoError("missing", f"{path.name} does not exist") from None
    except OSError as error:
        raise VideoError("not-a-file", f"{path.name} cannot be opened as a file: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VideoError("not-a-file", f"{path.name} is not a regular file")
    return open(path, "rb", opener=lambda _path, _flags: descriptor)
