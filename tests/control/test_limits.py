"""Limits from what people write to what gateways read."""

import pytest

from penstock.core.snapshot import Limits, Snapshot
from tests.control.house import House, eventually
from tests.control.test_resources import apply

STACK = """
kind: Pool
name: mock
spec: {adopt: ["http://127.0.0.1:9100"]}
---
kind: Policy
name: strict-money
spec: {ledger_down: closed}
---
kind: Route
name: dear
spec: {to: [{pool: mock}], policy: strict-money, limits: {concurrency: 7, requests_per_month: 5000, usd_per_minute: 0.5}}
---
kind: Tenant
name: acme
spec:
  limits: {requests_per_day: 900, tokens_per_month: 7000000, usd_per_minute: 1, usd_per_day: 20, usd_per_month: 300}
  model_limits: {dear: {tokens_per_minute: 1000, tokens_per_day: 20000}}
---
kind: Key
name: acme-app
spec: {tenant: acme, model_limits: {dear: {requests_per_minute: 5}, "other@staging": {usd_per_month: 2.5}}}
"""


async def test_limits_of_key_tenant_and_model_reach_the_snapshot(house: House) -> None:
    await apply(house, STACK)
    again = await apply(house, STACK)
    assert {step["action"] for step in again["steps"]} == {"keep"}

    def whole(snapshot: Snapshot | None) -> bool:
        return snapshot is not None and bool(snapshot.keys and snapshot.tenants and snapshot.policies)

    await eventually(lambda: whole(house.publisher.current))
    snapshot = house.publisher.current
    assert snapshot is not None
    [route] = [r for r in snapshot.routes if r.name == "dear"]
    assert route.limits == Limits(concurrency=7, requests_per_month=5000, usd_per_minute=0.5)
    [tenant] = [t for t in snapshot.tenants if t.name == "acme"]
    money = {"usd_per_minute": 1.0, "usd_per_day": 20.0, "usd_per_month": 300.0}
    assert tenant.limits == Limits(requests_per_day=900, tokens_per_month=7_000_000, **money)  # type: ignore[arg-type]
    assert tenant.model_limits == {"dear": Limits(tokens_per_minute=1000, tokens_per_day=20_000)}
    [key] = [k for k in snapshot.keys if k.tenant == "acme"]
    assert key.model_limits == {"dear": Limits(requests_per_minute=5), "other@staging": Limits(usd_per_month=2.5)}
    assert {p.name: p.ledger_down for p in snapshot.policies}["strict-money"] == "closed"


WRONG = [
    ("kind: Tenant\nname: a\nspec: {model_limits: {m: {rpm: 1}}}", "spec.model_limits.m.rpm"),
    ("kind: Tenant\nname: a\nspec: {limits: {usd_per_month: -1}}", "spec.limits.usd_per_month"),
    ("kind: Tenant\nname: a\nspec: {limits: {tokens_per_day: 1.5}}", "spec.limits.tokens_per_day"),
    ("kind: Policy\nname: a\nspec: {ledger_down: ajar}", "spec.ledger_down"),
]


async def test_a_wrong_limit_is_refused_by_its_path(small_house: House, subtests: pytest.Subtests) -> None:
    for text, param in WRONG:
        with subtests.test(text=text, param=param):
            answer = await apply(small_house, text, status=400)
            assert answer["error"]["param"].endswith(param)
