"""Drift through ingest: counted once with the batch, per version and arm, begun anew with a version, told by the API and the metrics."""

import random
from typing import Any

import msgspec
import pytest

from penstock.control.api.drift import list_days, list_drift
from penstock.control.context import SYSTEM
from penstock.control.watch.drift_store import KEPT_S, accept_group, begin_group, decode_group, end_group, forget_drift
from penstock.core.errors import NotFound
from penstock.core.exchange import Exchange, Noticed, Observation, Quality, Record, Usage
from penstock.experiments.drift_watch import FIRST
from penstock.store.schema_drift import drift_days, drift_groups
from tests.control.bed import T0, Bed


def asked(number: int, draw: random.Random, *, bad: float, version: str = "bot:v1", at: float = T0) -> list[Record]:
    """A request, and what its user says of the answer."""
    wrong = draw.random() < bad
    identity = f"req_{number:026d}"
    exchange = Exchange(
        id=identity,
        at=at,
        tenant="acme",
        route="bot",
        version=version,
        usage=Usage(9, draw.randint(5, 30)),
        noticed=Noticed(characters=draw.randint(10, 90), language="en", words=draw.getrandbits(32)),
        quality=Quality(scored=10, logprob=-draw.gauss(5, 0.5) if wrong else -draw.gauss(0.3, 0.05)),
    )
    told = Observation(
        id=f"f{number}", at=at, received=at, kind="feedback", tenant="acme", request=identity, success=not wrong
    )
    return [exchange, told]


async def groups(bed: Bed) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["arm"]): row for row in await bed.table(drift_groups)}


def alarms(row: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["signal"], one["against"]) for one in row["alarms"] if one["alarm"] is not None}


async def test_a_swap_under_the_same_name_is_found_however_the_records_are_cut(both: Bed) -> None:
    draw = random.Random(2)
    records = [one for n in range(FIRST + 100) for one in asked(n, draw, bad=0.04)]
    swapped = [one for n in range(1000, 1300) for one in asked(n, draw, bad=0.6)]
    await both.send(records)
    assert alarms((await groups(both))["bot:v1", ""]) == set()
    for start in range(0, len(swapped), 90):
        await both.send(swapped[start : start + 90])
    row = (await groups(both))["bot:v1", ""]
    assert alarms(row) == {("perplexity", "itself"), ("success", "itself")}
    found = {watch.signal: watch.alarm for watch in decode_group(row["record"]).watches if watch.alarm is not None}
    assert all(alarm.sequence < len(records) + 2 * 200 for alarm in found.values())
    before = await both.table(drift_groups)
    await both.send(swapped[:90])  # what came before is counted once
    assert await both.table(drift_groups) == before


async def test_arms_are_apart_and_adopted_servers_go_by_their_route(both: Bed) -> None:
    draw = random.Random(3)
    plain, told = asked(1, draw, bad=0.0, version="")
    assert isinstance(plain, Exchange)
    other = msgspec.structs.replace(plain, id="req_00000000000000000000000002", experiment="try", arm="b")
    await both.send([plain, told, other])
    assert set(await groups(both)) == {("bot", ""), ("bot", "try/b")}


async def test_a_new_version_begins_anew_and_is_held_against_the_one_it_replaced(both: Bed) -> None:
    draw = random.Random(4)
    await both.send([one for n in range(FIRST) for one in asked(n, draw, bad=0.04)])
    async with both.control.change(SYSTEM) as change:
        await begin_group(change.connection, "bot:v2", replaced="bot:v1", returns=False, now=change.now)
        await end_group(change.connection, "bot:v1", change.now)
    rows = await groups(both)
    assert rows["bot:v1", ""]["ended_at"] == both.now
    assert rows["bot:v2", ""]["alarms"] == [{"signal": "success", "against": "before", "alarm": None}]
    worse = [one for n in range(1000, 1300) for one in asked(n, draw, bad=0.5, version="bot:v2")]
    await both.send(worse)
    assert alarms((await groups(both))["bot:v2", ""]) == {("success", "before")}
    async with both.control.change(SYSTEM) as change:
        await begin_group(change.connection, "bot:v1", replaced="bot:v2", returns=True, now=change.now)
        await end_group(change.connection, "bot:v2", change.now)
    rows = await groups(both)
    assert (rows["bot:v1", ""]["ended_at"], rows["bot:v2", ""]["ended_at"]) == (None, both.now)
    assert alarms(rows["bot:v1", ""]) == set()
    kept = {watch.signal for watch in decode_group(rows["bot:v1", ""]["record"]).watches if watch.reference is not None}
    assert {"success", "perplexity"} <= kept


