"""A folder of videos that can be asked: what is new gets indexed, what is gone is dropped, a text finds its moments."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from rushes.index.lance import LanceIndex
from rushes.index.records import Records
from rushes.index.store import Store
from rushes.library import asking, dates
from rushes.library.catalog import Catalog
from rushes.library.ingest import COMMIT_SECONDS, Ingest, Progress
from rushes.library.media import CLIP_BYTES, Media, media_type, playable
from rushes.library.rows import (
    FORMAT,
    DateRow,
    Failure,
    FileRow,
    Segmentation,
    Settings,
    TagRow,
    VideoRow,
    failure,
)
from rushes.library.scan import File, Scan, fingerprint, scan
from rushes.library.subtitles import Subtitles
from rushes.model import Model, load
from rushes.search import pipeline
from rushes.search.calibrate import Calibration
from rushes.search.explain import Explanation, explain
from rushes.search.query import EVERYWHERE, MOST, Answer, Query, VideoInfo, Where
from rushes.types import Cue, Hit, Segment
from rushes.video.sample import policy as find_policy

STORE = ".rushes"


@dataclass(frozen=True)
class Info:
    """What the index holds. `videos` counts contents: two copies of a file are one video."""

    videos: int
    files: int
    segments: int
    hours: float
    unfinished: int
    model: str
    method: str
    policy: str
    segments_by: str
    store: str
    size_bytes: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Report:
    """What one refresh did. `videos` were worked on, `segments` and `frames` were encoded by this run alone."""

    videos: int
    segments: int
    frames: int
    unchanged: int
    moved: int
    removed: int
    failed: int
    ignored: int
    seconds: float
    frames_per_second: float


class Library:
    """A folder and its index. Opening reads nothing and writes nothing; `refresh` indexes, `search` asks."""

    def __init__(self, folder: str | os.PathLike[str], store: str | os.PathLike[str] | None = None):
        self.folder = Path(folder).expanduser().resolve()
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder; give the folder that holds the videos")
        self.store = Path(store).expanduser().resolve() if store is not None else self.folder / STORE
        self._known: tuple[Hashable, Catalog | None] = None, None

    # ------------------------------------------------------------------ asking

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        exact: bool = False,
        group: pipeline.Group = "segment",
        depth: int = pipeline.DEPTH,
        by: pipeline.Candidates = pipeline.CANDIDATES,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Hit]:
        """The `k` segments (or videos) that match `text` best, best first, with the moments inside them.

        `hit.segment.video` is the path relative to the folder, with `/`. `exact` scores every segment instead of the
        `depth` nearest candidates. An index without a segment gives no hits; a folder never indexed is an error.
        """
        self._settings()
        hits = pipeline.search(
            self.model.method,
            self.index,
            self.model.texts([text]).to("cpu"),
            k=k,
            exact=exact,
            depth=depth,
            by=by,
            group=group,
            on_progress=on_progress,
        )
        paths = self._paths()
        # of copies the first is shown; a content without a path was deleted while we searched
        return [
            replace(hit, segment=replace(hit.segment, video=paths[hit.segment.video][0]))
            for hit in hits
            if hit.segment.video in paths
        ]

    def ask(
        self,
        query: Query,
        most: int = MOST,
        *,
        enough: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Answer:
        """Everything that a search can do: the whole answer, at most `most` hits, frozen. Paging is slicing `hits`.

        Neighbours that look the same are one hit, so `most` candidates may give fewer hits. With fewer than `enough`
        (`most`) the search is done again with more candidates: with the first page's size it hardly ever is.

        `hit.segment.video` is the video's id: `library.video(id)` knows its path. The same question to the same index
        gives the same answer. Raises LookupError for a segment that is not in the index, VideoError for a picture or
        clip that cannot be read.
        """
        return asking.ask(self, query, most, enough, on_progress)

    def cues(self, text: str, where: Where = EVERYWHERE, k: int = 100) -> list[Cue]:
        """The `k` subtitle lines that say most of `text`, best first; times are seconds on the video's clock.

        A line's score is the share of the text's words that it has, rare words counting more, in (0, 1]; see
        `Cues.search`. `cue.video` is the video's id. A text without a word finds nothing.
        """
        self._settings()
        videos = None if where.open else [video.id for video in self.videos(where)]
        return list(self._subtitles.cues.search(text, videos, k).cues)

    def matches(self, query: Query, video: str) -> list[Hit]:
        """Every segment of one video (by id) in order of time, scored by the query's parts: where in it to look.

        Filters, grouping, merging and `then` play no part. Raises LookupError for an unknown video.
        """
        return asking.matches(self, query, video)

    def explain(self, segment: str, text: str) -> Explanation:
        """How well each word of `text` fits each stored frame of a segment (by id): why it was found, and where in it.

        Raises LookupError for a segment that is not in the index, ValueError for an empty text.
        """
        try:
            _, tokens = self.index.fetch([segment])
        except KeyError:
            raise LookupError(f"there is no segment {segment!r} in the index; take the id of a hit") from None
        return explain(self.model, text, tokens)

    def videos(self, where: Where = EVERYWHERE) -> list[VideoInfo]:
        """The videos that pass, in order of path, whether or not they are indexed already."""
        return self._catalog().where(where)

    def video(self, name: str) -> VideoInfo:
        """The video of this id. Raises LookupError for any other text."""
        return self._catalog().get(name)

    def find(self, name: str) -> VideoInfo:
        """The video of this id, or of this path in the folder. Raises LookupError for any other text."""
        return self._catalog().find(name)

    def tag(self, video: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> tuple[str, ...]:
        """Put tags of one's own on a video (by id or path), take others off; the tags that it has now.

        They belong to the content: they outlive moves, copies, and a rebuild of the index. "Beach" and "beach" are one
        tag. Removing what is not there is no error. Raises LookupError for an unknown video, ValueError for a bad tag.
        """
        return asking.tag(self, video, add, remove)

    def info(self) -> Info:
        """Counts, settings and the failure ledger."""
        settings = self._settings()
        videos = self._videos.all()
        return Info(
            videos=sum(row.status == "done" for row in videos),
            files=len(self._files.all()),
            segments=self.index.count(),
            hours=sum(row.length for row in videos) / 3600,
            unfinished=sum(row.status == "partial" for row in videos),
            model=settings.model,
            method=settings.method,
            policy=settings.policy,
            segments_by=settings.segments,
            store=str(self.store),
            size_bytes=sum(path.stat().st_size for path in self.store.rglob("*") if path.is_file()),
            failures=tuple(self._ledger()),
        )

    @cached_property
    def model(self) -> Model:
        """The model the index was made with, loaded on first use. An index made by other weights is an error."""
        settings = self._settings()
        model = load(settings.model)
        if model.digest() != settings.digest:
            raise ValueError(
                f"model {settings.model!r} has other weights than those {self.store} was indexed with; "
                "run `rushes index --rebuild`"
            )
        return model

    @cached_property
    def calibration(self) -> Calibration | None:
        """What turns the model's scores into confidences; None where it was never calibrated."""
        return Calibration.of(self.model)

    @cached_property
    def index(self) -> LanceIndex:
        return LanceIndex(self.store, self._settings().dim, create=True)

    # ------------------------------------------------------------------ showing

    @cached_property
    def media(self) -> Media:
        """Thumbnails, frames, clips and files, as far as the methods below do not give them."""
        return Media(self.folder, self._store, self._segment)

    def thumbnail(self, segment: str) -> bytes | None:
        """A WebP of some 320 pixels that shows the segment, never black where it has a frame that is not. None where
        its video gives none any more. Raises LookupError for an unknown segment."""
        self._settings()
        return self.media.thumbnail(segment)

    def thumbnail_name(self, segment: str) -> str | None:
        """The name, "<hex>.webp", under which `media.named` has the thumbnail; a name never stands for another picture.
        None where indexing made none. For many segments `media.thumbnail_names` asks once."""
        self._settings()
        return self.media.thumbnail_names([segment]).get(segment)

    def frame(self, video: str, second: float, width: int | None = None) -> bytes:
        """The frame of a video (by id) shown at `second`, as JPEG at most `width` pixels wide.

        Raises LookupError for an unknown video, ValueError for a second that it does not have, FileNotFoundError where
        its file is gone or changed, VideoError where the file does not give the frame.
        """
        self._settings()
        return self.media.frame(video, second, width)

    def clip(self, video: str, start: float, end: float, *, cache_bytes: int = CLIP_BYTES) -> Path:
        """A moment of a video (by id), of 60 s at most, as an mp4 that browsers play. Made once, and kept in the store
        as long as all clips take at most `cache_bytes`. Raises as `frame` does."""
        self._settings()
        return self.media.clip(video, start, end, cache_bytes)

    def playable(self, video: str) -> bool:
        """Whether browsers play the file of a video (by id) as it is. Raises as `frame` does."""
        self._settings()
        return playable(self.media.kind(video))

    def media_type(self, video: str) -> str:
        """The media type to serve a video's file under, as "video/mp4". Raises as `frame` does."""
        self._settings()
        return media_type(self.media.kind(video))

    def opened(self, video: str) -> BinaryIO:
        """The file of a video (by id), if it still is what was indexed, open for reading; never one outside the folder.

        Raises LookupError for an unknown video, FileNotFoundError where its file is gone or changed, PermissionError
        for a link that leads out of the folder and for what is no regular file.
        """
        self._settings()
        return self.media.opened(video)

    def _segment(self, segment: str) -> Segment:
        try:
            return self.index.fetch([segment])[0][0]
        except KeyError:
            raise LookupError(f"the index has no segment {segment!r}; was its video changed or removed?") from None

    # ------------------------------------------------------------------ indexing

    def refresh(
        self,
        *,
        model: str | None = None,
        policy: str | None = None,
        segments: Segmentation | None = None,
        retry_failed: bool = False,
        rebuild: bool = False,
        commit_seconds: float = COMMIT_SECONDS,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Index what is new or changed, go on where a run was stopped, drop what is gone.

        The first refresh sets model ("small"), policy ("balanced") and segmentation ("shots"); later ones keep them,
        and asking for others is an error unless `rebuild`, which encodes all again. A file that fails goes to the
        failure ledger and is left alone until its content changes, or `retry_failed`. A run may be killed at any time:
        what it encoded is stored every `commit_seconds`, and only what came after that is encoded again.
        """
        began = time.monotonic()
        self._make_store()
        try:
            with FileLock(self.store / "lock", timeout=0):
                if rebuild:
                    self._forget()
                settings = self._agree(model, policy, segments)
                work = Ingest(
                    self.folder,
                    settings,
                    self.model,
                    self.index,
                    self._videos,
                    self._failures,
                    self.media,
                    commit_seconds,
                    on_progress,
                )
                return self._refresh(work, retry_failed, began)
        except Timeout:
            raise RuntimeError(f"another run is indexing into {self.store}; wait for it or stop it") from None

    def _refresh(self, work: Ingest, retry_failed: bool, began: float) -> Report:
        found = scan(self.folder, without=self.store)
        paths, moved, unchanged = self._identify(found)
        removed = self._drop_gone(set(paths))
        todo = self._todo(paths, retry_failed)
        places = self._paths()
        dates.note(self._dates, self.folder, {name: file.path for name, file in paths.items()})
        self._subtitles.beside(places, retry_failed)
        work.run({name: paths[name] for name in todo})
        self._subtitles.inside(places, retry_failed, work.silent)
        self.index.optimize()
        seconds = time.monotonic() - began
        return Report(
            videos=len(todo),
            segments=work.segments,
            frames=work.frames,
            unchanged=unchanged,
            moved=moved,
            removed=removed,
            failed=len({row.video for row in self._ledger()}),
            ignored=found.ignored,
            seconds=seconds,
            frames_per_second=work.frames / work.seconds if work.seconds else 0.0,
        )

    def _identify(self, found: Scan) -> tuple[dict[str, File], int, int]:
        """Bring the table of files up to date: contents and a file of each, how many moved, how many are as before."""
        known = {row.path: row for row in self._files.all()}
        fresh: list[FileRow] = []
        unchanged = 0
        contents: dict[str, File] = {}
        unreadable: list[Failure] = []
        for file in found.files:
            row = known.get(file.path)
            if row is not None and (row.size_bytes, row.changed_ns) == (file.size_bytes, file.changed_ns):
                unchanged += 1
            else:
                try:
                    name = fingerprint(self.folder / file.path)
                except OSError as error:
                    unreadable.append(failure(file.path, "", "unreadable", str(error)))
                    if row is None:
                        continue  # else what is known of it stays: it is not gone
                else:
                    row = FileRow(file.path, name, file.size_bytes, file.changed_ns)
                    fresh.append(row)
            contents.setdefault(row.fingerprint, file)
        gone = set(known) - {file.path for file in found.files}
        places = {row.fingerprint for row in fresh if row.path not in known}
        moved = sum(known[path].fingerprint in places for path in gone)
        self._files.put(*fresh)
        self._files.delete(gone)
        self._failures.delete([row.id for row in self._failures.all() if not row.fingerprint])
        away = f"is a link that leads out of {self.folder}; put the video itself there, or index where it leads"
        outside = [failure(path, "", "outside", f"{path} {away}") for path in found.outside]
        self._failures.put(*unreadable, *outside)
        return contents, moved, unchanged

    def _drop_gone(self, contents: set[str]) -> int:
        gone = [row.fingerprint for row in self._videos.all() if row.fingerprint not in contents]
        self._drop(gone)
        self._videos.delete(gone)
        self._dates.delete(gone)
        return len(gone)

    def _drop(self, contents: Sequence[str]) -> None:
        """Remove segments and failures of some contents."""
        if contents:
            self.index.remove(contents)
            self.media.drop(contents)
            dropped = set(contents)
            self._failures.delete([row.id for row in self._failures.all() if row.fingerprint in dropped])

    def _todo(self, contents: Iterable[str], retry_failed: bool) -> list[str]:
        rows = {row.fingerprint: row for row in self._videos.all()}
        again = sorted({row.fingerprint for row in self._failures.all()} & set(rows)) if retry_failed else []
        rows.update({name: replace(rows[name], status="partial", length=0.0) for name in again})
        todo = [name for name in contents if name not in rows or rows[name].status == "partial"]
        # before the drop: a run killed in between must leave them to be done, not failed without a failure
        self._videos.put(*(rows.get(name, VideoRow(name, "partial", 0.0)) for name in todo))
        self._drop(again)
        return todo

    # ------------------------------------------------------------------ the store

    @cached_property
    def _store(self) -> Store:
        return Store(self.store)

    @cached_property
    def _files(self) -> Records[FileRow]:
        return Records(self._store, "files", FileRow, key="path")

    @cached_property
    def _videos(self) -> Records[VideoRow]:
        return Records(self._store, "videos", VideoRow, key="fingerprint")

    @cached_property
    def _dates(self) -> Records[DateRow]:
        return Records(self._store, "dates", DateRow, key="fingerprint")

    @cached_property
    def _tags(self) -> Records[TagRow]:
        return Records(self._store, "tags", TagRow, key="id")

    @cached_property
    def _subtitles(self) -> Subtitles:
        return Subtitles(self.folder, self._store)

    def _catalog(self) -> Catalog:
        """What is known of each video now. Read again when a table has changed: 0.2 s for ten thousand videos."""
        self._settings()
        state = self._store.state("files", "videos", "dates", "tags")
        held, catalog = self._known
        if catalog is None or state is None or held != state:
            catalog = Catalog.of(self._files.all(), self._videos.all(), self._dates.all(), self._tags.all())
            self._known = state, catalog  # of the state before, so that a commit meanwhile is read next time
        return catalog

    @cached_property
    def _failures(self) -> Records[Failure]:
        return Records(self._store, "failures", Failure, key="id")

    def _paths(self) -> dict[str, list[str]]:
        """Content -> its paths, in order; several if there are copies."""
        paths: dict[str, list[str]] = {}
        for row in self._files.all():
            paths.setdefault(row.fingerprint, []).append(row.path)
        return paths

    def _ledger(self) -> list[Failure]:
        """What failed, under every path that has the content now: a broken file may have copies, or a new name."""
        paths = self._paths()
        rows = self._failures.all()
        ledger = [replace(row, video=path) for row in rows for path in paths.get(row.fingerprint, [row.video])]
        ledger += self._subtitles.failures()
        return sorted(ledger, key=lambda row: (row.video, row.start or 0.0))

    def _settings(self) -> Settings:
        settings = self._stored_settings()
        if settings is None:
            raise FileNotFoundError(
                f"{self.folder} is not indexed in {self.store}; run `rushes index {self.folder}` first"
            )
        return settings

    def _stored_settings(self) -> Settings | None:
        file = self.store / "settings.json"
        if not file.is_file():
            return None
        stored = json.loads(file.read_text())
        if stored["format"] != FORMAT:
            raise ValueError(f"{self.store} has format {stored['format']}, this Rushes reads {FORMAT}; index again")
        return Settings(**stored)

    def _agree(self, model: str | None, policy: str | None, segments: Segmentation | None) -> Settings:
        asked: dict[str, Any] = {"model": model, "policy": policy, "segments": segments}
        settings = self._stored_settings()
        if settings is not None:
            other = {name: value for name, value in asked.items() if value not in (None, getattr(settings, name))}
            if other:
                have = ", ".join(f"{name} {getattr(settings, name)}" for name in other)
                want = ", ".join(f"{name} {value}" for name, value in other.items())
                raise ValueError(f"{self.store} is indexed with {have}, not {want}; use --rebuild or another --store")
            _ = self.model  # raises if its weights are not those of the index
            return settings
        settings = Settings(**{name: value for name, value in asked.items() if value is not None})
        find_policy(settings.policy)
        loaded = load(settings.model)
        settings = replace(settings, method=loaded.method_name, digest=loaded.digest(), dim=loaded.method.dim)
        part = self.store / "settings.part"
        part.write_text(json.dumps(asdict(settings), indent=2) + "\n")
        part.replace(self.store / "settings.json")
        self.__dict__["model"] = loaded
        return settings

    def _make_store(self) -> None:
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            (self.store / "lock").touch()
        except OSError as error:
            raise PermissionError(
                f"cannot write the index into {self.store} ({error.strerror}); choose another place with --store DIR"
            ) from error

    def _forget(self) -> None:
        """Drop the whole index, but not the lock that is held in its folder, nor what only the user knows: the tags."""
        import shutil

        for path in self.store.iterdir():
            if path.name not in ("lock", "tags.lance"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in (
            "model",
            "calibration",
            "index",
            "media",
            "_store",
            "_files",
            "_videos",
            "_dates",
            "_tags",
            "_failures",
            "_subtitles",
        ):
            self.__dict__.pop(name, None)
