"""How replicas are chosen, left out and asked again: from a document to the Snapshot that gateways serve from."""

from penstock.core.snapshot import HealthPolicy, Pool, Route, Snapshot
from tests.control.house import House, eventually
from tests.control.test_resources import apply

STACK = """
kind: Pool
name: near
spec:
  adopt: ["http://127.0.0.1:9100", "http://127.0.0.1:9101"]
  affinity: session
  load_factor: 1.5
  answer_timeout_s: 120
  health: {failures: 3, pause_s: 2, probe_s: 1, probe_path: /ready, slow_start_s: 30, slow_factor: 0, retry_share: 0.1}
---
kind: Pool
name: far
spec: {adopt: ["http://127.0.0.1:9102"]}
---
kind: Route
name: chat
spec: {to: [{pool: near}], attempts: 2, fallback: [far, "bot@production"], hedge_after_s: 0.25}
"""


def found(snapshot: Snapshot | None) -> tuple[Route, Pool, Pool] | None:
    if snapshot is None:
        return None
    routes = {route.name: route for route in snapshot.routes}
    pools = {pool.name: pool for pool in snapshot.pools}
    return (routes["chat"], pools["near"], pools["far"]) if "chat" in routes else None


async def test_what_a_document_says_reaches_the_snapshot(house: House) -> None:
    await apply(house, STACK)
    await eventually(lambda: found(house.publisher.current) is not None)
    there = found(house.publisher.current)
    assert there is not None
    route, near, far = there
    assert (route.attempts, route.fallback, route.hedge_after_s) == (2, ("far", "bot@production"), 0.25)
    assert (near.affinity, near.load_factor, near.answer_timeout_s) == ("session", 1.5, 120.0)
    assert near.health == HealthPolicy(
        failures=3, pause_s=2, probe_s=1, probe_path="/ready", slow_start_s=30, slow_factor=0, retry_share=0.1
    )
    assert (far.affinity, far.load_factor, far.health) == ("prefix", 1.25, HealthPolicy())
    [missing] = [pool for pool in house.publisher.current.pools if pool.name == "bot@production"]  # type: ignore[union-attr]
    assert missing.replicas == (), "what is not there yet is passed over"


WRONG = {
    "load_factor: 0.9": "spec.load_factor",
    "affinity: sticky": "spec.affinity",
    "health: {failures: 0}": "spec.health.failures",
    "health: {probe_path: ready}": "spec.health.probe_path",
    "health: {patience: 1}": "spec.health.patience",
}


async def test_a_wrong_value_is_named(house: House) -> None:
    for wrong, path in WRONG.items():
        told = await apply(house, f"kind: Pool\nname: x\nspec: {{adopt: ['http://h:1'], {wrong}}}", status=400)
        assert path in told["error"]["message"]
    for wrong in ("nobody", "bot@nowhere"):
        text = STACK.replace('[far, "bot@production"]', f'["{wrong}"]')
        told = await apply(house, text, status=400)
        assert "spec.fallback.0" in told["error"]["message"]


async def test_a_pool_that_is_fallen_back_to_stays(house: House) -> None:
    await apply(house, STACK)
    response = await house.admin.delete("/api/v1/pools/far")
    assert response.status_code == 409
    assert "chat" in response.json()["error"]["message"]
