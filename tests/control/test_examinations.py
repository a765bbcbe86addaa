"""The loop that has an examiner run: while something waits, and no longer."""

import json
from collections.abc import Callable

from penstock.control.gates.examinations import EXAMINER, Examinations
from penstock.runtime.port import ReplicaSpec, RunningReplica
from tests.control.house import House

SUITE = json.dumps({"id": "a", "prompt": "?", "score": {"type": "exact", "answers": ["x"]}})


class Noted:
    """A runtime that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def start(self, replica: ReplicaSpec) -> RunningReplica:
        self.asked.append(f"start {replica.task} {replica.id}")
        return RunningReplica(id=replica.id, url="")

    async def stop(self, replica_id: str, *, drain_s: float) -> None:
        self.asked.append(f"stop {replica_id}")

    async def list(self) -> tuple[RunningReplica, ...]:
        return ()


async def test_an_examiner_runs_while_something_waits(house: House) -> None:
    runtime, now = Noted(), [house.control.clock()]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    house.control.clock = clock
    loop = Examinations(house.control, runtime)
    await loop.step()
    assert runtime.asked == []
    now[0] += 30
    await loop.step()
    assert runtime.asked == [f"stop {EXAMINER}"]  # one that ran since before this process
    await loop.step()
    assert len(runtime.asked) == 1
    await house.push("bot", "v1.0.0")
    await house.post("/suites", {"name": "s", "lines": SUITE})
    one = await house.post("/evaluations", {"model": "bot", "label": "v1.0.0", "suite": "s"})
    await loop.step()
    assert runtime.asked[1:] == [f"start examiner {EXAMINER}"]
    await house.post(f"/evaluations/{one['id']}/cancel", status=200)
    await loop.step()
    now[0] += 30
    await loop.step()
    assert runtime.asked[-1] == f"stop {EXAMINER}"
