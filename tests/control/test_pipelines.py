"""Pipelines through the API and their loop: refused with the figures, by canary, once whatever is killed, cancelled, by whoever still may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import SYSTEM
from penstock.control.pipelines.loop import Pipelines
from penstock.control.versions.build_jobs import fail_job, find_job
from penstock.core.digests import sha256_digest
from penstock.registry.manifest import make_manifest, manifest_digest
from penstock.store.schema import revisions
from penstock.store.schema_delivery import canaries
from penstock.store.schema_gates import evaluations
from penstock.store.schema_pipelines import outbox, pipelines
from tests.control.house import House, eventually, version_files
from tests.control.test_deployments import served
from tests.control.test_gates import CARD, ENGINE, declare, key_of, suite, work_off

PLAN = {"steps": [0.5, 1.0], "minutes": 0.0, "samples": 20, "margin": 0.2}


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("penstock.control.gates.ask", "penstock.control.api.evaluations"):
        monkeypatch.setattr(f"{module}.engine_digest", lambda: ENGINE)


def files_of(label: str) -> dict[str, bytes]:
    return {**version_files(f"bot:{label}"), "README.md": CARD + label.encode()}


def digest_of(files: dict[str, bytes]) -> str:
    return manifest_digest(make_manifest({path: (sha256_digest(data), len(data)) for path, data in files.items()}))


def body(label: str, **more: Any) -> dict[str, Any]:
    return {"model": "bot", "label": label, "digest": digest_of(files_of(label)), "canary": PLAN, **more}


async def begin(house: House, label: str, **more: Any) -> str:
    told = await house.post("/pipelines", body(label, **more))
    identity: str = told["id"]
    return identity


async def drive(house: House, identity: str, right: dict[str, int] | None = None, *, until: str = "") -> dict[str, Any]:
    """Let the loop go on until the pipeline has ended, or the step `until` (with its environment) is under way and waits."""
    loop = Pipelines(house.control)
    async with asyncio.timeout(60):
        while True:
            loop._due.clear()
            moved = await loop.round()
            await work_off(house, right or {})
            told: dict[str, Any] = await house.get(f"/pipelines/{identity}")
            at = next((step for step in told["steps"] if step["state"] == "running"), None)
            name = f"{at['kind']} {at['environment']}".strip() if at is not None else ""
            if told["state"] != "running" or (name == until and not moved and at is not None and at["words"]):
                return told
            await asyncio.sleep(0.02)


def steps(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"{one['kind']} {one['environment']}".strip(), one["state"]) for one in told["steps"]]


async def count(house: House, statement: Any) -> int:
    async with house.control.database.read() as connection:
        found: int = (await connection.execute(statement)).scalar_one()
    return found


async def test_a_worse_version_is_refused_and_a_better_one_gets_there_by_canary(small_house: House) -> None:
    house = small_house
    await suite(house)
    first = await begin(house, "v1.0.0")
    waits = await drive(house, first, until="push")
    assert waits["steps"][0]["words"].startswith("It waits for the files")
    await house.push("bot", "v1.0.0", files_of("v1.0.0"))
    told = await drive(house, first)
    assert (told["state"], told["words"]) == ("done", "")
    assert steps(told) == [
        ("push", "done"),
        ("scan", "done"),
        ("build", "done"),
        ("gate dev", "done"),
        ("promote dev", "done"),
        ("gate staging", "done"),
        ("promote staging", "done"),
        ("gate production", "done"),
        ("canary production", "done"),
    ]
    assert served(house.publisher.current, "bot") == "bot:v1.0.0"

    await declare(house, scan=True, smoke={}, card=True, suites=[{"suite": "questions", "slices": ["topic"]}])
    right = {"v1.0.0": 180, "v1.1.0": 150, "v1.2.0": 190}
    await house.push("bot", "v1.1.0", files_of("v1.1.0"))
    told = await drive(house, await begin(house, "v1.1.0"), right)
    assert told["state"] == "refused"
    assert told["words"].startswith("gate production: suite questions: 75.0 % right, bot:v1.0.0 90.0 %")
    refused = told["steps"][7]
    assert {one["gate"]: one["state"] for one in refused["outcomes"]}["suite questions"] == "failed"
    assert refused["outcomes"][-1]["figures"][0]["items"] == 200
    assert [state for _, state in steps(told)[7:]] == ["refused", "waiting"]
    assert [(await house.get(f"/models/bot/versions/@{e}"))["label"] for e in ("staging", "production")] == [
        "v1.1.0",
        "v1.0.0",
    ]

    await house.push("bot", "v1.2.0", files_of("v1.2.0"))
    better = await begin(house, "v1.2.0", reason="trained again")
    told = await drive(house, better, right, until="canary production")
    name = told["steps"][8]["canary"]
    assert "50 % of the traffic, step 1 of 2" in told["steps"][8]["words"]
    assert (await house.get(f"/canaries/{name}"))["reason"] == f"trained again ({better})"
    await eventually(lambda: runs(house, "v1.2.0"))
    await house.post(f"/canaries/{name}/promote", {"reason": "enough"}, status=200)
    told = await drive(house, better, right)
    assert told["state"] == "done"
    assert "Promoted by admin" in told["steps"][8]["words"]
    again = await house.admin.post("/api/v1/pipelines", json=body("v1.2.0", reason="trained again"))
    assert (again.status_code, again.json()["id"]) == (200, better)


def runs(house: House, label: str) -> bool:
    """Whether gateways have a replica of it."""
    current = house.publisher.current
    return current is not None and any(pool.replicas and f":{label}" in pool.version for pool in current.pools)


class KilledError(BaseException):
    """The process is gone."""


class Killer:
    """Kills whoever is armed at every write of the database, before its commit and after it in turn."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.armed: ContextVar[bool] = ContextVar("armed", default=False)
        self.kills = 0
        database = house.control.database
        write = database.write

        @asynccontextmanager
        async def killing() -> AsyncIterator[AsyncConnection]:
            if not self.armed.get():
                async with write() as connection:
                    yield connection
                return
            self.kills += 1
            async with write() as connection:
                yield connection
                if self.kills % 2:
                    raise KilledError
            raise KilledError

        monkeypatch.setattr(database, "write", killing)


