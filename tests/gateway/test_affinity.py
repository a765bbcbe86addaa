"""Conversations stay where their beginning is known, over real sockets."""

from pathlib import Path
from typing import Any

import msgspec

from tests.gateway.house import KEY, OTHER, House, running
from tests.gateway.raw_client import ask, post

SYSTEM = {"role": "system", "content": "You answer questions about pumps. " * 20}


async def turn(house: House, number: int, turns: int, *, key: str = KEY, more: bytes = b"", **fields: Any) -> None:
    """The conversation's first `turns` questions."""
    messages = [SYSTEM]
    for index in range(turns):
        messages.append({"role": "user", "content": f"{number}: what of {index}? " + "x" * 300})
        messages.append({"role": "assistant", "content": "That depends. " * 10})
    body = {"model": "mock", "messages": messages[:-1], **fields}
    got = await ask(house.port, post("/v1/chat/completions", msgspec.json.encode(body), key=key, more=more))
    assert got.status == 200


def homes(house: House) -> list[str]:
    return [record.replica for record in house.exchanges()]


async def test_a_conversation_stays_where_it_began(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=4) as house:
        first = None
        for turns in range(1, 8):
            await turn(house, 1, turns)
            first = first or homes(house)[0]
        assert set(homes(house)) == {first}
        text = (await house.worker.app.collect(False)).decode()
        assert 'penstock_affinity_total{pool="pool",result="near",worker="w0"} 6.0' in text


async def test_equal_beginnings_of_another_tenant_are_looked_at_only_where_engines_share_them(tmp_path: Path) -> None:
    for shared, near in (("separate", 1), ("shared", 2)):
        async with running(tmp_path / shared, replicas=4, pool={"prefix_cache": shared}) as house:
            for key in (KEY, KEY, OTHER):
                await turn(house, 1, 1, key=key)
            assert house.worker.gateway.pools.all()[0].balancer.near == near


async def test_a_session_stays_whatever_it_asks(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=4, pool={"affinity": "session"}) as house:
        for name in ("one", "two", "three", "four", "five", "six"):
            for number in range(4):
                await turn(house, number, 1, more=b"x-penstock-session: %b\r\n" % name.encode())
        for name in ("ann", "bob"):
            for number in range(4):
                await turn(house, number, 1, user=name)
        found = homes(house)
        groups = [set(found[index : index + 4]) for index in range(0, len(found), 4)]
        assert all(len(group) == 1 for group in groups)
        assert len(set(found)) > 1


async def test_a_replica_alone_is_not_remembered(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        await turn(house, 1, 2)
        assert len(house.worker.gateway.pools.all()[0].balancer._prefixes) == 0
