"""A bandit in the control plane: epochs with new shares, contexts, and an end with the best arm."""

import random
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Record
from penstock.experiments.assignment import compile_experiment
from penstock.gateway.pins import Pins, pinned
from penstock.store import schema_experiments as tables
from tests.control.bed import Bed, exchange, feedback
from tests.control.histories import entry_of

BANDIT: dict[str, Any] = {
    "strategy": "bandit",
    "hypothesis": "one arm is better",
    "route": "bot",
    "unit": "request",
    "arms": [{"name": name, "pool": pool} for name, pool in (("control", "old"), ("a", "old"), ("b", "new"))],
    "primary": {"metric": "success", "minimum_effect": 0.1},
    "plan": {"units": 500, "step_s": 5, "step_units": 50},
}


async def feed(bed: Bed, numbers: range, rate: Any, *, tenant: str = "a", tokens: int = 10) -> dict[str, int]:
    """Requests assigned as a gateway would, with feedback at `rate(arm, context)`; how many each arm got."""
    entry = await entry_of(bed)
    assigner = compile_experiment(entry)
    draw = random.Random(numbers.start)
    records: list[Record] = []
    counts: dict[str, int] = {}
    for number in numbers:
        context = assigner.context_of(tenant, tokens) if assigner.contextual else ""
        one = exchange(number, at=bed.now, tenant=tenant)
        arm, propensity, epoch = assigner.assign(one.id, bed.now, context)
        counts[arm.name] = counts.get(arm.name, 0) + 1
        records.append(
            msgspec.structs.replace(
                one,
                experiment=entry.name,
                arm=arm.name,
                epoch=epoch,
                propensity=propensity,
                unit=one.id,
                context=context,
            )
        )
        records.append(feedback(number, tenant=tenant, success=draw.random() < rate(arm.name, context)))
    assert (await bed.send(records)).status_code == 200
    return counts


async def test_shares_follow_what_is_known_and_the_best_arm_gets_all(both: Bed) -> None:
    await both.begin(BANDIT | {"bandit": {"algorithm": "top_two"}})
    first = await entry_of(both)
    assert (first.seed, first.epoch) == ("e:1", 1)
    assert [arm.weight for arm in first.arms] == [0.3334, 0.3333, 0.3333]

    rates = {"control": 0.5, "a": 0.45, "b": 0.68}
    number, told = 0, {}
    for _ in range(20):
        await feed(both, range(number, number + 100), lambda arm, _context: rates[arm])
        number += 100
        both.now += 6
        await both.evaluator.round()
        told = (await both.call("GET", "/experiments/e")).json()
        if told["state"] == "decided":
            break
        entry = await entry_of(both)
        assert entry.seed == f"e:{entry.epoch}"
    assert told["state"] == "decided", told["verdict"]
    assert told["serving"] == "b"
    assert told["verdict"]["reasons"][0].startswith("b is the best arm: better than every other one by at least")
    assert len(told["epochs"]) >= 2
    assert told["epochs"][-1]["shares"]["b"] > 0.45
    assert sum(round(10_000 * share) for share in told["epochs"][-1]["shares"].values()) == 10_000
    leaders = {one["arm"]: one for one in told["verdict"]["contenders"]}
    assert leaders["b"]["chance"] > 0.99
    assert leaders["b"]["lower"] > 0
    primary = {one["arm"]: one for one in told["verdict"]["comparisons"] if one["primary"]}
    assert primary["b"]["lower"] < 0.18 < primary["b"]["upper"]
    held = await entry_of(both)
    assert [arm.name for arm in held.arms] == ["b"]


async def test_an_epoch_waits_for_its_time_and_its_units(both: Bed) -> None:
    await both.begin(BANDIT)
    await feed(both, range(40), lambda *_: 0.5)
    both.now += 60
    await both.evaluator.round()
    assert (await entry_of(both)).epoch == 1  # too few units
    await feed(both, range(40, 60), lambda *_: 0.5)
    await both.evaluator.round()
    assert (await entry_of(both)).epoch == 2
    await feed(both, range(60, 200), lambda *_: 0.5)
    await both.evaluator.round()
    assert (await entry_of(both)).epoch == 2  # too soon
    both.now += 6
    await both.evaluator.round()
    assert (await entry_of(both)).epoch == 3


