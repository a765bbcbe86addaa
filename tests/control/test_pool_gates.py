"""A pool that names a version lets it answer users: it passes the gates of the environment that gateways serve, as a promotion does."""

import json
from typing import Any

import pytest

from tests.control.house import House
from tests.control.test_gates import declare, key_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def pool(house: House, build: str, status: int, *, name: str = "bot", **more: Any) -> dict[str, Any]:
    body = {"name": name, "spec": {"build": build, **more.pop("spec", {})}}
    answer = await house.admin.put(f"/api/v1/pools/{name}", json=body, params=more)
    assert answer.status_code == status, answer.text
    return dict(answer.json().get("error", {}))


async def test_a_pool_that_names_a_version_passes_gates(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("bot", label)
    digest = (await house.get("/models/bot/versions/v1.1.0"))["digest"]
    await house.post("/promote?wait=20", {"model": "bot", "label": "v1.0.0"})
    await pool(house, "bot:v1.1.0", 200, name="before")
    await declare(house, approval={})
    for build in ("bot:v1.1.0", f"bot@{digest}"):
        refused = await pool(house, build, 409)
        assert refused["code"] == "gates_not_passed"
        assert "approval" in refused["message"]
    await pool(house, "bot@production", 200, name="follows")
    await pool(house, "bot:v1.0.0", 200, name="live")
    await pool(house, "bot:v1.1.0", 200, name="before", spec={"replicas": 2})  # what it names already it may name
    await pool(house, "bot:v1.1.0", 409, name="before", spec={"precision": "int4"})
    missing = await pool(house, "bot:v9.9.9", 409)
    assert "no version bot:v9.9.9 yet" in missing["message"]
    rita = await key_of(house, "rita", "operator")
    assert (await rita.post("/api/v1/approvals", json={"model": "bot", "label": "v1.1.0"})).status_code == 201
    await pool(house, "bot:v1.1.0", 200)
    passed = [one for one in await house.get("/audit") if one["action"] == "gates.pass"]
    assert [(one["subject"], one["detail"]["where"]) for one in passed] == [("production/bot:v1.1.0", "pool bot")]
    await house.post("/blocks", {"model": "bot", "label": "v1.1.0", "reason": "It swore."})
    assert (await pool(house, "bot:v1.1.0", 409, name="other"))["code"] == "version_blocked"


async def test_apply_and_aliases_are_no_way_round(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("bot", label)
    await house.post("/promote?wait=20", {"model": "bot", "label": "v1.0.0"})
    await house.admin.put("/api/v1/models/bot/aliases/stable", json={"label": "v1.0.0"})
    await declare(house, approval={})
    document = json.dumps({"kind": "Pool", "name": "bot", "spec": {"build": "bot:v1.1.0"}})
    operator = await key_of(house, "olga", "operator")
    refused = await operator.post("/api/v1/apply", content=document)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gates_not_passed")
    dared = await operator.post("/api/v1/apply", content=document, params={"override": "I dare."})
    assert dared.status_code == 403
    await pool(house, "bot@stable", 200, name="follows")
    moved = await house.admin.put("/api/v1/models/bot/aliases/stable", json={"label": "v1.1.0"})
    assert (moved.status_code, moved.json()["error"]["code"]) == (409, "gates_not_passed")
    free = await house.admin.put("/api/v1/models/bot/aliases/nobody-follows", json={"label": "v1.1.0"})
    assert free.status_code == 200
    assert (await house.admin.put("/api/v1/models/bot/aliases/stable", json={"label": "v1.0.0"})).status_code == 200
    let_in = await house.admin.post("/api/v1/apply", content=document, params={"override": "The site is down."})
    assert let_in.status_code == 200, let_in.text
    over = {"label": "v1.1.0", "override": "The site is down."}
    assert (await house.admin.put("/api/v1/models/bot/aliases/stable", json=over)).status_code == 200
    overridden = [one for one in await house.get("/audit") if one["action"] == "gates.override"]
    assert {one["detail"]["reason"] for one in overridden} == {"The site is down."}
    assert len(overridden) == 2


async def test_where_nothing_is_asked_pools_name_what_they_like(house: House) -> None:
    await pool(house, "bot:v1.0.0", 200)
    await house.push("bot", "v1.0.0")
    await declare(house, "staging", approval={})
    await pool(house, "bot:v1.0.0", 200, name="other")
    await declare(house, approval={}, models=["another"])
    await pool(house, "bot:v2.0.0", 200, name="third")
