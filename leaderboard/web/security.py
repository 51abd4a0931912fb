"""What every answer carries and every request must pass: a strict content policy, a known Host header, no foreign Origin.

Transcripts are hostile. Nothing is loaded from elsewhere, no script runs but this site's own files (none inline), no page can be
framed; a foreign Host (DNS rebinding) is refused, and so is whatever another site's page sends here (its Origin differs from the Host).
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Guard:
    """ASGI middleware: refuses unknown hosts with 421 and foreign origins with 403, adds ``HEADERS`` to everything."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        origin = dict(scope["headers"]).get(b"origin", b"").decode("latin-1")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if not self._known(host_name(sent)):
            refusal = PlainTextResponse(f"This server does not answer for the host {sent[:200]!r}.\n", status_code=421)
            await refusal(scope, receive, send_guarded)
            return
        if origin and origin.partition("://")[2].lower() != sent.lower():
            refusal = PlainTextResponse(f"This server answers its own pages only, not those of {origin[:200]!r}.\n", status_code=403)
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _known(self, host: str) -> bool:
        # Listening on every interface means that the operator wants any name of this machine.
        return host in self._hosts or bool(self._hosts & {"0.0.0.0", "::"})


def host_name(header: str) -> str:
    """The host of a Host header without its port: ``[::1]:80`` is ``::1``."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
