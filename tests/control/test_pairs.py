"""Shadows and interleaved experiments in the control plane: pairs counted, votes, forecasts, doses, and what is booked apart."""

import random
from typing import Any

import msgspec
import pytest

from penstock.control.experiments.life import experiment_entries
from penstock.core.exchange import Exchange, Observation, Pair, Phases, Record, Usage
from penstock.store import schema
from penstock.store import schema_experiments as tables
from tests.control.bed import T0, Bed, exchange

ARMS = [{"name": "control", "pool": "old"}, {"name": "new", "pool": "new"}]
SHADOW: dict[str, Any] = {
    "strategy": "shadow",
    "hypothesis": "it is as good",
    "route": "bot",
    "arms": ARMS,
    "primary": {"metric": "latency", "minimum_effect": 0.02},
    "plan": {"units": 200},
    "shadow": {"share": 0.5},
}
INTERLEAVED: dict[str, Any] = {
    "strategy": "interleaved",
    "hypothesis": "it is as good",
    "route": "bot",
    "arms": ARMS,
    "primary": {"metric": "preference", "minimum_effect": 0.1},
    "interleaved": {"share": 0.2},
}


def copy(number: int, latency_s: float, **pair: Any) -> Exchange:
    """A shadow's copy of request `number`, which took a second."""
    base: dict[str, Any] = {
        "arm": "control",
        "of": f"req_{number:06d}",
        "latency_ns": 1_000_000_000 + number % 50 * 10_000_000,
        "usage": Usage(12, 30),
        "cost_nanousd": 1500,
        "similarity": 1_000_000 if number % 4 else 400_000,
    }
    own = Phases(0, 0, 1, 0, base["latency_ns"] + round(latency_s * 1e9), 0)
    return exchange(
        number, id=f"req_c{number:05d}", experiment="e", arm="new", epoch=1, unit=f"u{number}", phases=own, stream=False,
        cost_nanousd=3000, pair=Pair(**base | pair),
    )  # fmt: skip


def shown(number: int, order: tuple[str, str], **changes: Any) -> Exchange:
    pair = Pair(arm="new", shown=order, usage=Usage(12, 40), cost_nanousd=2000)
    return exchange(
        number, **{"experiment": "e", "arm": "control", "epoch": 1, "unit": f"u{number}", "pair": pair} | changes
    )


def preference(number: int, chosen: int | str, **changes: Any) -> Observation:
    base: dict[str, Any] = {
        "id": f"p-{number}", "at": T0, "received": T0, "kind": "preference", "tenant": "a", "request": f"req_{number:06d}",
    }  # fmt: skip
    told = {"name": "tie"} if chosen == "tie" else {"name": "chosen", "value": float(chosen)}
    return Observation(**base | told | changes)


async def judged(bed: Bed) -> dict[str, Any]:
    bed.now += 5
    await bed.evaluator.round()
    return dict((await bed.call("GET", "/experiments/e")).json())


async def test_a_shadow_is_told_to_gateways_and_its_pairs_decide(bed: Bed) -> None:
    await bed.begin(SHADOW)
    async with bed.control.database.read() as connection:
        entry = (await experiment_entries(connection))["bot"]
    assert entry.shadow is not None
    assert (entry.shadow.share, entry.incumbent, entry.interleave) == (0.5, "control", None)
    assert {arm.name: arm.ranges for arm in entry.arms} == {"control": (), "new": ((0.0, 1.0),)}

    draw = random.Random(4)
    assert (await bed.send([copy(n, draw.gauss(0.1, 0.05)) for n in range(150)])).status_code == 200
    told = await judged(bed)
    assert (told["state"], told["verdict"]["state"], told["serving"]) == ("decided", "worse", None)
    primary = next(one for one in told["verdict"]["comparisons"] if one["primary"])
    assert primary["lower"] < 0.1 < primary["upper"]
    assert primary["value"] - primary["control_value"] == pytest.approx(primary["estimate"])
    assert (primary["upper"] - primary["lower"]) < 0.06  # requests differ by half a second, pairs do not
    named = {one["metric"]: one for one in told["verdict"]["comparisons"]}
    assert named["same_answer"]["value"] == pytest.approx(112 / 150)
    assert named["cost"]["value"] - named["cost"]["control_value"] == pytest.approx(1500e-9)
    ahead = {one["metric"]: one for one in told["verdict"]["forecasts"]}
    assert ahead["latency"]["lower"] < 0.1 < ahead["latency"]["upper"]
    assert ahead["latency"]["worse"] > 0.8
    assert any("An A/B test of 200 units an arm would report" in reason for reason in told["verdict"]["reasons"])
    assert any("have the same words" in reason for reason in told["verdict"]["reasons"])

    usage = {row["tenant"]: row for row in await bed.table(tables.usage_minute)}
    assert set(usage) == {"(experiments)"}
    assert (usage["(experiments)"]["requests"], usage["(experiments)"]["cost_nanousd"]) == (0, 150 * 3000)


