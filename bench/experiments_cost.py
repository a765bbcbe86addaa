"""What experiments cost a request at the gateway: the assignment of a unit, and a hundred experiments at once more than one; CPU time, without the kernel's part."""

import asyncio
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec
import uvloop

from bench.checks import Check, Measured
from bench.steps import SECRET, Bench, snapshot
from penstock.core.snapshot import Arm, Audience, ExperimentEntry, Route, Slice, Snapshot, Target
from penstock.experiments.assignment import compile_experiment, unit_of

MANY = 100
USERS = 5_000


def _requests(routes: int) -> list[bytes]:
    """Questions of `USERS` users, over all routes by turns."""
    found = []
    for number in range(USERS):
        body = json.dumps(
            {
                "model": f"r{number % routes}",
                "user": f"user {number}",
                "messages": [{"role": "user", "content": "word " * 180}],
                "max_tokens": 100,
            }
        ).encode()
        found.append(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nAuthorization: Bearer %b\r\n\r\n%b" % (len(body), SECRET.encode(), body)
        )
    return found


class Crowd(Bench):
    """A bench whose clients ask one question after the other, not always the same."""

    def __init__(self, made: Snapshot, folder: Path, routes: int) -> None:
        self._next: Iterator[bytes] = itertools.cycle(_requests(routes))
        super().__init__(made, folder, body=b"", stream=False)

    @property
    def request(self) -> bytes:
        """The next question."""
        return next(self._next)

    @request.setter
    def request(self, _same: bytes) -> None: ...


def _experiment(number: int, *, gated: bool) -> ExperimentEntry:
    name = f"e{number}"
    arms = (
        Arm(name="control", pool="mock", weight=0.5, ranges=((0.0, 0.5),)),
        Arm(name="treatment", pool="mock", weight=0.5, ranges=((0.5, 1.0),)),
    )
    entry = ExperimentEntry(name=name, epoch=1, seed=name, unit="user", incumbent="control", arms=arms)
    if not gated:
        return entry
    return msgspec.structs.replace(
        entry, audience=Audience(tenants=("bench",)), namespace=Slice(name="n", high=0.99), holdout=Slice(name="h", high=0.01)
    )  # fmt: skip


def _snapshot(routes: int, *, experiments: bool = True, gated: bool = False) -> Snapshot:
    base = snapshot(cache=False)
    made = tuple(
        Route(
            name=f"r{number}",
            to=(Target(pool="mock"),),
            experiment=_experiment(number, gated=gated) if experiments else None,
        )
        for number in range(routes)
    )
    return msgspec.structs.replace(base, routes=made)


async def _measured(rounds: int, requests: int) -> dict[str, float]:
    """By what runs, CPU microseconds a request: medians of the rounds' differences from none."""
    kinds = {
        "none": (1, _snapshot(1, experiments=False)),
        "one": (1, _snapshot(1)),
        "one, targeted": (1, _snapshot(1, gated=True)),
        "many": (MANY, _snapshot(MANY)),
    }
    with tempfile.TemporaryDirectory() as folder:
        benches = {}
        for kind, (routes, made) in kinds.items():
            data = Path(folder) / kind.replace(", ", "-")
            data.mkdir()
            bench = benches[kind] = Crowd(made, data, routes)
            await bench.start()
            await bench.run(requests)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):  # by turns, so that what else the machine does falls on all alike
            for kind, bench in benches.items():
                found[kind].append(await bench.run(requests))
        for bench in benches.values():
            await bench.client.close()
            await bench.server.drain(0)
        gc.unfreeze()
    costs = {"none": median(found["none"])}
    for kind, times in found.items():
        if kind != "none":
            costs[kind] = median(one - none for one, none in zip(times, found["none"], strict=True))
    return costs


def assignment(_seed: int, part: float) -> Measured:
    """The arm of a unit that was not met before, alone and behind targeting, a holdout and a namespace."""
    units = [f"user {number}" for number in range(USERS)]
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(9 if part >= 1 else 2):
        for gated, times in found.items():
            assigner = compile_experiment(_experiment(0, gated=gated))
            began = time.process_time()
            for unit in units:
                if assigner.gate is None or not assigner.gate.why_not("bench", {}, None, unit):
                    assigner.assign(unit_of("user", user=unit, session="", key="", request=""), 1.0)
            times.append((time.process_time() - began) / USERS * 1e6)
    plain, gated_us = median(found[False]), median(found[True])
    return Measured(f"{plain:.1f} us, with gates {gated_us:.1f}", plain <= 5 or part < 1)


def hundred(_seed: int, part: float) -> Measured:
    """A hundred experiments on a hundred routes, asked by turns, against one."""
    rounds, requests = (15, 4_000) if part >= 1 else (1, 64)
    before = gc.get_threshold()
    try:
        found = (uvloop.run if part >= 1 else asyncio.run)(_measured(rounds, requests))
    finally:
        gc.set_threshold(*before)
    more = found["many"] - found["one"]
    figure = (
        f"{more:+.1f} us; one costs {found['one']:+.1f}, targeted {found['one, targeted']:+.1f}, of {found['none']:.0f}"
    )
    return Measured(figure, more <= 10 or part < 1)


CHECKS = [
    Check("cost: the assignment of a unit", "<= 5 us", assignment, seed=301),
    Check("cost: 100 experiments at once, more than one", "<= 10 us a request", hundred, seed=302),
]
