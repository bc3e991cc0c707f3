"""`create_app(library)`: the HTTP API of one library, and its page, as an ASGI app."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import rushes
from rushes.library import Library
from rushes.serve import openapi, pages
from rushes.serve.limits import Limits
from rushes.serve.problems import Refusal
from rushes.serve.routes import jobs, search, status, uploads, videos
from rushes.serve.security import Gate, Hosts
from rushes.serve.service import Service


def create_app(
    library: Library,
    *,
    token: str | None = None,
    host: str = "127.0.0.1",
    allow_hosts: Iterable[str] = (),
    limits: Limits | None = None,
    log_queries: bool = False,
) -> FastAPI:
    """An app that serves one library under /v1, its page at `/`, and `/healthz`, `/readyz`, `/metrics`.

    token        who has it may ask; None lets everybody who reaches the server ask
    host         the address that it will be bound to, and `allow_hosts` further names that it answers to
    log_queries  write what is searched for into the log; otherwise no query is kept anywhere

    The library need not be indexed yet: it can be by a job, and searching begins as soon as there is something to
    search. The app holds a folder for uploads and a few threads; they end with its lifespan.
    """
    limits = limits or Limits()
    here = Service(library, limits, log_queries=log_queries)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(here.watch())
        try:
            yield
        finally:
            here.closing.set()
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            await asyncio.to_thread(here.close)

    app = FastAPI(
        title="Rushes",
        description="Find the moment in your own videos.",
        version=rushes.__version__,
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = here
    for routes in (search, videos, uploads, jobs, status):
        app.include_router(routes.router)
    app.router.routes.extend(pages.routes())
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_middleware(
        Gate,  # type: ignore[arg-type]
        hosts=Hosts(host, allow_hosts),
        token=token,
        limits=limits,
        on_done=here.metrics.done,
    )
    openapi.complete(app)
    return app


async def _routing(request: Request, error: Exception):
    """What the router itself refuses. Raised again: the gate answers, and counts."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise Refusal("not-found", "no route has this address")
    if error.status_code == 405:
        raise Refusal("wrong-method", f"{request.method} means nothing here", headers=error.headers)
    if error.status_code == 413:
        raise Refusal("too-large", "the body is too large")
    raise Refusal("bad-request", "the body cannot be read")


async def _validation(request: Request, error: Exception):
    """Which fields do not fit, and why; never what was sent in them, which may be anything."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"at": [str(step) for step in one["loc"]], "why": one["msg"], "kind": one["type"]} for one in error.errors()
    ]
    broken = any(one["kind"] == "json_invalid" for one in errors)
    detail = "one field does not fit" if len(errors) == 1 else f"{len(errors)} fields do not fit"
    raise Refusal("bad-request" if broken else "invalid", detail, errors=errors[:20])
