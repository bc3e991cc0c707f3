"""The page's own files, from inside the package: a fixed list, read at start, so that no path is ever built."""

from __future__ import annotations

import hashlib
import mimetypes
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rushes.serve.problems import Refusal

TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def routes() -> list[Route]:
    """A route for each file of `rushes/serve/page`, and `/` for its index.html."""
    found = []
    for name, file in _walk(files("rushes.serve") / "page", ""):
        found.append(Route(f"/{name}", _giver(name, file), methods=["GET"]))
        if name == "index.html":
            found.append(Route("/", _giver(name, file), methods=["GET"]))
    return found


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    if not folder.is_dir():
        return []
    found: list[tuple[str, Traversable]] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_dir():
            found += _walk(file, f"{prefix}{file.name}/")
        elif not file.name.startswith((".", "_")):
            found.append((prefix + file.name, file))
    return found


def _giver(name: str, file: Traversable):
    ending = name[name.rfind(".") :]
    media_type = TYPES.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"

    async def give(request: Request) -> Response:
        try:
            body = file.read_bytes()  # a few kilobytes, from the system's cache
        except FileNotFoundError:
            raise Refusal("not-found", "the page has no such file") from None
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return give
