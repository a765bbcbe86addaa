"""Replicas that are left out come back by themselves; those that nobody asks are looked after."""

import asyncio
import time
from pathlib import Path

from penstock.core.snapshot import HealthPolicy
from tests.gateway.house import House, running, until
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import ask, chat

QUICK = HealthPolicy(probe_s=0.1, slow_start_s=0.2, pause_s=60.0, longest_pause_s=60.0)


async def states(house: House) -> dict[str, str]:
    """Each replica's state, as `/metrics` tells it."""
    text = (await house.worker.app.collect(False)).decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("penstock_replica_state{") and line.endswith(" 1.0"):
            found[line.split('replica="')[1].split('"')[0]] = line.split('state="')[1].split('"')[0]
    return found


async def reaches(house: House, **wanted: str) -> None:
    """Waits until the states are `wanted`."""
    members = house.worker.gateway.pools.all()[0].balancer.members
    await until(lambda: {one.replica.id: one.condition(time.monotonic()) for one in members} == wanted)
    assert await states(house) == wanted


async def test_an_idle_replica_that_says_it_is_not_well_is_left_out_until_it_is(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=2, pool={"health": QUICK}) as house:
        assert await states(house) == {"r0": "up", "r1": "up"}
        house.mocks[0].health = 503
        await reaches(house, r0="out", r1="up")
        for _ in range(5):
            assert (await ask(house.port, chat("hello"))).status == 200
        assert not house.mocks[0].asked
        house.mocks[0].health = 200
        await until(lambda: house.worker.gateway.pools.all()[0].balancer.members[0].out_until == 0.0)
        text = (await house.worker.app.collect(False)).decode()
        assert 'penstock_replica_ejections_total{pool="pool",reason="probe",replica="r0",worker="w0"} 1.0' in text


async def test_a_replica_that_went_away_and_came_back_serves_again(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=2, pool={"health": QUICK}) as house:
        gone = house.mocks[0]
        port = gone.server.port
        await gone.stop()
        for _ in range(12):
            assert (await ask(house.port, chat("hello"))).status == 200
        await reaches(house, r0="out", r1="up")
        back = MockUpstream()
        await back.server.start("127.0.0.1", port)
        try:
            member = house.worker.gateway.pools.all()[0].balancer.members[0]
            await until(lambda: member.out_until == 0.0)
            while not back.asked:
                assert (await ask(house.port, chat("hello"))).status == 200
        finally:
            await back.stop()


async def test_a_server_without_such_a_path_is_a_server_that_answers(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=2, pool={"health": QUICK}) as house:
        for mock, health in zip(house.mocks, (404, 401), strict=True):
            mock.health = health
        await until(lambda: all(mock.probed > 3 for mock in house.mocks))
        assert await states(house) == {"r0": "up", "r1": "up"}


async def test_a_replica_that_is_far_slower_than_its_peers_is_left_out(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=3, pool={"health": QUICK, "affinity": "off"}) as house:
        house.mocks[0].pause_s = 0.3
        balancer = house.worker.gateway.pools.all()[0].balancer
        while not balancer.ejections:
            got = await asyncio.gather(*[ask(house.port, chat("hello")) for _ in range(12)])
            assert {one.status for one in got} == {200}
        assert set(balancer.ejections) == {("r0", "slow")}
