"""What is known of each video of a library, put together from the tables of its store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rushes.library.rows import DateRow, FileRow, TagRow, VideoRow
from rushes.search.query import VideoInfo, Where


@dataclass(frozen=True, eq=False)
class Catalog:
    """The videos that have a file now, by id, in order of path."""

    videos: dict[str, VideoInfo]

    @classmethod
    def of(
        cls,
        files: Iterable[FileRow],
        videos: Iterable[VideoRow],
        dates: Iterable[DateRow],
        tags: Iterable[TagRow],
    ) -> Catalog:
        copies: dict[str, list[FileRow]] = {}
        for file in sorted(files, key=lambda file: file.path):
            copies.setdefault(file.fingerprint, []).append(file)
        rows = {row.fingerprint: row for row in videos}
        recorded = {row.fingerprint: row.recorded for row in dates}
        own: dict[str, list[str]] = {}
        for tag in tags:
            own.setdefault(tag.fingerprint, []).append(tag.tag)
        return cls(
            {
                name: _video(
                    rows.get(name, VideoRow(name, "partial", 0.0)), here, recorded.get(name), own.get(name, ())
                )
                for name, here in copies.items()
            }
        )

    def get(self, name: str) -> VideoInfo:
        """The video of this id. Raises LookupError."""
        video = self.videos.get(name)
        if video is None:
            raise LookupError(f"the library has no video {name!r}; `rushes tag FOLDER --json` lists the ids")
        return video

    def find(self, name: str) -> VideoInfo:
        """The video of this id or path. Raises LookupError."""
        if name in self.videos:
            return self.videos[name]
        plain = name.removeprefix("./")
        for video in self.videos.values():
            if plain in video.paths:
                return video
        raise LookupError(f"the library has no video {name!r}; give its path in the folder, or its id")

    def where(self, where: Where) -> list[VideoInfo]:
        """Those that pass, in order of path. Raises LookupError for ids that no video has."""
        for name in where.videos or ():
            self.get(name)
        return [video for video in self.videos.values() if where.passes(video)]


def _video(row: VideoRow, files: Sequence[FileRow], recorded: float | None, tags: Sequence[str]) -> VideoInfo:
    path = files[0].path
    folder, slash, name = path.rpartition("/")
    # the oldest copy: copying sets a new date, and never an older one
    seconds = recorded if recorded is not None else min(file.changed_ns for file in files) / 1e9
    return VideoInfo(
        id=row.fingerprint,
        path=path,
        paths=tuple(file.path for file in files),
        folder=folder + slash,
        name=name,
        length=row.length,
        date=datetime.fromtimestamp(seconds, UTC),
        size_bytes=files[0].size_bytes,
        status=row.status,
        tags=tuple(sorted(tags, key=lambda tag: (tag.casefold(), tag))),
    )
