"""How requests end: what is kept of their connections, and that each is in the journal before its client is told."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Exchange, Record
from penstock.core.snapshot import Policy
from penstock.gateway import responses
from penstock.gateway.coalesce import Flight, Recording
from penstock.net.response import Response
from tests.gateway.house import running, until
from tests.gateway.mock_upstream import chunk
from tests.gateway.raw_client import ask, chat, post

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Engine:
    """Streams one word, then what it is told, in as many reads as that has parts."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.connections = 0
        self.closed = 0
        self.heard = asyncio.Event()  # set by the test: the client has the beginning
        self.may_end = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(HEAD + framed(chunk("a")))
                for part in self.parts:
                    await asyncio.sleep(0.02)  # apart on the wire, as a rule; what is asserted holds if they are not
                    writer.write(part)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed += 1
            writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        (framed(chunk(None, "stop")) + framed(DONE) + LAST,),
        (framed(chunk(None, "stop")), framed(DONE) + LAST),
        (framed(chunk(None, "stop") + DONE), LAST),
        (framed(chunk(None, "stop") + DONE)[:-9], framed(DONE)[-9:] + LAST),
        (framed(chunk("b") + DONE), framed(b": no more\n\n"), LAST),
    ],
    ids=["at once", "with the end", "before the end", "torn", "more"],
)
async def test_streams_keep_their_connection(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    engine = Engine(*parts)
    async with engine.serving() as url, running(tmp_path, replicas=0, others=(url,)) as house:
        pool = house.worker._client
        for _ in range(4):
            got = await ask(house.port, chat("x", stream=True))
            assert got.whole
            assert got.body.endswith(DONE)
            await until(lambda: all(not one.busy for one in pool._pools.values()))
        assert engine.connections == 1


async def test_an_engine_that_does_not_end_after_its_last_event_loses_its_connection(tmp_path: Path) -> None:
    engine = Engine(framed(DONE))
    flood = Engine(framed(DONE), *[framed(b": more\n\n" * 4000)] * 8)
    for one in (engine, flood):
        async with one.serving() as url, running(tmp_path / str(len(one.parts)), replicas=0, others=(url,)) as house:
            assert (await ask(house.port, chat("x", stream=True))).whole
            await until(lambda one=one: one.closed == 1)  # type: ignore[misc]
            await until(lambda: all(not some.busy for some in house.worker._client._pools.values()))
            await house.settled()


async def test_a_record_that_cannot_be_made_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as house:
        journal = house.worker.gateway.journal
        real = journal.add
        count = 0

        def add(record: Record) -> None:
            nonlocal count
            count += 1
            if count % 2:
                raise ZeroDivisionError
            real(record)

        monkeypatch.setattr(journal, "add", add)
        gots = await asyncio.gather(*[ask(house.port, chat("x")) for _ in range(6)])
        assert [got.status for got in gots] == [200] * 6
        await house.settled()
        assert len(house.exchanges()) == 3
        assert journal.counts.lost == 3


async def test_strict_audit_tells_nothing_that_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = (Policy(name="default", audit="strict"),)
    async with running(tmp_path, policies=policies) as house:
        assert (await ask(house.port, chat("good"))).status == 200
        assert (await ask(house.port, chat("good", model="nobody"))).status == 404
        journal = house.worker.gateway.journal
        real = journal.add

        def add(record: Record) -> None:
            if isinstance(record, Exchange):
                raise ZeroDivisionError
            real(record)

        monkeypatch.setattr(journal, "add", add)
        for path in ("mock", "nobody"):  # one that is told 404 is told it where that was recorded
            got = await ask(house.port, chat("bad", model=path))
            assert got.status == 503
            assert got.headers[b"x-penstock-request-id"].startswith(b"req_")
            assert b"audit policy is strict" in got.body
        assert not (await ask(house.port, chat("bad", stream=True))).whole
        await house.settled()


async def test_a_reply_that_cannot_be_ended_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    async with running(tmp_path) as house:
        monkeypatch.setattr(responses, "whole_response", broken)
        monkeypatch.setattr(responses.ResponsesReply, "end", broken)
        for stream in (False, True):
            body = msgspec.json.encode({"model": "mock", "input": "x", "stream": stream})
            got = await ask(house.port, post("/v1/responses", body))
            assert (got.status, got.whole) == ((200, False) if stream else (500, True))
        assert (await ask(house.port, chat("x"))).status == 200


async def test_what_nobody_foresaw_is_recorded_before_it_is_told(tmp_path: Path) -> None:
    def draw() -> float:
        raise ZeroDivisionError

    async with running(tmp_path) as house:
        house.worker.gateway.draw = draw
        assert (await ask(house.port, chat("x"))).status == 500
        records = house.exchanges()  # no wait between
        assert [(one.status, one.outcome, one.error) for one in records] == [(500, "error", "internal_error")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", [{}, {"hedge_after_s": 0.01}, {"coalesce": True}], ids=["plain", "hedged", "shared"])
async def test_what_a_stop_cuts_off_is_recorded(tmp_path: Path, stream: bool, route: dict[str, Any]) -> None:
    async with running(tmp_path, replicas=2, settings={"drain_s": 0.05}, route=route) as house:
        asking = [asyncio.create_task(ask(house.port, chat(f"!wait {n}", stream=stream))) for n in range(5)]
        await until(lambda: sum(mock.running for mock in house.mocks) >= 5)
        await house.worker.stop()
        assert not house.worker.gateway.recorder.pending
        house.worker.gateway.journal.flush()
        assert [one.outcome for one in house.exchanges()] == ["cancelled"] * 5
        await house.settled()
        for task in asking:
            assert not (await task).whole


def left() -> int:
    gc.collect()
    return sum(type(one) in {Flight, Recording, Response} for one in gc.get_objects())


@pytest.mark.parametrize("route", [{}, {"coalesce": True}, {"hedge_after_s": 0.01}], ids=["plain", "shared", "hedged"])
async def test_nothing_is_left_of_requests_that_are_over(tmp_path: Path, route: dict[str, Any]) -> None:
    """Calls are no business of the garbage collector's: a circle through one would stay for ever."""
    before = left()
    async with running(tmp_path, replicas=2, route=route) as house:
        for text in ("hello", "!nodone", "!truncate", "!error"):
            for stream in (False, True):
                await ask(house.port, chat(text, stream=stream, temperature=0))
        await house.settled()
        await until(lambda: left() <= before)
