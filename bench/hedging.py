"""What second copies do to the tail: `python -m bench.hedging` asks four replicas, one of which is slow now and then, with and without.

Real sockets. Several gateway workers, each with one request at a time, as where many workers share a pool: none of them sees the others'
requests, so that the better of two cannot avoid the slow replica. A tenth of that one's requests take a second.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

from bench.line import Line
from penstock.core.snapshot import HealthPolicy
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import running
from tests.gateway.mock_upstream import JSON, whole
from tests.gateway.raw_client import chat, read_reply

REPLICAS = 4
SLOW_SHARE = 0.1
SLOW_S = 1.0
USUAL_S = 0.005
HEDGE_S = 0.05
HEDGE_SHARE = HealthPolicy().hedge_share
_ANSWER = whole("hello")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one run; times in milliseconds."""

    p50: float
    p99: float
    longest: float
    copies: float  # for each request


class Replica:
    """Answers after `USUAL_S`; if it is slow, now and then after `SLOW_S`."""

    def __init__(self, draws: random.Random, *, slow: bool, slow_s: float = SLOW_S) -> None:
        self._draws = draws
        self._slow = slow
        self._slow_s = slow_s
        self.server = Server(self._answer)

    async def _answer(self, _request: Request, reply: Reply) -> None:
        await asyncio.sleep(self._slow_s if self._slow and self._draws.random() < SLOW_SHARE else USUAL_S)
        reply.send(200, JSON, _ANSWER)


async def measure(
    data: Path,
    *,
    hedge_after_s: float | None,
    requests: int,
    workers: int,
    seed: int = 1,
    slow_s: float = SLOW_S,
    share: float = HEDGE_SHARE,
) -> Figures:
    """One run: each worker asks its part of `requests`, one after another."""
    replicas = [Replica(random.Random(seed + index), slow=index == 0, slow_s=slow_s) for index in range(REPLICAS)]
    for replica in replicas:
        await replica.server.start()
    urls = [f"http://127.0.0.1:{replica.server.port}" for replica in replicas]
    health, each = HealthPolicy(slow_factor=0.0, probe_s=0.0, hedge_share=share), requests // workers
    runs = await asyncio.gather(*[_worker(data / f"w{n}", urls, hedge_after_s, each, health) for n in range(workers)])
    for replica in replicas:
        await replica.server.drain(0.1)
    times = sorted(one * 1000 for took, _ in runs for one in took)
    return Figures(
        p50=statistics.median(times),
        p99=times[int(0.99 * len(times))],
        longest=times[-1],
        copies=sum(copies for _, copies in runs) / len(times),
    )


async def _worker(
    data: Path, urls: list[str], hedge_after_s: float | None, requests: int, health: HealthPolicy
) -> tuple[list[float], int]:
    pool = {"health": health, "affinity": "off"}
    async with running(
        data, replicas=0, others=tuple(urls), pool=pool, route={"hedge_after_s": hedge_after_s}
    ) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        times = []
        for _ in range(requests):
            began = time.perf_counter()
            writer.write(chat("hello"))
            got = await read_reply(reader)
            assert got.status == 200
            times.append(time.perf_counter() - began)
        writer.close()
        return times, house.worker.gateway.pools.all()[0].balancer.hedges.taken


async def hedging_line(
    data: Path, *, requests: int = 1600, workers: int = 8, slow_s: float = SLOW_S, share: float = HEDGE_SHARE
) -> Line:
    """The tail with and without, in a line, of fewer requests; at most `share` of them may be copied."""
    run = {"requests": requests, "workers": workers, "slow_s": slow_s, "share": share}
    without = await measure(data / "without", hedge_after_s=None, **run)  # type: ignore[arg-type]
    hedged = await measure(data / "with", hedge_after_s=HEDGE_S, **run)  # type: ignore[arg-type]
    if hedged.p99 >= without.p99 or hedged.copies > share:
        raise AssertionError(
            f"p99 {hedged.p99:.0f} ms with and {without.p99:.0f} ms without, {hedged.copies:.1%} copies"
        )
    return Line(
        "one of {replicas} replicas slow for {slow:.0%} of its requests: p99 {without:.0f} ms without, {hedged:.0f} ms with"
        " a second copy after {after:.0f} ms, for {copies:.1%} more requests",
        {
            "replicas": REPLICAS,
            "slow": SLOW_SHARE,
            "without": without.p99,
            "hedged": hedged.p99,
            "after": HEDGE_S * 1000,
            "copies": hedged.copies,
        },
    )


async def _main(requests: int, workers: int) -> None:
    print(
        f"{REPLICAS} replicas, one of which takes {SLOW_S:g} s for {SLOW_SHARE:.0%} of its requests; {requests} requests, {workers} workers"
    )
    print(f"{'':28} {'p50 ms':>8} {'p99 ms':>8} {'longest':>8} {'copies':>8}")
    for name, after in (("without hedging", None), (f"a second copy after {HEDGE_S * 1000:g} ms", HEDGE_S)):
        with tempfile.TemporaryDirectory() as folder:
            found = await measure(Path(folder), hedge_after_s=after, requests=requests, workers=workers)
        print(f"{name:28} {found.p50:8.1f} {found.p99:8.1f} {found.longest:8.1f} {found.copies:8.2%}", flush=True)


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    uvloop.run(_main(options.requests, options.workers))


if __name__ == "__main__":
    main()
