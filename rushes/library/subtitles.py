"""Keeps the subtitle lines of a library up to date: files beside the videos, and streams inside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

from rushes.index.cues import Cues
from rushes.index.records import Records
from rushes.index.store import Store
from rushes.library.rows import Failure
from rushes.types import Cue
from rushes.video import sandbox
from rushes.video.lines import MOST_LINES, SHOWN, Line, plain, understood
from rushes.video.probe import VideoError

ENDINGS = (".srt", ".vtt", ".ass", ".ssa")
LARGEST_BYTES = 16 << 20  # of a subtitle file: a film's is 100 kB
AT_ONCE = 64  # sources in one commit
LIMITS = sandbox.Limits(seconds=300.0, cpu_seconds=120)  # Matroska is read from end to end for its lines
TAG = re.compile(
    r"[A-Za-z0-9_-]{1,16}"
)  # "en", "pt-BR", "forced": what may stand between a video's name and the ending


@dataclass(frozen=True)
class SourceRow:
    """Where lines came from: a file beside a video (`path`, relative to the folder), or inside a content (path "").

    `code` and `reason` say why there are none; both are empty where it went well, with lines or without.
    """

    id: str
    video: str
    path: str
    size_bytes: int
    changed_ns: int
    lines: int
    code: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A subtitle file as the folder shows it."""

    path: str
    size_bytes: int
    changed_ns: int


class SubtitleError(Exception):
    """A subtitle file without a line that can be read. `code` is for programs, `reason` for people.

    subtitles-unreadable, subtitles-too-large   the file itself
    subtitles-malformed   what is in it
    """

    def __init__(self, code: str, reason: str):
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Subtitles:
    """The lines of a library's videos, by content, and where each came from."""

    def __init__(self, folder: Path, store: Store):
        self.folder = folder
        self.cues = Cues(store)
        self._sources = Records(store, "subtitles", SourceRow, key="id")

    def beside(self, contents: Mapping[str, Sequence[str]], retry_failed: bool = False) -> int:
        """Read the subtitle files beside the videos that are new or changed, by size and time; forget what is gone.

        `contents` are all contents with all their paths. Returns how many files were read. A file that cannot be read
        is remembered as a failure until it changes, or `retry_failed`. The rows of a file are replaced in one commit,
        before it is noted as read, so a kill costs one more look.
        """
        known = {row.id: row for row in self._sources.all()}
        found = {
            _name(video, sidecar.path): (video, sidecar)
            for video, paths in contents.items()
            for sidecar in sidecars(self.folder, paths)
        }
        self._forget([row for row in known.values() if row.id not in found and (row.path or row.video not in contents)])
        todo = []
        for name, (video, sidecar) in found.items():
            row = known.get(name)
            same = row is not None and (row.size_bytes, row.changed_ns) == (sidecar.size_bytes, sidecar.changed_ns)
            if not same or (retry_failed and row is not None and row.code):
                todo.append((name, video, sidecar))
        self._read((name, video, sidecar, partial(read, self.folder / sidecar.path)) for name, video, sidecar in todo)
        return len(todo)

    def inside(
        self, contents: Mapping[str, Sequence[str]], retry_failed: bool = False, silent: Collection[str] = ()
    ) -> int:
        """Read the text subtitles inside the contents whose files were never looked into; how many were.

        Files are untrusted, so they are read in a child process. Each content is looked into once, whatever its files
        are called later. Of those in `silent` it is known that they have none.
        """
        known = {row.id: row for row in self._sources.all()}
        todo = []
        for video, paths in contents.items():
            row = known.get(_name(video, ""))
            if paths and (row is None or (retry_failed and row.code)):
                get = _nothing if video in silent else partial(embedded, self.folder / paths[0])
                todo.append((_name(video, ""), video, Sidecar("", 0, 0), get))
        self._read(todo)
        return len(todo)

    def failures(self) -> list[Failure]:
        """The subtitle files that gave nothing, as the ledger shows them. A video's own failures are not repeated."""
        return [
            Failure(row.id, row.path, "", row.code, row.reason, None, None, row.at)
            for row in self._sources.all()
            if row.code and row.path
        ]

    def _read(self, todo: Iterable[tuple[str, str, Sidecar, Callable[[], Sequence[Line]]]]) -> None:
        lines: dict[str, list[Cue]] = {}
        rows: list[SourceRow] = []

        def commit() -> None:
            self.cues.replace(lines)
            self._sources.put(*rows)
            lines.clear()
            rows.clear()

        try:
            for name, video, sidecar, get in todo:
                code = reason = ""
                said: Sequence[Line] = ()
                try:
                    said = get()
                except (SubtitleError, VideoError) as error:
                    code, reason = error.code, error.reason
                lines[name] = [Cue(video, line.start, line.end, line.text) for line in said]
                at = datetime.now(UTC).isoformat(timespec="seconds")
                size, changed = sidecar.size_bytes, sidecar.changed_ns
                rows.append(SourceRow(name, video, sidecar.path, size, changed, len(said), code, reason, at))
                if len(rows) == AT_ONCE:
                    commit()
        finally:
            commit()

    def _forget(self, rows: Sequence[SourceRow]) -> None:
        if rows:
            self.cues.replace({row.id: () for row in rows})
            self._sources.delete([row.id for row in rows])


def _name(video: str, path: str) -> str:
    return f"{video}|{path}"


# ---------------------------------------------------------------------- which files


