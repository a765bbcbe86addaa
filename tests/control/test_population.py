"""Who takes part and what an arm is, from `penstock apply` to the worker that decides; and what is refused on the way."""

from typing import Any

import pytest

from penstock.core.snapshot import Audience, Cascade, ExperimentEntry, Slice, Snapshot
from penstock.gateway.index import Index
from tests.control.house import House, apply, eventually

STACK = """
kind: Pool
name: small
spec: {adopt: ["http://127.0.0.1:9100"]}
---
kind: Pool
name: large
spec: {adopt: ["http://127.0.0.1:9101"]}
---
kind: Policy
name: careful
spec: {rules: [{name: cards, detect: payment_card, on: [input, output], do: mask}]}
---
kind: Route
name: bot
spec: {to: [{pool: large}], cascade: {first: {pool: small}, then: {pool: large}, min_mean_logprob: -0.5}}
---
kind: Route
name: cat
spec: {to: [{pool: large}]}
---
kind: Experiment
name: tone
spec:
  strategy: ab
  hypothesis: "it is better"
  route: bot
  unit: user
  targeting: {tenants: [acme], headers: {X-Plan: gold}, metadata: {tier: pro}}
  namespace: {name: tone, range: [0, 0.5]}
  holdout: {name: winter, share: 0.05}
  coverage: 0.5
  arms:
    - {name: control, pool: large}
    - {name: thrifty, pool: large, policy: careful, params: {temperature: 0.2}, routing: {cascade: {first: small, min_mean_logprob: -0.3}}}
  primary: {metric: success, minimum_effect: 0.05}
"""


def entry_of(snapshot: Snapshot | None, route: str = "bot") -> ExperimentEntry | None:
    routes = snapshot.routes if snapshot is not None else ()
    return next((one.experiment for one in routes if one.name == route), None)


async def begun(house: House, name: str = "tone") -> dict[str, Any]:
    told: dict[str, Any] = await house.post(f"/experiments/{name}/start", status=200)
    return told


async def test_what_a_document_says_of_its_population_and_its_arms_decides_at_the_gateway(small_house: House) -> None:
    house = small_house
    await apply(house, STACK)
    await begun(house)
    await eventually(lambda: entry_of(house.publisher.current) is not None)
    entry = entry_of(house.publisher.current)
    assert entry is not None and house.publisher.current is not None
    assert entry.audience == Audience(tenants=("acme",), headers={"x-plan": "gold"}, metadata={"tier": "pro"})
    assert (entry.namespace, entry.holdout) == (Slice(name="tone", high=0.5), Slice(name="winter", high=0.05))
    assert [arm.ranges for arm in entry.arms] == [((0.0, 0.25),), ((0.5, 0.75),)]
    assert entry.arms[1].cascade == Cascade(first="small", then="large", min_mean_logprob=-0.3)
    way = Index(house.publisher.current).routes["bot"]
    assert way.assigner is not None and way.assigner.gate is not None and way.cascade is not None
    thrifty = way.arms["thrifty"]
    assert thrifty.cascade is not None
    assert (thrifty.cascade.first.entry.pool.name, thrifty.cascade.then) == ("small", thrifty)
    assert thrifty.rules is not None and thrifty.rules.policy.name == "careful"
    assert way.arms["control"].cascade is None
    told = {b"x-plan": b"gold"}
    shut = [way.assigner.gate.why_not("acme", told, {"tier": "pro"}, f"u{number}") for number in range(2000)]
    assert {"", "namespace", "holdout"} == set(shut)
    assert 0.42 < shut.count("") / 2000 < 0.55
    assert way.assigner.gate.why_not("other", told, {"tier": "pro"}, "u1") == "audience"
    again = await apply(house, STACK)
    assert {step["action"] for step in again["steps"]} == {"keep"}, again


OTHER = (
    STACK.rsplit("---\n", maxsplit=1)[-1]
    .replace("name: tone\nspec", "name: other\nspec")
    .replace("route: bot", "route: cat")
)


async def test_experiments_of_one_namespace_that_overlap_do_not_run_together(small_house: House) -> None:
    house = small_house
    await apply(house, STACK)
    await apply(house, OTHER.replace("[0, 0.5]", "[0.4, 0.9]"))
    await begun(house)
    refused = await house.post("/experiments/other/start", status=409)
    assert refused["error"]["param"] == "namespace.range"
    assert "'tone' has a part of 0.4 to 0.9" in refused["error"]["message"]
    await apply(house, OTHER.replace("[0, 0.5]", "[0.5, 1]"))
    await begun(house, "other")


CANNOT_BE = [
    ("temperature: 0.2", "temperature: 2.2", "spec.arms[1].params.temperature"),
    ("temperature: 0.2", "max_tokens: many", "spec.arms[1].params.max_tokens"),
    ("first: small", "first: large", "spec.arms[1].routing.cascade.first"),
    ("range: [0, 0.5]", "range: [0.5, 0]", "spec.namespace.range"),
    ("share: 0.05", "share: 5", "spec.holdout.share"),
    ("holdout: {name: winter", "holdout: {name: tone", "seed"),
    ("tenants: [acme]", "tenants: [acme, acme]", "spec.targeting.tenants"),
]


async def test_what_cannot_be_is_refused_by_its_path_when_it_is_applied(
    small_house: House, subtests: pytest.Subtests
) -> None:
    for old, new, param in CANNOT_BE:
        with subtests.test(param, new=new):
            answer = await apply(small_house, STACK.replace(old, new), 400)
            assert param in answer["error"]["message"]


@pytest.mark.parametrize(
    ("old", "new", "param"),
    [
        ("first: small, min_mean_logprob: -0.3", "first: nobody", "arms[1].routing.cascade.first"),
        ("first: small, min_mean_logprob: -0.3", "first: small, patterns: ['(a']", "arms[1].routing.cascade.patterns"),
        ("policy: careful", "policy: careless", "arms[1].policy"),
    ],
)
async def test_what_is_not_there_is_refused_by_its_path_when_it_starts(
    small_house: House, old: str, new: str, param: str
) -> None:
    await apply(small_house, STACK.replace(old, new))
    refused = await small_house.post("/experiments/tone/start", status=400)
    assert refused["error"]["param"] == param
