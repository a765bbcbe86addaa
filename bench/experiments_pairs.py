"""Interleaving: how many votes a preference takes and how often there is none; a shadow: what users notice of it, and whether its forecast holds."""

import asyncio
import math
import random
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from bench.checks import Check, Measured
from bench.load import OUT, TARGET_CORE, fire, free_port, pinned, upstream, wait_for_port
from bench.targets import bench_snapshot
from penstock.core.snapshot import Arm, ExperimentEntry, Pool, Replica, Route, ShadowPlan, Snapshot, Target
from penstock.experiments.counted import Statistics
from penstock.experiments.design import parse_design
from penstock.experiments.metrics import METRICS
from penstock.experiments.pairs import CONTROL, DIFFERENCE, forecast
from penstock.experiments.preference import STEPS, log_evidence, preferred
from penstock.experiments.ranking import best_of
from penstock.experiments.statistics import Moments, moments_of

EFFECT = 0.05
VOTES = 1300
WATCHED = 5000


def _evidence(won: np.ndarray, count: np.ndarray) -> np.ndarray:
    """`log_evidence` against one half, of arrays; `_agrees` compares the two."""
    terms = []
    for times, weight in STEPS:
        for side in (-1, 1):
            other = 0.5 + side * times * EFFECT
            terms.append(math.log(weight / 2) + won * math.log(2 * other) + (count - won) * math.log(2 * (1 - other)))
    return np.asarray(np.logaddexp.reduce(terms, axis=0))


def _agrees(won: np.ndarray, count: np.ndarray) -> bool:
    shipped = [log_evidence(int(one), int(of - one), 0.5, EFFECT) for one, of in zip(won, count, strict=True)]
    return bool(np.allclose(shipped, _evidence(won, count), atol=1e-9))