async def test_a_candidate_that_fails_counts_as_an_error_not_as_quick(bed: Bed) -> None:
    await bed.begin(SHADOW | {"primary": {"metric": "error_rate", "minimum_effect": 0.05}, "plan": {"units": 300}})
    records = [
        msgspec.structs.replace(copy(n, 0.0), outcome="error" if n % 3 == 0 else "ok", phases=Phases(done=5))
        for n in range(90)
    ]
    assert (await bed.send(records)).status_code == 200
    told = await judged(bed)
    assert told["verdict"]["state"] == "worse"
    named = {one["metric"]: one for one in told["verdict"]["comparisons"]}
    assert named["error_rate"]["value"] == pytest.approx(1 / 3)
    assert named["completion"]["value"] == pytest.approx(2 / 3)
    assert named["latency"]["n"] == 90


async def test_preferences_become_strengths(bed: Bed) -> None:
    await bed.begin(INTERLEAVED)
    async with bed.control.database.read() as connection:
        entry = (await experiment_entries(connection))["bot"]
    assert entry.interleave is not None
    assert entry.shadow is None
    draw = random.Random(7)
    records: list[Record] = []
    for number in range(160):
        order = ("new", "control") if draw.random() < 0.5 else ("control", "new")
        records.append(shown(number, order))
        won = draw.random() < 0.8
        records.append(preference(number, "tie" if number % 20 == 0 else order.index("new" if won else "control")))
    assert (await bed.send(records)).status_code == 200
    told = await judged(bed)
    assert (told["state"], told["verdict"]["state"]) == ("decided", "better")
    (votes,) = told["verdict"]["votes"]
    assert (votes["metric"], votes["ties"]) == ("preference", 8)
    assert votes["won"] + votes["lost"] == 152
    assert votes["lower"] < votes["share"] < votes["upper"]
    assert votes["strength_lower"] > 0
    usage = {row["tenant"]: row for row in await bed.table(tables.usage_minute)}
    assert (usage["a"]["requests"], usage["a"]["cost_nanousd"]) == (160, 160 * 1500)
    assert (usage["(experiments)"]["requests"], usage["(experiments)"]["cost_nanousd"]) == (0, 160 * 2000)


async def test_a_vote_counts_once_and_only_for_what_was_shown(bed: Bed) -> None:
    await bed.begin(INTERLEAVED)
    order = ("new", "control")
    assert (
        await bed.send([shown(1, order), shown(2, order), shown(3, order, unit="u2"), exchange(4)])
    ).status_code == 200
    said = [
        preference(1, 0),
        preference(1, 1, id="again"),  # a second word on the same request
        preference(2, 7),  # there is no eighth choice
        preference(2, 1, id="p-2b"),
        preference(3, 0, id="p-3"),  # of the same unit: its first vote stands
        preference(4, 0, id="p-4"),  # an answer that was none of two
        preference(1, 0, id="theirs", tenant="b"),
    ]
    assert (await bed.send(said)).status_code == 200
    rows = {row["metric"]: msgspec.json.decode(row["moments"]) for row in await bed.table(tables.experiment_statistics)}
    assert rows["preference"][:3] == [2, 1, 2]  # two units, one vote for the treatment
    counts = {row["reason"]: row["count"] for row in await bed.table(tables.ingest_counts)}
    assert counts == {"repeated_word": 1, "unknown_choice": 1, "foreign": 1}


async def test_the_dose_keeps_the_pace_and_ends_with_the_budget(bed: Bed) -> None:
    await bed.begin(
        SHADOW | {"shadow": {"share": 0.5, "usd_per_hour": 0.001, "budget_usd": 0.0006}, "plan": {"units": 9000}}
    )

    async def share() -> float:
        async with bed.control.database.read() as connection:
            entry = (await experiment_entries(connection))["bot"]
        assert entry.shadow is not None
        return entry.shadow.share

    assert (
        await bed.send([copy(n, 0.0) for n in range(10)])
    ).status_code == 200  # $30 millionths; $18 millionths are allowed by now
    await judged(bed)
    assert await share() == 0.0
    bed.now += 120
    await bed.evaluator.round()
    assert await share() == 0.5
    assert (await bed.send([copy(n, 0.0) for n in range(10, 220)])).status_code == 200
    told = await judged(bed)
    assert told["state"] == "decided"
    assert told["verdict"]["reasons"][0].startswith("The budget of $0.0006 is spent")
    audited = {row["action"] for row in await bed.table(schema.audit_events)}
    assert "experiment.decide" in audited and "experiment.dose" not in audited  # the pace was registered by somebody


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"primary": {"metric": "success", "minimum_effect": 0.1}}, "spec.primary.metric"),
        ({"primary": {"metric": "judged", "minimum_effect": 0.1}}, "spec.primary.metric"),
        ({"shadow": {"share": 0}}, "spec.shadow.share"),
        ({"shadow": {"budget_usd": -1}}, "spec.shadow.budget_usd"),
        ({"guardrails": [{"metric": "error_rate"}]}, "spec.guardrails"),
        ({"interleaved": {}}, "spec.interleaved"),
    ],
)
async def test_what_makes_no_shadow_is_refused_by_its_path(bed: Bed, change: dict[str, Any], param: str) -> None:
    wrong = await bed.call("POST", "/experiments", {"name": "e", "spec": SHADOW | change})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, param)


async def test_a_judge_that_is_not_there_is_named_at_the_start(bed: Bed) -> None:
    spec = SHADOW | {"shadow": {"judge": "nobody"}, "primary": {"metric": "judged", "minimum_effect": 0.1}}
    assert (await bed.call("POST", "/experiments", {"name": "e", "spec": spec})).status_code == 201
    refused = await bed.call("POST", "/experiments/e/start")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "shadow.judge")
