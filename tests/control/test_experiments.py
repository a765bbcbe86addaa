"""Experiments from registration to decision: the life cycle, what gateways are told, the evaluator, the API."""

import asyncio
import random
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from penstock.control.api.statistics import live
from penstock.control.context import SYSTEM
from penstock.control.deploy.canary_watch import Watch
from penstock.control.deploy.publisher import Publisher
from penstock.control.experiments.kind import ExperimentKind
from penstock.control.experiments.life import active_experiments, experiment_entries, register, remove
from penstock.control.kinds import resource_kinds
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.core.exchange import Exchange, Record
from penstock.core.reports import Report
from penstock.core.snapshot import ExperimentEntry
from penstock.experiments.assignment import compile_experiment
from penstock.experiments.design import parse_design
from penstock.store import schema_experiments as tables
from tests.control.bed import AB, CANARY, T0, Bed, assigned, feedback


async def entries(bed: Bed) -> dict[str, ExperimentEntry]:
    async with bed.control.database.read() as connection:
        return await experiment_entries(connection)


async def feed(
    bed: Bed, numbers: range, rates: tuple[float, float], *, errors: tuple[float, float] = (0.0, 0.0), seed: int = 1
) -> None:
    """Requests of users `numbers`, each with feedback; control and treatment succeed and fail at these rates."""
    rng = random.Random(seed)
    entry = (await entries(bed))["bot"]
    records: list[Record] = []
    for number, one in zip(numbers, assigned(entry, numbers, bed.now), strict=True):
        treated = one.arm == "treatment"
        failed = rng.random() < errors[treated]
        records.append(msgspec.structs.replace(one, outcome="error" if failed else "ok"))
        records.append(feedback(number, success=rng.random() < rates[treated]))
    assert (await bed.send(records)).status_code == 200


async def get(bed: Bed, name: str = "e") -> dict[str, Any]:
    answer = await bed.call("GET", f"/experiments/{name}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# -- life cycle ------------------------------------------------------------------------------------------------------


async def test_the_whole_life_over_the_api(both: Bed) -> None:
    created = await both.call("POST", "/experiments", {"name": "e", "spec": AB})
    assert created.status_code == 201
    assert created.json()["state"] == "draft"
    assert created.json()["actions"] == ["archive", "start"]
    assert await entries(both) == {}

    started = (await both.call("POST", "/experiments/e/start")).json()
    assert started["state"] == "running"
    assert started["shares"] == {"control": 0.5, "treatment": 0.5}
    entry = (await entries(both))["bot"]
    assert (entry.epoch, entry.unit, entry.incumbent, entry.expires_at) == (1, "user", "control", None)
    assert [(arm.name, arm.pool, arm.ranges) for arm in entry.arms] == [
        ("control", "old", ((0.0, 0.5),)),
        ("treatment", "new", ((0.5, 1.0),)),
    ]

    paused = (await both.call("POST", "/experiments/e/pause", {"reason": "lunch"})).json()
    assert (paused["state"], paused["serving"]) == ("paused", "control")
    held = (await entries(both))["bot"]
    assert [arm.name for arm in held.arms] == ["control"]
    assert compile_experiment(held).assign("anybody", T0).epoch == 0

    assert (await both.call("POST", "/experiments/e/start")).json()["epoch"] == 1
    assert (await entries(both))["bot"] == entry
    stopped = (await both.call("POST", "/experiments/e/stop", {"reason": "enough"})).json()
    assert stopped["state"] == "decided"
    assert stopped["verdict"]["reasons"] == ["Stopped by admin: enough."]
    assert await entries(both) == {}
    archived = (await both.call("POST", "/experiments/e/archive")).json()
    assert (archived["state"], archived["actions"]) == ("archived", [])
    again = await both.call("POST", "/experiments/e/start")
    assert again.status_code == 409
    assert "is archived and cannot start" in again.json()["error"]["message"]


async def test_what_was_registered_cannot_be_edited_after_the_start(bed: Bed) -> None:
    async def put(spec: dict[str, Any]) -> str:
        async with bed.control.change(SYSTEM) as change:
            return await register(change, "e", parse_design(spec))

    other = AB | {"hypothesis": "a is better"}
    assert await put(AB) == "created"
    assert await put(AB) == "unchanged"
    assert await put(other) == "updated"
    await bed.call("POST", "/experiments/e/start")
    assert await put(other) == "unchanged"
    with pytest.raises(Conflict, match="cannot be edited after the start"):
        await put(AB)
    with pytest.raises(Conflict, match="running"):
        async with bed.control.change(SYSTEM) as change:
            await remove(change, "e")


async def test_one_experiment_at_a_time_on_a_route(bed: Bed) -> None:
    await bed.begin(AB, "first")
    await bed.call("POST", "/experiments", {"name": "second", "spec": AB})
    refused = await bed.call("POST", "/experiments/second/start")
    assert refused.status_code == 409
    assert "already has the experiment 'first'" in refused.json()["error"]["message"]
    await bed.begin(AB | {"route": "other"}, "third")
    assert set(await entries(bed)) == {"bot", "other"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"route": "nowhere"}, "route"),
        ({"arms": [AB["arms"][0], {"name": "t", "pool": "none"}]}, "arms[1].pool"),
        ({"arms": [AB["arms"][0], {"name": "t", "build": "bot:v9.9.9"}]}, "arms[1].build"),
        ({"arms": [AB["arms"][0], {"name": "t", "pool": "new", "policy": "none"}]}, "arms[1].policy"),
    ],
)
async def test_a_start_names_what_is_missing(bed: Bed, change: dict[str, Any], param: str) -> None:
    assert (await bed.call("POST", "/experiments", {"name": "e", "spec": AB | change})).status_code == 201
    refused = await bed.call("POST", "/experiments/e/start")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert (await get(bed))["state"] == "draft"


