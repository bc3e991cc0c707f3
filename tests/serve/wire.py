"""Says exactly these bytes to a server, and reads its answer: what no client library would send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """`raw` is everything that came; status 0 where nothing did."""

    raw: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        assert self.headers.get("content-type") == "application/problem+json", self.raw[:300]
        return json.loads(self.body)


def say(host: str, port: int, data: bytes, *, shut: bool = False, seconds: float = 20.0) -> Answer:
    """Send, then read until the server closes. `shut` ends our side after sending."""
    raw = b""
    with socket.create_connection((host, port), timeout=seconds) as line:
        try:
            line.sendall(data)
            if shut:
                line.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent: the answer may be there all the same
        try:
            while piece := line.recv(65536):
                raw += piece
        except ConnectionResetError:
            pass
    if not raw:
        return Answer(b"", 0, {}, b"")
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("content-length", "").isdigit():
        body = body[: int(headers["content-length"])]  # what follows answers what the server took for a next request
    return Answer(raw, int(first.split()[1]), headers, body)


def request(
    method: str, path: str, body: bytes = b"", *, host: str | None = "localhost", length: bool = True, **headers: str
) -> bytes:
    """One HTTP/1.1 request, nothing escaped, that asks for the connection to be closed. `_` in names becomes `-`."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body and length:
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def post(path: str, data: Any, **headers: str) -> bytes:
    """JSON, unless it is bytes already."""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return request("POST", path, body, **{"Content_Type": "application/json", **headers})


def form(
    content: bytes, *, name: str = "file", filename: str = "a.png", times: int = 1, boundary: str = "edge"
) -> bytes:
    """A multipart form with a file in it."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return (head.encode("latin-1") + content + b"\r\n") * times + f"--{boundary}--\r\n".encode()


def upload(body: bytes, **headers: str) -> bytes:
    kind = {"Content_Type": "multipart/form-data; boundary=edge"}
    return request("POST", "/v1/uploads", body, **{**kind, **headers})


def chunked(method: str, path: str, pieces: list[bytes], **headers: str) -> bytes:
    """A body without a length."""
    head = request(method, path, **{"Transfer_Encoding": "chunked", **headers})
    return head + b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"
