"""Canaries of deployments: from the API through ingest and the evaluator to the Snapshot, the record and the block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock.control.context import SYSTEM
from penstock.control.deploy.blocks import block_version
from penstock.control.deploy.canaries import canary_name, conclude, find_canary
from penstock.control.deploy.canary_watch import Watch
from penstock.control.deploy.snapshot import pools_to_run
from penstock.control.experiments.evaluate import Evaluator
from penstock.control.experiments.life import pause
from penstock.control.experiments.signal import Signal
from penstock.control.ingest.reader import ingest
from penstock.core.exchange import Exchange, Phases
from penstock.core.references import check_name
from penstock.core.reports import Report
from penstock.core.snapshot import ExperimentEntry, Snapshot
from penstock.experiments.assignment import compile_experiment, unit_of
from penstock.experiments.ramp import Move
from penstock.journal.format import Position, encode_frame
from penstock.store.sql import Database
from tests.control.house import House, eventually, running_house
from tests.control.test_deployments import served

OLD, NEW = "v1.0.0", "v1.1.0"
PLAN: dict[str, Any] = {"steps": [0.2, 0.5, 1.0], "minutes": 0.0, "samples": 20, "margin": 0.2}


class Lived:
    """A house whose gateways are played by hand: what they are told to do is asked of the Snapshot, and what they did is ingested."""

    def __init__(self, house: House, clock: list[float]) -> None:
        self.house = house
        self.clock = clock
        self.signal = Signal(Watch(lambda: (Report(worker="w", host="h", journal="w.1", at=clock[0]),)))
        self.evaluator = Evaluator(house.control, self.signal)
        self._number = 0
        self._offset = 64

    def experiment(self) -> ExperimentEntry | None:
        current = self.house.publisher.current
        assert current is not None
        return next(route.experiment for route in current.routes if route.name == "support-bot")

    async def begin(self, **changes: Any) -> dict[str, Any]:
        body = {"model": "support-bot", "label": NEW, "reason": "more answers", "plan": PLAN} | changes
        told: dict[str, Any] = await self.house.post("/canaries", body)
        await eventually(lambda: self.experiment() is not None)
        return told

    async def serve(self, requests: int, *, failing: float = 0.0) -> None:
        """Requests by the shares of the Snapshot; of the canary's every 1/failing-th fails."""
        entry = self.experiment()
        assert entry is not None
        assigner = compile_experiment(entry)
        records = []
        for _ in range(requests):
            self._number += 1
            name = f"req_{self._number:06d}"
            unit = unit_of(entry.unit, user="u", session="", key="k", request=name)
            arm, propensity, epoch = assigner.assign(unit, self.clock[0])
            failed = arm.name == "canary" and failing > 0 and self._number % round(1 / failing) == 0
            records.append(
                Exchange(
                    id=name,
                    at=self.clock[0],
                    tenant="demo",
                    route="support-bot",
                    experiment=entry.name,
                    arm=arm.name,
                    epoch=epoch,
                    propensity=propensity,
                    unit=unit,
                    outcome="error" if failed else "ok",
                    status=502 if failed else 200,
                    phases=Phases(done=1_000_000 * (1 + self._number % 7)),
                )
            )
        body = b"".join(encode_frame(one) for one in records)
        end = self._offset + len(body)
        await ingest(self.house.control, "w", Position(1, self._offset), Position(1, end), body)
        self._offset = end
        self.signal.watch.heard(["w.1"], self.clock[0])
        await self.evaluator.round()

    async def published(self) -> Snapshot:
        """What gateways are told once every change is out."""
        publisher = self.house.publisher
        last = await publisher._generation()
        await eventually(lambda: publisher.current is not None and publisher.current.generation >= last)
        assert publisher.current is not None
        return publisher.current

    async def status(self, name: str = "support-bot") -> dict[str, Any]:
        told: dict[str, Any] = await self.house.get(f"/canaries/{name}")
        return told

    async def history(self) -> list[tuple[str, str, str]]:
        found = await self.house.get("/models/support-bot/history?environment=production")
        return [(one["action"], one["label"], one["state"]) for one in found]