async def test_the_api_refuses_by_path_and_by_permission(bed: Bed) -> None:
    wrong = await bed.call("POST", "/experiments", {"name": "e", "spec": AB | {"strategy": "guess"}})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "spec.strategy")
    assert (await bed.call("GET", "/experiments/none")).status_code == 404
    assert (await bed.call("POST", "/experiments/none/start")).status_code == 404
    assert (await bed.call("GET", "/experiments", key="nobody")).status_code == 401


async def test_the_kind_registers_drafts_for_apply(bed: Bed) -> None:
    kind = ExperimentKind()
    with pytest.raises(BadRequest) as refused:
        kind.parse(AB | {"arms": [{"name": "x", "pol": "y"}]})
    assert refused.value.param == "spec.arms[0]"
    async with bed.control.change(SYSTEM) as change:
        await kind.put(change, "e", kind.parse(AB), "apply")
        assert (await kind.current(change.connection, "apply"))["e"] == kind.dump(kind.parse(AB))
        assert await kind.current(change.connection, "api") == {}
        await kind.delete(change, "e")
        with pytest.raises(NotFound):
            await kind.delete(change, "e")


# -- what follows from the statistics --------------------------------------------------------------------------------


async def test_a_better_version_is_found_and_told(both: Bed) -> None:
    await both.begin(AB)
    await feed(both, range(40), (0.5, 0.9))
    both.now += 5
    await both.evaluator.round()
    assert (await get(both))["state"] == "running"
    await feed(both, range(40, 900), (0.5, 0.9), seed=2)
    both.now += 5
    await both.evaluator.round()
    told = await get(both)
    assert (told["state"], told["verdict"]["state"]) == ("decided", "better")
    assert "treatment is better" in told["verdict"]["reasons"][0]
    assert told["decided_at"] == both.now
    assert await entries(both) == {}  # the route is its own again: what is promoted there is for people to say
    arms = {arm["arm"]: arm["units"] for arm in told["verdict"]["arms"]}
    assert sum(arms.values()) == 900

    points = (await both.call("GET", "/experiments/e/points")).json()["points"]
    assert {point["arm"] for point in points} == {"control", "treatment"}
    last = points[-1]
    assert last["arm"] == "treatment"
    assert last["lower"] < last["estimate"] < last["upper"]
    listed = (await both.call("GET", "/experiments", state="decided")).json()["experiments"]
    assert [one["name"] for one in listed] == ["e"]
    verdict = (await both.call("GET", "/experiments/e/verdict")).json()
    assert verdict["decision"]["by"] == "penstock"


async def test_the_same_version_in_both_arms_ends_without_a_verdict(bed: Bed) -> None:
    await bed.begin(AB)
    for turn in range(4):
        await feed(bed, range(turn * 200, turn * 200 + 200), (0.7, 0.7), seed=turn)
        bed.now += 5
        await bed.evaluator.round()
    told = await get(bed)
    assert (told["state"], told["verdict"]["state"]) == ("running", "running")


