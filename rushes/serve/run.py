"""Binds a socket, makes the token if one is needed, tells the address, and serves until it is stopped."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from rushes.library import Library
from rushes.serve.app import create_app
from rushes.serve.limits import Limits
from rushes.serve.security import is_loopback
from rushes.serve.service import Service

SHORTEST = 16  # characters of a token
BACKLOG = 256  # connections that may wait to be accepted
GRACEFUL = 5  # seconds that answers under way get when the server is stopped


def run(
    library: Library,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    allow_hosts: Iterable[str] = (),
    open_page: bool = False,
    log_queries: bool = False,
    limits: Limits | None = None,
) -> None:
    """Serve until Ctrl-C. OSError says what to do about a port in use; ValueError about a token file."""
    token = read_token(token_file) if token_file is not None else None
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(32)
    bound = bind(host, port)
    app = create_app(library, token=token, host=host, allow_hosts=allow_hosts, limits=limits, log_queries=log_queries)
    _log(log_queries)
    address = address_of(host, bound.getsockname()[1])
    secret = "" if token is None or token_file is not None else f"?token={token}"
    _say(f"serving {library.folder} at {address}{secret} (stop with Ctrl-C)")
    if token is not None and token_file is not None:
        _say(f"open it once as {address}?token=... with the token of {token_file}")
    server = Server(app)
    if open_page:
        full = address if token is None else f"{address}?token={token}"
        threading.Thread(target=_open, args=(full, address), daemon=True).start()
    server.run(sockets=[bound])
    _say("stopped")


class Server(uvicorn.Server):
    """uvicorn for an app of `create_app`; tells it as soon as it is to stop, so that streams of events end."""

    def __init__(self, app: FastAPI):
        config = uvicorn.Config(
            app,
            http="h11",  # slower than httptools, and stricter
            ws="none",
            log_config=None,
            access_log=False,  # it would keep addresses, and with one the token
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=GRACEFUL,
            h11_max_incomplete_event_size=16 << 10,
            lifespan="on",
        )
        super().__init__(config)
        self._service: Service = app.state.service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.closing.set()
        # not as uvicorn has it, which sends itself the signal once more when all is closed: then nothing could be said
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that the port is known (0 takes a free one) and a taken one is told in one line."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"{host} is no address of this machine ({error.strerror}); try --host 127.0.0.1") from None
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use; give another with --port, or --port 0 for a free one") from None
        if error.errno == errno.EACCES:
            raise OSError(f"port {port} may not be bound by this user; give one above 1023 with --port") from None
        raise OSError(f"{host} cannot be bound ({error.strerror}); try --host 127.0.0.1") from None
    bound.listen(BACKLOG)  # so that the address works as soon as it is told
    bound.set_inheritable(False)
    return bound


def read_token(file: Path) -> str:
    """The token in a file that only its owner may read. ValueError for anything else."""
    mode = file.stat().st_mode
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{file} can be read by others (mode {stat.S_IMODE(mode):o}); run `chmod 600 {file}`")
    token = file.read_text().strip()
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or any(c in token for c in ' ;,"\\'):
        raise ValueError(f"{file} holds no token: give {SHORTEST} or more letters, digits, - or _ in one line")
    return token


def address_of(host: str, port: int) -> str:
    """What to type into a browser.

    >>> address_of("127.0.0.1", 8000), address_of("::1", 80), address_of("0.0.0.0", 8000).endswith(":8000/")
    ('http://127.0.0.1:8000/', 'http://[::1]:80/', True)
    """
    name = host.strip("[]")
    if name in ("0.0.0.0", "::"):
        name = socket.gethostname()
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def _say(what: str) -> None:
    sys.stderr.write(f"rushes: {what}\n")
    sys.stderr.flush()


def _open(full: str, address: str) -> None:
    """Open the page once the server answers."""
    for _ in range(50):
        try:
            urllib.request.urlopen(f"{address}healthz", timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(full)
            return


def _log(queries: bool) -> None:
    """Warnings of the server to stderr; what is searched for only if that was asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("uvicorn", logging.WARNING), ("rushes.serve", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("rushes.serve.queries").setLevel(logging.INFO if queries else logging.CRITICAL)