@asynccontextmanager
async def living(database: Database, tmp_path: Path) -> AsyncIterator[Lived]:
    clock = [1_800_000_000.0]
    async with running_house(database, tmp_path, clock=lambda: clock[0]) as house:
        for label in (OLD, NEW):
            await house.push("support-bot", label)
        response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": OLD})
        assert response.json()["state"] == "live", response.text
        await eventually(lambda: served(house.publisher.current) == f"support-bot:{OLD}")
        yield Lived(house, clock)


@pytest.fixture
async def lived(sqlite: Database, tmp_path: Path) -> AsyncIterator[Lived]:
    async with living(sqlite, tmp_path) as made:
        yield made


@pytest.fixture
async def on_each(database: Database, tmp_path: Path) -> AsyncIterator[Lived]:
    async with living(database, tmp_path) as made:
        yield made


async def test_a_bad_canary_is_undone_in_one_change_blocked_and_told(on_each: Lived) -> None:
    begun = await on_each.begin()
    assert (begun["state"], begun["share"], begun["incumbent"], begun["revision"]) == ("running", 0.2, OLD, 2)
    await on_each.serve(400)
    before = await on_each.published()
    assert on_each.experiment() is not None
    on_each.clock[0] += 1
    await on_each.serve(300, failing=0.5)
    await eventually(lambda: on_each.experiment() is None)
    after = await on_each.published()
    assert before.generation < after.generation <= before.generation + 3  # the roll-back, and what the ramp did before
    assert served(after) == f"support-bot:{OLD}"

    told = await on_each.status()
    assert (told["state"], told["share"], told["ended_by"], told["blocked"]) == ("rolled_back", 0.0, "penstock", True)
    assert told["words"][0].startswith("The guardrail on error rate tripped")
    assert any(word.startswith("Bad events of error rate: ") and f"of {OLD}" in word for word in told["words"])
    assert next(g for g in told["guardrails"] if g["metric"] == "error_rate")["gauge"] == 1.0
    assert await on_each.history() == [("canary", NEW, "failed"), ("promote", OLD, "live")]
    [record] = [r for r in await on_each.house.get("/models/support-bot/history") if r["action"] == "canary"]
    assert "The guardrail on error rate tripped" in record["detail"]
    assert (record["reason"], record["principal"]) == ("more answers", "admin")

    for path in ("/promote", "/canaries"):
        refused = await on_each.house.post(path, {"model": "support-bot", "label": NEW}, 409)
        assert refused["error"]["code"] == "version_blocked"
        assert "The guardrail on error rate tripped" in refused["error"]["message"]
    await on_each.house.post("/blocks/clear", {"model": "support-bot", "label": NEW, "reason": "fixed"}, 200)
    assert (await on_each.begin())["revision"] == 3


async def test_a_good_canary_is_promoted_when_harm_beyond_the_margin_is_left_out(lived: Lived) -> None:
    await lived.begin()
    shares = []
    for _ in range(30):
        entry = lived.experiment()
        if entry is None:
            break
        shares.append(round(entry.arms[1].weight, 2))
        lived.clock[0] += 5
        known = lived.house.publisher.current
        await lived.serve(250)
        await eventually(lambda known=known: lived.house.publisher.current is not known, 5)  # type: ignore[misc]
    assert sorted(set(shares)) == [0.2, 0.5]
    await eventually(lambda: served(lived.house.publisher.current) == f"support-bot:{NEW}")
    told = await lived.status()
    assert (told["state"], told["share"], told["blocked"]) == ("promoted", 1.0, False)
    assert any("leaves out that canary is worse by more than 20.0 points" in word for word in told["words"])
    assert await lived.history() == [("canary", NEW, "live"), ("promote", OLD, "superseded")]
    [deployed] = await lived.house.get("/deployments")
    assert (deployed["label"], deployed["warm"]) == (NEW, OLD)
    back = await lived.house.admin.post("/api/v1/rollback?wait=20", json={"model": "support-bot"})
    assert back.json()["label"] == OLD


