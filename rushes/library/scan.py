"""Which video files a folder holds, and who they are by content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rushes.data.base import ENDINGS
from rushes.library.confined import inside

BLOCK_BYTES = 1 << 20
WHOLE_BYTES = 64 << 20  # files up to this size are read whole; beyond, 64 blocks of 1 MiB spread over the file


@dataclass(frozen=True, slots=True)
class File:
    """A video file as the folder shows it: path relative to the folder (with /), size in bytes, time of change."""

    path: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a walk found: videos in order of path, how many other files were passed over, and links to videos that lead
    out of the folder, which nobody may follow."""

    files: tuple[File, ...]
    ignored: int
    outside: tuple[str, ...] = ()


def scan(folder: Path, without: Path | None = None) -> Scan:
    """Every video file below `folder` by its suffix. Hidden files and folders, `without` (the index's own folder) and
    links to folders are not entered; a folder that cannot be read is an error, for silence would look like deletion.

    A link to a file counts as a file, if it leads to one below `folder`: who may put a link there must not be able to
    show what lies elsewhere. `confined` opens by the same rule.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the folder that holds the videos")
    files: list[File] = []
    outside: list[str] = []
    ignored = 0
    real = Path(os.path.realpath(folder))
    for path in _walk(folder, without):
        if path.suffix.lower() not in ENDINGS:
            ignored += 1
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            ignored += 1  # a link that leads nowhere, or a file gone since the walk
            continue
        if not inside(real, path):
            outside.append(path.relative_to(folder).as_posix())
            continue
        if not stat.S_ISREG(status.st_mode):
            ignored += 1  # whoever opened a FIFO would wait for a writer
            continue
        files.append(File(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return Scan(tuple(sorted(files, key=lambda file: file.path)), ignored, tuple(sorted(outside)))


def fingerprint(path: Path) -> str:
    """128 bits that name a file's content: equal for a copy or a renamed file, whatever its name and times.

    Files of up to 64 MiB are hashed whole. Of larger ones the size and 64 blocks of 1 MiB, evenly spread from the
    first byte to the last, are: an edit in place that changes none of them and not the size goes unseen.

    >>> import tempfile; folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_bytes(b"same"), (folder / "b").write_bytes(b"same"), (folder / "c").write_bytes(b"not")
    >>> fingerprint(folder / "a") == fingerprint(folder / "b") != fingerprint(folder / "c")
    True
    """
    with path.open("rb") as stream:
        return identity(stream)


def identity(stream: BinaryIO) -> str:
    """`fingerprint` of a file that is open, and at its start."""
    digest = hashlib.blake2b(digest_size=16)
    size = os.fstat(stream.fileno()).st_size
    digest.update(size.to_bytes(8, "little"))
    if size <= WHOLE_BYTES:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    else:
        blocks = WHOLE_BYTES // BLOCK_BYTES
        for number in range(blocks):
            stream.seek((size - BLOCK_BYTES) * number // (blocks - 1))
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def _walk(folder: Path, without: Path | None) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=stop):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and here / name != without)
        yield from (here / name for name in sorted(names) if not name.startswith("."))
