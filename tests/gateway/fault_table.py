"""Every way in which an engine can fail, and what the client gets: the table, and what plays it against a real gateway.

`python -m bench.faults` prints it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from penstock.access.limits import SEATS
from penstock.core.snapshot import HealthPolicy, Limits, Pool, Replica, Route, Target
from tests.gateway.bad_upstream import (
    ANSWER,
    END,
    EVENTS,
    JSON,
    SSE,
    BadUpstream,
    Drip,
    Flood,
    Script,
    framed,
    sized,
    status,
)
from tests.gateway.house import House, running, until
from tests.gateway.mock_upstream import MockUpstream, chunk, usage_chunk, whole
from tests.gateway.raw_client import ask, chat

LONGEST_S = 20.0  # until a client must have its answer, on the slowest machine
HALF = len(ANSWER) // 2
BEGUN = SSE + framed(EVENTS[0])
LAST = b"0\r\n\r\n"


class Case(NamedTuple):
    """One fault. A client gets `status`; with 200, a stream that ends in an error event of `code`, or, without one, a whole answer."""

    name: str
    stream: bool
    script: Script
    status: int
    code: str = ""
    elsewhere: bool = False  # another replica is asked, and nobody notices
    quick: bool = False  # the time limits are short, and one of them is what ends it
    estimated: bool = False  # what the engine says of its usage is not believed

    @property
    def id(self) -> str:
        return f"{self.name}, {'stream' if self.stream else 'JSON'}"


def both(name: str, script: Script, code_status: int, code: str, **more: Any) -> Iterator[Case]:
    """A fault that comes before it matters what was asked for."""
    for stream in (False, True):
        yield Case(name, stream, script, code_status, code, **more)


def _cases() -> Iterator[Case]:
    yield from both("refuses the connection", (), 502, "upstream_unreachable", elsewhere=True)
    yield from both("takes no connection", ("stall",), 504, "upstream_connect", elsewhere=True, quick=True)
    yield from both("resets before", ("reset",), 502, "upstream_closed", elsewhere=True)
    yield from both("closes before", ("close",), 502, "upstream_closed", elsewhere=True)
    yield from both("stalls before", ("stall",), 504, "upstream_timeout", quick=True)
    yield from both(
        "says no HTTP", (b"hello, I speak no HTTP\r\n\r\n", "stall"), 502, "upstream_garbage", elsewhere=True
    )
    yield from both(
        "bad field", (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "stall"), 502, "upstream_garbage", elsewhere=True
    )
    yield from both(
        "two lengths",
        (JSON + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", "stall"),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield from both(
        "offers another protocol",
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "stall"),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield from both(
        "endless head",
        (b"HTTP/1.1 200 OK\r\n", Flood(b"x-more: " + b"y" * 4000 + b"\r\n")),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield from both(
        "endless interim answers", (Flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 50),), 504, "upstream_timeout", quick=True
    )
    yield from both(
        "drips its head", (Drip(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000, 0.1),), 504, "upstream_timeout", quick=True
    )
    for number, told, code, again in (
        (400, 400, "context_length_exceeded", False),
        (413, 413, "request_too_large", False),
        (301, 502, "upstream_status", False),
        (401, 502, "upstream_status", False),
        (404, 502, "upstream_status", False),
        (204, 502, "upstream_status", False),
        (429, 503, "engine_busy", True),
        (500, 502, "upstream_status", True),
        (502, 502, "upstream_status", True),
        (503, 503, "engine_busy", True),
    ):
        answer = b"HTTP/1.1 204 No Content\r\n\r\n" if number == 204 else status(number)
        yield from both(f"status {number}", (answer,), told, code, elsewhere=again)
    yield from _json()
    yield from _streams()


def _json() -> Iterator[Case]:
    head = JSON + b"content-length: %d\r\n\r\n" % len(ANSWER)
    half = head + ANSWER[:HALF]
    chunked = JSON + b"transfer-encoding: chunked\r\n\r\n"

    def case(name: str, script: Script, number: int, code: str = "", **more: Any) -> Case:
        return Case(name, False, script, number, code, **more)

    yield case("stalls after its head", (head, "stall"), 504, "upstream_timeout", quick=True)
    yield case("stalls in the middle", (half, "stall"), 504, "upstream_timeout", quick=True)
    yield case("resets in the middle", (half, Drip(b"", 0), "reset"), 502, "upstream_truncated", elsewhere=True)
    yield case("closes in the middle", (half, "close"), 502, "upstream_truncated", elsewhere=True)
    yield case(
        "closes between chunks", (chunked + framed(ANSWER[:HALF]), "close"), 502, "upstream_truncated", elsewhere=True
    )
    yield case(
        "garbage between chunks",
        (chunked + framed(ANSWER[:HALF]) + b"zz\r\n", "stall"),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield case("drips its body", (head, Drip(ANSWER, 0.1)), 504, "upstream_timeout", quick=True)
    yield case("drips chunk extensions", (chunked + b"5;", Drip(b"x" * 1000, 0.1)), 504, "upstream_timeout", quick=True)
    yield case("is no JSON", (sized(b"<html>no</html>"),), 502, "upstream_garbage", elsewhere=True)
    yield case("is half JSON", (sized(ANSWER[:HALF]),), 502, "upstream_garbage", elsewhere=True)
    yield case("is empty", (sized(b""),), 502, "upstream_garbage", elsewhere=True)
    yield case("has no choices", (sized(b'{"object":"chat.completion"}'),), 502, "upstream_garbage", elsewhere=True)
    yield case(
        "an error as if it were an answer",
        (sized(b'{"error":{"message":"no"}}'),),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield case(
        "events where none were asked for",
        (SSE + framed(*EVENTS, END) + LAST,),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield case("endless body", (chunked, Flood(framed(b"x" * 262144))), 502, "upstream_failed", elsewhere=True)
    yield case(
        "endless trailers",
        (chunked + framed(ANSWER) + b"0\r\n", Flood(b"x-more: " + b"y" * 4000 + b"\r\n")),
        502,
        "upstream_garbage",
        elsewhere=True,
    )
    yield case("more than it announced", (sized(ANSWER) + b"and more", "stall"), 200)
    yield case("a second answer behind it", (sized(ANSWER) + sized(ANSWER), "stall"), 200)
    yield case("ends with its connection", (JSON + b"\r\n" + ANSWER, "close"), 200)
    for name, usage in _LIES:
        yield case(f"usage {name}", (sized(whole("hello world", usage)),), 200, estimated=True)
    yield case("usage of another type", (sized(whole("hello world", "lots")),), 502, "upstream_garbage", elsewhere=True)


_LIES: tuple[tuple[str, Any], ...] = (
    ("negative", {"prompt_tokens": -5, "completion_tokens": -1}),
    ("huge", {"prompt_tokens": 10**15, "completion_tokens": 10**15}),
    ("absent", None),
    (
        "more cached than there is",
        {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
    ),
)


def _streams() -> Iterator[Case]:
    error = b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n'

    def case(name: str, script: Script, number: int, code: str = "", **more: Any) -> Case:
        return Case(name, True, script, number, code, **more)

    yield case("stalls after its head", (SSE, "stall"), 504, "upstream_timeout", quick=True)
    yield case("closes after its head", (SSE, "close"), 502, "upstream_truncated", elsewhere=True)
    yield case("ends without an event", (SSE + LAST,), 502, "upstream_truncated", elsewhere=True)
    yield case("is no stream", (sized(ANSWER),), 502, "upstream_garbage", elsewhere=True)
    yield case(
        "half an event, then closes", (SSE + framed(EVENTS[0][:20]), "close"), 502, "upstream_truncated", elsewhere=True
    )
    yield case(
        "endless first event", (SSE, Flood(framed(b"data: " + b"x" * 65536))), 502, "upstream_garbage", elsewhere=True
    )
    yield case("drips its first event", (SSE, Drip(framed(*EVENTS), 0.1)), 504, "upstream_timeout", quick=True)
    yield case("stalls in the middle", (BEGUN, "heard", "stall"), 200, "upstream_timeout", quick=True)
    yield case("resets in the middle", (BEGUN, "heard", "reset"), 200, "upstream_truncated")
    yield case("closes in the middle", (BEGUN, "heard", "close"), 200, "upstream_truncated")
    yield case("breaks off in an event", (BEGUN, "heard", framed(EVENTS[1][:20]), "close"), 200, "upstream_truncated")
    yield case(
        "ends without [DONE]",
        (BEGUN, "heard", framed(EVENTS[1], chunk(None, "stop")) + LAST),
        200,
        "upstream_truncated",
    )
    yield case("half a [DONE]", (BEGUN, "heard", framed(b"data: [DO"), "close"), 200, "upstream_truncated")
    yield case(
        "[DONE] in a text", (BEGUN, "heard", framed(chunk("data: [DONE]\n\n")), "close"), 200, "upstream_truncated"
    )
    yield case("garbage between chunks", (BEGUN, "heard", b"zz\r\n", "stall"), 200, "upstream_garbage")
    yield case(
        "an event that is no JSON",
        (BEGUN, "heard", framed(b'data: {"usage": oops\n\n', END) + LAST),
        200,
        "upstream_garbage",
    )
    yield case("endless event", (BEGUN, "heard", Flood(framed(b"data: " + b"x" * 65536))), 200, "upstream_garbage")
    yield case("endless events", (BEGUN, "heard", Flood(framed(EVENTS[1]))), 200, "upstream_timeout", quick=True)
    yield case("drips", (BEGUN, "heard", Drip(framed(EVENTS[1]) * 20, 0.1)), 200, "upstream_timeout", quick=True)
    yield case("tells an error", (BEGUN, "heard", framed(error, b"data: [DONE]\n\n") + LAST), 200, "engine")
    yield case("tells an error at once", (SSE + framed(error, b"data: [DONE]\n\n") + LAST,), 200, "engine")
    yield case("does not close after [DONE]", (BEGUN, "heard", framed(EVENTS[1], END), "stall"), 200)
    yield case("says more after [DONE]", (BEGUN, "heard", framed(EVENTS[1], END, EVENTS[0]) + LAST), 200)
    for name, usage in _LIES:
        told = usage_chunk(usage) if usage is not None else b""
        last = chunk(None, "stop") + told + b"data: [DONE]\n\n"
        yield case(f"usage {name}", (BEGUN, "heard", framed(EVENTS[1], last) + LAST), 200, estimated=True)


CASES = tuple(_cases())
AT_A_TIME = 24
SEATS_ONLY = {
    "limits": Limits(concurrency=2 * AT_A_TIME, tokens_per_minute=10**9)
}  # so few seats are leased one by one


class Row(NamedTuple):
    """What came of one case: `problems` is empty if all was as the table says."""

    case: Case
    status: int
    code: str
    done: bool
    seconds: float
    attempts: int
    problems: tuple[str, ...]


async def play(data: Path, cases: tuple[Case, ...] = CASES, *, second: bool = False) -> list[Row]:
    """Plays `cases` all at once, each on a pool of its own; with `second`, beside a replica that is well.

    Floods come last, one by one: they would take the others' time.
    """
    tasks = asyncio.all_tasks()
    bad = [BadUpstream(case.script) for case in cases]
    well = MockUpstream()
    await well.start()
    for one, case in zip(bad, cases, strict=True):
        if not case.script:
            one.refuse()
        elif case.code == "upstream_connect":
            one.be_deaf()
        else:
            await one.start()
    pools = tuple(_pool(index, case, bad[index].url, well.url if second else None) for index, case in enumerate(cases))
    routes = tuple(Route(name=f"m{index}", to=(Target(pool=f"p{index}"),)) for index in range(len(cases)))
    async with running(data, key=SEATS_ONLY, pools=pools, routes=routes) as house:
        house.worker.gateway.draw = lambda: 0.0  # of two, the first
        floods = [i for i, case in enumerate(cases) if any(isinstance(step, Flood) for step in case.script)]
        others = [i for i in range(len(cases)) if i not in floods]
        seats = asyncio.Semaphore(AT_A_TIME)

        async def seated(index: int) -> Row:
            async with seats:
                return await _play(house, index, cases[index], bad[index], second=second)

        rows = await asyncio.gather(*[seated(index) for index in others])
        rows += [await _play(house, i, cases[i], bad[i], second=second) for i in floods]
        await until(lambda: house.ledger.used("key:key_1", SEATS, time.time()) == 0)
        await house.settled()
    for one in bad:
        await one.stop()
    await well.stop()
    await until(lambda: asyncio.all_tasks() <= tasks)
    return sorted(rows, key=lambda row: cases.index(row.case))


def _pool(index: int, case: Case, bad: str, well: str | None) -> Pool:
    begins = 0.6 if case.status == 504 else LONGEST_S
    times = {"connect_timeout_s": 0.5, "first_byte_timeout_s": begins, "stall_timeout_s": 0.6, "answer_timeout_s": 2.0}
    replicas = (Replica(id="bad", url=bad), *((Replica(id="well", url=well),) if well is not None else ()))
    return Pool(
        name=f"p{index}",
        replicas=replicas,
        version="mock:v1.0.0",
        affinity="off",
        health=HealthPolicy(probe_s=0.0, slow_factor=0.0),
        **(times if case.quick else {}),  # type: ignore[arg-type]
    )


async def _play(house: House, index: int, case: Case, bad: BadUpstream, *, second: bool) -> Row:
    began = time.monotonic()
    got = await ask(
        house.port,
        chat("hello world", stream=case.stream, model=f"m{index}"),
        LONGEST_S,
        heard=bad.heard if case.stream else None,
    )
    seconds = time.monotonic() - began
    problems: list[str] = []
    rescued = second and case.elsewhere
    done = b"\n\ndata: [DONE]\n" in b"\n\n" + got.body
    code = ""
    if case.stream and got.status == 200:
        if not (got.whole and done):
            error = msgspec.json.decode(got.body.split(b"data: ")[-1]).get("error", {})
            code = error.get("code") or ("engine" if error else "")
        if done != (got.whole and not code):
            problems.append("[DONE] on a stream that did not end")
    elif got.status != 200:
        code = got.error["code"]
    if not got.whole and not (case.stream and got.status == 200):
        problems.append("the reply is cut")
    want = (200, "") if rescued else (case.status, case.code)
    if (got.status, code) != want:
        problems.append(f"got {got.status} {code}, not {want[0]} {want[1]}")
    try:
        await _left_clean(house, index, bad)
    except AssertionError as error:
        problems.append(f"not clean: {error}")
    record = next(exchange for exchange in house.exchanges() if exchange.route == f"m{index}")
    if (record.status, record.error) != (got.status, "upstream_error" if code == "engine" else code):
        problems.append(f"the journal says {record.status} {record.error}")
    if case.estimated and not 0 < record.usage.prompt + record.usage.completion < 200:
        problems.append(f"usage {record.usage} was believed")
    if not second and case.script and case.code != "upstream_connect":
        again = await ask(house.port, chat("hello again", stream=case.stream, model=f"m{index}"), LONGEST_S)
        if again.status != 200 or not again.whole or bad.reused > (case.name in _FIT):
            problems.append(f"the next request: {again.status}, {bad.reused} over a spoilt connection")
    return Row(case, got.status, code, done, seconds, record.attempts, tuple(problems))


_FIT: frozenset[str] = frozenset(
    [f"status {code}" for code in (400, 413, 301, 401, 404, 204, 429, 500, 502, 503)]
    + ["is no JSON", "is half JSON", "is empty", "has no choices", "an error as if it were an answer", "is no stream"]
    + ["events where none were asked for", "ends without [DONE]", "ends without an event", "usage of another type"]
    + ["an event that is no JSON", "says more after [DONE]"]
    + ["tells an error", "tells an error at once"]
    + [f"usage {name}" for name, _ in _LIES]
)  # after these the connection is fit for another request


async def _left_clean(house: House, index: int, bad: BadUpstream) -> None:
    state = house.worker.gateway.pools.get(f"p{index}")
    assert state is not None
    await until(lambda: state.taken == 0 and state.balancer.in_flight == 0)
    await until(lambda: bad.running == 0)


def table(rows: list[Row]) -> str:
    """As text."""
    lines = [
        f"{'the engine':34} {'asked for':9} {'status':>6} {'code':24} {'[DONE]':6} {'asked':>5} {'seconds':>7}  as it should be"
    ]
    lines += [
        f"{row.case.name:34} {'stream' if row.case.stream else 'JSON':9} {row.status:6} {row.code:24} {'yes' if row.done else 'no':6}"
        f" {row.attempts:5} {row.seconds:7.2f}  {'; '.join(row.problems) or 'yes'}"
        for row in rows
    ]
    return "\n".join(lines)
