"""Equal requests in flight share one answer."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Usage
from penstock.core.snapshot import CachePolicy, Limits, Pool, Price, Replica, Target
from penstock.gateway.coalesce import Flight
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import KEY, OTHER, House, running, until
from tests.gateway.mock_upstream import JSON, whole
from tests.gateway.model_server import models
from tests.gateway.raw_client import Got, ask, chat, post, read_reply
from tests.gateway.test_cascade import said

PRICED = {"price": Price(prompt=1.0, completion=1.0)}


@asynccontextmanager
async def sharing(data: Path, **route: Any) -> AsyncIterator[House]:
    async with running(data, route={"coalesce": True, **route}, pool=PRICED) as house:
        yield house


def flights(house: House) -> list[Flight]:
    return list(house.worker.gateway.flights.values())


def members(house: House) -> int:
    return sum(flight.members for flight in flights(house))


def together(house: House, count: int, text: str, **fields: Any) -> list[asyncio.Task[Got]]:
    request = chat(text, **{"temperature": 0, **fields})
    return [asyncio.create_task(ask(house.port, request, 60)) for _ in range(count)]


async def test_a_hundred_equal_requests_are_one_upstream(tmp_path: Path) -> None:
    async with sharing(tmp_path) as house:
        asked = together(house, 100, "!wait for it")
        await until(lambda: members(house) == 100)
        house.mock.gate.set()
        got = await asyncio.gather(*asked)
        assert {(one.status, one.body) for one in got} == {(200, whole("!wait for it"))}
        assert len(house.mock.asked) == 1
        assert Counter(one.headers[b"x-penstock-cache"] for one in got) == {b"coalesced": 99, b"off": 1}
        await house.settled()
        assert not flights(house)
        records = house.exchanges()
        paid = [one for one in records if one.cost_nanousd]
        assert [(one.cache, one.usage, one.cost_nanousd) for one in paid] == [("off", Usage(11, 4), 15000)]
        rest = [one for one in records if not one.cost_nanousd]
        assert {(one.cache, one.usage, one.outcome, one.replica) for one in rest} == {
            ("coalesced", Usage(), "ok", "r0")
        }
        assert len({one.digest for one in records}) == 1
        assert house.worker.gateway.meters.cell("penstock_coalesced_total", "mock").value == 99


async def test_who_joins_a_stream_gets_what_was_and_then_what_comes(tmp_path: Path) -> None:
    async with models("small") as (small,):
        small.gate = asyncio.Event()
        route = {"coalesce": True, "to": (Target(pool="small"),)}
        async with running(tmp_path, route=route, pools=(small.pool(),)) as house:
            [first] = together(house, 1, "a b c d e", stream=True)
            await until(lambda: bool(house.opened()))
            others = together(house, 3, "a b c d e", stream=True)
            await until(lambda: len(house.opened()) == 4)
            assert not first.done()
            small.gate.set()
            got = await asyncio.gather(first, *others)
            assert len({one.body for one in got}) == 1
            assert said(got[0]) == "small says a b c d e"
            assert got[3].body.endswith(b"data: [DONE]\n\n")
            assert got[3].headers[b"x-penstock-version"] == b"small:v1.0.0"
            assert len(small.asked) == 1
            await house.settled()
            assert sorted(one.usage.completion for one in house.exchanges()) == [0, 0, 0, 7]
            assert {one.chunks for one in house.exchanges()} == {house.exchanges()[0].chunks}


async def test_tenants_never_share_and_neither_do_other_questions(tmp_path: Path) -> None:
    tool = [{"type": "function", "function": {"name": "f"}}]
    async with sharing(tmp_path) as house:
        asked = [
            *together(house, 2, "!wait a", key=KEY),
            *together(house, 2, "!wait a", key=OTHER),
            *together(house, 1, "!wait b"),
            *together(house, 2, "!wait a", temperature=0.7),
            *together(house, 2, "!wait a", tools=tool),
            *together(house, 1, "!wait a", stream=True),
            *together(house, 1, "!wait a", stream=True, stream_options={"include_usage": True}),
        ]
        await until(lambda: house.mock.running == 9 and members(house) == 7)
        house.mock.gate.set()
        assert {one.status for one in await asyncio.gather(*asked)} == {200}
        await house.settled()
        assert {one.tenant for one in house.exchanges() if one.cache == "coalesced"} == {"acme", "other"}
        assert sum(one.cache == "coalesced" for one in house.exchanges()) == 2


async def test_a_client_may_ask_for_an_answer_of_its_own(tmp_path: Path) -> None:
    async with sharing(tmp_path) as house:
        body = msgspec.json.encode(
            {"model": "mock", "messages": [{"role": "user", "content": "!wait"}], "temperature": 0}
        )
        request = post("/v1/chat/completions", body, more=b"cache-control: no-store\r\n")
        asked = [asyncio.create_task(ask(house.port, request)) for _ in range(2)]
        await until(lambda: house.mock.running == 2)
        house.mock.gate.set()
        await asyncio.gather(*asked)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_may_leave_and_the_last_ends_it(tmp_path: Path, stream: bool) -> None:
    async with sharing(tmp_path) as house:
        [first] = together(house, 1, "!wait here", stream=stream)
        await until(lambda: members(house) == 1)
        others = together(house, 2, "!wait here", stream=stream)
        await until(lambda: members(house) == 3)
        first.cancel()
        await until(lambda: members(house) == 2)
        assert (house.mock.running, house.mock.left) == (1, 0)
        house.mock.gate.set()
        got = await asyncio.gather(*others)
        assert {one.status for one in got} == {200}
        await house.settled()
        records = house.exchanges()
        assert records[0].outcome == "cancelled"
        assert sum(one.cost_nanousd for one in records) == 15000
        assert next(one for one in records if one.cost_nanousd).outcome == "ok"


async def test_when_all_have_left_the_engine_stops(tmp_path: Path) -> None:
    async with sharing(tmp_path) as house:
        asked = together(house, 3, "!hang")
        await until(lambda: members(house) == 3 and house.mock.running == 1)
        for task in asked:
            task.cancel()
        await until(lambda: house.mock.left == 1)
        await house.settled()
        await until(lambda: len(house.exchanges()) == 3)
        assert {one.outcome for one in house.exchanges()} == {"cancelled"}
        assert sum(one.cost_nanousd > 0 for one in house.exchanges()) == 1  # the prompt was read
        assert not flights(house)


class Flaky:
    """The first request waits for the gate and is answered `status`; all others are answered at once."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.count = 0
        self.gate = asyncio.Event()
        self.server = Server(self._handle)

    async def _handle(self, _request: Request, reply: Reply) -> None:
        self.count += 1
        if self.count > 1:
            reply.send(200, JSON, whole("fine"))
            return
        await self.gate.wait()
        reply.send(self.status, JSON, b'{"error":{"message":"no"}}')


