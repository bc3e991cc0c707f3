"""Every refusal of the HTTP API: a stable code, a status, a title, and a way out, as RFC 9457 asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same in all problems of one code."""

    status: int
    title: str
    hint: str


KINDS: dict[str, Kind] = {
    "bad-request": Kind(400, "The request cannot be read", "Send what /openapi.json describes."),
    "no-upgrade": Kind(400, "The connection cannot be upgraded", "Ask with plain HTTP; there are no web sockets."),
    "no-token": Kind(401, "A token is needed", "Open the address that `rushes serve` printed, or send a bearer token."),
    "bad-token": Kind(401, "The token is not the right one", "Open the address that `rushes serve` printed."),
    "cross-site": Kind(403, "Another site asked", "Ask from the page of this server, or from no page at all."),
    "outside": Kind(403, "The file lies outside the library", "Put a copy of it into the folder and index again."),
    "not-found": Kind(404, "There is nothing here", "See /openapi.json for what there is."),
    "unknown-video": Kind(404, "No such video", "List the videos with GET /v1/videos."),
    "unknown-segment": Kind(404, "No such segment", "Search again: the index may have changed."),
    "unknown-upload": Kind(404, "No such upload", "Uploads expire; upload the file again."),
    "unknown-job": Kind(404, "No such job", "List the jobs with GET /v1/jobs."),
    "no-thumbnail": Kind(404, "No such thumbnail", "Search again: the index may have changed."),
    "no-frame": Kind(404, "No picture there", "Ask for a time inside the video."),
    "wrong-method": Kind(405, "Not with this method", "The header Allow lists what works."),
    "slow-body": Kind(408, "The body came too slowly", "Send it again over a faster connection."),
    "job-running": Kind(409, "A job is running", "Wait for it, pause it or cancel it."),
    "job-state": Kind(409, "The job is in another state", "GET /v1/jobs/ID tells its state."),
    "not-indexed": Kind(409, "The folder is not indexed", "Start with POST /v1/jobs, or run `rushes index`."),
    "library-busy": Kind(409, "Another process is indexing", "Wait for `rushes index` to end, then resume the job."),
    "read-only": Kind(409, "The index cannot be written", "Start the server with --store DIR on a disk with room."),
    "cursor-expired": Kind(410, "The cursor is unknown or has expired", "Ask again without a cursor."),
    "video-gone": Kind(410, "The file is gone or was changed", "Index again with POST /v1/jobs."),
    "too-large": Kind(413, "The body is too large", "Send less; docs/serve.md lists the limits."),
    "uploads-full": Kind(413, "There are too many uploads", "Delete some with DELETE /v1/uploads/ID, or wait."),
    "address-too-long": Kind(414, "The address is too long", "Ask for less at once."),
    "wrong-type": Kind(415, "The body is of another type", "Send application/json, or multipart/form-data to uploads."),
    "not-media": Kind(415, "The file is no picture and no video", "Upload a picture or a video that can be decoded."),
    "bad-range": Kind(416, "The range cannot be served", "Ask for bytes inside the file, in few ranges."),
    "wrong-host": Kind(421, "This server has another name", "Use its address, or start it with --allow-host NAME."),
    "invalid": Kind(422, "The request does not fit", "See `errors` for the fields, /openapi.json for what fits."),
    "empty-query": Kind(422, "The query is empty", "Give text, an image, a video or a segment to look for."),
    "bad-query": Kind(422, "The query cannot be asked", "See `detail`."),
    "not-calibrated": Kind(422, "These hits have no confidence", "Leave out min_confidence, or use another model."),
    "cursor-mismatch": Kind(422, "The cursor belongs to another query", "Send the same query, or the cursor alone."),
    "key-mismatch": Kind(422, "The idempotency key was used for something else", "Make a new key for a new job."),
    "bad-media": Kind(422, "The file goes beyond a limit or cannot be decoded", "See `detail`; upload a smaller one."),
    "rate": Kind(429, "Too many requests", "Wait as many seconds as Retry-After says."),
    "headers-too-large": Kind(431, "The headers are too large", "Send fewer or shorter headers."),
    "internal": Kind(500, "Something went wrong here", "The server's log has more; please report it."),
    "interrupted": Kind(500, "The job was interrupted", "Resume it: what was stored is not encoded again."),
    "index-failed": Kind(500, "The index could not be brought up to date", "See `detail`; mend it and resume."),
    "busy": Kind(503, "Too much is asked at once", "Wait as many seconds as Retry-After says."),
    "too-slow": Kind(503, "It took too long", "Try again, or ask for less."),
    "not-ready": Kind(503, "The library is not ready", "GET /readyz tells why; try again soon."),
    "unreadable": Kind(500, "The file could not be decoded", "See `detail`, and GET /v1/failures; convert the file."),
}


class Refusal(Exception):
    """Raised anywhere below a route; becomes the problem `code`. `more` are further members of the problem."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.errors, self.headers, self.more = code, detail, errors, headers, more

    @property
    def status(self) -> int:
        return KINDS[self.code].status

    def response(self) -> Response:
        """As it is sent. ASCII only, so that a text which no encoding takes cannot break the refusal of it."""
        kind = KINDS[self.code]
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "code": self.code,
            "hint": kind.hint,
        }
        if self.errors is not None:
            body["errors"] = list(self.errors)
        body.update(self.more)
        headers = {"Cache-Control": "no-store", **(self.headers or {})}
        return Response(json.dumps(body), kind.status, headers, MEDIA_TYPE)
