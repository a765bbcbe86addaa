"""SQLite files with all tables and nothing in them: migrating takes longer than most tests, so it is done once a process, and copied."""

import asyncio
import shutil
import threading
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from penstock.store.sql import open_database


def furnished(file: Path) -> str:
    """The URL of a new SQLite database in `file`, as `open_database` leaves it."""
    shutil.copy(Path(_folder().name) / "empty.db", file)
    return url_of(file)


def url_of(file: Path) -> str:
    """The URL of the SQLite database in `file`."""
    return f"sqlite+aiosqlite:///{file}"


@cache
def _folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="penstock-tables-")  # gone when the process ends

    async def migrate() -> None:
        await (await open_database(url_of(Path(folder.name) / "empty.db"))).close()

    migrating = threading.Thread(target=asyncio.run, args=(migrate(),))  # the caller's may be a running loop
    migrating.start()
    migrating.join()
    return folder
