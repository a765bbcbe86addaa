"""Promotion and rollback, from the API through the reconcile loop to the Snapshot."""

import asyncio
import time
from typing import Any

from sqlalchemy import select

from penstock.control.watch.drift_store import save_group
from penstock.core.snapshot import Snapshot
from penstock.experiments.drift_watch import FIRST, Watching, new_group
from penstock.store.schema import audit_events
from tests.control.house import House, eventually


def served(snapshot: Snapshot | None, route: str = "support-bot") -> str:
    """The version that a route leads to, if its pool has replicas."""
    if snapshot is None:
        return ""
    pools = {pool.name: pool for pool in snapshot.pools}
    for entry in snapshot.routes:
        if entry.name == route:
            pool = pools[entry.to[0].pool]
            return pool.version if pool.replicas else ""
    return ""


async def test_a_promoted_version_goes_live_when_its_replica_is_ready(house: House) -> None:
    version = await house.push("support-bot", "v1.0.0")
    house.runtime.hold = True
    revision = await house.post("/promote", {"model": "support-bot", "label": "v1.0.0", "reason": "first"})
    assert (revision["state"], revision["number"], revision["principal"]) == ("pending", 1, "admin")
    await eventually(lambda: bool(house.runtime.servers))
    assert served(house.publisher.current) == ""
    assert any("support-bot:v1.0.0" in sentence for sentence in house.readiness.missing())
    house.runtime.hold = False
    response = await house.admin.get(f"/api/v1/revisions/{revision['id']}?wait=20")
    assert response.json()["state"] == "live"
    await eventually(lambda: served(house.publisher.current) == "support-bot:v1.0.0")
    await eventually(lambda: house.readiness.missing() == [])
    current = house.publisher.current
    assert current is not None
    pool = current.pools[0]
    assert (pool.digest, pool.build) == (version["digest"], version["builds"][0]["digest"])
    assert pool.model == "support-bot"
    assert house.runtime.specs["support-bot-v1.0.0-int8-0"].model == "support-bot"


async def test_engines_that_remember_for_all_tenants_take_the_place_of_those_that_do_not(house: House) -> None:
    await house.push("support-bot", "v1.0.0")
    await house.post("/pools", {"name": "bot", "spec": {"build": "support-bot:v1.0.0"}})
    await eventually(lambda: set(house.runtime.servers) == {"support-bot-v1.0.0-int8-0"})
    assert "--prefix-cache" not in house.runtime.specs["support-bot-v1.0.0-int8-0"].args
    spec = {"build": "support-bot:v1.0.0", "prefix_cache": "shared"}
    response = await house.admin.put("/api/v1/pools/bot", json={"name": "bot", "spec": spec})
    assert response.status_code == 200, response.text
    await eventually(lambda: set(house.runtime.servers) == {"support-bot-v1.0.0-int8-shared0"})
    assert house.runtime.specs["support-bot-v1.0.0-int8-shared0"].args[0] == "--prefix-cache"
    current = house.publisher.current
    assert current is not None
    [pool] = current.pools
    assert [replica.id for replica in pool.replicas] == ["support-bot-v1.0.0-int8-shared0"]
    assert (pool.prefix_cache, pool.dialect) == ("shared", "penstock")


