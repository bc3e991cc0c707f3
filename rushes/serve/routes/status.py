"""GET of how things are: the library, its failures, health, readiness, metrics, the catalogue of problems."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

import rushes
from rushes.library import Info
from rushes.serve import schemas
from rushes.serve.metrics import MEDIA_TYPE
from rushes.serve.problems import KINDS, Refusal
from rushes.serve.routes.videos import indexed
from rushes.serve.service import Service, service

router = APIRouter(tags=["status"])


@router.get("/v1/library")
async def library(request: Request) -> schemas.LibraryInfo:
    """Counts, model and method, and whether searching is ready."""
    here = service(request)
    info = await here.looking.run(lambda: _info(here), request)
    reason = here.not_ready()
    return schemas.LibraryInfo(
        name=here.folder.name,
        ready=reason is None,
        reason=reason,
        indexed=info is not None,
        calibrated=here.calibrated(),
        videos=None if info is None else info.videos,
        files=None if info is None else info.files,
        segments=None if info is None else info.segments,
        hours=None if info is None else round(info.hours, 4),
        unfinished=None if info is None else info.unfinished,
        failures=None if info is None else len(info.failures),
        size_bytes=None if info is None else info.size_bytes,
        model=None if info is None else here.plain(info.model),
        method=None if info is None else info.method,
        policy=None if info is None else info.policy,
        segments_by=None if info is None else info.segments_by,
        version=rushes.__version__,
    )


@router.get("/v1/failures")
async def failures(request: Request) -> schemas.Failures:
    """What could not be indexed, and why."""
    here = service(request)
    indexed(here)
    info = await here.looking.run(lambda: _info(here), request)
    return schemas.Failures(
        failures=[
            schemas.Failure(
                video=row.video,
                code=row.code,
                reason=here.plain(row.reason),
                start=row.start,
                end=row.end,
                at=row.at,  # type: ignore[arg-type]  pydantic reads it
            )
            for row in (info.failures if info else ())
        ]
    )


@router.get("/healthz")
async def health() -> schemas.Health:
    """The process lives."""
    return schemas.Health(status="alive")


@router.get("/readyz")
async def ready(request: Request) -> schemas.Ready:
    """A search would be answered at once."""
    reason = service(request).not_ready()
    if reason is not None:
        raise Refusal("not-ready", reason, headers={"Retry-After": "2"})
    return schemas.Ready(status="ready")


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    here = service(request)
    text = await here.looking.run(lambda: _measured(here), request)
    return Response(text, media_type=MEDIA_TYPE)


@router.get("/problems/{code}")
async def problem(code: Annotated[str, Path(pattern="^[a-z-]{1,40}$")]) -> schemas.Problem:
    """What the type of a problem leads to."""
    kind = KINDS.get(code)
    if kind is None:
        raise Refusal("not-found", "there is no problem of this code")
    return schemas.Problem(
        type=f"/problems/{code}", title=kind.title, status=kind.status, detail="", code=code, hint=kind.hint
    )


def _info(here: Service) -> Info | None:
    """None where there is no index, or none any more."""
    try:
        return here.library.info()
    except FileNotFoundError:
        return None


def _measured(here: Service) -> bytes:
    info = _info(here)
    metrics = here.metrics
    metrics.segments.set(info.segments if info else 0)
    metrics.videos.set(info.videos if info else 0)
    metrics.uploads.set(len(here.uploads))
    metrics.uploads_bytes.set(here.uploads.size_bytes)
    metrics.results.set(len(here.results))
    metrics.queue.set(here.searching.load)
    metrics.ready.set(here.not_ready() is None)
    here.jobs.measure(metrics)
    return metrics.text()
