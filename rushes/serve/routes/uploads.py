"""POST and DELETE of uploads."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rushes.serve import schemas
from rushes.serve.service import service
from rushes.serve.uploads import expires, receive

router = APIRouter()
FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
                "required": ["file"],
                "additionalProperties": False,
            }
        }
    },
}


@router.post("/v1/uploads", status_code=201, openapi_extra={"requestBody": FORM}, tags=["uploads"])
async def upload(request: Request) -> schemas.Upload:
    """Send a picture or a video clip to search with. It is held for a while, by its id alone."""
    here = service(request)
    uploads = here.uploads
    uploads.reserve()
    path = uploads.new_path()
    try:
        try:
            content_type = request.headers.get("content-type", "")
            await receive(request.stream(), content_type, path, here.limits.upload_bytes)
            kept = await here.media.run(lambda: uploads.keep(path), request)
        finally:
            uploads.release()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return schemas.Upload(
        id=kept.id,
        kind=kept.kind,  # type: ignore[arg-type]  checked by pydantic
        seconds=kept.seconds,
        width=kept.width,
        height=kept.height,
        expires=expires(kept),
    )


@router.delete("/v1/uploads/{upload}", status_code=204, tags=["uploads"])
async def forget(upload: schemas.UploadId, request: Request) -> Response:
    """Forget an upload at once."""
    service(request).uploads.drop(upload)
    return Response(status_code=204)
