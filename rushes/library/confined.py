"""Opens a file below a folder, and never one outside it, whatever links anybody puts there meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO


def confined(folder: Path, path: str) -> BinaryIO:
    """The regular file `path` (relative to `folder`, with /), open for reading.

    No link is followed on the way: each folder is opened within the one before, so that a swap between a check and an
    opening cannot lead elsewhere. A last step that is a link is looked up once; where it leads is then opened in the
    same way, if that lies below `folder`. `folder` itself is trusted, and must be free of links (`Path.resolve`).

    FileNotFoundError where there is none; PermissionError for what leads out of the folder, or is no regular file: a
    FIFO or a device is not waited for.
    """
    steps = PurePosixPath(path).parts
    if not steps or PurePosixPath(path).is_absolute() or ".." in steps:
        raise PermissionError(f"{path!r} is no path below the folder")
    try:
        return _walked(folder, steps)
    except _Link:
        pass
    changed = PermissionError(f"{path} was changed while it was opened")
    real = _target(folder / path)
    if real is None:
        raise changed
    if not real.is_relative_to(folder):
        raise PermissionError(f"{path} is a link that leads out of the folder; put the file itself there")
    if not real.exists():
        raise FileNotFoundError(f"{path} is a link to nothing")
    try:
        return _walked(folder, real.relative_to(folder).parts)
    except _Link:
        raise changed from None


def inside(folder: Path, path: Path) -> bool:
    """Whether `path`, itself below `folder`, leads to something below `folder`; True for a link that leads nowhere."""
    if not path.is_symlink():
        return True
    real = _target(path)
    return real is not None and real.is_relative_to(folder)


def _target(path: Path) -> Path | None:
    """Where a path leads; None where a link of it became a file or a folder while it was followed."""
    try:
        return Path(os.path.realpath(path))
    except OSError as error:
        if error.errno == errno.EINVAL:  # `readlink` of what is a link no longer
            return None
        raise


class _Link(Exception):
    """The last step is a link."""


def _walked(folder: Path, steps: tuple[str, ...]) -> BinaryIO:
    path = "/".join(steps)
    if os.open not in os.supports_dir_fd:  # Windows: links need rights there that few have
        if os.path.realpath(folder / path) != os.path.abspath(folder / path):
            raise _Link
        return _regular(os.open(folder / path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), folder / path)
    holds = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(folder, holds)
    try:
        for step in steps[:-1]:
            try:
                there = os.open(step, holds, dir_fd=here)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
                    told = f"{path}: {step} is no folder, and links to folders are not followed"
                    raise PermissionError(told) from None
                raise
            os.close(here)
            here = there
        try:  # not waiting: opening a FIFO would, for a writer
            found = os.open(steps[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                raise _Link from None
            if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket, or a device that is not there
                raise PermissionError(f"{path} is no regular file") from None
            raise
    finally:
        os.close(here)
    return _regular(found, folder / path)


def _regular(descriptor: int, path: Path) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(f"{path} is no regular file")
    return open(path, "rb", opener=lambda _path, _flags: descriptor)  # opens nothing anew: gives the file its name
