"""Events that a metric is read from, told in every wrong way: each has one outcome, which the reference names."""

import math
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.control.context import SYSTEM
from penstock.control.experiments.life import advance, experiment_row
from penstock.control.experiments.store import load_statistics
from penstock.core.exchange import Observation
from penstock.experiments.ramp import Move
from penstock.experiments.statistics import Moments
from penstock.store import schema_experiments as tables
from penstock.store.sql import Database
from tests.control.bed import T0, Bed, exchange

SPEC: dict[str, Any] = {
    "strategy": "canary",
    "hypothesis": "no harm is done",
    "route": "bot",
    "unit": "user",
    "arms": [{"name": "control", "pool": "old"}, {"name": "treatment", "pool": "new"}],
    "primary": {"metric": "error_rate", "minimum_effect": 0.1},
    "metrics": [
        {"name": "revenue", "event": "purchase", "type": "mean"},
        {"name": "first_day", "event": "purchase", "type": "mean", "within_s": 86400},
    ],
    "plan": {"steps": [0.5, 0.9, 1.0], "lapse_s": 30},
}
PRICE = 2_000_000  # of one purchase, in millionths


@pytest.fixture
async def bed(sqlite: Database, tmp_path: Path) -> AsyncIterator[Bed]:
    made = Bed(sqlite, tmp_path)
    await made.prepare()
    await made.begin(SPEC)
    asked = exchange(1, experiment="e", arm="treatment", epoch=1, unit="u1", user="u1")
    plain = exchange(2, user="u2")
    foreign = exchange(3, tenant="b", experiment="e", arm="treatment", epoch=1, unit="u3", user="u3")
    assert (await made.send([asked, plain, foreign])).status_code == 200
    yield made
    await made.http.aclose()


def purchase(**changes: Any) -> Observation:
    base: dict[str, Any] = {
        "id": "p", "at": T0 + 60, "received": T0 + 60, "kind": "event", "tenant": "a", "name": "purchase",
        "request": "req_000001", "value": 2.0,
    }  # fmt: skip
    return Observation(**base | changes)


async def revenue(bed: Bed, name: str = "revenue") -> tuple[int, int]:
    """Units, and the sum of what was counted of the treatment, over all epochs."""
    async with bed.control.database.read() as connection:
        statistics = await load_statistics(connection, "e")
    total = Moments()
    for (_, arm, metric), one in statistics.moments.items():
        if (arm, metric) == ("treatment", name):
            total = total.merged(one)
    return total.units, total.top


async def told(bed: Bed) -> tuple[dict[str, str], dict[str, int]]:
    """The state of each observation, and what ingest could not count."""
    states = {row["id"]: row["state"] for row in await bed.table(tables.observations)}
    return states, {row["reason"]: row["count"] for row in await bed.table(tables.ingest_counts)}


CASES: list[tuple[Observation, str, int, str]] = [
    (purchase(), "attributed", PRICE, ""),
    (purchase(request="", user="u1"), "attributed", PRICE, ""),
    (purchase(value=-2.0), "attributed", -PRICE, ""),  # money back
    (purchase(value=math.nan), "attributed", 0, "refused_number"),
    (purchase(value=math.inf), "attributed", 0, "refused_number"),
    (purchase(value=1e300), "attributed", 0, "refused_number"),
    (purchase(value=-1e9), "attributed", 0, "refused_number"),
    (purchase(value=None), "attributed", 0, "event_without_value"),
    (purchase(at=T0 + 400 * 86400), "attributed", PRICE, ""),  # late, and no window says that it is too late
    (purchase(tenant="b"), "foreign", 0, "foreign"),
    (purchase(request="req_000003"), "foreign", 0, "foreign"),
    (purchase(request="req_000002"), "attributed", 0, ""),  # of no experiment
    (purchase(request="req_999999"), "pending", 0, ""),  # its request may still come
    (purchase(request="", user="nobody"), "kept", 0, ""),
    (purchase(request="", user="u1", at=T0 - 60), "kept", 0, ""),  # before it was part of the experiment
    (purchase(request="", user="u1", tenant="b"), "kept", 0, ""),
    (purchase(name="nobody reads this"), "attributed", 0, ""),
]  # fmt: skip


async def test_each_event_has_its_outcome(bed: Bed) -> None:
    reasons: Counter[str] = Counter()
    for number, (event, state, counted, reason) in enumerate(CASES):
        before = await revenue(bed)
        assert (await bed.send([msgspec.structs.replace(event, id=f"p{number}")])).status_code == 200
        after = await revenue(bed)
        assert after == (before[0], before[1] + counted), event  # nobody becomes a unit by an event
        states, counts = await told(bed)
        assert states[f"p{number}"] == state, event
        reasons.update([reason] if reason else [])
        assert counts == reasons, event


async def test_the_same_event_twice_counts_once_in_one_batch_and_in_two(bed: Bed) -> None:
    await bed.send([purchase(), purchase()])
    await bed.send([purchase(value=5.0)])
    assert (await revenue(bed))[1] == PRICE
    assert (await told(bed))[1] == {"repeated_observation": 2}


async def test_a_late_event_counts_in_the_epoch_that_its_request_was_assigned_in(bed: Bed) -> None:
    async with bed.control.change(SYSTEM) as change:
        row = await experiment_row(change.connection, "e")
        shares = {"control": 0.1, "treatment": 0.9}
        await advance(change, row, Move(kind="advance", step=1, shares=shares), bed.now)
    await bed.send([exchange(4, experiment="e", arm="treatment", epoch=2, unit="u1", user="u1", at=T0 + 10)])
    await bed.send([purchase(), purchase(id="q", request="req_000004", value=3.0)])
    async with bed.control.database.read() as connection:
        moments = (await load_statistics(connection, "e")).moments
    assert [moments[epoch, "treatment", "revenue"].top for epoch in (1, 2)] == [PRICE, 3_000_000]


async def test_an_event_after_a_metrics_window_counts_for_the_others_alone(bed: Bed) -> None:
    await bed.send([purchase(at=T0 + 86400 + 60)])
    assert (await revenue(bed))[1] == PRICE
    assert (await revenue(bed, "first_day"))[1] == 0


async def test_an_event_of_a_request_that_comes_later_is_counted_then(bed: Bed) -> None:
    await bed.send([purchase(request="req_000009")])
    assert (await revenue(bed))[1] == 0
    await bed.send([exchange(9, experiment="e", arm="treatment", epoch=1, unit="u9", user="u9")])
    assert (await revenue(bed))[1] == PRICE
    assert (await told(bed))[0] == {"p": "attributed"}
