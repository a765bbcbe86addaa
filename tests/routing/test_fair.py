"""Who is next, and who may wait: by properties, and by the bound of Sheng et al. (OSDI 2024)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.exchange import Usage
from penstock.core.snapshot import Pool, QueuePolicy, TenantEntry
from penstock.routing.fair import PRIORITIES, Account, FairQueue, Ticket
from penstock.routing.service_rate import ServiceRate

W_P, W_Q = 1.0, 2.0  # what a token read, and one written, costs
A, B, C = (TenantEntry(name=name) for name in "abc")


def queue_of(*, max_waiting: int = 10**6, **policy: Any) -> FairQueue[Any]:
    return FairQueue(Pool(name="p", max_waiting=max_waiting, queue=QueuePolicy(**policy)))


def push(queue: FairQueue[Any], tenant: TenantEntry, tokens: int = 10, item: Any = None) -> Ticket[Any]:
    return queue.push(queue.account(tenant), tokens, item)


def popped(queue: FairQueue[Any]) -> Ticket[Any]:
    ticket = queue.pop()
    assert ticket is not None
    return ticket


class Bench:
    """A pool with `places`: work goes in as the queue says, and ends in any order."""

    def __init__(self, queue: FairQueue[Any], places: int, draw: random.Random) -> None:
        self.queue = queue
        self.places = places
        self.draw = draw
        self.running: list[tuple[Account[Any], int, Usage]] = []
        self.waiting: dict[str, list[Ticket[Any]]] = {}
        self.served: dict[str, float] = {}  # cost, divided by the weight
        self.order: list[str] = []

    def arrive(self, tenant: TenantEntry, prompt: int, completion: int, estimate: int) -> None:
        usage = Usage(prompt, completion)
        if len(self.running) < self.places and not self.queue.waiting:
            self._runs(self.queue.admit(tenant, estimate), estimate, usage)
            return
        ticket = push(self.queue, tenant, estimate, usage)
        self.waiting.setdefault(tenant.name, []).append(ticket)

    def _runs(self, account: Account[Any], estimate: int, usage: Usage) -> None:
        self.running.append((account, estimate, usage))
        self._serves(account, usage.prompt * W_P)
        self.order.append(account.tenant.name)

    def _serves(self, account: Account[Any], cost: float) -> None:
        name = account.tenant.name
        self.served[name] = self.served.get(name, 0.0) + cost / account.weight

    def leave(self, tenant: str) -> None:
        mine = self.waiting.get(tenant)
        if mine:
            self.queue.remove(mine.pop(self.draw.randrange(len(mine))))

    def end_one(self) -> None:
        if self.running:
            account, estimate, usage = self.running.pop(self.draw.randrange(len(self.running)))
            self._serves(account, usage.completion * W_Q)
            self.queue.settle(account, estimate, usage)
        self.fill()

    def fill(self) -> None:
        while len(self.running) < self.places and self.queue.waiting:
            ticket = popped(self.queue)  # work conservation: who waits is let in while there are places
            name = ticket.account.tenant.name
            assert ticket is self.waiting[name].pop(0), "in order within a tenant"
            self._runs(ticket.account, ticket.tokens, ticket.item)


TENANTS = [
    TenantEntry(name="p", priority="premium"),
    TenantEntry(name="s1"),
    TenantEntry(name="s3", weight=3.0),
    TenantEntry(name="s0", weight=0.5),
    TenantEntry(name="b1", priority="batch"),
    TenantEntry(name="b2", priority="batch", weight=2.0),
]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(2, 8))
def test_whatever_happens_work_is_conserved_counts_are_true_and_no_class_starves(
    seed: int, places: int, bypass: int
) -> None:
    draw = random.Random(seed)
    queue = queue_of(bypass=bypass)
    bench = Bench(queue, places, draw)
    rank = {tenant.name: tenant.priority for tenant in TENANTS}
    passed = dict.fromkeys(PRIORITIES, 0)
    for _ in range(400):
        what = draw.random()
        if what < 0.45:
            prompt = draw.randint(1, 50)
            bench.arrive(draw.choice(TENANTS), prompt, draw.randint(0, 50), draw.choice([prompt, draw.randint(1, 90)]))
        elif what < 0.6:
            bench.leave(draw.choice(TENANTS).name)
        else:
            waited = {p for p, count in queue.by_priority() if count}
            before = len(bench.order)
            bench.end_one()
            for name in bench.order[before:]:
                for priority in PRIORITIES:
                    passed[priority] = 0 if priority == rank[name] or priority not in waited else passed[priority] + 1
                assert max(passed["standard"], passed["batch"]) <= bypass, "one for the bound, one where two are due"
        passed = {priority: passed[priority] if count else 0 for priority, count in queue.by_priority()}
        assert queue.waiting == sum(map(len, bench.waiting.values()))
        assert dict(queue.by_priority()) == {
            p: sum(len(mine) for name, mine in bench.waiting.items() if rank[name] == p) for p in PRIORITIES
        }
        assert not queue.waiting or len(bench.running) == places
        for line in queue._lines:
            assert len(line.heap) <= 2 * line.active + 65, "void entries do not pile up"
            assert line.active == sum(bool(bench.waiting.get(t.name)) for t in TENANTS if t.priority == line.priority)
    while queue.waiting or bench.running:
        bench.end_one()
    assert all(account.in_flight == 0 for account in queue._accounts.values())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.sampled_from([(1.0, 1.0), (1.0, 3.0), (5.0, 2.0)]),
    st.sampled_from([(40, 1), (1, 40), (40, 40)]),
)
def test_two_that_both_wait_are_served_alike_within_the_bound_of_theorem_4_4(
    seed: int, places: int, weights: tuple[float, float], longest: tuple[int, int]
) -> None:
    """|W_f - W_g| <= 2 max(w_p L_input, w_q M) over any time in which both wait; W divided by weights, as weighted VTC has it.

    M is the most tokens that can be in flight together. The second bound is sharper: it knows that a tenant is charged input alone when
    it goes in, and at most all of its output in flight until it goes in again.
    """
    draw = random.Random(seed)
    long_in, long_out = longest
    f, g = (TenantEntry(name=n, weight=w) for n, w in zip("fg", weights, strict=True))
    bench = Bench(queue_of(), places, draw)
    in_flight = places * (long_in + long_out)
    bound = 2 * max(W_P * long_in, W_Q * in_flight) / min(weights)
    sharper = 2 * (W_P * long_in + W_Q * places * long_out) / min(weights)
    lowest = highest = 0.0
    for tenant in (f, g, f, g) * places * 2:  # both wait from here on
        bench.arrive(tenant, long_in, long_out, long_in)
    start = dict(bench.served)
    for _ in range(600):
        for tenant in (f, g):
            while len(bench.waiting[tenant.name]) < 2:
                prompt = draw.randint(1, long_in)
                bench.arrive(tenant, prompt, draw.randint(0, long_out), prompt)
        if draw.random() < 0.2:  # somebody else comes and goes
            bench.arrive(C, draw.randint(1, long_in), draw.randint(0, long_out), 5)
        bench.end_one()
        difference = (bench.served["f"] - start.get("f", 0)) - (bench.served["g"] - start.get("g", 0))
        lowest, highest = min(lowest, difference), max(highest, difference)
    assert highest - lowest <= sharper <= bound + 1e-9, "between any two moments"
    assert bench.served["f"] - start.get("f", 0) > 10 * places, "and both were served"


def test_served_tokens_follow_the_weights_whatever_the_estimates() -> None:
    draw = random.Random(1)
    heavy, light = TenantEntry(name="heavy", weight=3.0), TenantEntry(name="light", weight=1.0)
    bench = Bench(queue_of(), 4, draw)
    for _ in range(8):
        bench.arrive(heavy, 10, 10, 10)
        bench.arrive(light, 10, 10, 10)
    for _ in range(4000):
        while len(bench.waiting["heavy"]) < 4:
            bench.arrive(heavy, 100, 20, 10)  # estimated at a tenth
        while len(bench.waiting["light"]) < 4:
            bench.arrive(light, 5, 60, 50)  # estimated at ten times
        bench.end_one()
    assert bench.served["heavy"] / bench.served["light"] == pytest.approx(1.0, rel=0.02)  # divided by weights already


def test_among_equals_the_one_that_came_first_then_in_turn() -> None:
    queue = queue_of()
    for _ in range(3):
        for tenant in (C, A, B):
            push(queue, tenant)
    assert [popped(queue).account.tenant.name for _ in range(9)] == ["c", "a", "b"] * 3


def test_idle_time_saves_nothing_up() -> None:
    queue = queue_of()
    push(queue, B)
    first = popped(queue)
    queue.settle(first.account, 10, Usage(10, 0))
    for _ in range(100):
        push(queue, A)
        queue.settle(popped(queue).account, 10, Usage(10, 10))
    for _ in range(3):
        push(queue, A)
    for _ in range(3):
        push(queue, B)
    assert [popped(queue).account.tenant.name for _ in range(6)] == ["b", "a", "b", "a", "b", "a"]


def test_who_comes_back_goes_before_those_whose_level_it_has() -> None:
    queue = queue_of()
    for _ in range(4):
        push(queue, A)
    popped(queue)
    push(queue, B)
    assert popped(queue).account.tenant.name == "b"


def test_a_failure_keeps_its_charge_and_one_who_left_at_the_door_pays_nothing() -> None:
    queue = queue_of()
    account = queue.admit(A, 10)
    assert queue.settle(account, 10, Usage()) == 10
    assert account.counter == 10.0
    push(queue, A)
    ticket = popped(queue)
    queue.refund(ticket.account, ticket.tokens)
    assert account.counter == 10.0
    assert account.in_flight == 0


def test_a_correction_downwards_brings_a_waiting_tenant_forward() -> None:
    queue = queue_of()
    account = queue.admit(A, 1000)
    queue.admit(B, 500)
    push(queue, A)
    push(queue, B)
    queue.settle(account, 1000, Usage(10, 0))
    assert account.counter < queue.account(B).counter
    assert popped(queue).account is account


def test_one_tenant_takes_half_of_the_queue_and_two_a_third_each() -> None:
    def fill(queue: FairQueue[Any], *tenants: TenantEntry) -> list[int]:
        turns = [True] * len(tenants)
        while any(turns):
            for index, tenant in enumerate(tenants):
                account = queue.account(tenant)
                refusal = queue.refusal(account, 0.0, 10.0)
                turns[index] = refusal is None
                if refusal is None:
                    push(queue, tenant)
                else:
                    assert (refusal.reason, refusal.own) == ("share", True)
        return [len(queue.account(tenant).tickets) for tenant in tenants]

    assert fill(queue_of(max_waiting=100), A) == [51]
    assert fill(queue_of(max_waiting=100), A, B) == [34, 34]
    many = [TenantEntry(name=f"n{index}") for index in range(9)]
    queue = queue_of(max_waiting=100)
    assert sum(fill(queue, *many)) < 100
    assert queue.refusal(queue.account(C), 0.0, 10.0) is None, "there is room for somebody new"


def test_a_full_queue_is_nobodys_own_fault() -> None:
    queue = queue_of(max_waiting=1)
    push(queue, A)
    refusal = queue.refusal(queue.account(B), 0.0, 10.0)
    assert refusal is not None
    assert (refusal.reason, refusal.own, refusal.retry_after_s) == ("full", False, 1.0)


def test_hopeless_is_told_by_the_measured_rate() -> None:
    queue = queue_of()
    account = queue.admit(A, 10)
    queue.settle(account, 10, Usage(10, 45))  # a request costs 100
    for _ in range(20):
        push(queue, A)
    assert queue.refusal(account, 0.0, 1.0) is None, "nothing is known"
    assert queue.refusal(account, 200.0, 10.0) is None, "20 * 100 / 200: 10 seconds"
    refusal = queue.refusal(account, 200.0, 7.0)
    assert refusal is not None
    assert (refusal.reason, refusal.own) == ("hopeless", True)
    assert (refusal.wait_s, refusal.retry_after_s) == (10.0, 3.0)
    other = queue.account(B)
    assert queue.refusal(other, 200.0, 0.1) is None, "who has nothing waiting is next"
    push(queue, B)
    premium = TenantEntry(name="p", priority="premium")
    queue.settle(queue.admit(premium, 10), 10, Usage(10, 45))
    for _ in range(200):
        push(queue, premium)
    blocked = queue.refusal(account, 200.0, 60.0)
    assert blocked is not None
    assert (blocked.reason, blocked.own) == ("hopeless", False)


def test_a_tenant_changes_class_and_weight_when_none_of_it_waits() -> None:
    queue = queue_of()
    push(queue, A)
    better = msgspec.structs.replace(A, priority="premium", weight=2.0)
    account = queue.account(better)
    assert account.line.priority == "standard"
    assert account.weight == 2.0
    assert popped(queue).account is account
    assert queue.account(better).line.priority == "premium"


def test_tenants_that_are_not_heard_of_are_forgotten() -> None:
    queue = queue_of()
    busy = queue.admit(A, 10)
    for index in range(5000):
        account = queue.admit(TenantEntry(name=f"n{index}"), 10)
        queue.settle(account, 10, Usage(10, 1))
    assert len(queue._accounts) < 2100
    assert queue.account(A) is busy


@given(st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(1.0, 500.0)), min_size=20, max_size=60))
def test_the_rate_is_what_was_done_by_the_time_it_took(gaps: list[tuple[float, float]]) -> None:
    rate, now = ServiceRate(), 100.0
    rate.began(now)
    assert rate.a_second(now) == 0.0
    for gap, cost in gaps:
        now += gap
        rate.ended(cost, now)
    slowest, fastest = (
        min(c for _, c in gaps) / max(g for g, _ in gaps),
        max(c for _, c in gaps) / min(g for g, _ in gaps),
    )
    told = rate.a_second(now)
    assert slowest <= told * 1.0001
    assert told <= fastest * 1.0001
    assert rate.a_second(now + 1000.0) < told / 4, "silence counts"


def test_the_rate_of_a_steady_pool() -> None:
    rate = ServiceRate()
    rate.began(0.0)
    for index in range(1, 200):
        rate.ended(50.0, index * 0.1)
    assert rate.a_second(19.9) == pytest.approx(500.0)