async def test_a_bad_canary_goes_back_in_one_change(bed: Bed) -> None:
    publisher = Publisher(bed.control, active_experiments=active_experiments)
    await bed.begin(CANARY | {"plan": CANARY["plan"] | {"steps": [0.3, 1.0]}})
    before = await publisher.refresh()
    route = next(one for one in before.routes if one.name == "bot")
    assert route.experiment is not None
    assert route.experiment.expires_at == T0 + 30
    await feed(bed, range(120), (0.8, 0.8), errors=(0.01, 0.9))
    bed.now += 1
    await bed.evaluator.round()
    after = await publisher.refresh()
    route = next(one for one in after.routes if one.name == "bot")
    assert after.generation == before.generation + 1
    assert route.experiment is not None
    assert [(arm.name, arm.weight) for arm in route.experiment.arms] == [("control", 1.0)]
    assert route.experiment.expires_at is None
    told = await get(bed)
    assert (told["state"], told["serving"]) == ("decided", "control")
    assert told["verdict"]["tripped"] == "error_rate"
    assert told["verdict"]["reasons"][0].startswith("The guardrail on error rate tripped")


async def test_a_good_canary_ramps_to_the_end_and_never_moves_a_treated_user(bed: Bed) -> None:
    await bed.begin(CANARY | {"primary": {"metric": "success", "minimum_effect": 0.25}})
    users = [f"u{n}" for n in range(400)]
    treated: set[str] = set()
    shares = []
    for turn in range(3):
        entry = (await entries(bed))["bot"]
        assigner = compile_experiment(entry)
        now = {user for user in users if assigner.assign(user, bed.now).arm.name == "treatment"}
        assert treated <= now
        treated = now
        shares.append(round(len(now) / len(users), 1))
        if entry.epoch == 0:
            break
        await feed(bed, range(turn * 200, turn * 200 + 200), (0.8, 0.8), seed=turn)
        bed.now += 11
        await bed.hear()
        await bed.evaluator.round()
    assert shares == [0.1, 0.5, 1.0]
    told = await get(bed)
    assert (told["state"], told["serving"]) == ("decided", "treatment")
    assert [epoch["shares"]["treatment"] for epoch in told["epochs"]] == [0.1, 0.5]


async def test_a_canarys_share_is_renewed_and_lapses_without_its_evaluator(bed: Bed) -> None:
    await bed.begin(CANARY)
    first = (await entries(bed))["bot"]
    bed.now += 5
    assert (await bed.hear()).status_code == 200
    await bed.evaluator.round()
    assert (await entries(bed))["bot"].expires_at == first.expires_at  # not yet worth a Snapshot
    bed.now += 10
    await bed.hear()
    await bed.evaluator.round()
    renewed = (await entries(bed))["bot"]
    assert renewed.expires_at == bed.now + 30
    worker = compile_experiment(renewed)
    treated = next(f"u{n}" for n in range(1000) if worker.assign(f"u{n}", bed.now).arm.name == "treatment")
    assert worker.assign(treated, bed.now + 29).arm.name == "treatment"
    assert worker.assign(treated, bed.now + 30) == (worker.entry.arms[0], 1.0, 0)


async def test_a_share_that_nobody_hears_of_is_not_renewed_nor_raised(bed: Bed) -> None:
    await bed.begin(CANARY)
    await bed.hear()
    await feed(bed, range(200), (0.8, 0.8))
    for _ in range(3):  # the shipper is dead, and nobody else
        bed.now += 10.5
        await bed.evaluator.round()
    entry = (await entries(bed))["bot"]
    assert (entry.expires_at, entry.epoch) == (T0 + 30, 1)
    assert compile_experiment(entry).assign("anybody", bed.now) == (entry.arms[0], 1.0, 0)
    bed.now += 60  # it is back: what it had to tell comes before the share goes on
    await bed.hear(behind=2.0)
    await bed.evaluator.round()
    entry = (await entries(bed))["bot"]
    assert (entry.expires_at, entry.epoch) == (bed.now - 2 + 30, 2)


async def test_what_shippers_tell_is_checked(bed: Bed) -> None:
    assert (await bed.hear(token="no")).status_code == 401
    for wrong in ({"behind": -1}, {"behind": "nan"}, {"behind": "inf"}, {"journal": [""]}):
        assert (await bed.hear(**wrong)).status_code == 400, wrong
    assert (await bed.hear(journal=[])).status_code == 200


