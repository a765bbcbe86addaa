import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.snapshot import Pool, Replica
from penstock.routing.balancer import Balancer, Health


def pool(count: int, most: int = 256) -> Pool:
    replicas = tuple(Replica(id=f"r{i}", url=f"http://127.0.0.1:{9000 + i}") for i in range(count))
    return Pool(name="p", replicas=replicas, max_in_flight=most)


def picked(balancer: Balancer, now: float, draw: float, exclude: tuple[str, ...] = ()) -> str | None:
    replica = balancer.pick(now, draw, exclude)
    return None if replica is None else replica.id


def test_load_stays_within_one_or_two_of_even() -> None:
    balancer = Balancer(pool(10))
    draws = random.Random(1)
    counts = dict.fromkeys((f"r{i}" for i in range(10)), 0)
    for _ in range(10_000):
        replica = picked(balancer, 0.0, draws.random())
        assert replica is None or balancer.in_flight < 2560
        if replica is None:
            break
        balancer.began(replica)
        counts[replica] += 1
    assert sum(counts.values()) == 2560, "everything fits until all are full"
    balancer = Balancer(pool(10))
    counts = dict.fromkeys(counts, 0)
    for _ in range(1000):
        replica = picked(balancer, 0.0, draws.random())
        assert replica is not None
        balancer.began(replica)
        counts[replica] += 1
    assert max(counts.values()) - min(counts.values()) <= 6, "two choices: the gap grows as log log n, not as sqrt(n)"


def test_every_pair_is_drawn() -> None:
    balancer = Balancer(pool(3))
    seen = {picked(balancer, 0.0, i / 600) for i in range(600)}
    assert seen == {"r0", "r1", "r2"}


def test_ejected_after_failures_in_a_row_and_tried_by_one_request_after_the_pause() -> None:
    balancer = Balancer(pool(2), Health(failures=2, pause_s=1.0, longest_pause_s=4.0))
    for _ in range(2):
        balancer.began("r0")
        balancer.ended("r0", ok=False, now=10.0)
    assert balancer.ejected(10.5) == ["r0"]
    assert {picked(balancer, 10.5, i / 50) for i in range(50)} == {"r1"}
    assert picked(balancer, 11.0, 0.0) == "r0", "the trial"
    balancer.began("r0")
    assert {picked(balancer, 11.1, i / 50) for i in range(50)} == {"r1"}, "one trial at a time"
    balancer.ended("r0", ok=False, now=11.2)
    assert {picked(balancer, 13.1, i / 50) for i in range(50)} == {"r1"}, "the pause has doubled"
    assert picked(balancer, 13.3, 0.0) == "r0"
    balancer.began("r0")
    balancer.ended("r0", ok=True, now=13.4)
    assert {picked(balancer, 13.5, i / 50) for i in range(50)} == {"r0", "r1"}


def test_failures_at_the_same_time_count_as_one_ejection() -> None:
    balancer = Balancer(pool(2), Health(failures=2, pause_s=1.0))
    for _ in range(20):
        balancer.began("r0")
    for _ in range(20):
        balancer.ended("r0", ok=False, now=5.0)
    assert balancer.ejected(5.9) == ["r0"]
    assert balancer.ejected(6.0) == []


def test_a_lone_replica_that_is_back_serves_at_once() -> None:
    balancer = Balancer(pool(1))
    for _ in range(10):
        balancer.began("r0")
        balancer.ended("r0", ok=False, now=1.0)
    assert picked(balancer, 1.0, 0.5) == "r0"
    assert picked(balancer, 1.0, 0.5, ("r0",)) is None, "but not for a request that has just failed on it"


def test_a_full_pool_gives_none() -> None:
    balancer = Balancer(pool(2, most=1))
    for _ in range(2):
        replica = picked(balancer, 0.0, 0.3)
        assert replica is not None
        balancer.began(replica)
    assert picked(balancer, 0.0, 0.3) is None
    balancer.ended("r1", ok=None, now=0.0)
    assert picked(balancer, 0.0, 0.3) == "r1"


def test_a_new_snapshot_keeps_what_is_known() -> None:
    balancer = Balancer(pool(2))
    balancer.began("r0")
    balancer.began("r1")
    balancer.update(pool(3))
    assert {picked(balancer, 0.0, i / 60) for i in range(60)} == {"r0", "r1", "r2"}
    balancer.update(pool(1))
    balancer.ended("r1", ok=True, now=0.0)
    balancer.ended("r0", ok=True, now=0.0)
    assert balancer.in_flight == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["pick", "ok", "fail", "gone"]), st.floats(0, 0.999), st.floats(0, 5)), max_size=80
)


@given(STEPS)
def test_in_flight_is_what_was_begun_less_what_ended(steps: list[tuple[str, float, float]]) -> None:
    balancer = Balancer(pool(3, most=4))
    running: list[str] = []
    now = 0.0
    for what, draw, pause in steps:
        now += pause
        if what == "pick":
            replica = picked(balancer, now, draw)
            assert (replica is None) == (len(running) == 12)
            if replica is not None:
                balancer.began(replica)
                running.append(replica)
                assert running.count(replica) <= 4
        elif running:
            replica = running.pop(int(draw * len(running)))
            balancer.ended(replica, {"ok": True, "fail": False, "gone": None}[what], now)
        assert balancer.in_flight == len(running)