async def test_what_is_accepted_is_the_new_reference(both: Bed) -> None:
    draw = random.Random(5)
    await both.send([one for n in range(FIRST) for one in asked(n, draw, bad=0.04)])
    await both.send([one for n in range(1000, 1300) for one in asked(n, draw, bad=0.6)])
    async with both.control.change(SYSTEM) as change:
        await accept_group(change, ("bot:v1", ""), "perplexity", "the prompt is another one")
        with pytest.raises(NotFound):
            await accept_group(change, ("bot:v9", ""), None, "nothing")
    assert alarms((await groups(both))["bot:v1", ""]) == {("success", "itself")}
    async with both.control.change(SYSTEM) as change:
        await accept_group(change, ("bot:v1", ""), None, "all of it")
    (told,) = await list_drift(both.control, SYSTEM, model="bot")
    assert told["state"] == "gathering"
    assert {one["observations"] for one in told["signals"]} == {0}
    await both.send([one for n in range(2000, 2001 + FIRST) for one in asked(n, draw, bad=0.6)])
    (told,) = await list_drift(both.control, SYSTEM, model="bot:v1")
    assert told["state"] == "watching"
    by_name = {one["signal"]: one for one in told["signals"]}
    assert by_name["success"]["reference"] == pytest.approx(0.4, abs=0.15)


async def test_days_are_compared_when_they_are_over(both: Bed) -> None:
    draw = random.Random(6)
    await both.send([one for n in range(FIRST) for one in asked(n, draw, bad=0.04)])
    shifted = [one for n in range(1000, 1120) for one in asked(n, draw, bad=0.9, at=T0 + 86400)]
    await both.send([*shifted, *asked(3000, draw, bad=0.0, at=T0 + 2 * 86400)])
    days = {row["signal"]: row for row in await both.table(drift_days)}
    assert {row["day"] for row in days.values()} == {int(T0 // 86400) + 1}
    assert days["success"]["psi"] > 0.25
    assert days["success"]["p"] < 1e-6
    assert days["input_length"]["psi"] < 0.25
    told = {one["signal"]: one["shifted"] for one in await list_days(both.control, SYSTEM, model="bot:v1", limit=100)}
    assert told.keys() == days.keys()
    assert told["success"]
    assert not told["input_length"]


async def test_what_nobody_asks_any_more_is_forgotten(both: Bed) -> None:
    await both.send(asked(1, random.Random(8), bad=0.0))
    async with both.control.database.write() as connection:
        await forget_drift(connection, T0 + KEPT_S - 60)
    assert len(await groups(both)) == 1
    async with both.control.database.write() as connection:
        await forget_drift(connection, T0 + KEPT_S + 60)
    assert await groups(both) == {}


async def test_feedback_that_comes_later_finds_its_group(both: Bed) -> None:
    draw = random.Random(7)
    exchange, told = asked(1, draw, bad=0.0)
    assert isinstance(told, Observation)
    again = msgspec.structs.replace(told, id="again", success=False)
    await both.send([exchange])
    await both.send([told, again])
    watches = {watch.signal: watch for watch in decode_group((await groups(both))["bot:v1", ""]["record"]).watches}
    assert watches["success"].growing is not None
    assert (watches["success"].growing.n, watches["success"].growing.total) == (1, 1.0)  # the first word counts