async def test_people_abort_and_promote(lived: Lived) -> None:
    await lived.begin()
    refused = await lived.house.post("/promote", {"model": "support-bot", "label": NEW}, 409)
    assert refused["error"]["code"] == "canary_running"
    refused = await lived.house.post("/canaries", {"model": "support-bot", "label": NEW}, 409)
    assert refused["error"]["code"] == "canary_running"
    told = await lived.house.post("/canaries/support-bot/abort", {"reason": "it swears", "block": True}, 200)
    assert (told["state"], told["words"], told["blocked"]) == ("aborted", ["Aborted by admin: it swears."], True)
    await eventually(lambda: lived.experiment() is None)
    await lived.house.post("/canaries/support-bot/abort", None, 404)
    await lived.house.post("/blocks/clear", {"model": "support-bot", "label": NEW, "reason": "no"}, 200)

    again = await lived.begin()
    rolled = await lived.house.post("/rollback", {"model": "support-bot", "reason": "enough"})  # undoes the canary
    assert (rolled["label"], rolled["state"]) == (OLD, "live")
    told = await lived.status(again["name"])
    assert (told["state"], told["words"]) == ("aborted", ["Rolled back by admin: enough."])

    await lived.begin()
    told = await lived.house.post("/canaries/support-bot/promote", {"reason": "sure"}, 200)
    assert (told["state"], told["share"]) == ("promoted", 1.0)
    await eventually(lambda: served(lived.house.publisher.current) == f"support-bot:{NEW}")
    listed = await lived.house.get("/canaries?model=support-bot")
    assert [one["state"] for one in listed] == ["promoted", "aborted", "aborted"]


async def test_as_many_replicas_as_were_asked_for_are_there_and_stay_through_a_pause(lived: Lived) -> None:
    wanted = {f"support-bot-{NEW}-int8-{n}" for n in (0, 1)}
    told = await lived.begin(replicas=2)
    await eventually(lambda: wanted <= set(lived.house.runtime.servers))
    async with lived.house.control.change(SYSTEM) as change:
        await pause(change, told["name"], "a moment")
    await eventually(lambda: (entry := lived.experiment()) is not None and len(entry.arms) == 1)
    assert (await lived.status())["state"] == "paused"
    state = await lived.house.publisher.state()
    assert {pool.name: pool.replicas for pool in pools_to_run(state)}[f"support-bot-{NEW}-int8"] == 2
    await lived.house.post("/canaries/support-bot/promote", None, 200)
    [deployed] = await lived.house.get("/deployments")
    assert deployed["config"]["replicas"] == 2


async def test_it_says_what_it_waits_for_and_when_nobody_watches(lived: Lived) -> None:
    await lived.begin(plan=PLAN | {"samples": 1000, "minutes": 2.0})
    await lived.serve(50)
    told = await lived.status()
    assert told["lapsed"] is False
    assert "Step 1 of 3 waits for 120 s more and" in told["waits"][0]
    lived.clock[0] += 11
    await lived.evaluator.round()  # the worker still reports, and its journal is not read
    assert (await lived.status())["unheard"] == ["w on h"]
    lived.clock[0] += 20
    await lived.evaluator.round()
    told = await lived.status()
    assert told["lapsed"] is True
    assert "w on h" in told["waits"][0]


async def test_a_plan_comes_from_the_environment_and_the_call(lived: Lived) -> None:
    spec = {"canary": {"steps": [0.3, 1.0], "lapse_s": 12.0, "guardrails": [{"metric": "error_rate", "margin": 0.5}]}}
    response = await lived.house.admin.put("/api/v1/environments/production", json={"name": "production", "spec": spec})
    assert response.status_code == 200, response.text
    told = await lived.begin(plan={"samples": 7})
    assert told["plan"]["steps"] == [0.3, 1.0]
    assert (told["plan"]["samples"], told["plan"]["lapse_s"]) == (7, 12.0)
    assert [g["metric"] for g in told["guardrails"]] == ["error_rate"]
    entry = lived.experiment()
    assert entry is not None
    assert entry.expires_at == lived.clock[0] + 12
    await lived.house.post("/canaries/support-bot/abort", None, 200)
    for plan, param in (
        ({"steps": [0.5, 0.1]}, "plan.steps"),
        ({"metric": "nonsense"}, "primary.metric"),
        ({"lapse_s": 0}, "plan.lapse_s"),
        ({"guardrails": [{"metric": "cost"}]}, "plan.guardrails.0.metric"),
    ):
        refused = await lived.house.post("/canaries", {"model": "support-bot", "label": NEW, "plan": plan}, 400)
        assert refused["error"]["param"] == param


