"""Bandits, shadows and interleaved experiments, from `penstock apply` to the Snapshot that gateways follow and compile."""

from typing import Any

from penstock.core.snapshot import Contexts, ExperimentEntry, InterleavePlan, ShadowPlan
from penstock.gateway.index import Index
from tests.control.house import House, apply, eventually

POOLS = "".join(
    f'kind: Pool\nname: {name}\nspec: {{adopt: ["http://127.0.0.1:{port}"]}}\n---\n'
    for name, port in (("old", 9200), ("new", 9201), ("judge", 9202))
)
ARMS = "arms: [{name: control, pool: old}, {name: new, pool: new}]"
STACK = f"""{POOLS}
kind: Route
name: one
spec: {{to: [{{pool: old}}]}}
---
kind: Route
name: two
spec: {{to: [{{pool: old}}]}}
---
kind: Route
name: three
spec: {{to: [{{pool: old}}]}}
---
kind: Experiment
name: bandit-1
spec:
  strategy: bandit
  hypothesis: "one of them is better"
  route: one
  unit: request
  {ARMS}
  primary: {{metric: latency, minimum_effect: 0.05}}
  guardrails: [{{metric: completion}}]
  bandit: {{algorithm: top_two, leader: 0.6, floor: 0.05, context: {{by: length, edges: [64, 256]}}}}
---
kind: Experiment
name: shadow-1
spec:
  strategy: shadow
  hypothesis: "one of them is better"
  route: two
  {ARMS}
  primary: {{metric: judged, minimum_effect: 0.1}}
  shadow: {{share: 0.3, queue: 9, in_flight: 2, deadline_s: 7, judge: judge, usd_per_hour: 5}}
---
kind: Experiment
name: interleaved-1
spec:
  strategy: interleaved
  hypothesis: "one of them is better"
  route: three
  {ARMS}
  primary: {{metric: preference, minimum_effect: 0.1}}
  interleaved: {{share: 0.2, show: draft, patience_s: 2, budget_usd: 9}}
"""


async def test_the_strategies_reach_the_gateways(small_house: House) -> None:
    house = small_house
    await apply(house, STACK)
    for name in ("bandit-1", "shadow-1", "interleaved-1"):
        started = await house.admin.post(f"/api/v1/experiments/{name}/start")
        assert started.status_code == 200, started.text

    def told() -> dict[str, ExperimentEntry]:
        snapshot = house.publisher.current
        routes = snapshot.routes if snapshot is not None else ()
        return {route.name: route.experiment for route in routes if route.experiment is not None}

    await eventually(lambda: len(told()) == 3)
    entries = told()
    bandit, shadow, interleaved = entries["one"], entries["two"], entries["three"]
    assert isinstance(bandit.contexts, Contexts)
    assert [cell.name for cell in bandit.contexts.cells] == ["0-63", "64-255", "256-"]
    assert bandit.contexts.cells[0].ranges == {"control": ((0.0, 0.5),), "new": ((0.5, 1.0),)}
    assert bandit.seed == "bandit-1:1"
    assert shadow.shadow == ShadowPlan(share=0.3, queue=9, in_flight=2, deadline_s=7.0, judge="judge")
    assert interleaved.interleave == InterleavePlan(share=0.2, show="draft", patience_s=2.0)
    assert house.publisher.current is not None
    index = Index(house.publisher.current)
    assert index.faults == []
    assigner: Any = index.routes["one"].assigner
    assert (assigner.contextual, assigner.context_of("acme", 100)) == (True, "64-255")

    wrong = STACK.replace("floor: 0.05", "floor: 0.9")
    refused = await apply(house, wrong, 400)
    assert refused["error"]["param"].endswith("bandit.floor")
