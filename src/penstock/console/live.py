"""Live regions: pieces of a page, sent again as server-sent events when they have changed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse

from penstock.console.visit import Visit
from penstock.core.errors import PenstockError

TICK_S = 2.0
LONGEST_S = 600.0  # then the browser comes again, with a session that is looked at anew


def encode(name: str, text: str) -> bytes:
    """One event that carries `text`, line by line."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()


async def live(
    visit: Visit, read: Callable[[], Awaitable[Mapping[str, str]]], tick_s: float = TICK_S
) -> StreamingResponse:
    """An endless answer that sends each fragment of `read` under its name, whenever it differs from what was sent before.

    It ends when the visitor leaves, when the process stops, and when the API refuses.

    Raises:
        PenstockError: if the API refuses the first time.
    """
    first = await read()

    async def events() -> AsyncIterator[bytes]:
        sent: dict[str, int] = {}
        fragments = first
        yield b"retry: 2000\n\n"
        for _ in range(int(LONGEST_S / tick_s)):
            changed = [encode(name, text) for name, text in fragments.items() if sent.get(name) != hash(text)]
            sent.update({name: hash(text) for name, text in fragments.items()})
            yield b"".join(changed) or b": still here\n\n"
            await asyncio.sleep(tick_s)
            if visit.console.stopping() or await visit.request.is_disconnected():
                return
            try:
                fragments = await read()
            except PenstockError:
                return

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