async def test_each_context_learns_its_own(both: Bed) -> None:
    spec = BANDIT | {
        "bandit": {"context": {"by": "tenant", "tenants": ["a"]}},
        "plan": BANDIT["plan"] | {"units": 9000},
    }
    await both.begin(spec)
    entry = await entry_of(both)
    assert entry.contexts is not None
    assert [cell.name for cell in entry.contexts.cells] == ["a", "*"]

    def rate(arm: str, context: str) -> float:
        return 0.9 if (arm == "b") == (context == "a") else 0.3

    number = 0
    for _ in range(3):
        for tenant in ("a", "z"):
            await feed(both, range(number, number + 150), rate, tenant=tenant)
            number += 150
        both.now += 6
        await both.evaluator.round()
    entry = await entry_of(both)
    assert entry.epoch == 4
    assert entry.contexts is not None
    width = {
        cell.name: {arm: sum(high - low for low, high in spans) for arm, spans in cell.ranges.items()}
        for cell in entry.contexts.cells
    }
    assert width["a"]["b"] > 0.9
    assert width["*"]["b"] < 0.05
    rows = {row["epoch"]: row["contexts"] for row in await both.table(tables.experiment_epochs)}
    assert rows[4]["a"]["b"] == pytest.approx(width["a"]["b"])
    told = (await both.call("GET", "/experiments/e")).json()
    assert {one["context"] for one in told["verdict"]["contenders"]} == {"a", "*"}
    assert told["verdict"]["mismatch"]["found"] is False


async def test_a_context_that_fails_more_blames_no_arm_that_is_sent_there(both: Bed) -> None:
    """Where one tenant's requests fail in all arms, an arm that gets most of that tenant has more failures, and does no harm."""
    context = {"by": "tenant", "tenants": ["a"]}
    await both.begin(
        BANDIT
        | {"bandit": {"context": context}, "guardrails": [{"metric": "error_rate"}]}
        | {"plan": BANDIT["plan"] | {"units": 90_000}}
    )
    number = 0
    for turn in range(5):
        entry = await entry_of(both)
        assigner = compile_experiment(entry)
        records: list[Record] = []
        for tenant in ("a", "z"):
            for _ in range(120):
                one = exchange(number, at=both.now, tenant=tenant)
                number += 1
                where = assigner.context_of(tenant, 10)
                arm, propensity, epoch = assigner.assign(one.id, both.now, where)
                outcome = "error" if tenant == "a" and number % 2 else "ok"
                records.append(
                    msgspec.structs.replace(
                        one, experiment="e", arm=arm.name, epoch=epoch, propensity=propensity, unit=one.id, context=where,
                        outcome=outcome,
                    )
                )  # fmt: skip
                good = arm.name == ("b" if tenant == "a" else "control")
                records.append(feedback(number - 1, tenant=tenant, success=good if turn else number % 2 == 0))
        assert (await both.send(records)).status_code == 200
        both.now += 6
        await both.evaluator.round()
    told = (await both.call("GET", "/experiments/e")).json()
    shares = told["epochs"][-1]["shares"]
    assert shares["b"] > 0.3
    assert told["state"] == "running", told["verdict"]["reasons"]
    assert all(one["gauge"] < 1 for one in told["verdict"]["guardrails"])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bandit": {"floor": 0.5}}, "spec.bandit.floor"),
        ({"bandit": {"context": {"by": "length", "edges": [64]}}, "unit": "user"}, "spec.unit"),
        ({"bandit": {"context": {"by": "length", "edges": [64, 32]}}}, "spec.bandit.context.edges"),
        ({"bandit": {"context": {"by": "tenant"}}}, "spec.bandit.context.tenants"),
        ({"primary": {"metric": "latency_p95", "minimum_effect": 0.1}}, "spec.primary.metric"),
        ({"strategy": "ab", "bandit": {}}, "spec.bandit"),
        ({"hash_version": 1}, "spec.hash_version"),
    ],
)
async def test_what_makes_no_bandit_is_refused_by_its_path(both: Bed, change: dict[str, Any], param: str) -> None:
    wrong = await both.call("POST", "/experiments", {"name": "e", "spec": BANDIT | change})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, param)


