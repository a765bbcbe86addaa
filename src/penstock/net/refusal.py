"""What a connection gets for which there is no room: a word, and the end. It costs the server as little as can be."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from penstock.core.errors import Unavailable
from penstock.net.reply import STATUS_LINES, header_lines
from penstock.wire.openai import error_body, error_headers

if TYPE_CHECKING:
    from penstock.net.server import Server

FULL = Unavailable(
    "Too many connections are open. Try again in a moment.", code="too_many_connections", retry_after=1.0
)


def refusal_message(date_line: bytes) -> bytes:
    """The whole reply."""
    body = error_body(FULL)
    return b"%b%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        STATUS_LINES[FULL.status],
        date_line,
        header_lines(error_headers(FULL)),
        len(body),
        body,
    )


class Refusal(asyncio.Protocol):
    """A connection that is told 503 and closed. It stays for a moment, so that a client that is still sending can read the reply."""

    __slots__ = ("_server", "_silent", "_transport", "since")

    def __init__(self, server: Server, *, silent: bool) -> None:
        """With `silent` nothing is said: over TLS a word would cost a handshake."""
        self._server = server
        self._silent = silent
        self._transport: asyncio.Transport | None = None
        self.since = time.monotonic_ns()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says it, and ends the server's side."""
        self._transport = transport  # type: ignore[assignment]
        self._server.count_refusal(FULL)
        if self._silent:
            self.kill()
            return
        self._server.refused(self)
        self._transport.write(self._server.full_message)  # type: ignore[union-attr]
        self._transport.write_eof()  # type: ignore[union-attr]

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has heard it, or has left."""
        self._transport = None
        self._server.forget_refused(self)

    def eof_received(self) -> bool:
        """The client has closed; so does the transport."""
        return False

    def kill(self) -> None:
        """Ends it now."""
        if self._transport is not None:
            self._transport.abort()