async def test_rolling_back_to_what_is_warm_takes_less_than_a_second(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("support-bot", label)
        response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": label})
        assert response.json()["state"] == "live", response.text
    assert set(house.runtime.servers) == {"support-bot-v1.0.0-int8-0", "support-bot-v1.1.0-int8-0"}
    deployed = await house.get("/deployments")
    assert [(d["label"], d["state"], d["warm"]) for d in deployed] == [("v1.1.0", "live", "v1.0.0")]

    async def rolled_back() -> tuple[dict[str, Any], float]:
        begun = time.monotonic()
        response = await house.admin.post("/api/v1/rollback?wait=20", json={"model": "support-bot", "reason": "worse"})
        assert response.status_code == 201, response.text
        await eventually(lambda: served(house.publisher.current) == "support-bot:v1.0.0")
        return response.json(), time.monotonic() - begun

    revision, took = await rolled_back()
    assert (revision["state"], revision["action"], revision["label"]) == ("live", "rollback", "v1.0.0")
    history = await house.get("/models/support-bot/history")
    assert [(r["number"], r["action"], r["label"], r["state"]) for r in history] == [
        (3, "rollback", "v1.0.0", "live"),
        (2, "promote", "v1.1.0", "superseded"),
        (1, "promote", "v1.0.0", "superseded"),
    ]
    assert history[0]["source"] == history[2]["id"]
    assert history[0]["previous"] == history[1]["id"]
    async with house.control.database.read() as connection:
        actions = (await connection.execute(select(audit_events.c.action))).scalars().all()
    assert actions.count("deployment.promote") == 2
    assert actions.count("deployment.rollback") == 1
    for _ in range(2):  # others may have had the machine
        if took >= 1.0:
            await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": "v1.1.0"})
            took = (await rolled_back())[1]
    assert took < 1.0


async def test_only_the_version_before_is_kept_warm(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0", "v1.2.0"):
        await house.push("support-bot", label)
        response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": label})
        assert response.json()["state"] == "live"
    await eventually(lambda: "support-bot-v1.0.0-int8-0" in house.runtime.stopped)
    assert set(house.runtime.servers) == {"support-bot-v1.1.0-int8-0", "support-bot-v1.2.0-int8-0"}


async def test_a_version_whose_replica_dies_is_given_up_and_the_live_one_stays(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("support-bot", label)
    await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": "v1.0.0"})
    house.runtime.broken = True
    response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": "v1.1.0"})
    assert response.json()["state"] == "failed"
    assert "does not stay up" in response.json()["detail"]
    assert served(house.publisher.current) == "support-bot:v1.0.0"
    [deployment] = await house.get("/deployments")
    assert (deployment["label"], deployment["wanted"]) == ("v1.0.0", None)


async def test_a_promotion_that_saw_another_generation_is_refused(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("support-bot", label)
    body = {"model": "support-bot", "generation": 0}
    tries = await asyncio.gather(
        *(
            house.admin.post("/api/v1/promote", json={**body, "label": label})
            for label in ("v1.0.0", "v1.1.0")
            for _ in range(3)
        )
    )
    assert sorted(t.status_code for t in tries) == [201, 409, 409, 409, 409, 409]
    assert {t.json()["error"]["code"] for t in tries if t.status_code == 409} == {"generation_conflict"}


async def test_promoting_what_is_wanted_already_changes_nothing(house: House) -> None:
    await house.push("support-bot", "v1.0.0")
    first = await house.post("/promote", {"model": "support-bot", "label": "v1.0.0"})
    again = await house.post("/promote", {"model": "support-bot", "label": "v1.0.0"})
    assert again["id"] == first["id"]


async def test_an_environment_that_is_not_served_only_records(house: House) -> None:
    await house.push("support-bot", "v1.0.0")
    revision = await house.post("/promote", {"model": "support-bot", "label": "v1.0.0", "environment": "staging"})
    assert revision["state"] == "live"
    assert house.runtime.servers == {}
    resolved = await house.get("/resolve?ref=support-bot@staging")
    assert resolved["label"] == "v1.0.0"
    from_staging = await house.post("/promote", {"model": "support-bot", "label": "@staging"})
    assert from_staging["label"] == "v1.0.0"


async def test_another_environment_leaves_the_watch_for_drift_as_it_is(house: House) -> None:
    async def live(label: str, environment: str) -> None:
        body = {"model": "support-bot", "label": label, "environment": environment}
        response = await house.admin.post("/api/v1/promote?wait=20", json=body)
        assert response.json()["state"] == "live", response.text

    async def watched() -> dict[str, str]:
        return {one["model"]: one["state"] for one in await house.get("/drift")}

    await house.admin.put("/api/v1/environments/staging", json={"name": "staging", "spec": {"serve": True}})
    for label in ("v1.0.0", "v1.1.0", "v1.2.0"):
        await house.push("support-bot", label)
    await live("v1.0.0", "production")
    watching = Watching(new_group(0.0))
    for n in range(2 * FIRST):
        watching.feed("output_length", 40.0 + n % 50 if n < FIRST else 900.0, 1.0, n)
    async with house.control.database.write() as connection:
        await save_group(connection, ("support-bot:v1.0.0", ""), watching.kept(), known=True)
    assert await watched() == {"support-bot:v1.0.0": "alarm"}
    await live("v1.0.0", "staging")
    assert await watched() == {"support-bot:v1.0.0": "alarm"}
    await live("v1.1.0", "staging")
    assert await watched() == {"support-bot:v1.0.0": "alarm", "support-bot:v1.1.0": "gathering"}
    await live("v1.1.0", "production")
    assert await watched() == {"support-bot:v1.1.0": "gathering"}
    await live("v1.2.0", "staging")
    await live("v1.2.0", "production")
    assert await watched() == {"support-bot:v1.2.0": "gathering"}


async def test_what_cannot_be_deployed_is_refused_with_a_sentence(small_house: House) -> None:
    house = small_house
    await house.push("bare", "v1.0.0", {"README.md": b"# nothing to run"})
    missing = await house.post("/promote", {"model": "bare", "label": "v1.0.0"}, status=409)
    assert missing["error"]["code"] == "build_missing"
    unknown = await house.post("/promote", {"model": "bare", "label": "v9.0.0"}, status=404)
    assert "bare:v9.0.0" in unknown["error"]["message"]
    nowhere = await house.post("/promote", {"model": "bare", "label": "v1.0.0", "environment": "mars"}, status=404)
    assert nowhere["error"]["param"] == "environment"
    nothing = await house.post("/rollback", {"model": "bare"}, status=404)
    assert "Nothing of bare" in nothing["error"]["message"]


async def test_replicas_that_were_lost_are_taken_out_and_started_again(house: House) -> None:
    await house.push("support-bot", "v1.0.0")
    await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": "v1.0.0"})
    await eventually(lambda: served(house.publisher.current) == "support-bot:v1.0.0")
    before = (house.publisher.current or Snapshot(generation=0)).pools[0].replicas[0].url
    server, _ = house.runtime.servers.pop("support-bot-v1.0.0-int8-0")
    server.close()
    await eventually(
        lambda: (
            served(house.publisher.current) == "support-bot:v1.0.0"
            and house.publisher.current is not None
            and house.publisher.current.pools[0].replicas[0].url != before
        )
    )


async def test_a_replica_that_cannot_be_started_is_told_until_it_can(small_house: House) -> None:
    house = small_house
    await house.push("support-bot", "v1.0.0")
    (house.control.data / "builds").write_text("a file where a folder should be")
    await house.post("/promote", {"model": "support-bot", "label": "v1.0.0"})
    await eventually(lambda: bool(house.readiness.conditions()))
    [condition] = await house.get("/conditions")
    assert condition["subject"] == "support-bot-v1.0.0-int8-0"
    assert "cannot be written" in condition["message"]
    (house.control.data / "builds").unlink()
    await eventually(lambda: served(house.publisher.current) == "support-bot:v1.0.0")
    assert await house.get("/conditions") == []


async def test_a_build_that_was_damaged_on_disk_is_written_anew(small_house: House) -> None:
    house = small_house
    version = await house.push("support-bot", "v1.0.0")
    folder = house.control.data / "builds" / version["builds"][0]["digest"].removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "openvino_model.bin").write_bytes(b"torn")
    response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": "v1.0.0"})
    assert response.json()["state"] == "live"
    pulled = await house.admin.get("/api/v1/models/support-bot/versions/v1.0.0/files/openvino-int8/openvino_model.bin")
    assert (folder / "openvino_model.bin").read_bytes() == pulled.content
    assert sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) == [folder.name]
