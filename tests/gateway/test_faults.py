"""What clients get when engines fail, beside the table of faults: several replicas, clients that leave or are slow, full queues."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from penstock.core.snapshot import Limits
from tests.gateway.house import House, running, until
from tests.gateway.raw_client import ask, chat, read_reply

QUICK = {"first_byte_timeout_s": 0.4, "stall_timeout_s": 0.4, "connect_timeout_s": 0.5}
SEATS = {"limits": Limits(concurrency=3, tokens_per_minute=1_000_000)}


async def clean(house: House) -> None:
    await house.settled()
    await until(lambda: all(mock.running == 0 for mock in house.mocks))


async def test_no_replica_listens(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=2) as house:
        for mock in house.mocks:
            await mock.stop()
        got = await ask(house.port, chat("hello"))
        assert (got.status, got.error["code"]) == (502, "upstream_unreachable")
        await clean(house)
        assert house.exchanges()[0].attempts == 2


@pytest.mark.parametrize("fault", ["stopped", "reset", "status503"])
async def test_one_of_two_replicas_fails_and_nobody_notices(tmp_path: Path, fault: str) -> None:
    async with running(tmp_path, replicas=2) as house:
        if fault == "stopped":
            await house.mocks[0].stop()
        else:
            house.mocks[0].server._handler = _failing(fault)
        for _ in range(20):
            assert (await ask(house.port, chat("hello"))).status == 200
        await clean(house)
        assert {record.replica for record in house.exchanges()} == {"r1"}


def _failing(fault: str):  # type: ignore[no-untyped-def]
    async def handle(_request, reply) -> None:  # type: ignore[no-untyped-def]
        if fault == "reset":
            reply._connection.kill()
        else:
            reply.send(503, [], b"{}")

    return handle


async def test_a_pool_without_replicas_refuses_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        pool = msgspec.structs.replace(house.worker.gateway.index.snapshot.pools[0], replicas=())
        house.take(pools=(pool,))
        began = time.monotonic()
        got = await ask(house.port, chat("hello"))
        assert (got.status, got.error["code"]) == (503, "no_replica")
        assert got.headers[b"retry-after"] == b"1"
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["!hang", "!wait and more", "!stall a b c d"])
async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path, stream: bool, fault: str) -> None:
    async with running(tmp_path, key=SEATS) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(chat(fault, stream=stream))
        await until(lambda: house.mock.running == 1)
        if stream and "stall" in fault:
            await reader.readuntil(b"data: ")
        writer.transport.abort()
        await until(lambda: house.mock.left == 1)
        await clean(house)
        await until(lambda: len(house.exchanges()) == 1)
        (record,) = house.exchanges()
        assert (record.outcome, record.error) == ("cancelled", "client_left")


async def test_a_slow_reader_holds_the_engine_back_and_not_the_memory(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=2**14)
        writer.write(chat("!flood", stream=True))
        await reader.readuntil(b"\r\n\r\n")
        written = -1
        while written != house.mock.written:  # until the engine waits
            written = house.mock.written
            await asyncio.sleep(0.3)
        assert 0 < written < 32 * 1024 * 1024
        for _ in range(100):
            await reader.readexactly(65536)
        await until(lambda: house.mock.written > written)
        writer.transport.abort()
        await until(lambda: house.mock.left == 1)
        await clean(house)


async def test_a_full_queue_refuses_at_once_and_a_long_one_in_time(tmp_path: Path) -> None:
    tight = {"max_in_flight": 1, "max_waiting": 1, "max_wait_s": 0.5}
    async with running(tmp_path, pool=tight) as house:
        first = asyncio.create_task(ask(house.port, chat("!wait")))
        await until(lambda: house.mock.running == 1)
        second = asyncio.create_task(ask(house.port, chat("second")))
        state = house.worker.gateway.pools.all()[0]
        await until(lambda: state.waiting == 1)
        third = await ask(house.port, chat("third"))
        assert (third.status, third.error["code"]) == (503, "queue_full")
        assert b"retry-after" in third.headers
        late = await second
        assert (late.status, late.error["code"]) == (503, "queue_timeout")
        house.mock.gate.set()
        assert (await first).status == 200
        await clean(house)


async def test_who_waits_gets_the_place_that_comes_free(tmp_path: Path) -> None:
    async with running(tmp_path, pool={"max_in_flight": 1}) as house:
        first = asyncio.create_task(ask(house.port, chat("!wait")))
        await until(lambda: house.mock.running == 1)
        others = [asyncio.create_task(ask(house.port, chat(f"next {index}"))) for index in range(3)]
        state = house.worker.gateway.pools.all()[0]
        await until(lambda: state.waiting == 3)
        others[1].cancel()
        await until(lambda: state.waiting == 2)
        house.mock.gate.set()
        for task in (first, others[0], others[2]):
            assert (await task).status == 200
        await clean(house)


async def test_drain_finishes_what_is_in_flight(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", house.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(chat("!wait then answer"))
        await until(lambda: house.mock.running == 1)
        port = house.port
        draining = asyncio.create_task(house.worker.stop())
        assert await idle_reader.read() == b"", "an idle connection is closed"
        house.mock.gate.set()
        got = await read_reply(reader)
        assert got.status == 200
        assert got.headers[b"connection"] == b"close"
        await draining
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        idle.close()
        writer.close()