async def test_control_processes_put_together_whom_they_hear(both: Bed) -> None:
    await both.begin(CANARY)
    other = Watch(lambda: (Report(worker="w1", host="there", journal="w1.2", at=both.now),))
    both.now += 15
    await both.hear()
    async with both.control.database.write() as connection:
        await other.share(connection)
    await both.evaluator.round()
    assert (await entries(both))["bot"].expires_at == T0 + 30  # whose journal nobody reads
    other.heard(["w1.2"], both.now - 3)
    async with both.control.database.write() as connection:
        await other.share(connection)
    both.now += 1
    await both.evaluator.round()
    assert (await entries(both))["bot"].expires_at == both.now - 4 + 30


async def test_the_loop_wakes_when_data_comes(bed: Bed) -> None:
    await bed.begin(AB)
    loop = asyncio.create_task(bed.evaluator.run())
    try:
        await feed(bed, range(900), (0.4, 0.9))
        async with asyncio.timeout(20):
            while (await get(bed))["state"] != "decided":
                await asyncio.sleep(0.02)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert bed.evaluator.failures == 0


async def test_a_guardrail_that_trips_waits_for_no_round(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.control.experiments.evaluate.PAUSE_S", 3600.0)
    await bed.begin(CANARY | {"plan": CANARY["plan"] | {"steps": [0.3, 1.0]}})
    loop = asyncio.create_task(bed.evaluator.run())
    try:
        await feed(bed, range(20), (0.8, 0.8))
        async with asyncio.timeout(20):
            while "verdict" not in await get(bed) or not (await get(bed))["verdict"].get("arms"):
                await asyncio.sleep(0.02)  # the only round is over
        await feed(bed, range(20, 160), (0.8, 0.8), errors=(0.01, 0.9))
        async with asyncio.timeout(20):
            while (await get(bed))["state"] != "decided":
                await asyncio.sleep(0.02)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    told = await get(bed)
    assert (told["serving"], bed.evaluator.failures) == ("control", 0)
    assert told["verdict"]["tripped"] == "error_rate"


async def test_an_evaluator_that_starts_anew_says_the_same(bed: Bed) -> None:
    await bed.begin(AB)
    await feed(bed, range(100), (0.6, 0.7))
    one = await bed.evaluator.evaluate("e")
    two = await bed.evaluator.evaluate("e")
    assert one is not None
    assert one == two
    points = await bed.table(tables.experiment_points)
    assert len(points) == len({(point["metric"], point["arm"]) for point in points})  # nothing new: no second point


# -- figures ---------------------------------------------------------------------------------------------------------


async def test_power_and_metrics_are_told(bed: Bed) -> None:
    plan = (await bed.call("POST", "/experiments/power", {"minimum_effect": 0.05, "baseline": 0.2})).json()
    assert plan["units_per_arm"] == {"fixed": 1094, "group_sequential": 1122, "always_valid": 2095}
    assert plan["units"]["fixed"] == 2188
    refused = await bed.call("POST", "/experiments/power", {"minimum_effect": 0.05, "looks": 0})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "looks")
    named = {one["name"] for one in (await bed.call("GET", "/experiments/metrics")).json()["metrics"]}
    assert {"success", "latency_p95", "tokens_per_second"} <= named


async def test_requests_can_be_listed_filtered_and_explained(both: Bed) -> None:
    await both.begin(AB)
    await feed(both, range(20), (1.0, 0.0))
    page = (await both.call("GET", "/requests", limit=15)).json()
    assert [one["sequence"] for one in page["requests"]] == sorted(
        (one["sequence"] for one in page["requests"]), reverse=True
    )
    rest = (await both.call("GET", "/requests", limit=15, before=page["next"])).json()
    assert len(page["requests"]) + len(rest["requests"]) == 20
    assert rest["next"] is None
    treated = (await both.call("GET", "/requests", arm="treatment")).json()["requests"]
    assert treated
    assert all(one["arm"] == "treatment" for one in treated)

    told = (await both.call("GET", f"/requests/{treated[0]['id']}")).json()
    assert told["request"]["digest"].startswith("sha256:")
    assert told["experiment"]["arm"] == "treatment"
    assert told["experiment"]["counted"]
    assert [phase["name"] for phase in told["phases"]] == [
        "decoded",
        "admitted",
        "dispatched",
        "first_token",
        "last_token",
        "done",
    ]
    assert told["phases"][-1]["end_ms"] == pytest.approx(400.1)
    assert [(one["state"], one["success"]) for one in told["observations"]] == [("attributed", False)]
    assert (await both.call("GET", "/requests/req_none")).status_code == 404
    # A caller who belongs to a tenant sees that one alone.
    assert (await both.call("GET", "/requests", key="guest")).json()["requests"] == []
    assert (await both.call("GET", f"/requests/{treated[0]['id']}", key="guest")).status_code == 404


