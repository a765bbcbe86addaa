"""Processes that the examiner starts and ends."""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Mapping

from penstock.core.errors import Unavailable

_LINE = 1 << 20  # bytes of the longest line that is read
_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """In the child, before it becomes the program: the kernel ends it when the examiner is killed."""
    _libc.prctl(_PDEATHSIG, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running(
    argv: tuple[str, ...], environment: Mapping[str, str] | None = None, folder: str | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process whose stdout and stderr are one stream, without our own settings and secrets, in `folder` and with what `environment` adds; it is ended with all that it has started when the context is left.

    Raises:
        Unavailable: if it cannot be started.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**ours, **(environment or {})},
            cwd=folder,
            limit=_LINE,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise Unavailable(f"{argv[0]} cannot be started: {error.strerror or error}.") from None
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
