"""Listening: the socket is opened first, so that a taken port is told before anything else happens."""

from __future__ import annotations

import errno
import gc
import socket

from starlette.types import ASGIApp

from harness.errors import HarnessError

GARBAGE_AFTER = (50_000, 20, 50)  # a page makes some ten thousand objects and no cycles: at the usual 700 a fifth of its time is looking


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises HarnessError that names the port and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle on: 40 ms a page
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise HarnessError(_refusal(error, host, port)) from error
    return sock


def serve_forever(app: ASGIApp, sock: socket.socket) -> None:
    """Serve until interrupted."""
    import uvicorn

    gc.freeze()  # modules are never garbage
    gc.set_threshold(*GARBAGE_AFTER)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)).run(sockets=[sock])


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; choose another with --port, or --port 0 for any free one"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs more rights than you have; choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error}; check --host and --port"
