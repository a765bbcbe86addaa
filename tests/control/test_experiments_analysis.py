"""What a design declares, through the whole of control: events, strata, a covariate, planned looks, findings; and the replay."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.control.experiments.store import load_statistics
from penstock.core.exchange import Exchange, Record
from penstock.experiments.design import Design, parse_design
from penstock.experiments.verdict import judge
from penstock.store import schema_experiments as tables
from penstock.store.sql import open_database
from tests.control.bed import AB, T0, Bed, assigned, exchange, feedback
from tests.control.histories import EVERYTHING, SHOP, entry_of, event, history
from tests.databases import furnished


async def told(bed: Bed) -> dict[str, Any]:
    bed.now += 5
    await bed.evaluator.round()
    return dict((await bed.call("GET", "/experiments/e")).json())


def of(verdict: dict[str, Any], metric: str) -> dict[str, Any]:
    return next(one for one in verdict["comparisons"] if one["metric"] == metric)


async def test_events_of_ones_own_decide(both: Bed) -> None:
    await both.begin(AB | SHOP)
    rng = random.Random(2)
    shown = assigned(await entry_of(both), range(300), T0)
    await both.send(shown)
    bought: list[Record] = []
    for number, one in enumerate(shown):
        value = rng.uniform(0, 20) + (15 if one.arm == "treatment" else 0)
        about: dict[str, Any] = {"request": ""} | {"user": one.user} if number % 2 else {}
        bought.append(event(number, "purchase", value, **about))
    bought += [
        bought[0],  # again
        event(1, "purchase", 1e9, id="whale"),  # no measurement
        event(2, "purchase", 900.0, id="large"),  # beyond the limit
        event(3, "purchase", id="empty"),
        event(4, "purchase", 5.0, id="theirs", tenant="b"),
        event(777_777, "purchase", 5.0, id="nowhere"),
        event(5, "visit", 1.0),
    ]
    await both.send(bought)
    found = await told(both)
    assert found["verdict"]["state"] == "better"
    revenue = of(found["verdict"], "revenue")
    assert revenue["unit"] == "EUR"
    assert revenue["n"] + revenue["control_n"] == 300
    assert 13 < revenue["estimate"] < 17
    assert of(found["verdict"], "basket_p90")["value"] > of(found["verdict"], "basket_p90")["control_value"] + 10
    reasons = {row["reason"]: row["count"] for row in await both.table(tables.ingest_counts)}
    assert reasons == {"repeated_observation": 1, "refused_number": 1, "event_without_value": 1, "foreign": 1}
    states = {row["id"]: row["state"] for row in await both.table(tables.observations)}
    assert (states["nowhere"], states["theirs"], states["whale"]) == ("pending", "foreign", "attributed")


async def test_the_past_of_users_is_taken_out(both: Bed) -> None:
    """Users differ widely in how often they succeed, and did so before."""
    rng = random.Random(4)
    tastes = [rng.random() for _ in range(300)]
    before: list[Record] = []
    for user, taste in enumerate(tastes):
        for turn in range(4):
            number = 10_000 + 10 * user + turn
            before.append(exchange(number, user=f"u{user}", at=T0 - 86400.0))
            before.append(feedback(number, received=T0 - 86400.0, success=rng.random() < taste))
    before.append(exchange(99_999, user="u1", at=T0 - 90 * 86400.0))  # too long ago
    await both.send(before)
    await both.begin(AB | {"covariate": {"days": 14}, "plan": {"units": 300}})
    past = {row["unit"]: row["value"] for row in await both.table(tables.experiment_past)}
    assert len(past) > 280
    assert set(past) <= {f"a/u{n}" for n in range(300)}
    shown = assigned(await entry_of(both), range(300), T0)
    again = [
        msgspec.structs.replace(one, id=f"req_5{turn}{number:04d}")
        for turn in range(3)
        for number, one in enumerate(shown)
    ]
    said = [
        feedback(0, id=f"s{one.id}", request=one.id, success=rng.random() < tastes[int(one.user[1:])]) for one in again
    ]
    await both.send([*again, *said])
    success = of((await told(both))["verdict"], "success")
    assert success["spared"] > 0.3
    assert success["state"] == "open"
    async with both.control.database.read() as connection:
        statistics = await load_statistics(connection, "e")
    layers = [layer for (_, _, _, metric), layer in statistics.layers.items() if metric == "success"]
    assert sum(layer.past for layer in layers) == sum(past[f"a/{one.user}"] for one in shown if f"a/{one.user}" in past)


async def test_strata_are_kept_apart(both: Bed) -> None:
    await both.begin(AB | {"stratify": {"by": "stream", "values": ["true"]}})
    rng = random.Random(6)
    shown = [
        msgspec.structs.replace(one, stream=number % 3 == 0)
        for number, one in enumerate(assigned(await entry_of(both), range(240), T0))
    ]
    await both.send([*shown, *(feedback(n, success=rng.random() < (0.9 if n % 3 == 0 else 0.2)) for n in range(240))])
    rows = await both.table(tables.experiment_layers)
    assert {row["stratum"] for row in rows} == {"", "true"}
    units = {
        row["stratum"]: msgspec.json.decode(row["sums"])[0][0]
        for row in rows
        if (row["metric"], row["arm"]) == ("cost", "control")
    }
    assert 25 < units["true"] < 60 < units[""] < 110
    wide = AB | {"plan": {"units": 300}}
    apart = of((await told(both))["verdict"], "success")
    async with both.control.database.read() as connection:
        statistics = await load_statistics(connection, "e")
    pooled = judge(parse_design(wide), statistics, 1.0).comparisons[0]
    assert pooled.upper is not None
    assert pooled.lower is not None
    assert apart["upper"] - apart["lower"] < 0.85 * (pooled.upper - pooled.lower)


async def test_planned_looks_end_the_experiment(both: Bed) -> None:
    await both.begin(AB | {"plan": {"units": 100, "inference": "group_sequential", "looks": 4}})
    rng = random.Random(1)
    for turn in range(5):
        numbers = range(turn * 45, turn * 45 + 45)
        shown = assigned(await entry_of(both), numbers, T0)
        await both.send([*shown, *(feedback(n, success=rng.random() < 0.6) for n in numbers)])
        found = await told(both)
        taken = [one["number"] for one in found["verdict"]["looks"] if one["statistic"] is not None]
        assert taken == list(range(1, min(4, (turn + 1) * 45 // 50) + 1))
        if found["state"] == "decided":
            break
    assert (found["state"], found["verdict"]["state"]) == ("decided", "inconclusive")
    assert found["planned"]["inference"] == "group_sequential"
    assert any("All planned looks" in said for said in found["verdict"]["reasons"])
    assert await both.table(tables.experiment_looks)


@pytest.mark.parametrize("inference", ["group_sequential", "fixed"])
async def test_planned_looks_over_strata_are_kept(bed: Bed, inference: str) -> None:
    """They have infinitely many degrees of freedom, for which JSON has no number."""
    looks = 2 if inference == "group_sequential" else 1
    plan = {"units": 100 * looks, "inference": inference} | ({"looks": looks} if looks > 1 else {})
    await bed.begin(AB | {"stratify": {"by": "stream", "values": ["true"]}, "plan": plan})
    rng = random.Random(1)
    for turn in range(looks + 1):
        numbers = range(turn * 220, turn * 220 + 220)
        shown = (
            [
                msgspec.structs.replace(one, stream=rng.random() < 0.5)
                for one in assigned(await entry_of(bed), numbers, T0)
            ]
            if turn < looks
            else []
        )
        await bed.send([*shown, *(feedback(n, success=rng.random() < 0.6) for n in numbers)])
        found = await told(bed)
        assert sum(one["statistic"] is not None for one in found["verdict"]["looks"]) == min(looks, turn + 1)
    assert (found["state"], found["verdict"]["state"]) == ("decided", "inconclusive")


# -- the replay ------------------------------------------------------------------------------------------------------


async def test_a_replay_in_ingest_order_gives_the_same_verdicts_bit_for_bit(tmp_path: Path) -> None:
    """However records are batched, and with the evaluator looking in between or not."""
    told_by_size = []
    for size in (11, 101, 10_000):
        database = await open_database(furnished(tmp_path / f"{size}.db"))
        bed = Bed(database, tmp_path)
        await bed.prepare()
        await bed.send([exchange(900_000 + n, user=f"u{n % 90}", at=T0 - 100, cost_nanousd=n * 7) for n in range(300)])
        await bed.begin(EVERYTHING)
        records = history(await entry_of(bed))
        for begin in range(0, len(records), size):
            assert (await bed.send(records[begin : begin + size])).status_code == 200
        async with database.read() as connection:
            statistics = await load_statistics(connection, "e")
        assert len(statistics.looks) == 3
        verdict = judge(parse_design(EVERYTHING), statistics, T0)
        told_by_size.append(msgspec.json.encode(verdict))
        await bed.http.aclose()
        await database.close()
    assert told_by_size[0] == told_by_size[1] == told_by_size[2]
    assert isinstance(records[0], Exchange)


async def test_the_api_describes_every_field_of_a_spec(bed: Bed) -> None:
    described = (await bed.http.get("/openapi.json")).json()["paths"]["/api/v1/experiments"]["post"]
    spec = described["requestBody"]["content"]["application/json"]["schema"]["properties"]["spec"]
    assert set(spec["properties"]) == set(Design.__struct_fields__)
    assert spec["additionalProperties"] is False
    plan = spec["properties"]["plan"]
    assert "group_sequential" in plan["properties"]["inference"]["enum"]
    declared = spec["properties"]["metrics"]["items"]
    assert set(declared["required"]) == {"name", "type"}
    assert "$ref" not in msgspec.json.encode(spec).decode()
