"""Resources by the API and by apply; keys, roles and errors."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.core.digests import hash_secret
from penstock.core.snapshot import Pool, QueuePolicy, Snapshot
from tests.control.house import House, eventually

STACK = """
kind: Pool
name: mock
spec: {adopt: ["http://127.0.0.1:9100", "http://127.0.0.1:9101"]}
---
kind: Route
name: mock
spec: {to: [{pool: mock, weight: 1}], cache: {mode: exact, ttl_s: 300}}
---
kind: Tenant
name: acme
spec: {priority: standard, weight: 1, limits: {requests_per_minute: 600, tokens_per_minute: 100000, concurrency: 64, usd_per_day: 20}}
---
kind: Policy
name: default
spec: {capture: masked, audit: buffered, rules: [{name: cards, detect: payment_card, on: [input, output], do: mask}]}
---
kind: Key
name: acme-app
spec: {tenant: acme, models: [mock]}
"""


async def apply(house: House, text: str, query: str = "", status: int = 200) -> Any:
    response = await house.admin.post(
        f"/api/v1/apply{query}", content=text.encode(), headers={"content-type": "application/yaml"}
    )
    assert response.status_code == status, response.text
    return response.json()


def actions(answer: Any) -> dict[str, str]:
    return {f"{step['kind']}/{step['name']}": step["action"] for step in answer["steps"]}


async def test_apply_is_idempotent_and_reaches_the_snapshot(house: House) -> None:
    dry = await apply(house, STACK, "?dry_run=true")
    assert set(actions(dry).values()) == {"create"}
    assert (await house.get("/pools")) == []
    done = await apply(house, STACK)
    assert set(actions(done).values()) == {"create"}
    [told] = [step["told"] for step in done["steps"] if step["kind"] == "Key"]
    assert set(actions(await apply(house, STACK)).values()) == {"keep"}

    def there(snapshot: Snapshot | None) -> bool:
        return snapshot is not None and any(k.hash == hash_secret(told["key"]) for k in snapshot.keys)

    await eventually(lambda: there(house.publisher.current))
    snapshot = house.publisher.current
    assert snapshot is not None
    [pool] = [p for p in snapshot.pools if p.name == "mock"]
    assert [r.url for r in pool.replicas] == ["http://127.0.0.1:9100", "http://127.0.0.1:9101"]
    [route] = [r for r in snapshot.routes if r.name == "mock"]
    assert (route.to[0].pool, route.cache.mode, route.policy) == ("mock", "exact", "default")
    [tenant] = [t for t in snapshot.tenants if t.name == "acme"]
    assert tenant.limits.usd_per_day == 20
    assert snapshot.policies[0].rules[0].detect == "payment_card"
    assert told["key"] not in str(snapshot)


async def test_how_a_pools_queue_is_served_reaches_the_snapshot(house: House) -> None:
    spec = "{adopt: ['http://127.0.0.1:9100'], queue: {output_cost: 4, bypass: 8, deadline_s: {batch: 300}}}"
    await apply(house, f"kind: Pool\nname: mock\nspec: {spec}")

    def found() -> Pool | None:
        current = house.publisher.current
        return next((pool for pool in current.pools if pool.name == "mock"), None) if current is not None else None

    await eventually(lambda: found() is not None)
    pool = found()
    assert pool is not None
    assert pool.queue == QueuePolicy(output_cost=4.0, bypass=8, deadline_s={"batch": 300.0})
    for wrong, path in (("bypass: 1", "bypass"), ("deadline_s: {vip: 3}", "deadline_s"), ("headrom: 1", "headrom")):
        told = await apply(
            house, f"kind: Pool\nname: mock\nspec: {{adopt: ['http://a:1'], queue: {{{wrong}}}}}", "", 400
        )
        assert f"spec.queue.{path}" in told["error"]["message"]


async def test_apply_shows_what_differs_and_prunes_what_it_made(house: House) -> None:
    await house.post("/pools", {"name": "by-hand", "spec": {"adopt": ["http://127.0.0.1:1"]}})
    await apply(house, STACK)
    changed = STACK.replace("ttl_s: 300", "ttl_s: 60")
    shown = await apply(house, changed, "?dry_run=true")
    [step] = [s for s in shown["steps"] if s["kind"] == "Route"]
    assert step["changes"] == {"spec.cache.ttl_s": [300.0, 60.0]}
    rest = STACK.split("---", maxsplit=1)[0]
    pruned = await apply(house, rest, "?prune=true")
    assert actions(pruned) == {
        "Pool/mock": "keep",
        "Key/acme-app": "delete",
        "Route/mock": "delete",
        "Tenant/acme": "delete",
        "Policy/default": "delete",
    }
    assert [p["name"] for p in await house.get("/pools")] == ["by-hand", "mock"]


WRONG = [
    ("kind: Pool\nname: a\nspec: {adopted: []}", "spec.adopted"),
    ("kind: Tenant\nname: a\nspec: {limits: {rpm: 1}}", "spec.limits.rpm"),
    ("kind: Route\nname: a\nspec: {to: [{pool: none}]}", "spec.to.0.pool"),
    ("kind: Route\nname: a\nspec: {to: [{pool: none, wieght: 1}]}", "spec.to.0.wieght"),
    ("kind: Pool\nname: a\nspec: {adopt: ['ftp://x']}", "spec.adopt"),
    ("kind: Pool\nname: a\nspec: {build: 'no reference'}", "spec.build"),
    ("kind: Pool\nname: a\nspec: {}", "spec"),
    ("kind: Tenant\nname: a\nspec: {weight: heavy}", "spec.weight"),
    ("kind: Pool\nname: a\nspec: {adopt: ['http://a:80#b']}", "spec.adopt"),
    ("kind: Pool\nname: a\nspec: {adopt: ['http://a b:80']}", "spec.adopt"),
    ("kind: Pool\nname: a\nspec: {adopt: ['http://%20:80']}", "spec.adopt"),
    ("kind: Pool\nname: a\nspec: {adopt: ['http://a:0x50']}", "spec.adopt"),
    (
        "kind: Policy\nname: a\nspec: {rules: [{name: r, detect: pattern, patterns: ['(']}]}",
        "spec.rules.r.patterns",
    ),
    (
        "kind: Policy\nname: a\nspec: {rules: [{name: r, detect: pattern, patterns: ['(?=a)b']}]}",
        "spec.rules.r.patterns",
    ),
    ("kind: Tenant\nname: a\nspec: {limits: {usd_per_day: 1.0e+308}}", "spec.limits.usd_per_day"),
    ("kind: Tenant\nname: a\nspec: {limits: {usd_per_day: .inf}}", "spec.limits.usd_per_day"),
    (
        "kind: Tenant\nname: a\nspec: {limits: {requests_per_minute: 1000000000000000000000000}}",
        "spec.limits.requests_per_minute",
    ),
    ("kind: Key\nname: k\nspec: {roles: [analyst], expires_at: .nan}", "spec.expires_at"),
    ("kind: Wish\nname: a", "kind"),
    ("kind: Pool\nname: A B\nspec: {}", "name"),
    ("kind: Pool\nname: a\nsepc: {}", "sepc"),
    ("kind: [", "body"),
    ("[" * 3000, "body"),
    ("- 1", None),
    ("kind: Key\nname: k\nspec: {tenant: nobody}", "tenant"),
]


async def test_what_is_wrong_is_named_by_its_path_and_nothing_is_changed(
    small_house: House, subtests: pytest.Subtests
) -> None:
    good = "kind: Tenant\nname: good\nspec: {}\n---\n"
    for text, param in WRONG:
        with subtests.test(text[:100]):
            refused = await apply(small_house, good + text, status=400)
            assert refused["error"]["param"] == param
            assert [t["name"] for t in await small_house.get("/tenants")] == []


async def test_resources_are_created_replaced_and_removed(house: House) -> None:
    made = await house.post("/tenants", {"name": "acme", "spec": {"weight": 2}})
    assert made["spec"]["weight"] == 2
    assert (await house.post("/tenants", {"name": "acme"}, status=409))["error"]["code"] == "conflict"
    put = await house.admin.put("/api/v1/tenants/acme", json={"name": "acme", "spec": {"priority": "premium"}})
    assert put.json()["spec"]["priority"] == "premium"
    assert (await house.admin.put("/api/v1/tenants/acme", json={"name": "other"})).status_code == 400
    key = await house.post("/keys", {"name": "app", "tenant": "acme"})
    busy = await house.admin.delete("/api/v1/tenants/acme")
    assert busy.status_code == 409
    assert key["id"] in busy.json()["error"]["message"]
    await house.post(f"/keys/{key['id']}/revoke", status=200)
    assert (await house.admin.delete("/api/v1/tenants/acme")).status_code == 204
    await house.get("/tenants/acme", status=404)
    names = {e["name"] for e in await house.get("/environments")}
    assert names == {"dev", "staging", "production"}
    assert (await house.admin.delete("/api/v1/environments/staging")).status_code == 409


async def test_a_pool_in_use_stays(small_house: House) -> None:
    await apply(small_house, STACK)
    refused = await small_house.admin.delete("/api/v1/pools/mock")
    assert refused.status_code == 409
    assert "the route mock" in refused.json()["error"]["message"]
    assert (await small_house.admin.delete("/api/v1/policies/default")).status_code == 204


async def test_a_key_is_told_once_and_refused_when_revoked(house: House) -> None:
    made = await house.post("/keys", {"name": "ana", "roles": ["analyst"]})
    assert made["key"].startswith("pk-")
    assert len(made["key"]) == 46
    async with house.client(made["key"]) as ana:
        me = (await ana.get("/api/v1/me")).json()
        assert (me["name"], me["roles"], me["tenant"]) == ("ana", ["analyst"], None)
        assert made["key"] not in (await house.admin.get("/api/v1/keys")).text
        await house.post(f"/keys/{made['id']}/revoke", status=200)
        gone = await ana.get("/api/v1/me")
        assert (gone.status_code, gone.json()["error"]["code"]) == (401, "invalid_api_key")
        assert gone.headers["www-authenticate"] == "Bearer"


async def test_an_expired_key_is_refused(small_house: House) -> None:
    made = await small_house.post("/keys", {"name": "old", "roles": ["analyst"], "expires_at": 1.0})
    async with small_house.client(made["key"]) as old:
        assert (await old.get("/api/v1/me")).status_code == 401


async def test_a_principals_keys_carry_its_roles_until_it_is_disabled(house: House) -> None:
    await house.post("/principals", {"name": "olga", "roles": ["operator"]})
    made = await house.post("/keys", {"name": "olga-laptop", "principal": "olga"})
    async with house.client(made["key"]) as olga:
        assert (await olga.get("/api/v1/me")).json()["name"] == "olga"
        assert (await olga.get("/api/v1/deployments")).status_code == 200
        await house.post("/principals/olga/disable", status=200)
        assert (await olga.get("/api/v1/me")).status_code == 401


async def test_the_last_admins_key_cannot_be_revoked(small_house: House) -> None:
    [admin] = await small_house.get("/keys")
    assert (await small_house.post(f"/keys/{admin['id']}/revoke", status=409))["error"]["code"] == "conflict"


async def test_the_last_admin_stays_one(small_house: House) -> None:
    await small_house.post("/keys", {"name": "gone", "roles": ["admin"], "expires_at": 1.0})  # it does not count
    [admin] = [key for key in await small_house.get("/keys") if key["name"] != "gone"]
    assert (await small_house.post(f"/keys/{admin['id']}/revoke", status=409))["error"]["code"] == "conflict"
    await apply(small_house, f"kind: Key\nname: {admin['name']}\nspec: {{roles: [analyst]}}", status=409)
    await apply(small_house, f"kind: Key\nname: {admin['name']}\nspec: {{roles: [admin], expires_at: 1}}", status=409)
    await small_house.post("/principals", {"name": "ada", "roles": ["admin"]})
    await small_house.post("/keys", {"name": "adas", "principal": "ada"})
    await small_house.post(f"/keys/{admin['id']}/revoke", status=200)
    assert (await small_house.get("/keys", status=401))["error"]["code"] == "invalid_api_key"


DOORS = [
    ("developer", "POST", "/api/v1/promote", False),
    ("operator", "POST", "/api/v1/promote", True),
    ("developer", "POST", "/api/v1/models/m/uploads", True),
    ("analyst", "POST", "/api/v1/models/m/uploads", False),
    ("operator", "POST", "/api/v1/tenants", False),
    ("operator", "POST", "/api/v1/pools", True),
    ("analyst", "POST", "/api/v1/pools", False),
    ("operator", "POST", "/api/v1/keys", False),
    ("analyst", "GET", "/api/v1/audit", False),
    ("auditor", "GET", "/api/v1/audit", True),
    ("auditor", "GET", "/api/v1/keys", True),
    ("analyst", "GET", "/api/v1/models", True),
]


async def test_roles_open_what_they_should(small_house: House, subtests: pytest.Subtests) -> None:
    for number, (role, method, path, allowed) in enumerate(DOORS):
        with subtests.test(role=role, method=method, path=path, allowed=allowed):
            made = await small_house.post("/keys", {"name": f"someone-{number}", "roles": [role]})
            async with small_house.client(made["key"]) as someone:
                response = await someone.request(method, path, json={} if method == "POST" else None)
            if allowed:
                assert response.status_code not in {401, 403}, response.text
            else:
                assert response.status_code == 403
                assert response.json()["error"]["code"] == "permission_denied"


@pytest.mark.parametrize("path", ["tenants/a%00", "models/%00", "keys?tenant=%00"])
async def test_an_address_with_a_nul_is_refused(small_house: House, path: str) -> None:
    assert (await small_house.admin.get(f"/api/v1/{path}")).status_code == 400


async def test_what_is_nested_too_deep_is_refused(small_house: House) -> None:
    deep = b'{"documents": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    refused = await small_house.admin.post("/api/v1/apply", content=deep, headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "body")


async def test_what_those_send_who_may_apply_nothing_is_not_parsed(small_house: House) -> None:
    made = await small_house.post("/keys", {"name": "aud", "roles": ["auditor"]})
    async with small_house.client(made["key"]) as auditor:
        refused = await auditor.post("/api/v1/apply", content=b"kind: [")
    assert refused.status_code == 403


async def test_apply_needs_the_permission_of_each_kind(small_house: House) -> None:
    made = await small_house.post("/keys", {"name": "op", "roles": ["operator"]})
    async with small_house.client(made["key"]) as operator:
        refused = await operator.post("/api/v1/apply", content=STACK)
        assert refused.status_code == 403
        alone = await operator.post("/api/v1/apply", content=STACK.split("---", maxsplit=1)[0])
        assert alone.status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_api_key"),
        ({"authorization": "Basic eA=="}, "invalid_api_key"),
        ({"authorization": "Bearer pk-x"}, "invalid_api_key"),
    ],
)
async def test_without_a_valid_key_nothing_is_told(small_house: House, headers: dict[str, str], code: str) -> None:
    async with small_house.client(None) as nobody:
        for path in ("/api/v1/me", "/api/v1/models", "/api/v1/keys", "/api/v1/audit"):
            refused = await nobody.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, code)
        assert (await nobody.get("/healthz")).status_code == 200
        assert (await nobody.get("/internal/v1/snapshot")).status_code == 401


async def test_errors_of_the_framework_have_the_same_shape(small_house: House) -> None:
    for method, path, status in (("GET", "/api/v1/nothing", 404), ("DELETE", "/api/v1/me", 405)):
        answer = await small_house.admin.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    bad = await small_house.admin.post("/api/v1/keys", json={"name": "k", "limits": {"concurrency": "many"}})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "limits.concurrency")
    unknown = await small_house.admin.post("/api/v1/keys", json={"name": "k", "rolls": []})
    assert (unknown.json()["error"]["code"], unknown.json()["error"]["param"]) == ("unknown_field", "rolls")
    broken = await small_house.admin.post("/api/v1/keys", content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400


async def test_every_change_is_in_the_audit_trail(house: House) -> None:
    await house.post("/tenants", {"name": "acme"})
    key = await house.post("/keys", {"name": "app", "tenant": "acme"})
    events = await house.get("/audit")
    assert [e["sequence"] for e in events] == sorted((e["sequence"] for e in events), reverse=True)
    assert [(e["action"], e["subject"], e["principal"]) for e in events[:2]] == [
        ("key.create", key["id"], "admin"),
        ("tenant.put", "acme", "admin"),
    ]
    assert key["key"] not in str(events)


async def test_the_api_describes_itself(small_house: House) -> None:
    async with small_house.client(None) as nobody:
        described = (await nobody.get("/api/v1/openapi.json")).json()
        assert "/api/v1/promote" in described["paths"]
        assert not any(path.startswith("/internal") for path in described["paths"])
        await nobody.get("/api/v1/nothing")
        metrics = (await nobody.get("/metrics")).text
    assert "penstock_control_requests_total" in metrics
    assert 'route="other"' in metrics


async def test_a_body_that_is_too_long_is_refused(small_house: House) -> None:
    for path in ("/api/v1/apply", "/api/v1/keys"):
        refused = await small_house.admin.post(path, content=b" " * ((8 << 20) + 1))
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_stranger_is_not_listened_to_for_ever(small_house: House) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"holder": "'
        while sent < 64 << 20:
            sent += 1 << 20
            yield b"a" * (1 << 20)

    async with small_house.client(None) as nobody:
        headers = {"content-type": "application/json"}
        refused = await nobody.post("/internal/v1/evaluations/claim", content=endless(), headers=headers)
    assert (refused.status_code, sent) == (413, 32 << 20)