def sidecars(folder: Path, videos: Sequence[str]) -> list[Sidecar]:
    """The subtitle files that belong to a video that lies at these paths, in order of path.

    NAME.srt, NAME.en.srt, NAME.en.forced.vtt, NAME.mp4.srt for NAME.mp4; the ending in any case. Where another video's
    name fits a file better it is that one's: beside "a.mp4" and "a.en.mp4", "a.en.srt" is the second's.
    """
    found: dict[str, Sidecar] = {}
    for place in dict.fromkeys(PurePosixPath(video).parent for video in videos):
        names = {PurePosixPath(video).name for video in videos if PurePosixPath(video).parent == place}
        try:
            entries = sorted(os.listdir(folder / place))
        except OSError:
            continue  # gone since the scan
        ours = {key for name in names for key in _keys(name)}
        others = {key for entry in entries if _is_video(entry) for key in _keys(entry)}
        for entry in entries:
            base, ending = os.path.splitext(entry)
            if ending.lower() not in ENDINGS or entry.startswith("."):
                continue
            fit = next((key for key in _shorter(base) if key in ours or key in others), None)
            if fit not in ours:
                continue
            try:
                status = os.stat(folder / place / entry)
            except OSError:
                continue
            path = (place / entry).as_posix()
            found[path] = Sidecar(path, status.st_size, status.st_mtime_ns)
    return [found[path] for path in sorted(found)]


def _keys(video: str) -> tuple[str, str]:
    return video, os.path.splitext(video)[0]


def _is_video(name: str) -> bool:
    from rushes.data.base import ENDINGS as VIDEOS

    return os.path.splitext(name)[1].lower() in VIDEOS


def _shorter(base: str) -> list[str]:
    """A sidecar's name without its ending, then with up to three tags less.

    >>> _shorter("trip.en.forced"), _shorter("a. b")
    (['trip.en.forced', 'trip.en', 'trip'], ['a. b'])
    """
    shorter = [base]
    for _ in range(3):
        rest, dot, tag = shorter[-1].rpartition(".")
        if not dot or not rest or not TAG.fullmatch(tag):
            break
        shorter.append(rest)
    return shorter


# ---------------------------------------------------------------------- what is in them


def embedded(path: Path) -> list[Line]:
    """The text subtitles inside a video file, read in a child process. Raises VideoError."""
    try:
        with path.open("rb") as source:
            facts, _ = sandbox.run("rushes.video.lines:task", {}, source=source, limits=LIMITS)
        return understood(facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VideoError("unreadable", f"the subtitles inside {path.name} cannot be read ({error})") from None


def _nothing() -> list[Line]:
    return []


def read(path: Path) -> list[Line]:
    """The lines of a subtitle file, in order of time. SubtitleError for a file without a line that can be read.

    An empty file has no lines, which is no error. Lines that end before they start are shown two seconds.
    """
    import stat

    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for a writer
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SubtitleError("subtitles-unreadable", f"{path.name} is not a regular file")
            if status.st_size > LARGEST_BYTES:
                told = f"{path.name} has {status.st_size:,} bytes; subtitles of up to {LARGEST_BYTES:,} are read"
                raise SubtitleError("subtitles-too-large", told)
            data = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise SubtitleError("subtitles-unreadable", f"{path.name} cannot be read: {error.strerror}") from None
    return parse(decoded(data), path.suffix.lower(), path.name)


def parse(text: str, ending: str = ".srt", name: str = "the text") -> list[Line]:
    r"""Lines of a subtitle file's text, by its first words, else by its ending, else by what pysubs2 takes it for.

    >>> parse("1\n00:00:01,000 --> 00:00:02,500\n<i>A dog</i>\nbarks.\n")
    [Line(start=1.0, end=2.5, text='A dog barks.', language='')]
    """
    import pysubs2

    if not text.strip():
        return []
    kind = {".srt": "srt", ".vtt": "vtt", ".ass": "ass", ".ssa": "ssa"}.get(ending)
    head = text[:4096].lstrip("\ufeff \r\n")
    kind = "vtt" if head.startswith("WEBVTT") else "ass" if head.startswith("[Script Info]") else kind
    trouble = "no line with a time in it"
    for form in (kind, None):  # None: pysubs2 looks for itself
        try:
            events = pysubs2.SSAFile.from_string(text, format_=form).events
        except Exception as error:  # its parsers raise what their regular expressions and integers raise
            trouble = f"{type(error).__name__}: {error}"[:200]
            continue
        lines = [line for event in events if not event.is_comment and not event.is_drawing for line in _lines(event)]
        if lines:
            return sorted(lines, key=lambda line: (line.start, line.end, line.text))[:MOST_LINES]
    if head.startswith("WEBVTT") and "-->" not in text:
        return []  # a head without lines is whole
    raise SubtitleError("subtitles-malformed", f"{name} has no subtitle that can be read ({trouble})")


def _lines(event: object) -> list[Line]:
    text = plain(event.text)  # type: ignore[attr-defined]
    start, end = event.start / 1000, event.end / 1000  # type: ignore[attr-defined]
    start = max(0.0, start)
    return [Line(start, end if end > start else start + SHOWN, text)] if text else []


def decoded(data: bytes) -> str:
    r"""Text of bytes whose encoding nobody tells: by its mark, else UTF-8 if it can be, else Windows' Latin-1.

    UTF-16 without a mark is told by its zeros. UTF-8 with a few broken bytes stays UTF-8; only where broken bytes
    outnumber good characters beyond ASCII is it taken for Latin-1.

    >>> decoded("Äh".encode("utf-16")), decoded("Äh".encode("latin-1")), decoded(b"\xef\xbb\xbf\xc3\x84h")
    ('Äh', 'Äh', 'Äh')
    """
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:].decode("utf-8", "replace")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    head = data[:4096]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if zeros and zeros.count(0) > 0.4 * len(zeros):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        broken = text.count("\ufffd")
        if sum(character > "\x7f" for character in text) - broken > broken:
            return text
    return data.decode("cp1252", "replace")
