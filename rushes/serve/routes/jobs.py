"""POST and GET of indexing jobs, their orders, and the stream of their progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from rushes.serve import schemas
from rushes.serve.jobs import ENDED, JobRunning, Record, WrongState
from rushes.serve.problems import KINDS, Refusal
from rushes.serve.service import Service, service

router = APIRouter(tags=["jobs"])
LOOK = 0.4  # seconds between looks at a job that is watched
BEAT = 15.0  # seconds after which a stream that has nothing to say says so
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


@router.post("/v1/jobs", status_code=202)
async def start(asked: schemas.JobQuestion, request: Request, response: Response, key: Key = None) -> schemas.Job:
    """Index what is new or changed. One job at a time; the same Idempotency-Key gives the same job."""
    here = service(request)
    record, new = await _ordered(here, lambda: here.jobs.start(retry_failed=asked.retry_failed, key=key))
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return told(here, record)


@router.get("/v1/jobs")
async def jobs(request: Request) -> schemas.Jobs:
    """The latest first."""
    here = service(request)
    records = await here.looking.run(here.jobs.all, request)
    return schemas.Jobs(jobs=[told(here, record) for record in records])


@router.get("/v1/jobs/{job}")
async def job(job: schemas.JobId, request: Request) -> schemas.Job:
    here = service(request)
    return told(here, await _found(here, job))


@router.post("/v1/jobs/{job}/pause", status_code=202)
async def pause(job: schemas.JobId, request: Request) -> schemas.Job:
    """Stop after the next stored segment. The process ends; `resume` starts another that goes on from there."""
    here = service(request)
    return told(here, await _ordered(here, lambda: here.jobs.order(job, "pause")))


@router.post("/v1/jobs/{job}/resume", status_code=202)
async def resume(job: schemas.JobId, request: Request) -> schemas.Job:
    """Go on with a job that was paused, has failed, or was interrupted."""
    here = service(request)
    return told(here, await _ordered(here, lambda: here.jobs.resume(job)))


@router.post("/v1/jobs/{job}/cancel", status_code=202)
async def cancel(job: schemas.JobId, request: Request) -> schemas.Job:
    """Stop for good. What was stored stays; a new job goes on from there."""
    here = service(request)
    return told(here, await _ordered(here, lambda: here.jobs.order(job, "cancel")))


@router.get("/v1/jobs/{job}/events", response_class=StreamingResponse)
async def events(job: schemas.JobId, request: Request) -> StreamingResponse:
    """Server-sent events: "progress" with the job at each change, "end" with it once it is done or will not go on."""
    here = service(request)
    record = await _found(here, job)
    if here.watchers >= here.limits.watchers:
        raise Refusal("busy", "too many streams of events are open", headers={"Retry-After": "5"})
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(here, record, request), media_type="text/event-stream", headers=headers)


async def _stream(here: Service, record: Record, request: Request) -> AsyncIterator[str]:
    here.watchers += 1
    try:
        yield "retry: 2000\n\n"
        last: Record | None = None
        silent = 0.0
        while not here.closing.is_set():
            if record != last:
                name = "end" if record.state in ENDED else "progress"
                yield f"event: {name}\ndata: {told(here, record).model_dump_json()}\n\n"
                if name == "end":
                    return
                last, silent = record, 0.0
            elif silent >= BEAT:
                yield ": still here\n\n"
                silent = 0.0
            await asyncio.sleep(LOOK)
            silent += LOOK
            if await request.is_disconnected():
                return
            found = await here.looking.run(partial(here.jobs.get, record.id))
            if found is None:
                return
            record = found
    finally:
        here.watchers -= 1


async def _found(here: Service, name: str) -> Record:
    record = await here.looking.run(lambda: here.jobs.get(name))
    if record is None:
        raise Refusal("unknown-job", "there is no job of this id")
    return record


async def _ordered(here: Service, call: Callable):
    try:
        return await here.looking.run(call)
    except JobRunning as error:
        running = told(here, error.record).model_dump(mode="json")
        raise Refusal("job-running", f"job {error.record.id} is {error.record.state}", job=running) from None
    except WrongState as error:
        raise Refusal("job-state", str(error)) from None
    except LookupError:
        raise Refusal("unknown-job", "there is no job of this id") from None
    except ValueError as error:
        raise Refusal("key-mismatch", str(error)) from None
    except TimeoutError:
        raise Refusal("busy", "another server decides about jobs just now", headers={"Retry-After": "2"}) from None
    except OSError:
        raise Refusal("read-only", "the index cannot be written") from None


def told(here: Service, record: Record) -> schemas.Job:
    error = None
    if record.error is not None:
        kind = KINDS[record.error["code"]]
        error = schemas.Problem(
            type=f"/problems/{record.error['code']}",
            title=kind.title,
            status=kind.status,
            detail=here.plain(record.error["detail"]),
            code=record.error["code"],
            hint=kind.hint,
        )
    return schemas.Job.model_validate(
        {
            **{name: getattr(record, name) for name in schemas.Job.model_fields if name != "error"},
            "report": json.loads(json.dumps(record.report)) if record.report is not None else None,
            "error": error,
        }
    )
