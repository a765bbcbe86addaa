"""The lines of cascade and trim in their short form: the same gateway, questions, scoring and sums, with servers of the tests in the models' place."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.cost_levers import Case, Gateway, compared, evaluation, lengthened, saved_line
from bench.line import Line
from examples.support_bot.generator import open_corpus
from examples.support_bot.shop import load_shop
from penstock.core.snapshot import Cascade, Pool, Price, Replica, Route, Target, Trim
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import KEY, House
from tests.gateway.house import running as mock_running
from tests.gateway.mock_upstream import JSON, whole
from tests.gateway.model_server import models
from tests.system.starter import Up

HARD = Case([{"role": "user", "content": "a hard one"}], "", {})  # of which the first model is not sure


def to(name: str, **more: Any) -> Route:
    """A route to the pool of the same name."""
    return Route(name=name, to=(Target(pool=more.pop("pool", name)),), **more)


async def cascade_alone(data: Path, *, count: int = 3) -> Line:
    """A cascade beside the dear model alone: `count` questions, and one of which the cheap one is not sure."""
    plan = Cascade(first="small", then="large", min_token_logprob=-1.0)
    routes = (to("large"), to("cascade", pool="large", cascade=plan))
    async with (
        models("small", "large") as (small, large),
        mock_running(data, pools=(small.pool(), _named(large.pool())), routes=routes) as house,
    ):
        row = await _beside(house, data, "cascade", [*evaluation(count), HARD])
    return saved_line(row, "; {by_small:.0%} answered by the small model", by_small=row["by_small"])


async def trim_alone(data: Path, *, count: int = 2) -> Line:
    """Long chats trimmed beside the same in full, at an engine that counts a token for four bytes."""
    routes = (to("large"), to("trimmed", pool="large", trim=Trim(budget_tokens=160, keep_last=2)))
    async with counting() as pool, mock_running(data, pools=(pool,), routes=routes) as house:
        cases = lengthened(evaluation(count), open_corpus(held_out=True), load_shop())
        row = await _beside(house, data, "trimmed", cases)
    return saved_line(row, "; {trimmed:.1f} turns left out", trimmed=row["trimmed"])


def _named(pool: Pool) -> Pool:
    return msgspec.structs.replace(pool, version=f"{pool.name}:v1.1.0")


@asynccontextmanager
async def counting() -> AsyncIterator[Pool]:
    """A pool of one server that counts what it was asked."""

    async def answer(request: Request, reply: Reply) -> None:
        told = msgspec.json.encode(msgspec.json.decode(request.body)["messages"])
        usage = {"prompt_tokens": len(told) // 4, "completion_tokens": 4, "total_tokens": len(told) // 4 + 4}
        reply.send(200, JSON, whole("I cannot say.", usage))

    server = Server(answer)
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        yield Pool(name="large", replicas=(Replica(id="l0", url=url),), price=Price(prompt=1.0, completion=2.0))
    finally:
        await server.drain(0.1)


async def _beside(house: House, data: Path, route: str, cases: list[Case]) -> dict[str, Any]:
    (data / "demo.key").write_text(KEY)
    up = Up(gateway=house.url, control="", grpc="", data=data, pid=os.getpid(), seconds=0.0)
    gateway = Gateway(up, load_shop())
    large = await asyncio.to_thread(gateway.run, "large", cases)
    run = await asyncio.to_thread(gateway.run, route, cases)
    await house.settled()
    return compared(run, large)
