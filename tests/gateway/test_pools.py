"""Places of a pool: given out in turn, given back whatever happens, refused at once when waiting makes no sense."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import msgspec
import pytest

from penstock.core.errors import PenstockError, RateLimited, Unavailable
from penstock.core.exchange import Usage
from penstock.core.snapshot import Pool, QueuePolicy, Replica, TenantEntry
from penstock.gateway.metrics import Meters
from penstock.gateway.pools import Place, PoolState
from tests.gateway.house import running, until
from tests.gateway.raw_client import ask, chat

A, B = TenantEntry(name="a"), TenantEntry(name="b")
DONE = Usage(10, 10)
POOL = Pool(name="p", replicas=(Replica(id="r", url="http://h:1"),), max_in_flight=1, max_waiting=8, max_wait_s=30.0)


def state_of(**changes: object) -> PoolState:
    return PoolState(msgspec.structs.replace(POOL, **changes), asyncio.get_running_loop(), Meters("w"))


def taken(state: PoolState, tenant: TenantEntry = A) -> Place:
    place = state.try_enter(tenant, 10)
    assert place is not None
    return place


def refusals(state: PoolState, reason: str) -> float:
    return state._meters.cell("penstock_queue_refusals_total", "p", reason).value


async def waiting(state: PoolState, tenant: TenantEntry = A) -> asyncio.Task[Place]:
    before = state.waiting
    task = asyncio.create_task(state.enter(tenant, 10))
    await until(lambda: state.waiting == before + 1)
    return task


async def test_a_place_goes_to_whose_turn_it_is_and_its_wait_is_told() -> None:
    state = state_of()
    place = taken(state)
    first, second, other = await waiting(state), await waiting(state), await waiting(state, B)
    assert state.try_enter(B, 1) is None, "nobody passes those that wait"
    assert state.waiting_by_priority() == [("premium", 0), ("standard", 3), ("batch", 0)]
    state.leave(place, 10, DONE)
    place = await other
    assert not first.done(), "its tenant was served already"
    state.leave(place, 10, DONE)
    state.leave(await first, 10, DONE)
    state.leave(await second, 10, DONE)
    assert state.taken == state.waiting == 0
    waits = state._meters.distribution("penstock_queue_wait_seconds", "p", "standard")
    waits.fold()
    assert sum(waits.counts) == 3


async def test_who_leaves_gives_its_place_in_the_queue_back_at_once() -> None:
    state = state_of(max_waiting=1)
    place = taken(state)
    gone = await waiting(state)
    gone.cancel()
    await asyncio.wait([gone])
    assert state.waiting == 0
    late = await waiting(state, B)
    state.leave(place, 10, DONE)
    state.leave(await late, 10, DONE)
    assert state.taken == 0


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_who_leaves_in_the_moment_of_its_turn_loses_no_place(cancelled_first: bool) -> None:
    state = state_of()
    place = taken(state)
    gone, heir = await waiting(state), await waiting(state)
    if cancelled_first:
        gone.cancel()
        state.leave(place, 10, DONE)
    else:
        state.leave(place, 10, DONE)
        gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    place = await heir
    assert (state.taken, state.waiting) == (1, 0)
    state.leave(place, 10, DONE)
    assert (state.taken, place.in_flight) == (0, 0)


async def test_its_time_is_its_class() -> None:
    state = state_of(max_wait_s=0.02, queue=QueuePolicy(deadline_s={"batch": 60.0}))
    place = taken(state)
    patient = await waiting(state, TenantEntry(name="c", priority="batch"))
    with pytest.raises(Unavailable, match=r"came free within 0\.02 s") as told:
        await state.enter(A, 10)
    assert (told.value.code, told.value.retry_after) == ("queue_timeout", 1.0)
    assert refusals(state, "timeout") == 1
    assert not patient.done()
    state.leave(place, 10, DONE)
    state.leave(await patient, 10, DONE)


async def test_the_own_share_used_up_is_429_and_the_pool_full_is_503() -> None:
    state = state_of(max_waiting=2, queue=QueuePolicy(headroom=0.5))
    place = taken(state)
    mine = await waiting(state)
    with pytest.raises(RateLimited) as own:
        await state.enter(A, 10)
    assert own.value.code == "queue_share"
    others = await waiting(state, B)
    with pytest.raises(Unavailable) as full:
        await state.enter(TenantEntry(name="c"), 10)
    assert full.value.code == "queue_full"
    assert (refusals(state, "share"), refusals(state, "full")) == (1, 1)
    state.leave(place, 10, DONE)
    for task in (others, mine):
        state.leave(await task, 10, DONE)


async def test_what_cannot_be_done_in_time_is_refused_at_once_and_would_be_taken_when_it_was_told() -> None:
    state = state_of(max_waiting=1000)
    now = 1000.0
    state._loop = _Clock(asyncio.get_running_loop(), lambda: now)  # type: ignore[assignment]
    place = taken(state)
    tasks = [await waiting(state) for _ in range(6)]
    for task in tasks:  # 2 seconds a request
        now += 2.0
        state.leave(place, 10, DONE)
        place = await task
    tasks = []
    while True:
        try:
            tasks.append(await waiting_or_refused(state))
        except RateLimited as error:
            refused = error
            break
    assert refused.code == "queue_hopeless"
    assert 14 <= len(tasks) <= 17, "30 seconds at 2 each"
    assert refused.retry_after is not None
    assert 1.0 <= refused.retry_after <= 4.0
    soon = math.ceil(refused.retry_after / 2.0)
    for task in tasks[:soon]:
        now += 2.0
        state.leave(place, 10, DONE)
        place = await task
    tasks = [*tasks[soon:], await waiting(state)]
    for task in tasks:
        state.leave(place, 10, DONE)
        place = await task
    state.leave(place, 10, DONE)
    assert state.taken == 0


async def waiting_or_refused(state: PoolState) -> asyncio.Task[Place]:
    before = state.waiting
    task = asyncio.create_task(state.enter(A, 10))
    await until(lambda: state.waiting == before + 1 or task.done())
    if task.done():
        task.result()
    return task


class _Clock:
    """A loop whose time is the test's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, time: object) -> None:
        self.time = time
        self.create_future = loop.create_future
        self.call_later = loop.call_later