async def test_usage_and_overview(both: Bed) -> None:
    await both.begin(AB)
    await feed(both, range(30), (1.0, 1.0))
    both.now += 30
    usage = (await both.call("GET", "/usage", by="arm")).json()["rows"]
    assert [row["arm"] for row in usage] == ["e/control", "e/treatment"]
    assert sum(row["requests"] for row in usage) == 30
    assert usage[0]["latency_s"]["p50"] == pytest.approx(0.4, rel=0.03)
    assert sum(row["cost_usd"] for row in usage) == pytest.approx(30 * 1500e-9)
    hourly = (await both.call("GET", "/usage", by="hour,tenant")).json()["rows"]
    assert [(row["at"] % 3600, row["tenant"]) for row in hourly] == [(0, "a")]
    assert (await both.call("GET", "/usage", by="colour")).status_code == 400
    assert (await both.call("GET", "/usage", by="hour,day")).status_code == 400
    backwards: dict[str, Any] = {"from": 5, "to": 1}
    assert (await both.call("GET", "/usage", **backwards)).status_code == 400

    overview = (await both.call("GET", "/overview", window_s=600, buckets=10)).json()
    assert (overview["requests"], overview["errors"], overview["error_rate"]) == (30, 0, 0.0)
    assert overview["tokens"] == {"prompt": 360, "completion": 900, "cached": 0}
    assert sum(point["requests"] for point in overview["series"]) == 30
    assert len(overview["series"]) in {10, 11}
    empty = (await both.call("GET", "/overview", key="guest")).json()
    assert empty["requests"] == 0
    assert empty["latency_s"]["p50"] is None


async def test_an_exchange_without_an_experiment_is_explained_too(bed: Bed) -> None:
    await bed.send([Exchange(id="plain", at=T0, tenant="a")])
    told = (await bed.call("GET", "/requests/plain")).json()
    assert told["experiment"] is None
    assert told["phases"] == []


async def test_the_live_feed_tells_the_overview_each_second(bed: Bed) -> None:
    await bed.begin(AB)
    await feed(bed, range(7), (1.0, 1.0))
    feed_ = live(bed.control, SYSTEM, 900.0)
    event = await anext(feed_)
    await feed_.aclose()
    assert event.startswith(b"event: overview\ndata: ")
    assert msgspec.json.decode(event.split(b"data: ")[1])["requests"] == 7


async def test_one_experiment_that_cannot_be_judged_does_not_stop_the_others(bed: Bed) -> None:
    await bed.begin(AB, "broken")
    await bed.begin(AB | {"route": "other"}, "fine")
    async with bed.control.database.write() as connection:
        await connection.execute(
            update(tables.experiments).where(tables.experiments.c.name == "broken").values(spec={"strategy": "?"})
        )
    await bed.evaluator.round()
    assert bed.evaluator.failures == 1
    assert (await get(bed, "fine"))["verdict"]["state"] == "running"


FILTERS: list[tuple[str, str, Any]] = [
    ("/requests", "before", 2**63),
    ("/requests", "status", 10**20),
    ("/requests", "tenant", "a\0"),
    ("/usage", "from", "inf"),
    ("/usage", "to", 1e300),
    ("/usage", "version", "\0"),
]


async def test_filters_that_no_database_takes_are_named(both: Bed, subtests: pytest.Subtests) -> None:
    for path, name, value in FILTERS:
        with subtests.test(path=path, name=name, value=value):
            refused = await both.call("GET", path, **{name: value})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


async def test_what_a_running_experiment_needs_stays(bed: Bed) -> None:
    kinds = {kind.name: kind for kind in resource_kinds("production")}
    async with bed.control.change(SYSTEM) as change:
        await kinds["Policy"].put(change, "strict", kinds["Policy"].parse({}), "api")
    control, treatment = AB["arms"]
    await bed.begin(AB | {"arms": [control, treatment | {"policy": "strict"}]})
    needed = (("Policy", "strict"), ("Route", "bot"), ("Pool", "new"))
    for kind, name in needed:
        with pytest.raises(Conflict, match="the experiment e"):
            async with bed.control.change(SYSTEM) as change:
                await kinds[kind].delete(change, name)
    assert (await bed.call("POST", "/experiments/e/stop")).status_code == 200
    for kind, name in needed:
        async with bed.control.change(SYSTEM) as change:
            await kinds[kind].delete(change, name)
