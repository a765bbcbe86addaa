"""A real PostgreSQL server for tests, from Debian's package, on a Unix socket in a folder of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from penstock.store.sql import open_database

_ALONE = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_EMPTY = """
DO $$
DECLARE name text;
BEGIN
  SET LOCAL session_replication_role = replica;  -- so that no order of the tables matters
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
    EXECUTE format('DELETE FROM %I', name);
  END LOOP;
END $$
"""


class PostgresServer:
    """One server for a test run; `fresh_database` and `furnished_database` give one of its own to a test."""

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not binaries:
            raise RuntimeError(
                "The tests need PostgreSQL: install Debian's package with 'apt-get install -y postgresql'."
            )
        self._bin = binaries[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._user: str | None = None
        self._migrated = ""  # the database that furnished ones are copies of
        self._furnished: list[str] = []  # those that nobody uses
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = next(n for n in ("postgres", "nobody") if n in {p.pw_name for p in pwd.getpwall()})
            entry = pwd.getpwnam(self._user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        data = self.folder / "data"
        subprocess.run(
            [str(self._bin / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self.folder,
        )
        options = {
            "unix_socket_directories": str(self.folder),
            "listen_addresses": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "60",
            "shared_buffers": "16MB",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [str(self._bin / "postgres"), "-D", str(data), *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            user=self._user,
            cwd=self.folder,
        )
        deadline = time.monotonic() + 60
        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder), "-U", "postgres"]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start: " + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    async def fresh_database(self) -> str:
        """The URL of a new, empty database."""
        return self._url(await self._new("template1"))

    @asynccontextmanager
    async def furnished_database(self) -> AsyncIterator[str]:
        """The URL of a database with all tables and nothing in them; after the block another block may get it, emptied.

        A database is some hundreds of files: to make and remove one for each test would take longer than most tests.
        """
        name = self._furnished.pop() if self._furnished else await self._migrated_copy()
        yield self._url(name)
        await self._empty(name)
        self._furnished.append(name)

    async def _migrated_copy(self) -> str:
        if not self._migrated:
            self._migrated = await self._new("template1")
            await (await open_database(self._url(self._migrated))).close()
        return await self._new(self._migrated)

    async def _new(self, template: str) -> str:
        name = "t" + uuid.uuid4().hex
        async with self._connected("postgres") as connection:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    async def _empty(self, name: str) -> None:
        async with self._connected(name) as connection:
            await connection.execute(_ALONE)
            await connection.execute(_EMPTY)

    @asynccontextmanager
    async def _connected(self, name: str) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(host=str(self.folder), user="postgres", database=name)
        try:
            yield connection
        finally:
            await connection.close()

    def _url(self, name: str) -> str:
        return f"postgresql+asyncpg://postgres@/{name}?host={self.folder}"

    def stop(self) -> None:
        """End the server and remove its folder."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
