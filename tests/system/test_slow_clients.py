"""`slowhttptest` in its header, body and read modes against a worker under normal load: normal requests are served, slow ones let go.

How much it moves the time of normal requests is measured by `make bench-slow-clients`.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest

from tests.gateway.house import House, running, until
from tests.gateway.raw_client import chat, read_reply

CONNECTIONS = 80
MODES = {
    "header": ["-H", "-i", "1", "-t", "GET", "-x", "8", "-u", "/v1/chat/completions"],
    "body": ["-B", "-i", "1", "-t", "POST", "-s", "8192", "-x", "8", "-u", "/v1/chat/completions"],
    "read": ["-X", "-t", "GET", "-k", "8", "-w", "64", "-y", "128", "-n", "3", "-z", "8", "-u", "/openapi.json"],
}
QUICK = {"header_timeout_s": 1.5, "body_timeout_s": 1.5, "idle_timeout_s": 2.0}


async def attacked(house: House, mode: str) -> asyncio.subprocess.Process:
    program = shutil.which("slowhttptest")
    assert program is not None, "scripts/system-packages installs it"
    *flags, path = MODES[mode]
    return await asyncio.create_subprocess_exec(
        program, *flags, f"http://127.0.0.1:{house.port}{path}", "-c", str(CONNECTIONS), "-r", "200", "-l", "20",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
async def test_normal_requests_are_served_and_slow_ones_let_go(tmp_path: Path, mode: str) -> None:
    async with running(tmp_path, settings=QUICK) as house:
        server = house.worker.server
        attacker = await attacked(house, mode)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            async with asyncio.timeout(30):
                seen = 0
                while seen < CONNECTIONS // 2:  # the attack is under way
                    seen = max(seen, server.connections)
                    writer.write(chat("hello"))
                    assert (await read_reply(reader)).status == 200
            for _ in range(50):
                writer.write(chat("hello"))
                assert (await read_reply(reader)).status == 200
            writer.close()
            if mode != "read":
                await until(lambda: server.refusals.get(408, 0) > CONNECTIONS // 2, timeout_s=30)
            await until(lambda: server.connections < CONNECTIONS // 4, timeout_s=30)
            assert attacker.returncode is None, "the server let them go, not they the server"
        finally:
            with contextlib.suppress(ProcessLookupError):
                attacker.terminate()
            await attacker.wait()
        await until(lambda: server.connections == 0, timeout_s=30)
        await house.settled()
