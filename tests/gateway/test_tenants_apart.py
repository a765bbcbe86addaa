"""What keeps tenants apart at the engine: a salt of each tenant's own, and none of the client's making."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.snapshot import Cascade, Pool, Route, Target
from penstock.gateway.salt import tenant_salt
from tests.gateway.house import KEY, OTHER, running
from tests.gateway.raw_client import ask, chat, post

SECRET = bytes(32)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_tenant_has_its_own_salt(tmp_path: Path, stream: bool) -> None:
    async with running(tmp_path, pool={"dialect": "vllm"}) as house:
        for key in (KEY, OTHER, KEY):
            assert (await ask(house.port, chat("the same", key=key, stream=stream))).status == 200
        mine, others, again = (asked["cache_salt"] for asked in house.mock.asked)
        assert mine == again == tenant_salt(SECRET, "acme")
        assert others == tenant_salt(SECRET, "other")
        assert mine != others
        assert len(mine) == 43


@pytest.mark.parametrize("dialect", ["vllm", "openai", "penstock"])
@pytest.mark.parametrize(
    "written", [b'"cache_salt":"mine"', b'"cache_salt":null', b'"cache_salt":{"a":1}', b'"cache\\u005fsalt":"mine"']
)
async def test_a_clients_own_goes_no_further(tmp_path: Path, dialect: str, written: bytes) -> None:
    body = b'{"model":"mock","messages":[{"role":"user","content":"hi"}],%b,"x":[1.0]}' % written
    async with running(tmp_path, pool={"dialect": dialect}) as house:
        assert (await ask(house.port, post("/v1/chat/completions", body))).status == 200
        (asked,) = house.mock.asked
        assert asked.get("cache_salt") == (tenant_salt(SECRET, "acme") if dialect == "vllm" else None)
        assert ("cache_salt" in asked) == (dialect == "vllm")
        assert asked["x"] == [1.0]


async def test_pools_that_share_have_no_salt(tmp_path: Path) -> None:
    async with running(tmp_path, pool={"dialect": "vllm", "prefix_cache": "shared"}) as house:
        for fields in ({}, {"cache_salt": "mine"}):
            body: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "hi"}], **fields}
            assert (await ask(house.port, post("/v1/chat/completions", msgspec.json.encode(body)))).status == 200
        assert not any("cache_salt" in asked for asked in house.mock.asked)


@pytest.mark.parametrize(("first", "then"), [("vllm", "openai"), ("openai", "vllm"), ("vllm", "vllm")])
async def test_a_pool_that_is_asked_next_is_given_what_it_takes(tmp_path: Path, first: str, then: str) -> None:
    """A cascade's second model, as any other pool: the salt goes with the pool, not with the request."""
    async with running(tmp_path, replicas=2, pool={"dialect": first}) as house:
        small, large = house.worker.gateway.index.snapshot.pools[0].replicas
        pools = tuple(
            Pool(name=name, replicas=(replica,), dialect=dialect)  # type: ignore[arg-type]
            for name, replica, dialect in (("pool", small, first), ("large", large, then))
        )
        cascade = Cascade(first="pool", then="large", patterns=("unsure",))
        route = Route(name="mock", to=(Target(pool="pool"),), cascade=cascade)
        house.take(pools=pools, routes=(route,))
        assert (await ask(house.port, chat("I am unsure"))).status == 200
        salts = [mock.asked[0].get("cache_salt") for mock in house.mocks]
        mine = tenant_salt(SECRET, "acme")
        assert salts == [mine if dialect == "vllm" else None for dialect in (first, then)]


def test_salts_depend_on_tenant_and_secret() -> None:
    assert len({tenant_salt(secret, tenant) for secret in (SECRET, b"x" * 32) for tenant in ("a", "b", "")}) == 6
