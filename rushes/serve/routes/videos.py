"""GET of videos: what is known of them, their bytes, frames, clips and thumbnails; PUT of their tags."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from rushes.library import Library
from rushes.library.media import media_type, playable
from rushes.search.query import VideoInfo, Where
from rushes.serve import schemas
from rushes.serve.problems import Refusal
from rushes.serve.ranges import FileBytes
from rushes.serve.results import Frozen
from rushes.serve.service import Service, service
from rushes.video.probe import Kind, VideoError

router = APIRouter(tags=["videos"])
KINDS = 100_000  # remembered
FOREVER = "private, max-age=31536000, immutable"  # the name is a hash of the content
Time = Annotated[float, Query(ge=0, le=schemas.LONG, allow_inf_nan=False)]


def kinds(here: Service, library: Library, names: Collection[str]) -> dict[str, Kind]:
    """What these contents are; files that are gone or cannot be read lack. Remembered, for a content never changes."""
    unknown = {name for name in names if name not in here.kinds}
    if unknown:
        if len(here.kinds) + len(unknown) > KINDS:
            here.kinds.clear()
        here.kinds.update(library.media.kinds(unknown))
        for name in unknown - set(here.kinds):
            with suppress(VideoError, OSError, LookupError):
                here.kinds[name] = library.media.kind(name)
    return {name: here.kinds[name] for name in names if name in here.kinds}


def short(video: VideoInfo, kind: Kind | None) -> schemas.VideoShort:
    return schemas.VideoShort(**_common(video, kind))


def _common(video: VideoInfo, kind: Kind | None) -> dict:
    return {
        "id": video.id,
        "name": video.name,
        "folder": video.folder,
        "seconds": round(video.length, 3),
        "date": video.date,
        "playable": kind is not None and playable(kind),
        "tags": list(video.tags),
    }


def _full(here: Service, videos: Sequence[VideoInfo]) -> list[schemas.Video]:
    known = kinds(here, here.library, [video.id for video in videos])
    return [
        schemas.Video(
            **_common(video, known.get(video.id)),
            size_bytes=video.size_bytes,
            status=video.status,  # type: ignore[arg-type]  checked by pydantic
            copies=list(video.paths),
            media_type=media_type(known[video.id]) if video.id in known else None,
        )
        for video in videos
    ]


@router.get("/v1/videos")
async def videos(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=schemas.CURSOR)] = None,
    folder: Annotated[str | None, Query(max_length=1000, pattern=schemas.PLAIN)] = None,
    tag: Annotated[str | None, Query(min_length=1, max_length=100, pattern=schemas.SPOKEN)] = None,
) -> schemas.Videos:
    """The videos in order of path, frozen as the first page found them."""
    here = service(request)
    indexed(here)
    digest = f"videos {folder!r} {tag!r}"
    if cursor is not None:
        name, frozen, position = here.results.at(cursor)
        if frozen.asked != digest:
            raise Refusal("cursor-mismatch", "the cursor was made by a list with another folder or tag")
    else:
        where = Where(folder=folder, tags=() if tag is None else (tag,))
        found = await here.looking.run(lambda: here.library.videos(where), request)
        frozen, position = Frozen(tuple(found), digest), 0
        name = here.results.put(frozen)
    page, after = here.results.page(name, frozen, position, limit)
    told = await here.looking.run(lambda: _full(here, page), request)
    return schemas.Videos(videos=told, total=len(frozen.items), cursor=after)


@router.get("/v1/videos/{video}")
async def video(video: schemas.VideoId, request: Request) -> schemas.Video:
    here = service(request)
    return await here.looking.run(lambda: _full(here, [known(here, video)])[0], request)


@router.put("/v1/videos/{video}/tags")
async def tags(video: schemas.VideoId, asked: schemas.TagsQuestion, request: Request) -> schemas.Video:
    """Put tags on a video, take others off. They belong to the content and outlive a new index."""
    here = service(request)

    def change() -> schemas.Video:
        known(here, video)
        try:
            here.library.tag(video, asked.add, asked.remove)
        except ValueError as error:
            raise Refusal("bad-query", here.plain(str(error))) from None
        return _full(here, [known(here, video)])[0]

    return await here.looking.run(change)


@router.get("/v1/videos/{video}/stream", response_class=Response)
@router.head("/v1/videos/{video}/stream", include_in_schema=False)
async def stream(video: schemas.VideoId, request: Request) -> Response:
    """The file as it is, with ranges. The id is the content's, so it is the ETag, too."""
    here = service(request)

    def opened() -> Response:
        with _shown(here, video):
            file = here.library.opened(video)  # checked when it is opened; no path is opened again
            kind = kinds(here, here.library, [video]).get(video)
            told = "application/octet-stream" if kind is None else media_type(kind)
            return FileBytes(file, request, media_type=told, etag=video, most=here.limits.ranges)

    return await here.looking.run(opened, request)


