"""A slow engine whose time and tokens are the request's own, and tenants that ask at a pace: what fairness is measured with."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from penstock.core.exchange import Exchange
from penstock.core.snapshot import Pool, Replica, TenantEntry
from penstock.net.client import Client, Timeouts, parse_origin
from penstock.net.server import Reply
from tests.gateway.house import KEY, OTHER, House, running, until
from tests.gateway.mock_upstream import JSON, MockUpstream, whole

A, B = "acme", "other"  # the tenants; A floods
KEYS = {A: KEY, B: OTHER}
PROMPT = 20  # tokens
_TIMEOUTS = Timeouts(first_byte_s=60, stall_s=60)


class SlowUpstream(MockUpstream):
    """Writes `max_tokens` tokens, each in `token_s` seconds."""

    def __init__(self, token_s: float) -> None:
        super().__init__()
        self.token_s = token_s

    async def _answer(self, body: dict[str, Any], reply: Reply) -> None:
        tokens = body["max_tokens"]
        await asyncio.sleep(tokens * self.token_s)
        usage = {"prompt_tokens": PROMPT, "completion_tokens": tokens, "total_tokens": PROMPT + tokens}
        reply.send(200, JSON, whole("so", usage))


class Seen(NamedTuple):
    """What one tenant saw, of the requests that were answered; seconds."""

    waits: list[float]
    services: list[float]
    answered: int
    refused: int

    @property
    def p99_wait(self) -> float:
        return sorted(self.waits)[min(len(self.waits) - 1, int(len(self.waits) * 0.99))]


class SlowPool:
    """A gateway over one slow engine with so many places."""

    def __init__(self, house: House, client: Client) -> None:
        self.house = house
        self._client = client
        self._origin = parse_origin(house.url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.got: Counter[tuple[str, int]] = Counter()  # tenant and status

    async def ask(self, tenant: str, tokens: int) -> None:
        """Asks for so many tokens, and counts what came."""
        body = {"model": "mock", "messages": [{"role": "user", "content": "x" * 4 * PROMPT}], "max_tokens": tokens}
        lines = b"content-type: application/json\r\nauthorization: Bearer %b\r\n" % KEYS[tenant].encode()
        response = await self._client.request(
            self._origin, b"POST", b"/v1/chat/completions", (), msgspec.json.encode(body), _TIMEOUTS, lines
        )
        await response.read()
        self.got[tenant, response.status] += 1

    async def at_pace(self, tenant: str, tokens: int, rate: float, until_s: float, draw: random.Random | None) -> None:
        """Asks `rate` times a second, evenly or (with `draw`) as a Poisson process, without waiting for answers."""
        due = time.monotonic()
        while due < until_s:
            due += 1.0 / rate if draw is None else draw.expovariate(rate)
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(self.ask(tenant, tokens))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def always(self, tenant: str, tokens: int, times: int, stop: asyncio.Event) -> None:
        """Keeps so many requests of a tenant on their way until `stop` is set."""

        async def one() -> None:
            while not stop.is_set():
                await self.ask(tenant, tokens)

        await asyncio.gather(*[one() for _ in range(times)])

    async def done(self) -> None:
        """Returns when all that was asked is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await until(lambda: self.house.worker.gateway.meters.in_flight == 0)

    def seen(self, tenant: str) -> Seen:
        """What became of a tenant's requests, as the journal has it."""
        mine = [record for record in self.house.exchanges() if record.tenant == tenant]
        answered = [record for record in mine if record.status == 200]
        return Seen(
            [(record.phases.admitted - record.phases.decoded) * 1e-9 for record in answered],
            [(record.phases.done - record.phases.admitted) * 1e-9 for record in answered],
            len(answered),
            len(mine) - len(answered),
        )

    def served(self, tenant: str, since: float, before: float) -> float:
        """Cost (a token read 1, one written 2) of a tenant's requests that were let in in this time (Unix seconds)."""
        return sum(
            record.usage.prompt + 2 * record.usage.completion
            for record in self.house.exchanges()
            if record.tenant == tenant and record.status == 200 and since <= admitted_at(record) < before
        )


def admitted_at(record: Exchange) -> float:
    return record.at + record.phases.admitted * 1e-9


@asynccontextmanager
async def slow_pool(
    data: Path, *, places: int, token_s: float, max_waiting: int = 64, weights: tuple[float, float] = (1.0, 1.0)
) -> AsyncIterator[SlowPool]:
    """A gateway with `places` places at a slow engine, and the tenants A and B with their weights."""
    engine = SlowUpstream(token_s)
    await engine.start()
    pool = Pool(
        name="pool",
        replicas=(Replica(id="slow", url=engine.url),),
        max_in_flight=places,
        max_waiting=max_waiting,
        max_wait_s=30.0,
    )
    client = Client(max_connections=512)
    async with running(data) as house:
        tenants = tuple(TenantEntry(name=n, weight=w) for n, w in zip((A, B), weights, strict=True))
        house.take(pools=(pool,), tenants=tenants)
        yield SlowPool(house, client)
        await client.close()
    await engine.stop()
