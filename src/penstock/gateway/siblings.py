"""One exposition for all workers of a host: each offers its own on a Unix socket, and the one that is asked gathers them.

Of a worker that does not answer, because it was killed and is not back, what it has counted is told from its file.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from penstock.core.errors import PenstockError
from penstock.gateway.metrics import OPENMETRICS, PLAIN, Meters, merge_expositions, wants_openmetrics
from penstock.gateway.tally import Tally, read_saved, resume
from penstock.net.client import Client, Timeouts, parse_origin
from penstock.net.server import Reply, Request, Server, ServerLimits

_SUFFIX = ".metrics"
_TIMEOUTS = Timeouts(connect_s=0.5, first_byte_s=1.0, stall_s=1.0)


class Siblings:
    """The workers that share `folder` for their sockets and that of `tally` for their numbers; the socket of one that is gone is removed."""

    def __init__(self, folder: Path, worker: str, meters: Meters, client: Client, tally: Tally) -> None:
        self._folder = folder
        self._tally = tally
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

    async def collect(self, openmetrics: bool = False) -> bytes:
        """The metrics of all workers, this one's first."""
        own = f"{self._worker}{_SUFFIX}"
        names = [
            name
            for name in sorted(path.name for path in self._folder.iterdir())
            if name.endswith(_SUFFIX) and name != own
        ]
        others = await asyncio.gather(*[self._ask(name, openmetrics) for name in names])
        silent = self._tally.others() - {
            name.removesuffix(_SUFFIX) for name, text in zip(names, others, strict=True) if text
        }
        left = [left_by(self._tally.file_of(worker), worker, openmetrics) for worker in sorted(silent)]
        texts = [self._own(openmetrics), *[text for text in (*others, *left) if text]]
        return texts[0] if len(texts) == 1 else merge_expositions(texts, openmetrics)

    def _own(self, openmetrics: bool) -> bytes:
        self._tally.save()
        return self._meters.exposition(openmetrics)

    async def _ask(self, name: str, openmetrics: bool) -> bytes:
        origin = parse_origin(f"unix:{self._path(name)}")
        try:
            headers = ((b"accept", OPENMETRICS if openmetrics else PLAIN),)
            response = await self._client.request(origin, b"GET", b"/metrics", headers, timeouts=_TIMEOUTS)
            return await response.read()
        except PenstockError as error:
            if error.code == "upstream_unreachable":
                (self._folder / name).unlink(missing_ok=True)
            return b""

    async def _answer(self, request: Request, reply: Reply) -> None:
        if request.path == "/healthz":  # the supervisor, which asks here because this has connections to spare
            reply.send(200, (), b"")
            return
        openmetrics = wants_openmetrics(request.header(b"accept"))
        reply.send(200, [(b"content-type", OPENMETRICS if openmetrics else PLAIN)], self._own(openmetrics))

    def _path(self, name: str) -> str:
        return f"/proc/self/fd/{self._descriptor}/{name}"


def left_by(file: Path, worker: str, openmetrics: bool) -> bytes:
    """What a worker that does not answer had counted, as far as its file tells; b"" if there is none."""
    saved = read_saved(file)
    if saved is None:
        return b""
    meters = Meters(worker, gone=True)
    resume(meters, saved)
    return meters.exposition(openmetrics)