async def test_killed_at_every_write_it_gets_there_with_one_promotion(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await suite(house)
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("bot", label, files_of(label))
    await drive(house, await begin(house, "v1.0.0"))
    await declare(house, smoke={}, suites=[{"suite": "questions"}])
    identity = await begin(house, "v1.1.0")
    killer = Killer(house, monkeypatch)
    loop = Pipelines(house.control)
    name = ""
    async with asyncio.timeout(60):
        while (told := await house.get(f"/pipelines/{identity}"))["state"] == "running":
            loop._due.clear()
            armed = killer.armed.set(True)
            try:
                await loop.round()
            except KilledError:
                loop = Pipelines(house.control)  # as after a start
            finally:
                killer.armed.reset(armed)
            await work_off(house, {})
            canary = told["steps"][8]["canary"]
            if canary and not name:
                await eventually(lambda: runs(house, "v1.1.0"))
                await house.post(f"/canaries/{canary}/promote", status=200)
                name = canary
            await asyncio.sleep(0.01)
    assert told["state"] == "done"
    assert killer.kills > 20
    for environment in ("dev", "staging", "production"):
        mine = (revisions.c.environment == environment) & (revisions.c.label == "v1.1.0")
        assert await count(house, select(func.count()).select_from(revisions).where(mine)) == 1
    assert await count(house, select(func.count()).select_from(canaries)) == 1
    asked = select(func.count()).select_from(evaluations).where(evaluations.c.kind != "scan")
    assert await count(house, asked) == 3  # smoke, the suite of both
    ends = select(func.count()).select_from(outbox).where(outbox.c.type == "pipeline.done")
    assert await count(house, ends) == 2


async def test_the_same_files_are_the_same_pipeline(house: House) -> None:
    await house.push("bot", "v1.0.0", files_of("v1.0.0"))
    replies = await asyncio.gather(
        *(house.admin.post("/api/v1/pipelines", json=body("v1.0.0", environments=["dev"])) for _ in range(5))
    )
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 200, 201]
    [identity] = {reply.json()["id"] for reply in replies}
    refused = await house.admin.post("/api/v1/pipelines", json=body("v1.0.0"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "pipeline_running")
    other = body("v1.0.0") | {"digest": "sha256:" + "0" * 64}
    assert (await house.admin.post("/api/v1/pipelines", json=other)).json()["error"]["code"] == "label_taken"
    assert (await drive(house, identity))["state"] == "done"
    assert await begin_status(house, "v1.0.0", environments=["dev"]) == (200, identity)
    status, longer = await begin_status(house, "v1.0.0")
    assert (status, longer != identity) == (201, True)
    told = await drive(house, longer)
    assert told["steps"][4]["words"] == "It was live in dev already."
    assert await count(house, select(func.count()).select_from(pipelines)) == 2


async def begin_status(house: House, label: str, **more: Any) -> tuple[int, str]:
    reply = await house.admin.post("/api/v1/pipelines", json=body(label, **more))
    return reply.status_code, reply.json()["id"]


async def test_people_are_waited_for_and_who_pushed_does_not_count(small_house: House) -> None:
    await small_house.push("bot", "v1.0.0", files_of("v1.0.0"))
    await declare(small_house, "staging", approval={"count": 1, "by_other": True})
    told = await drive(small_house, await begin(small_house, "v1.0.0", environments=["staging"], patience_s=0.0))
    assert told["state"] == "refused"
    assert "penstock approve bot:v1.0.0 --for staging" in told["words"]
    identity = await begin(small_house, "v1.0.0", environments=["staging"])
    told = await drive(small_house, identity, until="gate staging")
    assert told["steps"][3]["waits_since"] is not None
    reviewer = await key_of(small_house, "reviewer", "operator")
    given = await reviewer.post("/api/v1/approvals", json={"model": "bot", "label": "v1.0.0", "environment": "staging"})
    assert given.status_code == 201, given.text
    assert (await drive(small_house, identity))["state"] == "done"


async def test_a_cancelled_pipeline_leaves_nothing_under_way(small_house: House) -> None:
    await suite(small_house)
    for label in ("v1.0.0", "v1.1.0", "v1.2.0"):
        await small_house.push("bot", label, files_of(label))
    await drive(small_house, await begin(small_house, "v1.0.0"))
    identity = await begin(small_house, "v1.1.0")
    told = await drive(small_house, identity, until="canary production")
    cancelled = await small_house.post(f"/pipelines/{identity}/cancel", {"reason": "the wrong one"}, status=200)
    assert (cancelled["state"], cancelled["words"]) == ("cancelled", "Cancelled by admin: the wrong one.")
    canary = await small_house.get(f"/canaries/{told['steps'][8]['canary']}")
    assert canary["state"] == "aborted"
    assert "cancelled by admin" in canary["words"][0]
    assert not await Pipelines(small_house.control).round()
    refused = await small_house.admin.post(f"/api/v1/pipelines/{identity}/cancel")
    assert refused.json()["error"]["code"] == "pipeline_ended"

    await declare(small_house, "dev", suites=[{"suite": "questions"}])
    identity = await begin(small_house, "v1.2.0", environments=["dev"])
    loop = Pipelines(small_house.control)
    while not (await small_house.get(f"/pipelines/{identity}"))["steps"][3]["evaluations"]:
        await loop.round()
    await small_house.post(f"/pipelines/{identity}/cancel", status=200)
    assert [one["state"] for one in await small_house.get("/evaluations?label=v1.2.0") if one["kind"] == "suite"] == [
        "cancelled"
    ]


async def test_a_version_without_a_build_has_one_made_of_its_weights(small_house: House) -> None:
    files = {path: data for path, data in files_of("v1.0.0").items() if not path.startswith("openvino")}
    await small_house.push("bot", "v1.0.0", files)
    body_of = body("v1.0.0", environments=["dev"]) | {"digest": digest_of(files)}

    async def begun() -> tuple[str, dict[str, Any]]:
        identity = (await small_house.post("/pipelines", body_of))["id"]
        told = await drive(small_house, identity, until="build")
        assert "in int8 is queued" in told["steps"][2]["words"]
        [job] = await small_house.get("/builds?state=queued")
        return identity, job

    identity, job = await begun()
    await small_house.post(f"/pipelines/{identity}/cancel", status=200)
    assert (await small_house.get(f"/builds/{job['id']}"))["state"] == "cancelled"
    identity, job = await begun()
    async with small_house.control.deed(SYSTEM) as change:
        await fail_job(change, await find_job(change.connection, job["id"]), "There is no room.")
    told = await drive(small_house, identity)
    assert (told["state"], told["words"]) == ("failed", "build: It could not be built. There is no room.")
    identity, job = await begun()  # a failure of before is no reason not to try


async def test_it_acts_as_whoever_began_it_as_far_as_they_still_may(small_house: House) -> None:
    await small_house.push("bot", "v1.0.0", files_of("v1.0.0"))
    developer = await key_of(small_house, "dev", "developer")
    assert (await developer.post("/api/v1/pipelines", json=body("v1.0.0"))).status_code == 403
    key = await small_house.post("/keys", {"name": "ci", "roles": ["operator"]})
    told = (
        await small_house.client(key["key"]).post("/api/v1/pipelines", json=body("v1.0.0", environments=["dev"]))
    ).json()
    await small_house.post(f"/keys/{key['id']}/revoke", status=200)
    ended = await drive(small_house, told["id"])
    assert (ended["state"], ended["principal"]) == ("refused", "ci")
    assert "The key of ci, who began it, is no longer valid" in ended["words"]
    assert (await small_house.get("/models/bot/history?environment=dev")) == []


async def test_what_stops_one_pipeline_lets_the_others_go_on(small_house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await small_house.push("bot", label, files_of(label))
    await declare(small_house, "dev", suites=[{"suite": "gone"}])
    one = await begin(small_house, "v1.0.0", environments=["dev"])
    other = await begin(small_house, "v1.1.0", environments=["staging"])
    assert (await drive(small_house, other))["state"] == "done"
    told = await drive(small_house, one)
    assert told["state"] == "failed"
    assert "gone" in told["words"]


async def test_whoever_watches_is_answered_as_soon_as_something_is_new(small_house: House) -> None:
    await small_house.push("bot", "v1.0.0", files_of("v1.0.0"))
    identity = await begin(small_house, "v1.0.0", environments=["dev"])
    mark = (await small_house.get(f"/pipelines/{identity}"))["mark"]
    watching = asyncio.create_task(small_house.get(f"/pipelines/{identity}?than={mark}&wait=30"))
    await drive(small_house, identity)
    assert (await watching)["mark"] != mark
    listed = await small_house.get("/pipelines?model=bot&state=done")
    assert [one["id"] for one in listed] == [identity]
    assert (await small_house.get("/pipelines/pipe_x", 404))["error"]["param"] == "id"


async def test_what_cannot_be_begun_is_refused_by_name(small_house: House) -> None:
    for changes, param in (
        ({"environments": ["nowhere"]}, "environments"),
        ({"environments": ["dev", "dev"]}, "environments"),
        ({"digest": "sha256:1"}, "digest"),
        ({"patience_s": -1}, "patience_s"),
    ):
        refused = await small_house.admin.post("/api/v1/pipelines", json=body("v1.0.0") | changes)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
