"""Asks the supervisor over its Unix socket: one plain GET, no client library."""

import asyncio
from pathlib import Path

import msgspec

from penstock.core.errors import Unavailable
from penstock.supervisor.values import ProcessStatus


async def processes(socket: Path, timeout_s: float = 2.0) -> list[ProcessStatus]:
    """What the supervisor at `socket` says of its processes.

    Raises:
        Unavailable: if it does not answer within `timeout_s` seconds.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(b"GET /processes HTTP/1.1\r\nhost: supervisor\r\nconnection: close\r\n\r\n")
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return msgspec.json.decode(body, type=list[ProcessStatus])
    except (OSError, TimeoutError, msgspec.DecodeError):
        raise Unavailable(f"The supervisor at {socket} does not answer.", retry_after=1.0) from None
    finally:
        if writer is not None:
            writer.close()
