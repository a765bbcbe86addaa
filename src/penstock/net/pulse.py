"""A sign of life for processes that have no HTTP server of their own: /healthz on a Unix socket, answered by their event loop."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.net.server import Server, ServerLimits


class Pulse:
    """Answers every request with 200 as long as the event loop has turns to give."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._server = Server(self._answer, limits=ServerLimits(max_connections=16))
        self._folder = -1

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: if the socket cannot be made.
        """
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        self._folder = os.open(self._socket.parent, os.O_PATH)  # a socket's path holds 107 bytes
        await self._server.start(unix=Path(f"/proc/self/fd/{self._folder}/{self._socket.name}"))

    async def stop(self) -> None:
        """Answers no longer."""
        await self._server.drain(0.0)
        os.close(self._folder)

    async def _answer(self, _request: Request, reply: Reply) -> None:
        reply.send(200, (), b"")
