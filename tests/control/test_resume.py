"""Which streams are resumed and what engines remember, from `apply` to the Snapshot that gateways follow."""

import pytest

from tests.control.house import House, apply, eventually

STACK = """
kind: Pool
name: gpu
spec: {adopt: ["http://127.0.0.1:9100"], dialect: vllm, prefix_cache: shared}
---
kind: Pool
name: own
spec: {adopt: ["http://127.0.0.1:9101"], dialect: penstock}
---
kind: Route
name: bot
spec: {to: [{pool: gpu}, {pool: own}], resume: true}
---
kind: Route
name: plain
spec: {to: [{pool: own}]}
"""


async def test_what_is_declared_reaches_the_gateways(house: House) -> None:
    await apply(house, STACK)

    def published() -> bool:
        return house.publisher.current is not None and len(house.publisher.current.routes) == 2

    await eventually(published)
    current = house.publisher.current
    assert current is not None
    assert {route.name: route.resume for route in current.routes} == {"bot": True, "plain": False}
    assert {pool.name: (pool.dialect, pool.prefix_cache) for pool in current.pools} == {
        "gpu": ("vllm", "shared"),
        "own": ("penstock", "separate"),
    }


WRONG = [
    ('{adopt: ["http://127.0.0.1:1"], dialect: sglang}', "dialect"),
    ('{adopt: ["http://127.0.0.1:1"], prefix_cache: "on"}', "prefix_cache"),
    ("{build: bot@production, dialect: vllm}", "'dialect' goes with 'adopt'"),
]


async def test_what_is_wrong_is_refused_by_its_path(small_house: House, subtests: pytest.Subtests) -> None:
    for spec, says in WRONG:
        with subtests.test(spec=spec, says=says):
            refused = await apply(small_house, f"kind: Pool\nname: gpu\nspec: {spec}\n", 400)
            assert says in refused["error"]["message"]
