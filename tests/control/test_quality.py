"""What engines are to tell of their answers, from `apply` and a version's metadata to the Snapshot that gateways follow."""

import pytest

from penstock.control.figures.refusals import refusals_of
from penstock.control.versions.rows import new_version
from penstock.core.errors import BadRequest
from penstock.core.snapshot import QualityPolicy
from tests.control.house import House, apply, eventually

STACK = """
kind: Pool
name: own
spec: {adopt: ["http://127.0.0.1:9101"], dialect: penstock, quality: {share: 0.5, refusals: ["I can only", "^no$"]}}
---
kind: Pool
name: plain
spec: {adopt: ["http://127.0.0.1:9102"], dialect: penstock}
---
kind: Pool
name: foreign
spec: {adopt: ["http://127.0.0.1:9103"], quality: {share: 1}}
"""


async def test_what_is_declared_reaches_the_gateways(house: House) -> None:
    await apply(house, STACK)
    await eventually(lambda: house.publisher.current is not None and len(house.publisher.current.pools) == 3)
    current = house.publisher.current
    assert current is not None
    assert {pool.name: pool.quality for pool in current.pools} == {
        "own": QualityPolicy(share=0.5, refusals=("I can only", "^no$")),
        "plain": QualityPolicy(share=0.1),
        "foreign": QualityPolicy(),  # it speaks no dialect in which it could be asked
    }


WRONG = [
    ("{share: 1.5}", "spec.quality.share"),
    ('{refusals: ["fine", "("]}', "spec.quality.refusals.1"),
    ("{refusals: 7}", "spec.quality.refusals"),
    (f"{{refusals: [{'ä' * 400}, {'ö' * 400}]}}", "spec.quality.refusals"),
]


async def test_what_is_wrong_is_refused_by_its_path(small_house: House, subtests: pytest.Subtests) -> None:
    for quality, path in WRONG:
        with subtests.test(path, quality=quality[:60]):
            spec = f'{{adopt: ["http://127.0.0.1:1"], dialect: penstock, quality: {quality}}}'
            refused = await apply(small_house, f"kind: Pool\nname: own\nspec: {spec}\n", 400)
            assert path in refused["error"]["message"] or refused["error"]["param"].endswith(path)


def test_a_version_tells_its_refusals() -> None:
    files = {"openvino-int8/config.json": ("sha256:" + "ab" * 32, 2)}
    version = new_version("bot", "v1.0.0", files, {"refusals": ["I can only"]}, "k")
    assert refusals_of(version.metadata) == ("I can only",)
    assert refusals_of({"refusals": 7}) == refusals_of({}) == ()
    for wrong in (7, ["("], [""]):
        with pytest.raises(BadRequest, match="refusals"):
            new_version("bot", "v1.0.0", files, {"refusals": wrong}, "k")
