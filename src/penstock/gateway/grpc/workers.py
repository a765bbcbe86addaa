"""The gateway workers of this host, over the Unix sockets on which each of them takes the same requests as on its port."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from penstock.core.errors import Unavailable, UpstreamFailed
from penstock.net.client import Client, Origin, Response, Timeouts, parse_origin

SUFFIX = ".api"
# A worker bounds every wait itself, and the client's deadline ends the rest.
_TIMEOUTS = Timeouts(connect_s=2.0, first_byte_s=3600.0, stall_s=3600.0)


class Workers:
    """Asks them in turn; one that cannot be reached is passed over."""

    def __init__(self, folder: Path, client: Client) -> None:
        """`folder` holds the sockets; it must exist."""
        self._folder = folder
        self._client = client
        self._turn = 0
        # A Unix socket's path holds 107 bytes; the folder's may be longer, that of its descriptor is not.
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Asks nobody any more."""
        os.close(self._descriptor)

    async def ask(
        self, method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes = b""
    ) -> Response:
        """The head of a worker's answer; the caller reads it to its end or calls its `abort`.

        Raises:
            Unavailable: if no worker takes it.
            UpstreamFailed: if the worker that took it ended.
        """
        origins = self._origins()
        for _ in origins:
            self._turn += 1
            origin = origins[self._turn % len(origins)]
            try:
                return await self._client.request(origin, method, path, headers, body, _TIMEOUTS)
            except UpstreamFailed as error:
                if error.code != "upstream_unreachable":
                    raise
        raise Unavailable("No gateway worker answers on this host.", code="no_replica", retry_after=1)

    def _origins(self) -> list[Origin]:
        names = sorted(name for name in os.listdir(self._descriptor) if name.endswith(SUFFIX))  # noqa: PTH208 - by descriptor
        return [parse_origin(f"unix:/proc/self/fd/{self._descriptor}/{name}") for name in names]
