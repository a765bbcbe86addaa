"""What makes requests cheaper, from `apply` to the Snapshot that gateways follow; and prices."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from penstock.cli.explain import _cascade
from penstock.control.api.statistics import exchange_told
from penstock.control.deploy.snapshot import compile_snapshot
from penstock.control.deploy.state import BuildInfo, State, price_of
from penstock.control.specs.resources import PoolSpec, PriceSpec
from penstock.core.exchange import Exchange, Usage
from penstock.core.snapshot import CachePolicy, Cascade, ChooseRule, Price, Route, Snapshot, Trim
from penstock.delivery.pools import BuildKey
from penstock.gateway.index import Index
from tests.control.house import House, apply, eventually

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"
STACK = """
kind: Pool
name: small
spec: {adopt: ["http://127.0.0.1:9100"], price: {prompt: 1, completion: 2}}
---
kind: Pool
name: large
spec: {adopt: ["http://127.0.0.1:9101"]}
---
kind: Route
name: bot
spec:
  to: [{pool: large}]
  choose:
    - {pool: small, max_prompt_tokens: 50, tools: false, headers: {x-tier: free}, tenants: [acme], last_user: "^hi"}
    - {model: coder, min_answer_tokens: 2000, metadata: {team: dev}}
  cascade: {first: {pool: small}, then: {pool: large}, min_mean_logprob: -0.1, patterns: ["(?i)sorry"], control_share: 0.01}
  trim: {budget_tokens: 1000, keep_last: 2}
  max_tokens: 256
  default_max_tokens: 128
  coalesce: true
  cache: {mode: exact, tools: true}
"""


async def test_the_levers_reach_the_gateways(small_house: House) -> None:
    house = small_house
    await apply(house, STACK)

    def route(snapshot: Snapshot | None) -> Route | None:
        return next((one for one in snapshot.routes if one.name == "bot"), None) if snapshot is not None else None

    await eventually(lambda: route(house.publisher.current) is not None)
    snapshot = house.publisher.current
    found = route(snapshot)
    assert snapshot is not None
    assert found is not None
    assert found.choose == (
        ChooseRule(
            pool="small",
            max_prompt_tokens=50,
            tools=False,
            headers={"x-tier": "free"},
            tenants=("acme",),
            last_user="^hi",
        ),
        ChooseRule(pool="coder@production", min_answer_tokens=2000, metadata={"team": "dev"}),
    )
    assert found.cascade == Cascade(
        first="small", then="large", min_mean_logprob=-0.1, patterns=("(?i)sorry",), control_share=0.01
    )
    assert found.trim == Trim(budget_tokens=1000, keep_last=2)
    assert (found.max_tokens, found.default_max_tokens, found.coalesce) == (256, 128, True)
    assert found.cache == CachePolicy(mode="exact", tools=True)
    prices = {pool.name: pool.price for pool in snapshot.pools}
    assert prices == {"small": Price(prompt=1, completion=2), "large": Price(), "coder@production": Price()}
    Index(snapshot)  # a gateway can read it
    assert (await house.admin.delete("/api/v1/pools/small")).status_code == 409


UNUSABLE = [
    ("{to: [{pool: large}], choose: [{pool: small, last_user: '(a'}]}", "spec.choose.0.last_user"),
    ("{to: [{pool: large}], choose: [{pool: nobody}]}", "spec.choose.0.pool"),
    ("{to: [{pool: large}], choose: [{pool: small, model: m}]}", "spec.choose.0"),
    ("{to: [{pool: large}], cascade: {first: {pool: small}, then: {pool: no}}}", "spec.cascade.then.pool"),
    (
        "{to: [{pool: large}], cascade: {first: {pool: small}, then: {pool: large}, patterns: ['[']}}",
        "spec.cascade.patterns.0",
    ),
    ("{to: [{pool: large}], cascade: {first: {pool: small}, then: {pool: large}, finish: []}}", "spec.cascade"),
    ("{to: [{pool: large}], trim: {budget_tokens: 0}}", "spec.trim.budget_tokens"),
    ("{to: [{pool: large}], max_tokens: 0}", "spec.max_tokens"),
]


async def test_what_gateways_could_not_use_is_refused_by_its_path(
    small_house: House, subtests: pytest.Subtests
) -> None:
    for spec, param in UNUSABLE:
        with subtests.test(spec=spec, param=param):
            pools = STACK.rpartition("---")[0]
            answer = await apply(small_house, f"{pools}---\nkind: Route\nname: bad\nspec: {spec}\n", 400)
            assert param in answer["error"]["message"]


async def test_the_pages_examples_can_be_applied(small_house: House) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    await apply(small_house, STACK.rpartition("---")[0])
    for block in blocks:
        await apply(small_house, block)


def test_a_version_tells_its_price_and_a_declared_pool_another() -> None:
    key = BuildKey(model="bot", label="v1.0.0", precision="int8")
    info = BuildInfo(key=key, digest="d", version_digest="v", folder="f", price=PriceSpec(prompt=1, completion=2))
    for spec, expected in ((PoolSpec(build="bot:v1.0.0"), 1.0), (PoolSpec(build="bot:v1.0.0", price=PriceSpec()), 0.0)):
        snapshot = compile_snapshot(State(generation=1, pools={"p": spec}, builds={key: info}), 0.0)
        [pool] = snapshot.pools
        assert (pool.name, pool.price.prompt) == (key.pool, expected)


def test_metadata_that_hold_no_price_price_nothing() -> None:
    assert price_of({"price": {"prompt": 0.5}}) == PriceSpec(prompt=0.5)
    for metadata in ({}, {"price": 3}, {"price": {"prompt": -1}}, {"price": {"per_page": 1}}):
        assert price_of(metadata) is None


def test_what_a_request_tells_of_its_cascade() -> None:
    exchange = Exchange(id="r", at=1.0, escalated=True, usage=Usage(20, 8), tried=Usage(9, 3), trimmed=2)
    told = exchange_told(msgspec.msgpack.encode(exchange))
    assert (told["escalated"], told["trimmed"]) == (True, 2)
    assert told["tried"] == {"prompt": 9, "completion": 3, "cached": 0}
    json.dumps({name: value for name, value in told.items() if name != "findings"})
    assert _cascade(told) == "the first model did not convince (9 prompt, 3 completion of the tokens)"
    assert _cascade(told | {"escalated": False}) is None


async def test_a_push_with_a_price_that_is_none_is_refused(small_house: House) -> None:
    body = {
        "label": "v1.0.0",
        "files": {"README.md": {"digest": "sha256:" + "0" * 64, "size": 1}},
        "metadata": {"price": {"prompt": "cheap"}},
        "idempotency_key": "k",
    }
    answer = await small_house.post("/models/m/uploads", body, status=400)
    assert answer["error"]["param"] == "metadata.price.prompt"
