"""What a library shows of its videos: thumbnails, frames, clips, and the files themselves."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from filelock import FileLock

from rushes.index.records import Records
from rushes.index.store import Store
from rushes.library.confined import confined
from rushes.library.rows import FileRow, KindRow, ThumbnailRow
from rushes.library.scan import identity
from rushes.types import Segment
from rushes.video import clip as clips
from rushes.video import picture
from rushes.video.probe import Kind, VideoError
from rushes.video.sandbox import Limits, run

FRAME_BYTES = 32 << 20  # of single frames in memory
CLIP_BYTES = 2 << 30  # of clips on disk
FRESH = 60.0  # seconds after its last use in which no clip is removed: its path may be out, and not yet opened
STALE = 3600.0  # seconds after which half a clip is nobody's any more
THUMBNAIL_BYTES = 1 << 20  # the largest that a decoder may give
NAME = re.compile(r"[0-9a-f]{32}\.webp")

Value = TypeVar("Value")


class Media:
    """The pictures, clips and files of one library, by a segment's or a content's id.

    All decoding runs in the sandbox, of files that `opened` has opened, a few at a time. Unknown ids raise LookupError;
    a content whose files are gone or have changed raises FileNotFoundError; VideoError says why a file gives nothing.
    """

    def __init__(self, folder: Path, tables: Store, segment: Callable[[str], Segment], frame_bytes: int = FRAME_BYTES):
        assert tables.folder is not None
        self.folder, self.place = folder, tables.folder
        self.segment = segment
        self._files = Records(tables, "files", FileRow, key="path")
        self._kinds = Records(tables, "kinds", KindRow, key="fingerprint")
        self._thumbnails = Records(tables, "thumbnails", ThumbnailRow, key="segment")
        self._copies: _Seen[dict[str, list[FileRow]]] = _Seen()
        self._frames = _Recent(frame_bytes)
        self._same: dict[tuple[int, int, int, int], str] = {}  # what a file with a new date was found to hold
        self._workers = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))

    # ------------------------------------------------------------------ thumbnails

    def keep(self, segments: Sequence[Segment], thumbnails: Sequence[bytes | None]) -> None:
        """Store thumbnails. Before their segments: a kill then leaves pictures that nobody asks for, never the other
        way round; and files before the rows that name them."""
        rows = []
        for segment, thumbnail in zip(segments, thumbnails, strict=True):
            if thumbnail is not None and _is_webp(thumbnail):
                rows.append(ThumbnailRow(segment.id, segment.video, self._write(thumbnail)))
        self._thumbnails.put(*rows)

    def thumbnail(self, segment: str) -> bytes | None:
        """A WebP that shows the segment; made and kept now, if it was indexed before there were thumbnails. None where
        its video gives none any more. Raises LookupError for an unknown segment."""
        row = self._thumbnails.get(segment)
        if row is not None and (found := self.named(row.name)) is not None:
            return found
        about = self.segment(segment)
        try:
            with self._work(about.video) as file:
                made = picture.telling_frame(file, about.start, about.end)
        except (VideoError, OSError, ValueError):
            return None
        if not _is_webp(made):
            return None
        self.keep([about], [made])
        return made

    def thumbnail_names(self, segments: Collection[str]) -> dict[str, str]:
        """The files of the thumbnails that there are, by segment, as "<hex>.webp"; one look for all of them."""
        return {row.segment: row.name for row in self._thumbnails.some(segments)}

    def named(self, name: str) -> bytes | None:
        """A thumbnail by the name of its file; None if there is none. What a name gives never changes."""
        if not NAME.fullmatch(name):
            return None
        try:
            found = self._thumbnail_path(name).read_bytes()
        except FileNotFoundError:
            return None
        return found if _hex(found) == name.removesuffix(".webp") else None  # half written when the power went

    def drop(self, contents: Collection[str]) -> None:
        """Forget these contents and their clips, and remove every thumbnail that no segment needs any more."""
        gone = set(contents)
        rows = self._thumbnails.all()
        self._thumbnails.delete([row.segment for row in rows if row.fingerprint in gone])
        self._kinds.delete(gone)
        needed = {row.name for row in rows if row.fingerprint not in gone}
        now = time.time()
        for path in (self.place / "thumbnails").glob("??/*"):
            if path.name not in needed and not (path.name.startswith(".") and now - path.stat().st_mtime < STALE):
                path.unlink(missing_ok=True)
        for path in (self.place / "clips").glob("*.mp4"):
            if path.name.partition("-")[0] in gone:
                path.unlink(missing_ok=True)

    def _write(self, thumbnail: bytes) -> str:
        name = f"{_hex(thumbnail)}.webp"
        path = self._thumbnail_path(name)
        if not path.exists() or path.stat().st_size != len(thumbnail):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
            part.write_bytes(thumbnail)
            part.replace(path)
        return name

    def _thumbnail_path(self, name: str) -> Path:
        return self.place / "thumbnails" / name[:2] / name

    # ------------------------------------------------------------------ frames and clips

    def frame(self, video: str, second: float, width: int | None = None) -> bytes:
        """The frame shown at `second` as JPEG, see `picture.frame`. The latest are kept in memory."""
        key = (video, second, width)
        found = self._frames.get(key)
        if found is None:
            with self._work(video) as file:
                found = picture.frame(file, second, width)
            self._frames.put(key, found)
        return found

    def clip(self, video: str, start: float, end: float, cache_bytes: int = CLIP_BYTES) -> Path:
        """An mp4 of the moment, see `clip.clip`: made once, then kept while the clips of the library take at most
        `cache_bytes`; those that were not asked for longest go first."""
        self._rows(video)  # the id is one of ours
        clips.check(start, end)
        place = self.place / "clips"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{video}-{round(start * 1000)}-{round(end * 1000)}.mp4"
        # who asks for a clip that is being made waits for it
        with FileLock(place / f".lock-{_hex(path.name.encode())[:2]}"):
            if path.exists():
                os.utime(path)
                return path
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=place))
            try:
                with self._work(video) as file:
                    made = clips.clip(file, start, end, part)
                made.replace(path)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        self._trim(place, cache_bytes, path)
        return path

    def _trim(self, place: Path, cache_bytes: int, latest: Path) -> None:
        now = time.time()
        found = []
        for path in place.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process trims too
                about = path.stat()
                if path.suffix == ".mp4":
                    found.append((about.st_mtime, about.st_size, path))
                elif path.name.startswith(".part-") and now - about.st_mtime > STALE:
                    shutil.rmtree(path, ignore_errors=True)  # of a process that was killed
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if total <= cache_bytes or now - used < FRESH:
                return
            if path != latest:
                path.unlink(missing_ok=True)
                total -= size

    # ------------------------------------------------------------------ the files themselves

    def note(self, kinds: Mapping[str, Kind]) -> None:
        """Keep what containers and codecs contents have."""
        self._kinds.put(*(KindRow(video, *astuple(kind)) for video, kind in kinds.items()))

    def kind(self, video: str) -> Kind:
        """Container and codecs; looked up in the file and kept, if indexing has not done so."""
        row = self._kinds.get(video)
        if row is None:
            with self._work(video) as file:
                facts, _ = run("rushes.video.probe:kind_task", {}, source=file, limits=Limits(memory_bytes=1 << 30))
            row = KindRow(video, **facts)
            self._kinds.put(row)
        return Kind(row.container, row.video, row.pixels, row.audio)

    def kinds(self, videos: Collection[str]) -> dict[str, Kind]:
        """What is kept of the kinds of some contents, with one look; those that were never looked up lack."""
        rows = self._kinds.some(videos)
        return {row.fingerprint: Kind(row.container, row.video, row.pixels, row.audio) for row in rows}

    def opened(self, video: str) -> BinaryIO:
        """The content's file, open for reading: the first of its copies that still is what was indexed.

        A file whose size has changed is not that content, and is not given under its id; nor is one whose date has
        changed, unless its fingerprint is still the same. Opened as `confined` says: never outside the folder.
        FileNotFoundError where no copy is left as it was, PermissionError where all that are left may not be opened.
        """
        rows = self._rows(video)
        refused: Exception | None = None
        for row in rows:
            try:
                file = confined(self.folder, row.path)
            except FileNotFoundError:
                continue
            except PermissionError as error:
                refused = error
                continue
            if self._unchanged(file, row):
                return file
            file.close()
        if refused is not None:
            raise refused
        raise FileNotFoundError(f"{rows[0].path} is gone or was changed since it was indexed; run `rushes index` again")

    def _unchanged(self, file: BinaryIO, row: FileRow) -> bool:
        about = os.fstat(file.fileno())
        if about.st_size != row.size_bytes:
            return False
        if about.st_mtime_ns == row.changed_ns:
            return True
        key = (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)
        if key not in self._same:
            if len(self._same) > 10_000:
                self._same.clear()
            self._same[key] = identity(file)
            file.seek(0)
        return self._same[key] == row.fingerprint

    def _rows(self, video: str) -> list[FileRow]:
        """The files of a content, by path. Raises LookupError."""
        rows = self._copies.get(self._files.version(), self._all_copies).get(video)
        if not rows:
            raise LookupError(f"the library has no video {video!r}; ids come from its index")
        return rows

    def _all_copies(self) -> dict[str, list[FileRow]]:
        copies: dict[str, list[FileRow]] = {}
        for row in self._files.all():
            copies.setdefault(row.fingerprint, []).append(row)
        return copies

    @contextmanager
    def _work(self, video: str) -> Iterator[BinaryIO]:
        """The content's file, when it is our turn: as many processes at a time as there are processors. What is said
        of it names its path in the library, not where that lies."""
        with self.opened(video) as file, self._workers:
            try:
                yield file
            except VideoError as error:
                raise VideoError(error.code, error.reason.replace(f"{self.folder}/", "")) from None


# ---------------------------------------------------------------------- what browsers play

MP4_AUDIO, WEBM_AUDIO = {"aac", "mp3", "mp3float"}, {"opus", "vorbis"}
MP4_PIXELS, WEBM_PIXELS = {"yuv420p", "yuvj420p"}, {"yuv420p", "yuvj420p", "yuva420p"}
WEBM_VIDEO = {"vp8", "vp9", "av1", "libdav1d"}
TYPES = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "matroska": "video/x-matroska",
    "mpegts": "video/mp2t",
    "mpeg": "video/mpeg",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
    "asf": "video/x-ms-asf",
    "ogg": "video/ogg",
    "mxf": "application/mxf",
}


def playable(kind: Kind) -> bool:
    """Whether Chromium, Firefox and Safari all play such a file as it is: a careful no where one of them may not.

    >>> playable(Kind("mp4", "h264", "yuv420p", "aac")), playable(Kind("mp4", "hevc", "yuv420p", "aac"))
    (True, False)
    """
    sound = set(kind.audio.split(",")) - {""}
    if kind.container in ("mp4", "mov"):
        return kind.video == "h264" and kind.pixels in MP4_PIXELS and sound <= MP4_AUDIO
    return kind.container == "webm" and kind.video in WEBM_VIDEO and kind.pixels in WEBM_PIXELS and sound <= WEBM_AUDIO


def media_type(kind: Kind) -> str:
    """The media type to serve the file under. QuickTime that is playable goes as mp4, whose parent it is: browsers
    refuse it under its own name.

    >>> media_type(Kind("mov", "h264", "yuv420p", "aac")), media_type(Kind("mov", "prores", "yuv422p10le", ""))
    ('video/mp4', 'video/quicktime')
    """
    if kind.container == "mov" and playable(kind):
        return "video/mp4"
    return TYPES.get(kind.container, "application/octet-stream")


# ---------------------------------------------------------------------- small caches


class _Seen(Generic[Value]):
    """A value that holds until a version changes."""

    def __init__(self) -> None:
        self._held: tuple[int, Value] | None = None

    def get(self, version: int, make: Callable[[], Value]) -> Value:
        held = self._held
        if held is None or held[0] != version:
            self._held = held = (version, make())
        return held[1]


class _Recent:
    """The latest byte strings that were asked for, up to a number of bytes in all; safe among threads."""

    def __init__(self, most: int):
        self.most = most
        self.size = 0
        self._held: OrderedDict[tuple, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple) -> bytes | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: tuple, value: bytes) -> None:
        with self._lock:
            self.size += len(value) - len(self._held.pop(key, b""))
            self._held[key] = value
            while self.size > self.most:
                self.size -= len(self._held.popitem(last=False)[1])


def _hex(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _is_webp(data: bytes) -> bool:
    """What a decoder that a hostile file has taken over says, is served as a picture or not at all."""
    return len(data) <= THUMBNAIL_BYTES and data[:4] == b"RIFF" and data[8:12] == b"WEBP"
