"""A real PostgreSQL server for tests, from Debian's package, on a Unix socket in a folder of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from penstock.store.sql import open_database


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
        self._furnished: str | None = None  # the database that furnished ones are copies of
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
        return await self._new("template1")

    async def furnished_database(self) -> str:
        """The URL of a new database with all tables and nothing in them: a copy of one that was migrated."""
        if self._furnished is None:
            url = await self.fresh_database()
            await (await open_database(url)).close()
            self._furnished = str(make_url(url).database)
        return await self._new(self._furnished)

    async def _new(self, template: str) -> str:
        name = "t" + uuid.uuid4().hex
        connection = await asyncpg.connect(host=str(self.folder), user="postgres", database="postgres")
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await connection.close()
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