@router.get("/v1/videos/{video}/frame", response_class=Response)
async def frame(
    video: schemas.VideoId, request: Request, t: Time, width: Annotated[int | None, Query(ge=16, le=3840)] = None
) -> Response:
    """The picture at `t` seconds, as JPEG, at most `width` pixels wide."""
    here = service(request)

    def made() -> bytes:
        with _shown(here, video):
            return here.library.frame(video, t, width)

    picture = await here.media.run(made, request)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/v1/videos/{video}/clip", response_class=Response)
@router.head("/v1/videos/{video}/clip", include_in_schema=False)
async def clip(video: schemas.VideoId, request: Request, start: Time, end: Time) -> Response:
    """The seconds from `start` to `end`, 60 at most, as an mp4 that every browser plays, with ranges. Made once."""
    here = service(request)
    if not start < end:
        raise Refusal("bad-query", f"a clip from {start} s to {end} s has no length; end must be after start")

    def made() -> Response:
        with _shown(here, video):
            file = os.fdopen(_own(here.library.clip(video, start, end)), "rb")
            etag = f"{video}-{start:.3f}-{end:.3f}"
            return FileBytes(file, request, media_type="video/mp4", etag=etag, most=here.limits.ranges)

    return await here.media.run(made, request)


@contextmanager
def _shown(here: Service, video: str) -> Iterator[None]:
    """What the library says of a file that it cannot show, as a refusal."""
    known(here, video)
    try:
        yield
    except LookupError as error:
        if isinstance(error, (KeyError, IndexError)):
            raise
        raise Refusal("unknown-video", "the library has no video of this id") from None
    except FileNotFoundError:
        raise Refusal("video-gone", "no copy of the video is where and what it was when it was indexed") from None
    except PermissionError:
        raise Refusal("outside", "the file may not be read from here") from None
    except ValueError as error:
        raise Refusal("no-frame", here.plain(str(error))) from None
    except VideoError as error:
        if error.code == "timeout":
            raise Refusal("too-slow", here.plain(error.reason), headers={"Retry-After": "30"}) from None
        raise Refusal("unreadable", here.plain(error.reason), reason=error.code) from None


@router.get("/v1/thumbnails/{name}.webp", response_class=Response)
async def thumbnail(name: schemas.ThumbnailId, request: Request) -> Response:
    """A segment's picture. Its name is a hash of it, so it can be kept for ever."""
    here = service(request)
    picture = await here.looking.run(lambda: here.library.media.named(f"{name}.webp"), request)
    if picture is None:
        raise Refusal("no-thumbnail", "the library has no picture of this name")
    return Response(picture, media_type="image/webp", headers={"Cache-Control": FOREVER})


def indexed(here: Service) -> None:
    if not (here.store / "settings.json").is_file():
        raise Refusal("not-indexed", "the folder has no index yet")


def known(here: Service, name: str) -> VideoInfo:
    """Refusal "not-indexed" or "unknown-video"."""
    indexed(here)
    try:
        return here.library.video(name)
    except LookupError:
        raise Refusal("unknown-video", "the library has no video of this id") from None


def _own(path: Path) -> int:
    """A file that the library made: opened without following a link at its end."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise PermissionError(f"{path} is no regular file")
    return number
