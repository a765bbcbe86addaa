"""A real redis-server, that can be killed and started again with what it had written down."""

import asyncio
import shutil
import subprocess
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.ports import free_port

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """One server on a free port of this machine; every write is in the kernel before its answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        assert PROGRAM is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        # With `everysec` a write waits for up to two seconds while an earlier one is being synced, though it was answered.
        flags += ["--appendonly", "yes", "--appendfsync", "no"]
        self._process = subprocess.Popen([PROGRAM, *flags], stdout=subprocess.DEVNULL)
        async with asyncio.timeout(30):
            while not await self._answers():
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        client = Redis(port=self.port)
        try:
            return bool(await client.ping())
        except RedisError:
            return False
        finally:
            await client.aclose()

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