async def test_replicas_that_come_let_in_who_waits() -> None:
    state = state_of()
    place = taken(state)
    task = await waiting(state)
    state.update(msgspec.structs.replace(POOL, max_in_flight=2))
    assert state.taken == 2
    state.leave(await task, 10, DONE)
    state.leave(place, 10, DONE)


async def test_a_replica_that_is_out_has_no_places(tmp_path: Path) -> None:
    """Else those that it was to take would be sent to it, or be refused, while they could wait for the one that works."""
    async with running(tmp_path, replicas=2, pause_s=0.02, pool={"max_in_flight": 2, "max_wait_s": 60.0}) as house:
        (state,) = house.worker.gateway.pools.all()
        assert state._places == 4
        await house.mocks[0].stop()
        while state._places == 4:
            assert (await ask(house.port, chat("hello"))).status == 200, "tried elsewhere"
        assert state._places == 2
        many = await asyncio.gather(*[ask(house.port, chat(f"hello {n}")) for n in range(40)])
        assert [got.status for got in many] == [200] * 40, "the others wait"
        await house.settled()
        house.take(pools=(msgspec.structs.replace(state.pool, replicas=state.pool.replicas[1:]),))
        assert state._places == 2


async def test_a_client_is_told_when_to_come_back(tmp_path: Path) -> None:
    tight = {"max_in_flight": 1, "max_waiting": 2, "queue": QueuePolicy(headroom=0.5)}
    async with running(tmp_path, pool=tight) as house:
        first = asyncio.create_task(ask(house.port, chat("!wait")))
        await until(lambda: house.mock.running == 1)
        second = asyncio.create_task(ask(house.port, chat("second")))
        (state,) = house.worker.gateway.pools.all()
        await until(lambda: state.waiting == 1)
        third = await ask(house.port, chat("third"))
        assert (third.status, third.error["code"], third.error["type"]) == (429, "queue_share", "rate_limit_error")
        assert int(third.headers[b"retry-after"]) >= 1
        text = (await ask(house.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")).body.decode()
        assert 'penstock_queue_waiting{pool="pool",priority="standard",worker="w0"} 1.0' in text
        assert 'penstock_queue_refusals_total{pool="pool",reason="share",worker="w0"} 1.0' in text
        house.mock.gate.set()
        assert {(await first).status, (await second).status} == {200}
        await house.settled()


async def test_in_a_storm_no_place_is_lost_and_none_is_given_twice() -> None:
    draw = random.Random(7)
    state = state_of(max_in_flight=3, max_waiting=20, max_wait_s=0.03)
    tenants = [A, B, TenantEntry(name="p", priority="premium"), TenantEntry(name="c", priority="batch")]
    inside = 0

    async def one() -> None:
        nonlocal inside
        place = await state.enter(draw.choice(tenants), 10)
        inside += 1
        assert inside <= 3
        try:
            await asyncio.sleep(draw.random() * 0.004)
        finally:
            inside -= 1
            state.leave(place, 10, Usage(draw.randint(0, 20), draw.randint(0, 20)))

    tasks: list[asyncio.Task[None]] = []
    for _ in range(600):
        tasks.append(asyncio.create_task(one()))
        if draw.random() < 0.4:
            draw.choice(tasks).cancel()
        if draw.random() < 0.5:
            await asyncio.sleep(draw.random() * 0.002)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = {type(end) for end in ends}
    assert None in ends
    assert kinds <= {type(None), asyncio.CancelledError, RateLimited, Unavailable}
    assert {end.code for end in ends if isinstance(end, PenstockError)} <= {
        "queue_share",
        "queue_full",
        "queue_timeout",
        "queue_hopeless",
    }
    assert (state.taken, state.waiting, inside) == (0, 0, 0)
    assert all(account.in_flight == 0 for account in state._queue._accounts.values())
