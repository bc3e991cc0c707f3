"""The gate before every route: who may ask, from where, how much, and the headers that all answers carry."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rushes.serve.limits import Limits
from rushes.serve.problems import Refusal

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")
UPLOADS = "/v1/uploads"
OPEN = ("/healthz",)  # tells nothing but that the process lives, so it needs no token
HEADERS_BYTES, ADDRESS_BYTES = 12 << 10, 4 << 10
CHEAP = 0.1  # of a search: what is only read
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
log = logging.getLogger("rushes.serve")


class Hosts:
    """The names that this server answers to, so that a name made to lead here (DNS rebinding) is refused.

    A server bound to every address (0.0.0.0 or ::) answers to any literal address and to its machine's name: a page
    elsewhere can make a name lead here, but it cannot make the browser send an address that it did not load from.

    >>> hosts = Hosts("127.0.0.1", ["films.lan"])
    >>> [hosts.knows(name) for name in ("localhost:8000", "[::1]:8000", "films.lan", "evil.example", "localhost.", "")]
    [True, True, True, False, False, False]
    """

    def __init__(self, bound: str = "127.0.0.1", more: Iterable[str] = ()):
        self.names = {name.lower() for name in (*LOOPBACK, bound.strip("[]"), *more)}
        self.any_address = _is_wildcard(bound)
        if self.any_address:
            self.names |= {socket.gethostname().lower()}

    def knows(self, header: str) -> bool:
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", header)
        if match is None:
            return False
        name = (match[1] or match[2]).lower()
        if name in self.names:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Buckets:
    """A token bucket for each client: `rate` units a second, `burst` saved up at most. The `most` latest are kept."""

    def __init__(self, rate: float, burst: float, most: int, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.most, self._clock = rate, burst, most, clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, cost: float) -> float:
        """0 if the client may go on, or the seconds after which it may."""
        now = self._clock()
        units, then = self._held.pop(client, (self.burst, now))
        units = min(self.burst, units + (now - then) * self.rate)
        wait = 0.0 if units >= cost else (cost - units) / self.rate
        self._held[client] = (units if wait else units - cost, now)
        if len(self._held) > self.most:
            self._held.popitem(last=False)
        return wait


class Gate:
    """ASGI middleware, the outermost: nothing reaches a route that it did not let through.

    In this order: the Host is ours; no upgrade; the token, if one is set; no other site asks; not too often; not too
    many at once; the body has the right type and size, counted while it is read. JSON bodies are read here as a
    whole, so that a route never waits for a slow sender.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        token: str | None = None,
        limits: Limits | None = None,
        on_done: Callable[[Scope, int, str, float], None] | None = None,
    ):
        self.app, self.hosts, self.token = app, hosts, token
        self.limits = limits or Limits()
        self.on_done = on_done
        self.cookie = cookie_name(token) if token else ""
        self.buckets = Buckets(self.limits.rate, self.limits.burst, self.limits.clients)
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        answer = _Answer(send)
        began = time.monotonic()
        self.active += 1
        try:
            await self._guarded(scope, receive, answer)
        finally:
            self.active -= 1
            if self.on_done is not None:
                self.on_done(scope, answer.status, answer.code, time.monotonic() - began)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            entered = self._check(scope)
            if entered is not None:
                await entered(scope, receive, answer)
            else:
                await self.app(scope, await self._body(scope, receive), answer)
        except Refusal as refusal:
            await answer.refuse(refusal, scope, receive)
        except Hangup:
            return  # nobody is left to be answered
        except Exception as error:
            log.exception("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
            refusal = Refusal("internal", "an unexpected error; it is in the server's log")
            await answer.refuse(refusal, scope, receive)

    def _check(self, scope: Scope) -> ASGIApp | None:
        """Refusal, or None to go on, or what answers in place of the app: the door that a token opens."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADERS_BYTES:
            raise Refusal("headers-too-large", f"the headers have more than {HEADERS_BYTES} bytes", headers=CLOSE)
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > ADDRESS_BYTES:
            raise Refusal("address-too-long", f"the address has more than {ADDRESS_BYTES} bytes")
        headers = _headers(scope)
        if any(len(values) > 1 for name, values in headers.items() if name in SINGLE):
            raise Refusal("bad-request", "a header that may be given once is given twice", headers=CLOSE)
        if "content-length" in headers and "transfer-encoding" in headers:
            raise Refusal("bad-request", "the body has two lengths", headers=CLOSE)  # where it ends is anybody's guess
        host = headers.get("host", [""])[0]
        if not self.hosts.knows(host):
            raise Refusal("wrong-host", "the Host header names another server")
        if "websocket" in headers.get("upgrade", [""])[0].lower():
            raise Refusal("no-upgrade", "there are no web sockets here")
        path, method = scope["path"], scope["method"]
        if self.token is not None and path not in OPEN:
            at_the_door = path == "/" and method == "GET"
            query = parse_qs(scope["query_string"].decode("latin-1")) if at_the_door else {}
            if "token" in query:
                return self._enter(query["token"])
            self._authorised(headers)
        site = headers.get("sec-fetch-site", ["none"])[0]
        origin = headers.get("origin", [None])[0]
        if method not in SAFE and origin is not None and not _same_origin(origin, host):
            raise Refusal("cross-site", "the Origin header names another site")
        walks_in = method == "GET" and path == "/" and headers.get("sec-fetch-mode", [""])[0] == "navigate"
        if site not in ("none", "same-origin") and not walks_in:
            raise Refusal("cross-site", "a page of another site asked for this")
        client = (scope.get("client") or ("unknown", 0))[0]
        wait = self.buckets.take(client, _cost(method, path))
        if wait:
            raise Refusal("rate", "too many requests from this client", headers={"Retry-After": str(int(wait) + 1)})
        if self.active > self.limits.requests:
            raise Refusal("busy", "too many requests are in progress", headers={"Retry-After": "1"})
        return None

    def _enter(self, given: list[str]) -> ASGIApp:
        """`GET /?token=T`: the right token becomes a cookie, so that the page and its pictures need no header."""
        if len(given) != 1 or not self._right(given[0]):
            raise Refusal("bad-token", "the token in the address is not the one of this server")
        response = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        assert self.token is not None
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
        return response

    def _authorised(self, headers: dict[str, list[str]]) -> None:
        challenge = {"WWW-Authenticate": 'Bearer realm="rushes"'}
        if "authorization" in headers:
            scheme, _, given = headers["authorization"][0].partition(" ")
            if scheme.lower() == "bearer" and self._right(given.strip()):
                return
            raise Refusal("bad-token", "the bearer token is not the one of this server", headers=challenge)
        for line in headers.get("cookie", []):
            try:
                jar = SimpleCookie(line)
            except CookieError:
                continue
            if self.cookie in jar and self._right(jar[self.cookie].value):
                return
        raise Refusal("no-token", "this server asks for a token", headers=challenge)

    def _right(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """The body as the app will read it: JSON whole and within its limit, uploads piece by piece within theirs."""
        headers, method = _headers(scope), scope["method"]
        length = headers.get("content-length", [None])[0]
        has_body = "transfer-encoding" in headers or (length is not None and length.strip() != "0")
        upload = scope["path"] == UPLOADS and method == "POST"
        limit = self.limits.upload_bytes + (64 << 10) if upload else self.limits.json_bytes  # a form has some margin
        if length is not None and not length.isascii():
            raise Refusal("bad-request", "the length of the body is no number")
        if length is not None and (not length.isdigit() or len(length) > 18):
            raise Refusal("bad-request" if not length.isdigit() else "too-large", "the length of the body is absurd")
        if length is not None and int(length) > limit:
            raise Refusal("too-large", f"the body has {length} bytes, {limit} are taken")
        if has_body and method not in ("GET", "HEAD"):
            kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
            wanted = "multipart/form-data" if upload else "application/json"
            if kind != wanted:
                raise Refusal("wrong-type", f"the body should be {wanted}")
            if "content-encoding" in headers:
                raise Refusal("wrong-type", "the body should be sent without Content-Encoding")
        if upload:
            return _Counted(receive, limit, self.limits.body_patience)
        if not has_body:
            return receive
        counted = _Counted(receive, limit, self.limits.body_patience)
        whole = bytearray()
        while True:
            message = await counted()
            if message["type"] == "http.disconnect":
                raise Hangup
            whole += message.get("body", b"")
            if not message.get("more_body", False):
                return _Replayed(bytes(whole), receive)


class Hangup(Exception):
    """The client went away while it was sending or waiting."""


SINGLE = ("host", "origin", "content-length", "content-type", "authorization", "sec-fetch-site", "range", "upgrade")


class _Answer:
    """`send` with the headers that all answers carry; remembers the status, and the code of a refusal."""

    def __init__(self, send: Send):
        self._send, self.status, self.code = send, 0, ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() != b"server"]
            present = {name.lower() for name, _ in kept}
            message = {**message, "headers": [*kept, *(pair for pair in HEADERS if pair[0] not in present)]}
        await self._send(message)

    async def refuse(self, refusal: Refusal, scope: Scope, receive: Receive) -> None:
        self.code = refusal.code
        if self.status:
            raise refusal  # the answer has begun, it can only be cut off
        await refusal.response()(scope, receive, self)


class _Counted:
    """`receive` that refuses a body beyond `limit` bytes or one that stops coming for `patience` seconds."""

    def __init__(self, receive: Receive, limit: int, patience: float):
        self._receive, self.limit, self.patience, self.size, self.done = receive, limit, patience, 0, False

    async def __call__(self) -> Message:
        if self.done:
            return await self._receive()
        try:
            async with asyncio.timeout(self.patience):
                message = await self._receive()
        except TimeoutError:
            raise Refusal("slow-body", f"nothing came for {self.patience:.0f} s", headers=CLOSE) from None
        self.size += len(message.get("body", b""))
        if self.size > self.limit:
            raise Refusal("too-large", f"the body has more than {self.limit} bytes", headers=CLOSE)
        self.done = message["type"] != "http.request" or not message.get("more_body", False)
        return message


CLOSE = {"Connection": "close"}


class _Replayed:
    """A body that was read, given once; then whatever the connection says."""

    def __init__(self, body: bytes, receive: Receive):
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


def cookie_name(token: str) -> str:
    """Cookies do not know ports: each server has a name of its own, so that two on one machine do not log one out."""
    return "rushes-" + hashlib.sha256(token.encode()).hexdigest()[:8]


def _headers(scope: Scope) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _same_origin(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())


def _cost(method: str, path: str) -> float:
    if method in ("POST", "PUT", "DELETE") or path.endswith(("/frame", "/clip")):
        return 1.0
    return CHEAP