def _crossed(share: float, votes: int, runs: int, seed: int) -> tuple[float, bool]:
    """How many of the runs call a preference within so many votes, looked at after each; and whether the arrays say what ships."""
    draw = np.random.default_rng(seed)
    count = np.arange(1, votes + 1)
    called, agrees = 0, True
    for run in range(runs):
        won = (draw.random(votes) < share).cumsum()
        called += bool((_evidence(won, count) >= math.log(20)).any())
        if run < 3:
            agrees &= _agrees(won[:: votes // 20], count[:: votes // 20])
    return called / runs, agrees


def power(seed: int, part: float) -> Measured:
    """A preference of 55 %: found within 1,300 votes."""
    found, agrees = _crossed(0.5 + EFFECT, VOTES, max(200, round(10_000 * part)), seed)
    return Measured(f"{100 * found:.1f} %", agrees and found >= (0.8 if part >= 1 else 0.75))


def false_calls(seed: int, part: float) -> Measured:
    """No preference: called within 5,000 votes, looked at after each."""
    found, agrees = _crossed(0.5, WATCHED, max(200, round(10_000 * part)), seed)
    return Measured(f"{100 * found:.1f} %", agrees and found <= (0.05 if part >= 1 else 0.08))


def several(seed: int, part: float) -> Measured:
    """Three versions beside the control, all equal, looked at after each 50 votes of each up to 5,000: how often one is called the best."""
    draw, runs, wrong = np.random.default_rng(seed), max(20, round(1000 * part)), 0
    names = ("a", "b", "c")
    design = parse_design(
        {
            "strategy": "interleaved",
            "route": "bot",
            "arms": [{"name": name, "pool": "p"} for name in ("control", *names)],
            "primary": {"metric": "preference", "minimum_effect": EFFECT},
            "plan": {"units": 1000},
        }
    )
    for _ in range(runs):
        won = np.cumsum(draw.random((3, WATCHED)) < 0.5, axis=1)
        for at in range(49, WATCHED, 50):
            cast = {
                (1, name, "preference"): Moments(at + 1, int(row[at]), at + 1, int(row[at]), at + 1, int(row[at]))
                for name, row in zip(names, won, strict=True)
            }
            if best_of(design, Statistics(moments=cast, shares={1: dict.fromkeys(names, 1 / 3)}), "preference"):
                wrong += 1
                break
    return Measured(f"{100 * wrong / runs:.1f} %", wrong / runs <= (0.05 if part >= 1 else 0.2))


def intervals(seed: int, part: float) -> Measured:
    """The interval for a share of .6, looked at often up to 3,000 votes: how often it ever leaves the truth out."""
    draw = random.Random(seed)
    runs, missed = max(40, round(1000 * part)), 0
    for _ in range(runs):
        won = 0
        for count in range(1, 3001):
            won += draw.random() < 0.6
            if count % 100 == 0:
                found = preferred(won, count - won, effect=EFFECT, alpha=0.05)
                if not found.low <= 0.6 <= found.high:
                    missed += 1
                    break
    return Measured(f"{100 * missed / runs:.1f} %", missed / runs <= (0.05 if part >= 1 else 0.1))


def forecasts(seed: int, part: float) -> Measured:
    """Forecasts from 400 pairs of an A/B test with 1,000 users an arm: how often the test's own estimate falls within the 95 %."""
    draw = np.random.default_rng(seed)
    metric, units, held = METRICS["latency"], 1000, 0
    runs = max(60, round(4000 * part))
    for _ in range(runs):
        base = draw.lognormal(0, 0.5, 400)
        other = base * draw.lognormal(0.05, 0.2, 400)
        pairs = np.rint(np.stack([base, other]) * 1e9).astype(np.int64)
        rows = {"latency": pairs[1], "latency" + CONTROL: pairs[0], "latency" + DIFFERENCE: pairs[1] - pairs[0]}
        statistics = Statistics(
            moments={(1, "new", name): moments_of((int(v), 1) for v in values) for name, values in rows.items()},
            shares={1: {"new": 1.0}},
        )
        ahead = forecast(statistics, metric, "new", units=units, critical=2.8)
        control = draw.lognormal(0, 0.5, units)
        treatment = draw.lognormal(0, 0.5, units) * draw.lognormal(0.05, 0.2, units)
        reported = float(treatment.mean() - control.mean())
        held += ahead is not None and ahead.lower <= reported <= ahead.upper
    return Measured(f"{100 * held / runs:.1f} %", held / runs >= (0.94 if part >= 1 else 0.88))


KINDS = (
    "none",
    "quick",
    "dead",
    "hangs",
    "again",
)  # what the candidate does; `again` has none either: what the machine itself makes of p99s


def unnoticed(_seed: int, part: float) -> Measured:
    """Users' p99 with every request copied, minus without: the candidate is quick, dead, or hangs with a full queue.

    At full size each is a gateway of its own under 300 requests a second, by turns in changing order, with upstreams in C; the short form has
    all in one process. Two gateways without a shadow are compared in the same way: where they differ by as much, the figure says nothing.
    """
    found = _apart() if part >= 1 else asyncio.run(_latencies(3, 60))
    apart = {
        kind: median(one - none for one, none in zip(found[kind], found["none"], strict=True)) for kind in KINDS[1:]
    }
    noise = abs(apart.pop("again"))
    told = ", ".join(f"{kind} {1000 * value:+.2f}" for kind, value in apart.items())
    figure = f"{told} ms (without {1000 * median(found['none']):.2f}, two without differ by {1000 * noise:.2f})"
    most = 0.001 if part >= 1 else 0.05
    return Measured(figure, max(*apart.values(), noise) <= most)


def _apart(turns: int = 15, seconds: float = 1.5, rate: float = 300.0) -> dict[str, list[float]]:
    """By what the candidate does, the p99 of each turn, in seconds."""
    secret = "pk-" + secrets.token_urlsafe(32)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        users, quick = stack.enter_context(upstream()), stack.enter_context(upstream())
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(4096)  # takes connections, and never answers
        urls = {"quick": quick, "dead": free_port(), "hangs": silent.getsockname()[1]}
        running = {}
        for kind in found:
            snapshot = bench_snapshot(users, secret)
            url = f"http://127.0.0.1:{urls[kind]}" if kind in urls else None
            ours = msgspec.structs.replace(snapshot, **_route(snapshot, url, pool="mock"))
            running[kind] = stack.enter_context(_gateway(ours))
        for turn in range(turns):
            for place in range(
                len(KINDS)
            ):  # who comes first changes, so that what the machine does besides falls on all alike
                kind = KINDS[(place + turn) % len(KINDS)]
                port, pid = running[kind]
                figures = fire(
                    port=port, pid=pid, connections=8, seconds=seconds, rate=rate, body=Path("bench/body1k.json"),
                    headers=(f"Authorization: Bearer {secret}",),
                )  # fmt: skip
                if figures.bad:
                    raise RuntimeError(f"{figures.bad} users' requests failed beside a candidate that is {kind}")
                found[kind].append(figures.p99_ms / 1000)
    return found


@contextmanager
def _gateway(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    """A gateway with `snapshot`: port and process."""
    data = OUT / f"shadow-{time.time_ns()}"
    (data / "gateway").mkdir(parents=True)
    (data / "gateway" / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))
    port = free_port()
    command = [Path(".venv/bin/penstock"), "gateway", "--data", data, "--gateway-port", str(port), "--workers", "1"]
    with pinned(command, TARGET_CORE, log=OUT / "shadow.log") as process:
        wait_for_port(port, process)
        yield port, process.pid


async def _latencies(turns: int, requests: int) -> dict[str, list[float]]:
    """By what the candidate does, the p99 of each turn."""
    from tests.gateway.house import running
    from tests.gateway.mock_upstream import MockUpstream

    kinds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        quick, hanging = MockUpstream(), MockUpstream()
        hanging.always = "!hang"
        urls = {"quick": await quick.start(), "dead": "http://127.0.0.1:9", "hangs": await hanging.start()}
        async with running(Path(folder)) as house:
            base = house.worker.gateway.index.snapshot
            for _ in range(turns):  # so that what else the machine does falls on all alike
                for kind, found in kinds.items():
                    house.take(**_route(base, urls.get(kind)))
                    times: list[float] = []
                    await _ask(house.port, requests, times)
                    found.append(sorted(times)[int(len(times) * 0.99)])
        await quick.stop()
        await hanging.stop()
    return kinds


def _route(base: Snapshot, url: str | None, pool: str = "pool") -> dict[str, Any]:
    pools = base.pools
    if url is None:
        return {"pools": pools, "routes": (Route(name="mock", to=(Target(pool=pool),)),)}
    arms = (Arm(name="control", pool=pool, weight=0.0), Arm(name="new", pool="new", weight=1.0, ranges=((0.0, 1.0),)))
    entry = ExperimentEntry(
        name="s", epoch=1, seed="s", unit="request", incumbent="control", arms=arms,
        shadow=ShadowPlan(share=1.0, queue=16, in_flight=2, deadline_s=5),
    )  # fmt: skip
    new = Pool(name="new", replicas=(Replica(id="n", url=url),))
    return {"pools": (*pools, new), "routes": (Route(name="mock", to=(Target(pool=pool),), experiment=entry),)}


async def _ask(port: int, requests: int, times: list[float]) -> None:
    from tests.gateway.raw_client import ask, chat

    waiting = list(range(requests))

    async def user() -> None:
        while waiting:
            waiting.pop()
            began = time.perf_counter()
            got = await ask(port, chat("hello there, how are you today?"))
            times.append(time.perf_counter() - began)
            assert got.status == 200

    await asyncio.gather(user(), user())


CHECKS = [
    Check("interleaved: a 55 % preference within 1,300 votes", ">= 80 %", power, seed=4),
    Check("interleaved: called without one, watched to 5,000", "<= 5 %", false_calls, seed=5),
    Check("interleaved: of four equal versions one called best", "<= 5 %", several, seed=9, slow=True),
    Check("interleaved: sequences that ever miss", "<= 5 %", intervals, seed=6, slow=True),
    Check("shadow: A/B estimates within the forecast", ">= 94 %", forecasts, seed=7, slow=True),
    Check("shadow: users' p99, all copied, minus none", "<= 1 ms", unnoticed, seed=8),
]