@pytest.mark.parametrize(("status", "told"), [(500, [200, 200, 502]), (400, [400, 400, 400])])
async def test_those_who_joined_a_failure_try_for_themselves(tmp_path: Path, status: int, told: list[int]) -> None:
    flaky = Flaky(status)
    await flaky.server.start()
    url = f"http://127.0.0.1:{flaky.server.port}"
    pool = Pool(name="flaky", replicas=(Replica(id="f", url=url),))
    async with running(
        tmp_path, route={"coalesce": True, "attempts": 1, "to": (Target(pool="flaky"),)}, pools=(pool,)
    ) as house:
        asked = together(house, 3, "hello")
        await until(lambda: members(house) == 3)
        flaky.gate.set()
        assert sorted(one.status for one in await asyncio.gather(*asked)) == told
        assert flaky.count == (3 if status == 500 else 1)
        await house.settled()
        assert Counter(one.cache for one in house.exchanges()) == (
            {"off": 3} if status == 500 else {"off": 1, "coalesced": 2}
        )
    await flaky.server.drain(0.1)


@pytest.mark.parametrize("fault", ["truncate", "error", "nodone"])
async def test_a_stream_that_breaks_breaks_for_all_and_honestly(tmp_path: Path, fault: str) -> None:
    async with running(tmp_path, route={"coalesce": True}, pause_s=0.2) as house:
        asked = together(house, 3, f"!{fault} two three four", stream=True)
        got = await asyncio.gather(*asked)
        for one in got:
            assert b"[DONE]" not in one.body
            assert one.body.count(b'"error"') == 1
        assert len(house.mock.asked) == 1
        await house.settled()
        assert {one.outcome for one in house.exchanges()} == {"crashed"}


