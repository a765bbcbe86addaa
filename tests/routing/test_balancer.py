"""Which replica is taken: by load, by prefix, by session, and as far as health allows."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.snapshot import HealthPolicy, Pool, Replica
from penstock.routing.balancer import Balancer
from penstock.routing.member import Member

DRAWS = [i / 50 for i in range(50)]


def pool(count: int, most: int = 256, **more: Any) -> Pool:
    replicas = tuple(Replica(id=f"r{i}", url=f"http://127.0.0.1:{9000 + i}") for i in range(count))
    return Pool(name="p", replicas=replicas, max_in_flight=most, **more)


def picked(balancer: Balancer, now: float, draw: float, exclude: tuple[str, ...] = (), **more: Any) -> str | None:
    """Which one would be taken; nothing runs afterwards."""
    member = balancer.take(now, draw, exclude, **more)
    if member is None:
        return None
    balancer.ended(member, None, now)
    return member.replica.id


def all_picked(balancer: Balancer, now: float) -> set[str | None]:
    return {picked(balancer, now, draw) for draw in DRAWS}


def begin(balancer: Balancer, replica: str, now: float = 0.0) -> Member:
    others = tuple(m.replica.id for m in balancer.members if m.replica.id != replica)
    member = balancer.take(now, 0.5, others)
    assert member is not None
    assert member.replica.id == replica
    return member


def fail(balancer: Balancer, replica: str, now: float, times: int = 1, *, unreachable: bool = False) -> None:
    for _ in range(times):
        balancer.ended(begin(balancer, replica, now), ok=False, now=now, unreachable=unreachable)


def test_load_stays_within_one_or_two_of_even() -> None:
    balancer = Balancer(pool(10))
    draws = random.Random(1)
    while balancer.take(0.0, draws.random()) is not None:
        pass
    assert balancer.in_flight == 2560, "everything fits until all are full"
    balancer = Balancer(pool(10))
    for _ in range(1000):
        assert balancer.take(0.0, draws.random()) is not None
    counts = [member.in_flight for member in balancer.members]
    assert max(counts) - min(counts) <= 6, "two choices: the gap grows as log log n, not as sqrt(n)"


def test_every_pair_is_drawn() -> None:
    balancer = Balancer(pool(3))
    assert all_picked(balancer, 0.0) == {"r0", "r1", "r2"}


def test_a_full_pool_gives_none_and_an_empty_one_too() -> None:
    balancer = Balancer(pool(2, most=1))
    taken = [balancer.take(0.0, 0.3) for _ in range(2)]
    assert picked(balancer, 0.0, 0.3) is None
    assert taken[1] is not None
    balancer.ended(taken[1], ok=None, now=0.0)
    assert picked(balancer, 0.0, 0.3) == taken[1].replica.id
    assert picked(Balancer(pool(0)), 0.0, 0.3) is None


def test_a_new_snapshot_keeps_what_is_known() -> None:
    balancer = Balancer(pool(2))
    running = [begin(balancer, "r0"), begin(balancer, "r1")]
    balancer.update(pool(3))
    assert [member.in_flight for member in balancer.members] == [1, 1, 0]
    assert all_picked(balancer, 0.0) == {"r2"} | {"r0", "r1"}
    balancer.update(pool(1))
    assert [member.gone for member in running] == [False, True]
    for member in running:
        balancer.ended(member, ok=True, now=0.0)
    assert balancer.in_flight == 0


# -- affinity ----------------------------------------------------------------------------------------------------------


def test_the_replica_with_the_longest_known_prefix_is_taken() -> None:
    balancer = Balancer(pool(4))
    first = picked(balancer, 0.0, 0.1, chain=[1, 2, 3])
    assert {picked(balancer, 0.0, draw, chain=[1, 2, 3, 4, 5]) for draw in DRAWS} == {first}
    assert {picked(balancer, 0.0, draw, chain=[1, 9]) for draw in DRAWS} == {first}
    assert len({picked(balancer, 0.0, draw, chain=[int(1000 * draw) + 50]) for draw in DRAWS}) == 4
    assert balancer.near == 100


def test_a_hot_prefix_overflows_at_the_bound_and_no_further() -> None:
    balancer = Balancer(pool(4, load_factor=1.25))
    for index in range(400):
        assert balancer.take(0.0, random.Random(index).random(), (), [7]) is not None
        counts = [member.in_flight for member in balancer.members]
        assert max(counts) <= max(1, -(-1.25 * (index + 1) // 4))
    assert max(counts) == 125, "the one that knows it has all that it may have"
    assert balancer.far > 0


def test_a_prefix_moves_when_its_replica_is_out() -> None:
    balancer = Balancer(pool(2))
    home = picked(balancer, 0.0, 0.1, chain=[1, 2])
    assert home is not None
    fail(balancer, home, 1.0, 2, unreachable=True)
    other = "r1" if home == "r0" else "r0"
    assert picked(balancer, 1.0, 0.1, chain=[1, 2]) == other
    balancer.probed(next(m for m in balancer.members if m.replica.id == home), True, 1.1, 5.0)
    assert {picked(balancer, 100.0, draw, chain=[1, 2]) for draw in DRAWS} == {other}, (
        "it has been worked on there since"
    )


def test_memory_is_bounded_and_the_last_used_stay() -> None:
    balancer = Balancer(pool(2))
    home = picked(balancer, 0.0, 0.1, chain=[1])
    for block in range(2, 40_000):
        picked(balancer, 0.0, 0.7, chain=[block])
        if block % 1000 == 0:
            assert picked(balancer, 0.0, 0.3, chain=[1]) == home
    assert len(balancer._prefixes) == 16384


def test_sessions_stay_and_spread_and_few_move_when_a_replica_comes() -> None:
    balancer = Balancer(pool(4, affinity="session"))
    assert balancer.by_session
    names = [f"user-{i}" for i in range(200)]
    homes = {name: picked(balancer, 0.0, 0.5, session=name) for name in names}
    assert homes == {name: picked(balancer, 0.0, 0.9, session=name) for name in names}
    assert all(30 < list(homes.values()).count(f"r{i}") < 75 for i in range(4))
    balancer.update(pool(5, affinity="session"))
    moved = [name for name in names if picked(balancer, 0.0, 0.5, session=name) != homes[name]]
    assert {picked(balancer, 0.0, 0.5, session=name) for name in moved} == {"r4"}
    assert 20 < len(moved) < 65


def test_a_busy_session_overflows() -> None:
    balancer = Balancer(pool(4, affinity="session"))
    for _ in range(100):
        assert balancer.take(0.0, 0.3, (), [], "one user") is not None
    assert max(member.in_flight for member in balancer.members) <= 32


@pytest.mark.parametrize(("count", "affinity"), [(1, "prefix"), (1, "session"), (3, "off")])
def test_affinity_is_off_where_it_decides_nothing(count: int, affinity: str) -> None:
    balancer = Balancer(pool(count, affinity=affinity))
    assert not balancer.by_prefix
    assert not balancer.by_session


# -- health ------------------------------------------------------------------------------------------------------------

QUICK = HealthPolicy(failures=2, pause_s=1.0, longest_pause_s=4.0, slow_start_s=0.0)


def test_ejected_after_failures_in_a_row_and_tried_by_one_request_after_the_pause() -> None:
    balancer = Balancer(pool(2, health=QUICK))
    fail(balancer, "r0", 10.0, 2)
    assert balancer.members[0].condition(10.5) == "out"
    assert all_picked(balancer, 10.5) == {"r1"}
    trial = balancer.take(11.0, 0.0)
    assert trial is balancer.members[0]
    assert all_picked(balancer, 11.1) == {"r1"}, "one trial at a time"
    balancer.ended(trial, ok=False, now=11.2)
    assert all_picked(balancer, 13.1) == {"r1"}, "the pause has doubled"
    trial = balancer.take(13.3, 0.0)
    assert trial is balancer.members[0]
    balancer.ended(trial, ok=True, now=13.4)
    assert all_picked(balancer, 13.5) == {"r0", "r1"}
    assert balancer.ejections == {("r0", "failures"): 2}


def test_an_answer_that_began_before_is_no_sign_of_recovery() -> None:
    balancer = Balancer(pool(2, health=QUICK))
    old = begin(balancer, "r0")
    fail(balancer, "r0", 1.0, 2, unreachable=True)
    balancer.ended(old, ok=True, now=1.1)
    assert all_picked(balancer, 1.2) == {"r1"}


def test_failures_at_the_same_time_count_as_one_ejection() -> None:
    balancer = Balancer(pool(2, health=QUICK))
    running = [begin(balancer, "r0") for _ in range(20)]
    for member in running:
        balancer.ended(member, ok=False, now=5.0)
    assert balancer.members[0].condition(5.9) == "out"
    assert balancer.members[0].condition(6.0) == "trial"


def test_suspicion_leaves_half_of_a_pool_and_certainty_leaves_none() -> None:
    balancer = Balancer(pool(4, health=QUICK))
    for replica in ("r0", "r1", "r2", "r3"):
        fail(balancer, replica, 1.0, 5)
    assert [member.condition(1.1) for member in balancer.members] == ["out", "out", "up", "up"]
    for replica in ("r2", "r3"):
        fail(balancer, replica, 1.1, 2, unreachable=True)
    assert {member.condition(1.2) for member in balancer.members} == {"out"}
    assert picked(balancer, 1.2, 0.5) is not None, "with all of them out, one is tried all the same"


def test_a_lone_replica_that_is_back_serves_at_once() -> None:
    balancer = Balancer(pool(1))
    fail(balancer, "r0", 1.0, 10, unreachable=True)
    assert picked(balancer, 1.0, 0.5) == "r0"
    assert picked(balancer, 1.0, 0.5, ("r0",)) is None, "but not for a request that has just failed on it"
    member = balancer.take(1.1, 0.5)
    assert member is not None
    balancer.ended(member, ok=True, now=1.2)
    assert member.condition(1.3) != "out"


def test_a_probe_finds_out_and_lets_back() -> None:
    balancer = Balancer(pool(2, health=HealthPolicy(probe_s=5.0, slow_start_s=0.0)))
    assert balancer.due(0.0) == [], "nobody knows yet whether they are idle"
    lost, well = balancer.members
    assert balancer.due(0.1) == [lost, well]
    for now in (0.2, 5.3):
        balancer.probed(lost, False, now, 5.0)
        balancer.probed(well, True, now, 5.0)
    assert balancer.due(6.0) == [], "not before the period is over"
    assert all_picked(balancer, 6.0) == {"r1"}
    assert balancer.ejections == {("r0", "probe"): 1}
    assert lost in balancer.due(11.0)
    balancer.probed(lost, True, 11.0, 5.0)
    assert all_picked(balancer, 11.1) == {"r0", "r1"}


def test_a_probe_says_nothing_about_suspicions() -> None:
    balancer = Balancer(pool(2, health=HealthPolicy(failures=1, pause_s=20.0)))
    fail(balancer, "r0", 1.0)
    balancer.probed(balancer.members[0], True, 2.0, 5.0)
    assert balancer.members[0].condition(2.1) == "out"


def test_busy_replicas_are_not_probed() -> None:
    balancer = Balancer(pool(2))
    balancer.due(0.0)
    balancer.ended(begin(balancer, "r0"), ok=True, now=0.1)
    running = begin(balancer, "r1")
    assert balancer.due(0.2) == []
    balancer.ended(running, ok=True, now=0.3)
    assert [member.replica.id for member in balancer.due(0.4)] == ["r0"]
    assert Balancer(pool(2, health=HealthPolicy(probe_s=0.0))).due(9.0) == []


def test_slow_start_ramps() -> None:
    balancer = Balancer(pool(2, health=HealthPolicy(slow_start_s=10.0)))
    fail(balancer, "r0", 1.0, 2, unreachable=True)
    balancer.probed(balancer.members[0], True, 2.0, 5.0)
    draws = random.Random(3)
    shares = []
    for now in (2.1, 7.0, 11.9, 12.1):
        shares.append(sum(picked(balancer, now, draws.random()) == "r0" for _ in range(2000)) / 2000)
    assert shares[0] < 0.1 < 0.18 < shares[1] < 0.35 < shares[2]
    assert 0.45 < shares[3] < 0.55
    assert balancer.members[0].condition(12.2) == "up"


def answer(balancer: Balancer, replica: str, took_s: float, times: int = 20, *, stream: bool = False) -> None:
    for _ in range(times):
        member = begin(balancer, replica)
        balancer.timing(member, took_s, stream=stream)
        balancer.ended(member, ok=True, now=0.0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_replica_that_is_far_slower_than_its_peers_is_left_out(stream: bool) -> None:
    balancer = Balancer(pool(3))
    answer(balancer, "r0", 2.0, stream=stream)
    for replica in ("r1", "r2"):
        answer(balancer, replica, 0.1, stream=stream)
        answer(balancer, replica, 2.0, 2, stream=stream)
    balancer.review(1.0)
    assert balancer.ejections == {("r0", "slow"): 1}
    balancer.review(1.1)
    assert [member.condition(1.2) for member in balancer.members] == ["out", "up", "up"]


def test_slow_answers_now_and_then_are_no_slow_replica() -> None:
    balancer = Balancer(pool(2))
    for replica, slow in (("r0", 2), ("r1", 0)):
        answer(balancer, replica, 0.02, 20)
        answer(balancer, replica, 1.0, slow)
    balancer.review(1.0)
    assert balancer.ejections == {}


def test_a_share_of_failures_far_above_that_of_the_peers() -> None:
    balancer = Balancer(pool(3, health=HealthPolicy(failures=1000, failing_share=0.3)))
    for _ in range(12):
        fail(balancer, "r0", 0.0)
        answer(balancer, "r0", 0.1, 1)
        answer(balancer, "r1", 0.1, 2)
        answer(balancer, "r2", 0.1, 2)
    balancer.review(1.0)
    assert balancer.ejections == {("r0", "failing"): 1}


def test_failures_everywhere_are_not_a_replica_s() -> None:
    balancer = Balancer(pool(3, health=HealthPolicy(failures=1000, failing_share=0.3)))
    for replica in ("r0", "r1", "r2"):
        for _ in range(30):
            fail(balancer, replica, 0.0)
    balancer.review(1.0)
    assert balancer.ejections == {}


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "ok", "fail", "refuse", "gone"]), st.floats(0, 0.999), st.floats(0, 5)),
    max_size=80,
)


@given(STEPS, st.sampled_from(["off", "prefix", "session"]))
def test_in_flight_is_what_was_begun_less_what_ended(steps: list[tuple[str, float, float]], affinity: str) -> None:
    balancer = Balancer(pool(3, most=4, affinity=affinity, health=HealthPolicy(failures=1)))
    running: list[Member] = []
    now = 0.0
    for what, draw, pause in steps:
        now += pause
        if what == "take":
            chain = [int(draw * 5)] if balancer.by_prefix else []
            member = balancer.take(now, draw, (), chain, str(int(draw * 5)) if balancer.by_session else "")
            assert (member is None) == (len(running) == 12)
            if member is not None:
                running.append(member)
                assert running.count(member) <= 4
        elif running:
            member = running.pop(int(draw * len(running)))
            ok = {"ok": True, "fail": False, "refuse": False, "gone": None}[what]
            balancer.ended(member, ok, now, unreachable=what == "refuse")
        assert balancer.in_flight == len(running) == sum(member.in_flight for member in balancer.members)
        suspects = [m for m in balancer.members if m.out_until and m.reason == "failures"]
        assert len(suspects) <= 1