async def test_an_arm_that_does_harm_loses_its_share_at_once_and_the_others_go_on(both: Bed) -> None:
    await both.begin(BANDIT | {"guardrails": [{"metric": "error_rate"}], "plan": {"units": 9000, "step_s": 600}})
    assigner = compile_experiment(await entry_of(both))
    records: list[Record] = []
    for number in range(240):
        one = exchange(number, at=both.now)
        arm, propensity, epoch = assigner.assign(one.id, both.now)
        failed = arm.name == "a" and number % 3 > 0
        records.append(
            msgspec.structs.replace(
                one, experiment="e", arm=arm.name, epoch=epoch, propensity=propensity, unit=one.id,
                outcome="error" if failed else "ok", status=502 if failed else 200,
            )
        )  # fmt: skip
    assert (await both.send(records)).status_code == 200
    assert await both.signal.alarm() == {"e"}
    await both.evaluator.evaluate("e", news=False, alarm=True)  # long before the epoch's time is over
    told = (await both.call("GET", "/experiments/e")).json()
    assert (told["state"], told["epoch"]) == ("running", 2)
    shares = told["shares"]
    assert shares["a"] == 0.0 and min(shares["control"], shares["b"]) > 0.2
    await both.evaluator.round()
    verdict = (await both.call("GET", "/experiments/e/verdict")).json()["verdict"]
    assert (verdict["state"], verdict["tripped"]) == ("running", "")
    assert verdict["reasons"][0] == "a gets no more traffic."
    assert verdict["reasons"][1].startswith("The guardrail on error rate tripped")
    gauges = {one["arm"]: one["tripped"] for one in verdict["guardrails"]}
    assert gauges == {"a": True, "b": False}
    assert {one["arm"]: one["share"] for one in verdict["contenders"]}["a"] == 0.0
    await feed(both, range(240, 340), lambda *_: 0.5)
    both.now += 700
    await both.evaluator.round()
    after = (await both.call("GET", "/experiments/e")).json()
    assert (after["epoch"], after["shares"]["a"]) == (3, 0.0)


async def test_a_bandit_whose_treatments_all_do_harm_ends_on_its_control(both: Bed) -> None:
    await both.begin(BANDIT | {"guardrails": [{"metric": "error_rate"}]})
    assigner = compile_experiment(await entry_of(both))
    records: list[Record] = []
    for number in range(400):
        one = exchange(number, at=both.now)
        arm, propensity, epoch = assigner.assign(one.id, both.now)
        records.append(
            msgspec.structs.replace(
                one, experiment="e", arm=arm.name, epoch=epoch, propensity=propensity, unit=one.id,
                outcome="ok" if arm.name == "control" else "error",
            )
        )  # fmt: skip
    assert (await both.send(records)).status_code == 200
    await both.evaluator.round()
    told = (await both.call("GET", "/experiments/e")).json()
    assert (told["state"], told["serving"], told["verdict"]["tripped"]) == ("decided", "control", "error_rate")


async def test_what_is_sticky_reaches_the_gateways_and_counts_where_it_was_assigned(both: Bed) -> None:
    pins = Pins(slots=4096)
    await both.begin(BANDIT | {"unit": "user", "sticky": "unit"})
    assert (await entry_of(both)).sticky == "unit"
    arms: dict[str, set[str]] = {}
    number = 0
    for epoch in (1, 2, 3):
        assigner = compile_experiment(await entry_of(both))
        assert assigner.entry.epoch == epoch
        records: list[Record] = []
        for user in [*range(40), *range(100 * epoch, 100 * epoch + 80)]:  # some come again, others are new
            number += 1
            arm, propensity, of = pinned(pins, assigner, "a", f"u{user}", assigner.assign(f"u{user}", both.now))
            arms.setdefault(f"u{user}", set()).add(arm.name)
            records.append(
                exchange(
                    number, at=both.now, experiment="e", arm=arm.name, epoch=of, propensity=propensity, unit=f"u{user}"
                )
            )
            records.append(feedback(number, success=user % 2 == 0))
        assert (await both.send(records)).status_code == 200
        both.now += 6
        await both.evaluator.round()
    assert all(len(found) == 1 for found in arms.values())
    units = await both.table(tables.experiment_units)
    assert sum(row["epoch"] == 1 for row in units) == 120  # who came first then, and nobody again as a new one
    assert len({row["unit"] for row in units}) == len(units)
