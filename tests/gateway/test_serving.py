"""A worker from start to SIGTERM, strict audit, and addresses that cannot be had."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.errors import Damaged, Unavailable
from penstock.core.settings import GatewaySettings
from penstock.core.snapshot import Limits, Policy
from penstock.gateway.keep import write_snapshot
from penstock.gateway.serve import serve_gateway
from penstock.journal.writer import JournalWriter
from penstock.store.ledger import LocalLedger
from penstock.store.limiter import Limiter
from tests.gateway.house import running, snapshot, until
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import ask, chat
from tests.ports import free_port


def serving(data: Path, port: int, journal: JournalWriter, **more: Any) -> asyncio.Task[None]:
    return asyncio.create_task(
        serve_gateway(
            settings=GatewaySettings(port=port, drain_s=5, **more),
            data=data,
            worker="w0",
            journal=journal,
            limiter=Limiter(LocalLedger()),
            service_token="t",
            subject_key=bytes(32),
        )
    )


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def open_journal(data: Path) -> JournalWriter:
    return JournalWriter.open(data / "journal", "w0", loop=asyncio.get_running_loop(), clock=time.time)


async def test_sigterm_drains_and_ends(tmp_path: Path) -> None:
    mock = MockUpstream()
    write_snapshot(tmp_path / "gateway" / "snapshot.json", snapshot([await mock.start()]))
    port, journal = free_port(), open_journal(tmp_path)
    task = serving(tmp_path, port, journal)
    await until(lambda: listens(port))
    asked = asyncio.create_task(ask(port, chat("!wait")))
    await until(lambda: mock.running == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: not listens(port))
    assert not task.done()
    mock.gate.set()
    assert (await asked).status == 200
    await task
    journal.close()
    await mock.stop()


async def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
            await serving(tmp_path, port, journal)
    journal.close()


async def test_a_damaged_snapshot_is_said_so(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "snapshot.json").write_text("{")
    with pytest.raises(Damaged, match=r"snapshot\.json holds no Snapshot"):
        await serving(tmp_path, free_port(), journal)
    journal.close()


async def test_strict_audit_refuses_what_cannot_be_recorded(tmp_path: Path) -> None:
    async with running(tmp_path, policies=(Policy(name="default", audit="strict"),)) as house:
        for stream in (False, True):
            assert (await ask(house.port, chat("hello", stream=stream))).status == 200
        journal = house.worker.gateway.journal
        assert isinstance(journal, JournalWriter)
        journal._failing, journal._tried = True, float("inf")
        got = await ask(house.port, chat("hello"))
        assert (got.status, got.error["type"]) == (503, "server_error")
        assert len(house.mock.asked) == 2
        house.take(policies=(Policy(name="default", audit="buffered"),))
        assert (await ask(house.port, chat("hello"))).status == 200


async def test_seats_are_given_back_whatever_happens(tmp_path: Path) -> None:
    key = {"limits": Limits(concurrency=2)}
    async with running(tmp_path, key=key, pool={"first_byte_timeout_s": 0.3, "stall_timeout_s": 0.3}) as house:
        for fault in ("!reset", "!hang", "!truncate a b c", "!status500", "!stall a b c", "fine"):
            for stream in (False, True):
                await ask(house.port, chat(fault, stream=stream))
        waiting = [asyncio.create_task(ask(house.port, chat("!wait"))) for _ in range(2)]
        await until(lambda: house.mock.running == 2)
        got = await ask(house.port, chat("one too many"))
        assert (got.status, got.error["code"]) == (429, "concurrency_limit_exceeded")
        house.mock.gate.set()
        assert [(await one).status for one in waiting] == [200, 200]
        await house.settled()


async def test_money_is_counted_and_limits(tmp_path: Path) -> None:
    price = msgspec.convert({"prompt": 1000.0, "completion": 2000.0}, dict[str, float])
    key = {"limits": Limits(usd_per_day=0.6)}
    async with running(tmp_path, key=key) as house:
        pool = house.worker.gateway.index.snapshot.pools[0]
        house.take(pools=(msgspec.structs.replace(pool, price=msgspec.convert(price, type(pool.price))),))
        assert (await ask(house.port, chat("hello", max_tokens=10))).status == 200
        got = await ask(house.port, chat("hello", max_tokens=300))
        assert (got.status, got.error["code"]) == (429, "insufficient_quota")
        await house.settled()
        assert house.exchanges()[0].cost_nanousd == (11 * 1000 + 4 * 2000) * 1000
