"""`audit: strict`: the reply's last byte goes out when `fdatasync` has returned for the record, seen at the system call itself."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from penstock.core.snapshot import Policy, TenantEntry
from tests.gateway.house import OTHER, running
from tests.gateway.raw_client import ask, chat

STRICT = {
    "policies": (Policy(name="default"), Policy(name="strict", audit="strict")),
    "tenants": (TenantEntry(name="acme"), TenantEntry(name="other", policy="strict")),
}


class Disk:
    """`os.fdatasync` held up: it returns when `gate` is open. `seen` is what the file held at each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[bytes] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.seen.append(Path(f"/proc/self/fd/{descriptor}").read_bytes())
        self.entered.set()
        assert self.gate.wait(60)
        self._real(descriptor)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_last_byte_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    async with running(tmp_path) as house:
        house.take(**STRICT)
        disk = Disk(monkeypatch)
        try:
            assert (await ask(house.port, chat("hello", stream=stream))).status == 200
            assert disk.seen == [], "a tenant without strict audit waits for no disk"
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(chat("hello", stream=stream, key=OTHER))
            assert await asyncio.to_thread(disk.entered.wait, 60), "a strict tenant's record is synced"
            # What the worker would have sent by now is sent: it has served another request meanwhile, from its first byte to its last.
            assert (await ask(house.port, chat("hello"))).status == 200
            early = b""
            try:
                while True:
                    async with asyncio.timeout(0.05):
                        early += await reader.read(65536)
            except TimeoutError:
                pass
            assert (b"data: " in early) == stream, "a stream's events are not held back"
            assert b"[DONE]" not in early
            assert stream or early == b"", "a whole answer comes all at once, after the sync"
            assert not early.endswith(b"0\r\n\r\n")
            disk.gate.set()
            async with asyncio.timeout(60):
                late = await reader.readuntil(b"0\r\n\r\n" if stream else b"}")
            assert (b"[DONE]" in late) if stream else late.startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
            await house.settled()
            (theirs,) = [one for one in house.exchanges() if one.tenant == "other"]
            assert theirs.id.encode() in disk.seen[0], "the record was in the file that was synced"
        finally:
            disk.gate.set()