async def test_what_cannot_be_tried_out_is_refused(lived: Lived) -> None:
    async def refused(status: int, **changes: Any) -> str:
        told = await lived.house.post("/canaries", {"model": "support-bot", "label": NEW} | changes, status)
        return str(told["error"]["code"])

    assert await refused(409, label=OLD) == "conflict"
    assert await refused(404, label="v9.9.9") == "not_found"
    assert await refused(409, environment="staging") == "canary_impossible"
    assert await refused(404, environment="nowhere") == "not_found"
    assert await refused(409, precision="int4") == "build_missing"
    await lived.house.push("other", OLD)
    assert await refused(409, model="other", label=OLD) == "canary_impossible"
    await lived.house.post("/pools", {"name": "elsewhere", "spec": {"adopt": ["http://127.0.0.1:9"]}})
    await lived.house.post("/routes", {"name": "support-bot", "spec": {"to": [{"pool": "elsewhere"}]}})
    assert await refused(409) == "canary_impossible"


async def test_replicas_that_never_come_end_it(lived: Lived) -> None:
    lived.house.runtime.hold = True
    body = {"model": "support-bot", "label": NEW, "plan": PLAN}
    await lived.house.post("/canaries", body)
    lived.clock[0] += 901
    lived.signal.watch.heard(["w.1"], lived.clock[0] - 100)  # nothing to renew by
    await lived.evaluator.round()
    told = await lived.status()
    assert (told["state"], told["blocked"]) == ("aborted", False)
    assert "not ready within 900 s" in told["words"][0]
    assert msgspec.convert(told["steps"], list[float]) == PLAN["steps"]


async def test_blocking_a_version_takes_its_canary_back(lived: Lived) -> None:
    await lived.house.push("support-bot", "v1.2.0")
    begun = await lived.begin()
    block = {"model": "support-bot", "label": "v1.2.0", "reason": "another one"}
    await lived.house.post("/blocks", block)
    assert (await lived.status())["state"] == "running"
    await lived.house.post("/blocks", block | {"label": NEW, "reason": "It leaks."})
    told = await lived.status(begun["name"])
    assert (told["state"], told["words"]) == ("aborted", ["Its version was blocked by admin: It leaks."])
    await lived.house.post("/canaries/support-bot/promote", None, 404)
    assert served(await lived.published()) == f"support-bot:{OLD}"


async def test_what_may_not_be_deployed_any_more_is_not_promoted(lived: Lived) -> None:
    begun = await lived.begin()
    async with lived.house.control.change(SYSTEM) as change:
        await block_version(
            change, environment="production", model="support-bot", label=NEW, digest=begun["digest"], reason="It leaks."
        )
    refused = await lived.house.post("/canaries/support-bot/promote", None, 409)
    assert refused["error"]["code"] == "version_blocked"
    assert (await lived.status())["state"] == "running"
    async with lived.house.control.change(SYSTEM) as change:  # as the evaluator does when the plan is done
        canary = await find_canary(change.connection, begun["name"])
        await conclude(change, canary, Move(kind="decide", serving="canary", reasons=("It is good.",)))
    told = await lived.status(begun["name"])
    assert (told["state"], told["blocked"], told["words"][1]) == ("rolled_back", True, "It is good.")
    assert told["words"][0].startswith("It may not be deployed any more: ")
    assert served(await lived.published()) == f"support-bot:{OLD}"


GATES = {"signature": {"signers": ["release"]}, "approval": {}}


async def gated(lived: Lived) -> httpx.AsyncClient:
    """Production asks for a signature and an approval, and the new version has both; gives the client of who approved."""
    house = lived.house
    await house.post("/signers", {"name": "release"})
    await house.post(f"/models/support-bot/versions/{NEW}/signatures", {"signer": "release"})
    await house.admin.put("/api/v1/environments/production", json={"name": "production", "spec": {"gates": GATES}})
    await house.post("/principals", {"name": "rita", "roles": ["operator"]})
    rita = house.client((await house.post("/keys", {"name": "r", "principal": "rita"}))["key"])
    assert (await rita.post("/api/v1/approvals", json={"model": "support-bot", "label": NEW})).status_code == 201
    return rita


