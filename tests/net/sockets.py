"""Helpers on raw sockets for the tests of server and client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from penstock.net.server import Handler, Server, ServerLimits


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Returns when `condition` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come to hold"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(handler: Handler, **limits: float) -> AsyncIterator[Server]:
    """A server of `handler` on a free port."""
    server = Server(handler, limits=ServerLimits(**limits))  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.drain(0.1)


async def exchange(port: int, data: bytes, timeout_s: float = 15.0) -> bytes:
    """Sends `data` and returns all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            return await reader.read()
    finally:
        writer.close()
