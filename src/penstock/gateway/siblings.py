"""One exposition for all workers of a host: each offers its own on a Unix socket, and the one that is asked gathers them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from penstock.core.errors import PenstockError
from penstock.gateway.metrics import Meters, merge_expositions
from penstock.net.client import Client, Timeouts, parse_origin
from penstock.net.server import Reply, Request, Server, ServerLimits

_SUFFIX = ".metrics"
_TIMEOUTS = Timeouts(connect_s=0.5, first_byte_s=1.0, stall_s=1.0)


class Siblings:
    """The workers that share `folder`. One that does not answer is left out; the socket of one that is gone is removed."""

    def __init__(self, folder: Path, worker: str, meters: Meters, client: Client) -> None:
        self._folder = folder
        self._worker = worker
        self._meters = meters
        self._client = client
        self._server = Server(self._answer, limits=ServerLimits(max_connections=64))
        self._descriptor = -1

    async def start(self) -> None:
        """Offers this worker's metrics.

        Raises:
            OSError: if the socket cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # A Unix socket's path holds 107 bytes; the folder's may be longer, that of its descriptor is not.
        self._descriptor = os.open(self._folder, os.O_PATH)
        await self._server.start(unix=Path(self._path(f"{self._worker}{_SUFFIX}")))

    def socket(self, suffix: str) -> Path:
        """Where this worker may offer something else to processes of this user on this host."""
        return Path(self._path(f"{self._worker}{suffix}"))

    async def stop(self) -> None:
        """Offers them no longer."""
        await self._server.drain(0.5)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def collect(self) -> bytes:
        """The metrics of all workers, this one's first."""
        own = f"{self._worker}{_SUFFIX}"
        names = [
            name
            for name in sorted(path.name for path in self._folder.iterdir())
            if name.endswith(_SUFFIX) and name != own
        ]
        others = await asyncio.gather(*[self._ask(name) for name in names])
        texts = [self._meters.exposition(), *[text for text in others if text]]
        return texts[0] if len(texts) == 1 else merge_expositions(texts)

    async def _ask(self, name: str) -> bytes:
        origin = parse_origin(f"unix:{self._path(name)}")
        try:
            response = await self._client.request(origin, b"GET", b"/metrics", timeouts=_TIMEOUTS)
            return await response.read()
        except PenstockError as error:
            if error.code == "upstream_unreachable":
                (self._folder / name).unlink(missing_ok=True)
            return b""

    async def _answer(self, _request: Request, reply: Reply) -> None:
        reply.send(200, [(b"content-type", b"text/plain; version=0.0.4")], self._meters.exposition())

    def _path(self, name: str) -> str:
        return f"/proc/self/fd/{self._descriptor}/{name}"
