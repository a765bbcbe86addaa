"""A route's semantic cache, from its document to the Snapshot."""

from typing import Any

import pytest
from pydantic import ValidationError

from penstock.control.deploy.snapshot import compile_snapshot
from penstock.control.deploy.state import State
from penstock.control.specs.resources import PoolSpec, RouteSpec
from penstock.core.snapshot import SemanticPolicy, Snapshot
from penstock.gateway.index import Index
from tests.control.test_snapshot import BUILDS, deployment, replica


def compiled(cache: dict[str, Any]) -> Snapshot:
    route = RouteSpec.model_validate({"to": [{"pool": "mock"}], "cache": cache})
    pools = {
        "mock": PoolSpec(adopt=["http://127.0.0.1:2"]),
        "vectors": PoolSpec(adopt=["http://127.0.0.1:3"], model="words"),
    }
    found = State(
        generation=1,
        routes={"answers": route},
        pools=pools,
        deployments=(deployment("v1.0.0", "v1.0.0"),),
        builds=BUILDS,
        replicas=(replica("v1.0.0"),),
    )
    return compile_snapshot(found, 1.0)


def test_what_makes_the_vectors_is_a_pool_or_what_is_deployed() -> None:
    for named, pool in (
        ({"pool": "vectors"}, "vectors"),
        ({"model": "bot"}, "bot-v1.0.0-int8"),
        ({"model": "none"}, "none@production"),
    ):
        snapshot = compiled(
            {"mode": "semantic", "ttl_s": 60.0, "shared": False, "semantic": {**named, "threshold": 0.8}}
        )
        [route] = [one for one in snapshot.routes if one.name == "answers"]
        assert route.cache.semantic == SemanticPolicy(pool=pool, threshold=0.8)
        assert not route.cache.shared
        entry = Index(snapshot).routes["answers"].semantic
        assert entry is not None and entry.entry.pool.name == pool


def test_words_that_count_as_one_reach_the_gateway() -> None:
    snapshot = compiled({"mode": "semantic", "semantic": {"pool": "vectors", "same_words": [["sofa", "couch"]]}})
    entry = Index(snapshot).routes["answers"].semantic
    assert entry is not None and entry.same["couch"] == "sofa"


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        ({"mode": "semantic"}, "go together"),
        ({"mode": "exact", "semantic": {"pool": "vectors"}}, "go together"),
        ({"mode": "semantic", "semantic": {}}, "either 'pool' or 'model'"),
        ({"mode": "semantic", "semantic": {"pool": "vectors", "threshold": 0.2}}, "greater than or equal to 0.5"),
        ({"mode": "semantic", "semantic": {"pool": "vectors", "same_words": [["alone"]]}}, "at least 2"),
        ({"mode": "semantic", "semantic": {"pool": "vectors", "colour": 1}}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused(cache: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        compiled(cache)


def test_a_cache_of_the_very_same_questions_has_no_embedder() -> None:
    assert Index(compiled({"mode": "exact"})).routes["answers"].semantic is None
