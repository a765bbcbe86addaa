"""What each step of the walk costs by itself.

A batch of requests goes through one step after the other, in the walk's order, and each step is timed for all of them: what it does is
real, with the gateway's own state, replies and journal. Steps that other ones call, or that take a whole way of their own, are told by what a
route that has them costs more than one that has not.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.load import HERE
from bench.steps import EVENTS, Bench, Transport, snapshot
from bench.targets import RULES
from penstock.core.exchange import Usage
from penstock.core.snapshot import (
    Arm,
    CachePolicy,
    Cascade,
    ExperimentEntry,
    InterleavePlan,
    Policy,
    Pool,
    Replica,
    SemanticPolicy,
    Snapshot,
    Target,
)
from penstock.gateway.amend import amend
from penstock.gateway.authenticate import authenticate
from penstock.gateway.call import Call
from penstock.gateway.decode import decode
from penstock.gateway.dispatch import dispatch, release
from penstock.gateway.index import Caller
from penstock.gateway.recall import recall
from penstock.gateway.relay import relay
from penstock.gateway.replay import replay
from penstock.gateway.resolve import resolve
from penstock.gateway.screen import screen
from penstock.gateway.semantic import seek
from penstock.gateway.settle import cost, hold, prompt_tokens, reserve, settle, try_reserve, used
from penstock.gateway.trace import carry
from penstock.net.client import Response
from penstock.net.connection import Connection
from penstock.net.fiber import Fiber
from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.net.server import Server

_TRACED = (
    b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    b"Tracestate: congo=t61rcWkgMzE\r\nX-Request-Id: order-4711\r\n"
)


class Batch:
    """Requests that take each step together; `us` are the microseconds a request of each step."""

    def __init__(self, made: Snapshot, folder: Path, *, count: int, fields: bytes = b"") -> None:
        self.us: dict[str, float] = {}
        body = (HERE / "body1k.json").read_bytes()
        self._bench = Bench(made, folder, body=body, stream=False, connections=count)
        self._request = self._bench.request.replace(b"Authorization:", fields + b"Authorization:", 1)
        self._server = Server(self._take)
        self._count = count
        self._connections: list[Connection] = []
        self._calls: list[Call] = []

    async def start(self) -> None:
        """Opens the connections."""
        await self._server.start()
        for _ in range(self._count):
            connection = Connection(self._server)
            connection.connection_made(Transport(lambda _data: None))
            self._connections.append(connection)

    async def close(self) -> None:
        """Ends."""
        await self._server.drain(0)
        await self._bench.client.close()

    async def _take(self, request: Request, reply: Reply) -> None:
        self._calls.append(Call(self._bench.gateway, request, reply, "chat", b"/v1/chat/completions", time.time()))
        reply.promise()

    async def run(self, *, seeking: bool = False) -> None:
        """One round. Answers that the cache has are replayed; with `seeking` a question's vector is asked for."""
        self._calls = []
        began = time.process_time()
        for connection in self._connections:
            connection.data_received(self._request)
        await asyncio.sleep(0)  # in which the fibers begin
        self.us["edge"] = (time.process_time() - began) / self._count * 1e6
        gateway = self._bench.gateway
        gateway.meters.in_flight += self._count
        if b"traceparent" in self._calls[0].request.headers:
            self._each("carry", carry)
        self._each("decode", decode)
        self._each("authenticate", _authenticated)
        await self._all("count", _counted)
        self._each("resolve", resolve)
        if self._calls[0].rules is not None:
            self._each("screen", screen)
        self._each("amend", amend)
        self._each("recall", recall)
        if seeking:
            await self._together("seek", seek)
        if self._calls[0].recalled is not None:
            await self._all("replay", replay)
        else:
            await self._answered()
        self._each("settle", _settled)
        began = time.process_time()
        for call in self._calls:
            gateway.recorder.add(call, call.usage or Usage(), 0)
            gateway.recorder.end(call, None)
        gateway.recorder.flush()
        self.us["record"] = (time.process_time() - began) / self._count * 1e6
        await asyncio.sleep(0)
        if not all(call.status == 200 and call.reply.finished for call in self._calls):
            raise RuntimeError("a request was not answered")

    async def _answered(self) -> None:
        responses: dict[Call, Response] = {}

        async def asked(call: Call) -> None:
            responses[call] = await dispatch(call)

        async def relayed(call: Call) -> None:
            await relay(call, responses[call])

        await self._all("reserve", _reserved)
        await self._all("admit", _admitted)
        await self._together("dispatch", asked)
        await self._all("relay", relayed)

    def _each(self, name: str, step: Callable[[Call], object]) -> None:
        began = time.process_time()
        for call in self._calls:
            step(call)
        self.us[name] = (time.process_time() - began) / self._count * 1e6

    async def _all(self, name: str, step: Callable[[Call], Awaitable[object]]) -> None:
        began = time.process_time()
        for call in self._calls:
            await step(call)
        self.us[name] = (time.process_time() - began) / self._count * 1e6

    async def _together(self, name: str, step: Callable[[Call], Awaitable[object]]) -> None:
        """All at once, each in a fiber, as the server runs them."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        left = self._count

        async def one(call: Call) -> None:
            nonlocal left
            await step(call)
            left -= 1
            if not left:
                done.set_result(None)

        def start() -> None:
            for call in self._calls:
                Fiber(one(call), loop).start()

        began = time.process_time()
        loop.call_soon(start)
        async with asyncio.timeout(60):
            await done
        self.us[name] = (time.process_time() - began) / self._count * 1e6


def _caller(call: Call) -> Caller:
    if call.caller is None:
        raise RuntimeError("nobody is known to call")
    return call.caller


def _authenticated(call: Call) -> None:
    call.caller = authenticate(call.index, call.request.headers.get(b"authorization"), call.at)


async def _counted(call: Call) -> None:
    caller, limiter = _caller(call), call.gateway.limiter
    holder = call.holder = caller.holder or hold(limiter, caller)
    if not limiter.try_count(holder, now := time.monotonic()):
        await limiter.count(holder, now, caller.down)


async def _reserved(call: Call) -> None:
    if not try_reserve(call):
        await reserve(call)


async def _admitted(call: Call) -> None:
    state, tenant = call.pool, _caller(call).tenant
    if state is not None:
        tokens = prompt_tokens(call)
        call.place = state.try_enter(tenant, tokens) or await state.enter(tenant, tokens)
    call.admitted_ns = time.monotonic_ns() - call.started_ns


def _settled(call: Call) -> None:
    call.gateway.meters.in_flight -= 1
    usage = used(call)
    release(call, usage, ok=True)
    settle(call, usage, cost(call, usage))
    call.response = None


def _routed(made: Snapshot, *pools: Pool, **changes: object) -> Snapshot:
    replace = msgspec.structs.replace
    return replace(made, pools=(*made.pools, *pools), routes=(replace(made.routes[0], **changes),))


def _other(name: str, port: int = 10) -> Pool:
    return Pool(name=name, replicas=(Replica(id=f"{name}-0", url=f"http://127.0.0.1:{port}"),))


def _interleaving() -> ExperimentEntry:
    arms = (Arm(name="mock", pool="mock", weight=0.0), Arm(name="new", pool="new", weight=1.0, ranges=((0.0, 1.0),)))
    return ExperimentEntry(
        name="both",
        epoch=1,
        seed="both",
        unit="request",
        incumbent="mock",
        arms=arms,
        interleave=InterleavePlan(share=1.0),
    )


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A whole way, measured for what it costs more than the one named `over`: of each request, or of each event where it streams."""

    made: Snapshot
    over: str = ""
    stream: bool = False
    connections: int = 32