async def test_who_is_slow_holds_nobody_and_costs_no_memory(tmp_path: Path) -> None:
    async with sharing(tmp_path) as house:
        request = chat("!flood", temperature=0, stream=True)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", house.port))
        await loop.sock_sendall(slow, request)
        await until(lambda: members(house) == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(request)
        await until(lambda: members(house) == 2)
        [flight] = flights(house)
        seen = most = 0
        async with asyncio.timeout(60):
            while seen < 12_000_000:
                seen += len(await reader.read(65536))
                most = max(most, flight._size)
        assert most <= 1048576 + 65536 * 2
        assert len(house.mock.asked) == 1
        async with asyncio.timeout(60):
            told = b""
            while chunk := await loop.sock_recv(slow, 1 << 20):
                told = (told + chunk)[-1000:]
        assert b"client_too_slow" in told
        writer.close()
        slow.close()
        await until(lambda: house.mock.left == 1)
        await house.settled()


async def test_the_answer_is_kept_once_and_limits_hold(tmp_path: Path) -> None:
    key = {"limits": Limits(tokens_per_minute=1000, concurrency=1)}
    route = {"coalesce": True, "cache": CachePolicy(mode="exact")}
    async with running(tmp_path, route=route, key=key) as house:
        asked = together(house, 5, "!wait here", max_tokens=500)  # one alone is within the limits
        await until(lambda: members(house) == 5)
        house.mock.gate.set()
        assert {one.status for one in await asyncio.gather(*asked)} == {200}
        again = await ask(house.port, chat("!wait here", temperature=0, max_tokens=500))
        assert again.headers[b"x-penstock-cache"] == b"hit"
        assert len(house.worker.gateway.cache) == len(house.mock.asked) == 1
        await house.settled()


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_are_shared_too_each_under_its_own_id(tmp_path: Path, stream: bool) -> None:
    async with sharing(tmp_path) as house:
        body = {"model": "mock", "input": "!wait for it", "temperature": 0, "stream": stream}
        request = post("/v1/responses", msgspec.json.encode(body))
        asked = [asyncio.create_task(ask(house.port, request)) for _ in range(3)]
        await until(lambda: members(house) == 3)
        house.mock.gate.set()
        got = await asyncio.gather(*asked)
        assert all(b"!wait for it" in one.body for one in got)
        names = {re.search(rb'"id":"(resp_[^"]+)"', one.body) for one in got}
        assert len({name[1] for name in names if name is not None}) == 3
        assert len(house.mock.asked) == 1
        await house.settled()


@pytest.mark.parametrize("seed", range(3))
async def test_however_they_come_and_go_nothing_is_left_behind(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    async with running(tmp_path, route={"coalesce": True}, pool=PRICED, pause_s=0.01) as house:
        asked: list[asyncio.Task[Got]] = []
        for _ in range(60):
            stream = draw.random() < 0.7
            text = draw.choice(("one two three four five", "!truncate b c d", "!status500", "!nojson d e f"))
            asked += together(house, 1, text, stream=stream)
            if draw.random() < 0.4:
                draw.choice(asked).cancel()
            if draw.random() < 0.5:
                for _ in range(draw.randrange(30)):
                    await asyncio.sleep(0)
        got = await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: len(house.exchanges()) >= sum(not isinstance(one, BaseException) for one in got))
        await house.settled()
        assert not flights(house)
        assert house.mock.running == 0
        for one in got:
            if isinstance(one, Got) and one.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                assert one.body.endswith(b"data: [DONE]\n\n") == (b'"error"' not in one.body)
        whole_ones = {one.body for one in got if isinstance(one, Got) and one.status == 200 and b"five" in one.body}
        assert len(whole_ones) <= 2  # as JSON, and as a stream
        costs = [one.cost_nanousd for one in house.exchanges() if one.outcome == "ok"]
        assert {15000} >= set(costs) - {0}


async def test_a_pipelined_second_request_waits_for_nobody(tmp_path: Path) -> None:
    async with sharing(tmp_path) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(chat("hello", temperature=0) * 2)
        for _ in range(2):
            assert (await read_reply(reader)).status == 200
        writer.close()
        await house.settled()
