"""Completes the OpenAPI document: every status that can occur, with its schema and media type."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from rushes.serve.problems import KINDS, MEDIA_TYPE
from rushes.serve.schemas import Problem

ALWAYS = (400, 401, 403, 414, 421, 429, 431, 500, 503)  # what the gate may answer to anything
BODY = (408, 413, 415)  # to what has a body
OF = {  # what else a route may answer; 422 comes with every route that takes something
    "search": (404, 409, 410),
    "matches": (404, 409),
    "explain": (404, 409),
    "videos": (409, 410),
    "video": (404, 409),
    "tags": (404, 409),
    "stream": (404, 409, 410, 416),
    "frame": (404, 409, 410),
    "clip": (404, 409, 410, 416),
    "thumbnail": (404,),
    "forget": (404,),
    "start": (409,),
    "job": (404,),
    "pause": (404, 409),
    "resume": (404, 409),
    "cancel": (404, 409),
    "events": (404,),
    "failures": (409,),
    "problem": (404,),
}
BYTES = {"type": "string", "format": "binary"}
OCTETS = {"*/*": {"schema": BYTES}}
CONTENT: dict[str, dict[str, Any]] = {  # of answers that are no JSON
    "stream": OCTETS,
    "frame": {"image/jpeg": {"schema": BYTES}},
    "clip": {"video/mp4": {"schema": BYTES}, "multipart/byteranges": {"schema": BYTES}},
    "thumbnail": {"image/webp": {"schema": BYTES}},
    "metrics": {"text/plain": {"schema": {"type": "string"}}},
    "events": {"text/event-stream": {"schema": {"type": "string"}}},
}


def complete(app: FastAPI) -> None:
    """Make `app.openapi()` tell the whole truth. Made once, on first use."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            made["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            for leftover in ("HTTPValidationError", "ValidationError"):
                made["components"]["schemas"].pop(leftover, None)
            made["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{}, {"bearer": []}]
            for path, methods in made["paths"].items():
                for operation in methods.values():
                    _finish(path, operation)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document


def _finish(path: str, operation: dict[str, Any]) -> None:
    name = operation["operationId"] = operation["operationId"].split("_", 1)[0]
    answers = operation["responses"]
    takes = "422" in answers or "requestBody" in operation
    answers.pop("422", None)
    for status, answer in answers.items():
        if name in CONTENT and status == "200":
            answer["content"] = CONTENT[name]
    if name in ("stream", "clip"):
        answers["206"] = {"description": "A part of it", "content": CONTENT[name] | CONTENT["clip"]}
        answers["304"] = {"description": "As it was"}
    if name == "start":
        answers["200"] = {"description": "The job of this key", "content": answers["202"]["content"]}
    wanted = {*ALWAYS, *OF.get(name, ())} | ({422} if takes else set())
    if "requestBody" in operation or operation.get("tags") == ["uploads"] or name in ("pause", "resume", "cancel"):
        wanted |= set(BODY)
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in sorted(wanted):
        codes = ", ".join(code for code, kind in KINDS.items() if kind.status == status)
        answers[str(status)] = {"description": codes, "content": schema}