def ways() -> dict[str, Way]:
    """Those that steps are told by, with those that they are compared with."""
    whole = snapshot()
    cascade = Cascade(first="small", then="mock")
    resumed = _routed(whole, resume=True)
    pools = tuple(msgspec.structs.replace(pool, dialect="vllm") for pool in resumed.pools)
    return {
        "together": Way(made=whole),
        "single": Way(made=whole, connections=1),
        "share": Way(made=_routed(whole, coalesce=True), over="single", connections=1),
        "relay_both": Way(made=_routed(whole, _other("new"), experiment=_interleaving()), over="together"),
        "draft": Way(made=_routed(whole, _other("small"), cascade=cascade), over="together"),
        "escalate": Way(
            made=_routed(whole, _other("small"), cascade=msgspec.structs.replace(cascade, patterns=("word",))),
            over="draft",
        ),
        "elsewhere": Way(
            made=_routed(whole, Pool(name="empty"), to=(Target(pool="empty"),), fallback=("mock",)), over="together"
        ),
        "relay_stream": Way(made=whole, stream=True),
        "resume_stream": Way(made=msgspec.structs.replace(resumed, pools=pools), over="relay_stream", stream=True),
    }


def batches(folder: Path, count: int) -> dict[str, Batch]:
    """The batches, by the steps that are taken from each: `` is all that are on every request's way."""
    replace = msgspec.structs.replace
    whole = snapshot()
    kept = _routed(whole, cache=CachePolicy(mode="exact", sampled=True, ttl_s=3600.0))
    meant = CachePolicy(
        mode="semantic", sampled=True, ttl_s=0.0, semantic=SemanticPolicy(pool="vectors", timeout_s=30.0)
    )
    made = {
        "": whole,
        "carry screen": replace(whole, policies=(Policy(name="default", rules=RULES),)),
        "replay": kept,
        "seek": _routed(whole, _other("vectors"), cache=meant),
    }
    found = {}
    for number, (name, one) in enumerate(made.items()):
        data = folder / f"batch{number}"
        data.mkdir()
        found[name] = Batch(one, data, count=count, fields=_TRACED if "carry" in name else b"")
    return found


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """As a gateway's process has its garbage collected."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


async def alone_us(*, count: int = 256, rounds: int = 9, requests: int = 2000) -> dict[str, float]:
    """CPU microseconds of every line of the budget: medians of interleaved rounds."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        found: dict[str, list[float]] = {}
        made = batches(folder, count)
        for name, batch in made.items():
            await batch.start()
            await batch.run(seeking=name == "seek")
        whole = ways()
        benches = {name: await _begun(name, way, folder, requests) for name, way in whole.items()}
        with _collecting_seldom():
            for _ in range(rounds):
                for name, batch in made.items():
                    await batch.run(seeking=name == "seek")
                    for step in name.split() or list(batch.us):
                        found.setdefault(step, []).append(batch.us[step])
                for name, bench in benches.items():
                    asked = max(2 * whole[name].connections, requests // (EVENTS if bench.stream else 1))
                    found.setdefault(name, []).append(await bench.run(asked) / (EVENTS if bench.stream else 1))
        for batch in made.values():
            await batch.close()
        for bench in benches.values():
            await bench.client.close()
            await bench.server.drain(0)
    us = {name: statistics.median(each) for name, each in found.items()}
    return us | {name: us[name] - us[way.over] for name, way in whole.items() if way.over}


async def _begun(name: str, way: Way, folder: Path, requests: int) -> Bench:
    body = (HERE / ("body1k_stream.json" if way.stream else "body1k.json")).read_bytes()
    data = folder / name
    data.mkdir()
    bench = Bench(way.made, data, body=body, stream=way.stream, connections=way.connections)
    await bench.start()
    await bench.run(max(2 * way.connections, requests // (EVENTS if way.stream else 1)))
    return bench
