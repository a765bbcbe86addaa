"""What clients get when engines fail: the truth, in time, and never `[DONE]` on a stream that did not end."""

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


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("reset", 502, "upstream_closed"),
        ("garbage", 502, "upstream_garbage"),
        ("truncate", 502, "upstream_truncated"),
        ("nojson", 502, "upstream_garbage"),
        ("nochoices", 502, "upstream_garbage"),
        ("hang", 504, "upstream_timeout"),
        ("stall", 504, "upstream_timeout"),
        ("status500", 502, "upstream_status"),
        ("status401", 502, "upstream_status"),
        ("status404", 502, "upstream_status"),
        ("status429", 503, "engine_busy"),
        ("status503", 503, "engine_busy"),
        ("status400", 400, "context_length_exceeded"),
    ],
)
async def test_json(tmp_path: Path, fault: str, status: int, code: str) -> None:
    async with running(tmp_path, pool=QUICK, key=SEATS) as house:
        got = await ask(house.port, chat(f"!{fault}"))
        assert (got.status, got.error["code"]) == (status, code)
        assert got.headers[b"x-penstock-request-id"].startswith(b"req_")
        assert got.headers[b"x-penstock-version"] == b"mock:v1.0.0"
        await clean(house)
        (record,) = house.exchanges()
        assert (record.status, record.error) == (status, code)
        assert record.outcome == ("refused" if status < 500 else "error")
        assert (await ask(house.port, chat("still alive"))).status == 200


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("truncate", "upstream_truncated"),
        ("stall", "upstream_timeout"),
        ("nodone", "upstream_truncated"),
        ("nojson", "upstream_garbage"),
    ],
)
async def test_a_stream_that_breaks_ends_in_an_error(tmp_path: Path, fault: str, code: str) -> None:
    async with running(tmp_path, pool=QUICK, key=SEATS) as house:
        got = await ask(house.port, chat(f"!{fault} two three four", stream=True))
        assert got.status == 200
        assert not got.whole, "the connection ends without the end of the body"
        assert b"[DONE]" not in got.body
        last = got.body.split(b"data: ")[-1]
        assert msgspec.json.decode(last)["error"]["code"] == code
        await clean(house)
        (record,) = house.exchanges()
        assert (record.status, record.outcome, record.error) == (200, "truncated", code)
        assert 0 < record.usage.completion <= record.chunks


async def test_an_error_told_within_a_stream_is_not_followed_by_done(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, chat("!error two three", stream=True))
        assert b"out of memory" in got.body
        assert b"[DONE]" not in got.body
        assert got.body.count(b'"error"') == 1
        assert not got.whole
        await clean(house)
        assert house.exchanges()[0].outcome == "truncated"


@pytest.mark.parametrize(
    ("fault", "status"),
    [("reset", 502), ("garbage", 502), ("notsse", 502), ("hang", 504), ("status503", 503), ("status400", 400)],
)
async def test_a_stream_that_never_began_is_refused_as_json(tmp_path: Path, fault: str, status: int) -> None:
    async with running(tmp_path, pool=QUICK, key=SEATS) as house:
        got = await ask(house.port, chat(f"!{fault}", stream=True))
        assert got.status == status
        assert got.headers[b"content-type"] == b"application/json"
        assert got.error["message"]
        await clean(house)


@pytest.mark.parametrize("fault", ["lies", "nousage"])
async def test_usage_that_cannot_be_is_estimated(tmp_path: Path, fault: str) -> None:
    async with running(tmp_path, key=SEATS) as house:
        assert (await ask(house.port, chat(f"!{fault}"))).status == 200
        await clean(house)
        usage = house.exchanges()[0].usage
        assert 0 < usage.prompt < 100
        assert usage.completion == 1


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
        began = time.monotonic()
        await until(lambda: house.mock.left == 1)
        assert time.monotonic() - began < 2
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
