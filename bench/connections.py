"""Many connections to one worker: memory of those that rest, streams on thousands at once, refusals of those beyond the limit.

`python -m bench.connections [--connections N] [--streams N] [--refusals N] [--seconds S]`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import time
from collections.abc import Callable

import uvloop

from bench.clients import STREAM_BODY, Caller, chat, connect, connect_many, percentile, pin, resident_kib
from bench.load import LOAD_CORE, upstream
from bench.process_tree import spent
from bench.targets import Running, penstock

Say = Callable[[str, str], None]
_EVENTS = 20  # of a stream
_AT_ONCE = 200  # attempts beyond the limit that are under way together


async def _each(callers: list[Caller], request: bytes, at_once: int = 200) -> int:
    """How many get a whole good reply."""
    good = 0
    for start in range(0, len(callers), at_once):
        replies = await asyncio.gather(*[caller.ask(request) for caller in callers[start : start + at_once]])
        good += sum(reply.startswith(b"HTTP/1.1 200") for reply in replies)
    return good


async def _rest(target: Running, count: int, say: Say) -> list[Caller]:
    request = chat(target.headers)
    first = await connect_many(target.port, 200)
    await _each(first, request)  # what a worker allocates once
    await asyncio.sleep(0.5)
    before = resident_kib(target.pid)
    callers = await connect_many(target.port, count - 200)
    await asyncio.sleep(1.0)
    silent = resident_kib(target.pid)
    good = await _each(callers, request)
    await asyncio.sleep(1.0)
    used = resident_kib(target.pid)
    opened = len(callers)
    say(f"{opened:,} connections that said nothing yet", f"{(silent - before) / opened:.1f} KiB each")
    say(f"the same, each after a request ({good:,} answered)", f"{(used - before) / opened:.1f} KiB each")
    return first + callers


async def _streams(target: Running, callers: list[Caller], count: int, say: Say) -> None:
    began, cpu = time.monotonic(), spent(target.pid).cpu_us
    replies = await asyncio.gather(*[caller.ask(chat(target.headers, STREAM_BODY)) for caller in callers[:count]])
    seconds = time.monotonic() - began
    whole = sum(b"data: [DONE]" in reply and reply.endswith(b"0\r\n\r\n") for reply in replies)
    events = sum(reply.count(b"data: ") for reply in replies)
    cpu = spent(target.pid).cpu_us - cpu
    say(
        f"{count:,} streams at once beside {len(callers) - count:,} that rest",
        f"{whole:,} whole, {count - whole} lost; {events:,} events in {seconds:.1f} s, {cpu / events:.1f} us CPU each",
    )
    alive = await _each(callers[count:], chat(target.headers))
    say("of those that rested", f"{alive:,} answered afterwards, {len(callers) - count - alive} lost")


async def _refusals(target: Running, held: Caller, count: int, say: Say) -> None:
    waits: list[float] = []
    refused = other = 0
    left = count
    beside: list[float] = []
    over = asyncio.Event()

    async def attempts() -> None:
        nonlocal left, refused, other
        while left > 0:
            left -= 1
            began = time.perf_counter()
            try:
                caller = await connect(target.port, source="127.0.0.2")
                reply = await caller.heard()
            except OSError:
                other += 1
                continue
            waits.append(time.perf_counter() - began)
            refused += reply.startswith(b"HTTP/1.1 503")
            other += not reply.startswith(b"HTTP/1.1 503")
            if caller.transport is not None:
                caller.transport.abort()

    async def served() -> None:
        while not over.is_set():
            began = time.perf_counter()
            assert (await held.ask(chat(target.headers))).startswith(b"HTTP/1.1 200")
            beside.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)

    serving = asyncio.create_task(served())
    began, cpu = time.monotonic(), spent(target.pid).cpu_us
    await asyncio.gather(*[attempts() for _ in range(_AT_ONCE)])
    seconds, cpu = time.monotonic() - began, spent(target.pid).cpu_us - cpu
    over.set()
    await serving
    say(
        f"{count:,} attempts beyond the limit, {_AT_ONCE} at once",
        f"{refused:,} told 503, {other} otherwise; {count / seconds:,.0f}/s, {cpu / count:.0f} us CPU each",
    )
    say(
        "from connect to the refusal's end",
        f"p50 {percentile(waits, 0.5) * 1e3:.1f} ms, p99 {percentile(waits, 0.99) * 1e3:.1f} ms, worst {max(waits) * 1e3:.0f} ms",
    )
    say(
        "a request on an open connection meanwhile",
        f"p50 {percentile(beside, 0.5) * 1e3:.1f} ms, p99 {percentile(beside, 0.99) * 1e3:.1f} ms",
    )


async def measure(target: Running, connections: int, streams: int, refusals: int, say: Say) -> None:
    """All of it against one worker whose limit is `connections`."""
    callers = await _rest(target, connections, say)
    await _streams(target, callers, streams, say)
    await _refusals(target, callers[0], refusals, say)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--refusals", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a stream")
    wanted = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pin(LOAD_CORE)
    print(f"one worker, {wanted.connections:,} connections at most, {hard:,} open files\n")

    def say(what: str, figure: str) -> None:
        print(f"{what:58} {figure}", flush=True)

    os.environ["PENSTOCK_GATEWAY_MAX_CONNECTIONS"] = str(wanted.connections)
    with upstream(interval_us=int(wanted.seconds * 1e6 / _EVENTS), events=_EVENTS) as port, penstock(port) as target:
        uvloop.run(measure(target, wanted.connections, wanted.streams, wanted.refusals, say))


if __name__ == "__main__":
    main()
