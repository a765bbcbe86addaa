"""Tells a process that hangs from one that is slow: it is asked again and again whether it lives."""

import asyncio

from penstock.supervisor.health import status_of

ASKS = 6  # that stay without an answer, one after the other


async def until_silent(url: str, bound_s: float) -> None:
    """Returns once GET `url` has stayed without any answer `ASKS` times in a row, each given its share of `bound_s` seconds.

    What counts are asks and not seconds, so that nobody is taken for dead because the one who asks was stopped for a while.
    """
    pause = bound_s / ASKS
    silent = 0
    while silent < ASKS:
        asked = asyncio.get_running_loop().time()
        silent = 0 if await status_of(url, pause) else silent + 1
        await asyncio.sleep(max(0.0, asked + pause - asyncio.get_running_loop().time()))
