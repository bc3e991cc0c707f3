"""One indexing run: decode, encode, and store so often that a kill costs seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from rushes.index.base import Index
from rushes.index.records import Records
from rushes.library.ahead import ahead
from rushes.library.encode import Encoded, Event, Finished, encode
from rushes.library.media import Media
from rushes.library.rows import Failure, Segmentation, Settings, VideoRow, failure
from rushes.library.scan import File
from rushes.model import Model
from rushes.types import Segment, Tokens
from rushes.video.decode import Damage, Span
from rushes.video.pixels import THUMBNAIL
from rushes.video.probe import Kind, VideoError
from rushes.video.sample import STEP
from rushes.video.worker import Decoder

COMMIT_SECONDS = 10.0  # what a kill may cost: encoded segments are stored at least this often
COMMIT_SEGMENTS = 512
AHEAD = 64  # events decoded while the encoder works, so that it does not wait where one file ends and another begins


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a refresh is, in bytes of video files: the one measure that is known before any is opened.

    `frames` went through the encoder, `stored` segments are on disk and will outlive the process.
    """

    done_bytes: float
    total_bytes: int
    frames: int
    stored: int
    video: str


class Ingest:
    """One run over the videos that are still to do. Read `frames`, `segments` and `seconds` when it has run."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        model: Model,
        index: Index,
        videos: Records[VideoRow],
        failures: Records[Failure],
        media: Media,
        commit_seconds: float = COMMIT_SECONDS,
        on_progress: Callable[[Progress], None] | None = None,
    ):
        self.folder, self.settings, self.model, self.index = folder, settings, model, index
        self.videos, self.failures, self.media = videos, failures, media
        self.commit_seconds, self.on_progress = commit_seconds, on_progress
        self.frames = self.segments = 0  # encoded, stored
        self.seconds = 0.0
        self._todo: dict[str, File] = {}
        self._waiting: list[Encoded] = []
        self._committed = 0.0
        self._ends: dict[str, float] = {}  # of what is stored of each video, in seconds
        self._kinds: dict[str, Kind] = {}  # of videos that are being read
        self.silent: set[str] = set()  # read by this run, and without text subtitles inside

    def run(self, todo: dict[str, File]) -> None:
        """Index the contents `todo`, each from one of its files."""
        if not todo:
            return
        self._todo = todo
        began = self._committed = time.monotonic()
        try:
            with Decoder(within=self.folder) as decoder, closing(ahead(self._events(decoder), AHEAD)) as events:
                for encoded in encode(self.model, events):
                    self.frames += encoded.frames
                    self._waiting.append(encoded)
                    if self._due():
                        self._commit()
        finally:
            self._commit()  # an interrupted run keeps what it has encoded
            self.seconds = time.monotonic() - began

    def _events(self, decoder: Decoder) -> Generator[tuple[str, Event], None, None]:
        backbone = self.model.backbone
        total_bytes = sum(file.size_bytes for file in self._todo.values())
        done_bytes = 0
        for name, file in self._todo.items():
            start = self._ends[name] = self._resume(name)
            error: Exception | None = None
            try:
                events = decoder.read(
                    self.folder / file.path,
                    policy=self.settings.policy,
                    segments=self.settings.segments,
                    size=backbone.image_size,
                    squash=backbone.squash,
                    start=start,
                    thumbnails=THUMBNAIL,
                )
                for event in events:
                    if decoder.kind is not None:
                        self._kinds[name] = decoder.kind
                    if decoder.lines is False:
                        self.silent.add(name)
                    yield name, event
                    if isinstance(event, Span) and decoder.duration:
                        share = min(1.0, event.end / decoder.duration)
                        self._say(done_bytes + share * file.size_bytes, total_bytes, file.path)
            except (VideoError, OSError) as failed:
                error = failed
            done_bytes += file.size_bytes
            yield name, Finished(error)
            self._say(done_bytes, total_bytes, file.path)

    def _say(self, done_bytes: float, total_bytes: int, path: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(done_bytes, total_bytes, self.frames, self.segments, path))

    def _resume(self, name: str) -> float:
        """Where the stored segments of a video end; 0 for one that has none."""
        stored = self.index.segments([name])
        if not stored:
            return 0.0
        return resume_point(stored, self.settings.segments)

    def _due(self) -> bool:
        rows = sum(len(encoded.segments) for encoded in self._waiting)
        return rows >= COMMIT_SEGMENTS or time.monotonic() - self._committed >= self.commit_seconds

    def _commit(self) -> None:
        """Segments first, then what is said about them: a kill in between costs a look, never a segment. Thumbnails
        before both, or a kill in between would cost them for good."""
        full = [encoded for encoded in self._waiting if encoded.segments]
        if full:
            segments = [segment for encoded in full for segment in encoded.segments]
            summaries = torch.cat([encoded.summaries for encoded in full if encoded.summaries is not None])
            self.media.keep(segments, [thumbnail for encoded in full for thumbnail in encoded.thumbnails])
            tokens = Tokens.cat([encoded.tokens for encoded in full if encoded.tokens is not None])
            self.index.add(segments, summaries, tokens)
            self.segments += len(segments)
            for segment in segments:
                self._ends[segment.video] = max(self._ends[segment.video], segment.end)
        failures: dict[str, Failure] = {}  # a resumed run may meet the same damage again
        finished: list[VideoRow] = []
        kinds: dict[str, Kind] = {}
        for encoded in self._waiting:
            for name, note in encoded.notes:
                if isinstance(note, Finished):
                    if name in self._kinds:
                        kinds[name] = self._kinds.pop(name)
                    finished.append(VideoRow(name, "failed" if note.error else "done", self._ends[name]))
                found = self._failure(name, note)
                if found is not None:
                    failures[found.id] = found
        self.failures.put(*failures.values())
        self.media.note(kinds)
        self.videos.put(*finished)
        self._waiting.clear()
        self._committed = time.monotonic()

    def _failure(self, name: str, note: Damage | Finished) -> Failure | None:
        path = self._todo[name].path
        if isinstance(note, Damage):
            return failure(path, name, note.code, note.reason, note.start, note.end)
        if note.error is None:
            return None
        code = note.error.code if isinstance(note.error, VideoError) else "unreadable"
        reason = note.error.reason if isinstance(note.error, VideoError) else str(note.error)
        return failure(path, name, code, reason, self._ends[name], None)


def resume_point(stored: Sequence[Segment], segmentation: Segmentation) -> float:
    """Seconds from which decoding goes on so that the result equals an undisturbed run's.

    Shots go on where the last stored one ended. Windows overlap: the next one starts one step after the last.

    >>> shots = [Segment("a:0", "a", 0.0, 2.5), Segment("a:1", "a", 2.5, 6.0)]
    >>> resume_point(shots, "shots")
    6.0
    """
    if segmentation == "shots":
        return max(segment.end for segment in stored)
    return max(segment.start for segment in stored) + STEP