async def end_well(lived: Lived, name: str) -> dict[str, Any]:
    """As the evaluator does when the plan is done."""
    async with lived.house.control.change(SYSTEM) as change:
        canary = await find_canary(change.connection, name)
        await conclude(change, canary, Move(kind="decide", serving="canary", reasons=("It is good.",)))
    return await lived.status(name)


@pytest.mark.parametrize("meanwhile", ["signer", "approval", "policy"])
async def test_gates_are_asked_once_more_when_a_canary_ends(lived: Lived, meanwhile: str) -> None:
    rita = await gated(lived)
    name = (await lived.begin())["name"]
    match meanwhile:
        case "signer":
            await lived.house.post("/signers/release/revoke", {"reason": "stolen"}, 200)
        case "approval":
            body = {"model": "support-bot", "label": NEW}
            assert (await rita.post("/api/v1/approvals/withdraw", json=body)).status_code == 200
        case _:
            await lived.house.admin.put(
                "/api/v1/environments/production",
                json={"name": "production", "spec": {"gates": GATES | {"card": True}}},
            )
    refused = await lived.house.post("/canaries/support-bot/promote", None, 409)
    assert refused["error"]["code"] == "gates_not_passed"
    told = await end_well(lived, name)
    assert (told["state"], told["blocked"]) == ("rolled_back", False)
    assert "does not pass the gates of production" in told["words"][0]
    assert served(await lived.published()) == f"support-bot:{OLD}"


async def test_what_was_in_date_or_overridden_when_a_canary_began_is_so_when_it_ends(lived: Lived) -> None:
    rita = await gated(lived)
    name = (await lived.begin())["name"]
    lived.clock[0] += 8 * 86400  # an approval counts for seven days
    told = await end_well(lived, name)
    assert told["state"] == "promoted"
    kept = await lived.house.get(f"/revisions/{await revision(lived)}/gates")
    assert [one["state"] for one in kept["outcomes"]] == ["passed", "passed"]
    await lived.house.post("/rollback?wait=20", {"model": "support-bot"})

    body = {"model": "support-bot", "label": NEW}
    assert (await rita.post("/api/v1/approvals/withdraw", json=body)).status_code == 200
    name = (await lived.begin(override="the site is down"))["name"]
    told = await end_well(lived, name)
    assert told["state"] == "promoted", "the approval was overridden when it began"
    await lived.house.post("/rollback?wait=20", {"model": "support-bot"})
    name = (await lived.begin(override="the site is down"))["name"]
    await lived.house.post("/signers/release/revoke", {"reason": "stolen"}, 200)
    told = await lived.house.post("/canaries/support-bot/promote", None, 409)
    assert "signature" in told["error"]["message"]
    assert "approval" not in told["error"]["message"]
    forbidden = await rita.post("/api/v1/canaries/support-bot/promote", json={"override": "I dare."})
    assert forbidden.status_code == 403
    told = await lived.house.post("/canaries/support-bot/promote", {"override": "it signs nothing else"}, 200)
    assert told["state"] == "promoted"
    kept = await lived.house.get(f"/revisions/{await revision(lived)}/gates")
    assert (kept["overridden_by"], kept["reason"]) == ("admin", "it signs nothing else")


async def revision(lived: Lived) -> str:
    newest = await lived.house.get("/models/support-bot/history?environment=production")
    return str(newest[0]["id"])


async def test_only_who_may_deploy_pauses_and_resumes_a_canary(lived: Lived) -> None:
    name = (await lived.begin())["name"]
    key = (await lived.house.post("/keys", {"name": "ana", "roles": ["analyst"]}))["key"]
    async with lived.house.client(key) as analyst:
        for action in ("pause", "start"):
            refused = await analyst.post(f"/api/v1/experiments/{name}/{action}", json={})
            assert refused.status_code == 403
            assert "deployments:write" in refused.json()["error"]["message"]
            await lived.house.post(f"/experiments/{name}/{action}", {}, 200)


def test_every_canary_has_a_name_of_its_own_however_long_the_models() -> None:
    long = "m" * 96
    names = [canary_name(model, number) for model in (long, long[:-1] + "n") for number in (2, 3, 1234)]
    assert len(set(names)) == len(names)
    assert all(check_name(name) == name for name in names)
    assert canary_name("support-bot", 2) == "canary-support-bot-2"
