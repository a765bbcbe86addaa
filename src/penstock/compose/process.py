"""What every process begins with: its log, its loop, its clock, its data folder."""

import logging
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from penstock.core.errors import Unavailable
from penstock.core.settings import Settings


def log_to_stdout(level: int = logging.INFO) -> None:
    """Plain lines on stdout: time, level, logger, text."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=level,
        stream=sys.stdout,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    for noisy in ("alembic", "asyncio", "httpcore", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine to its end, on uvloop."""
    import uvloop

    uvloop.run(main)


def steady_clock() -> Callable[[], float]:
    """Unix seconds that never go back while the process lives."""
    epoch = time.time() - time.monotonic()
    return lambda: epoch + time.monotonic()


def data_folder(settings: Settings) -> Path:
    """The data folder, absolute; made (mode 0700) and marked as standing here, where it is new.

    Raises:
        Unavailable: if it cannot be made or used.
        Conflict: if it was last used on another machine.
    """
    from penstock.supervisor.place import settle

    data = Path(settings.data).absolute()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settle(data)
    except OSError as error:
        raise Unavailable(f"The data folder {data} cannot be made or used: {error.strerror}.", param="--data") from None
    return data
