"""Who is served next of those that wait for a pool: classes first, then tenants by the tokens that they were served (pure).

Within a class: the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, Algorithm 2, in its
weighted form. Each tenant has a counter of what it was served, divided by its weight; the lowest counter is next. A tenant that begins to
wait again is lifted to the others' level, so that idleness saves nothing up. Input is charged when a request is let in, output when it is
known, and what was estimated is corrected then.

Between classes: strict, but of `bypass` places given out while a lower class waits it gets one, so that none starves.

Who may wait: a tenant may have as many waiting as `headroom` times the places that are free in the queue: alone it takes half of it, two
take a third each, and somebody new finds room (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
switches", IEEE/ACM Transactions on Networking 6(2), 1998).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, Literal, TypeVar

import msgspec

from penstock.core.exchange import Usage
from penstock.core.snapshot import Pool, TenantEntry

Item = TypeVar("Item")
Reason = Literal["share", "full", "hopeless"]
PRIORITIES = ("premium", "standard", "batch")
_RANK = {name: rank for rank, name in enumerate(PRIORITIES)}
_FEW_ACCOUNTS = 1024  # below it nobody is forgotten
_LEAST_WEIGHT = 1e-6
_SMOOTHING = 0.125  # of the mean cost of a tenant's requests


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request may not wait, and in how many seconds another one may."""

    reason: Reason
    own: bool  # the tenant's own requests are in the way, nobody else's
    retry_after_s: float
    wait_s: float = 0.0  # what it would have had to wait


class Account(Generic[Item]):
    """One tenant at one pool. `counter` is the cost of what it was served, divided by its weight."""

    __slots__ = (
        "backlog",
        "counter",
        "in_flight",
        "input_price",
        "line",
        "mark",
        "mean",
        "output_price",
        "served",
        "tenant",
        "tickets",
        "weight",
    )

    def __init__(self, tenant: TenantEntry, line: Line[Item]) -> None:
        self.tenant = tenant
        self.line = line
        self.weight = max(tenant.weight, _LEAST_WEIGHT)
        self.counter = 0.0
        self.input_price = self.output_price = 0.0  # a token's cost, divided by the weight
        self.in_flight = 0
        self.served = 0  # the number of the admission that was its last
        self.mark = 0  # of its entry in the line's heap; 0: it has none
        self.tickets: OrderedDict[int, Ticket[Item]] = OrderedDict()
        self.backlog = 0.0  # cost of what waits, by estimate
        self.mean = 0.0  # cost of one request


class Ticket(Generic[Item]):
    """One request that waits. `tokens` is its input by estimate."""

    __slots__ = ("account", "cost", "item", "number", "tokens", "waits")

    def __init__(self, account: Account[Item], number: int, tokens: int, item: Item) -> None:
        self.account = account
        self.number = number
        self.tokens = tokens
        self.item = item
        self.cost = account.mean
        self.waits = True


class Line(Generic[Item]):
    """One class: those of its tenants that wait, by counter."""

    __slots__ = ("active", "cost", "heap", "last", "passed", "priority", "rank", "waiting", "weight")

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.priority = PRIORITIES[rank]
        self.waiting = 0  # requests
        self.active = 0  # tenants that wait
        self.weight = 0.0  # theirs, summed
        self.cost = 0.0  # of what waits, by estimate
        self.passed = 0  # places that others got while it waited
        self.last: Account[Item] | None = None  # who was let in last
        # (counter, last admission, first waiting request, mark, account); entries whose mark is another than the account's are void
        self.heap: list[tuple[float, int, int, int, Account[Item]]] = []

    def first(self) -> Account[Item]:
        """The account that is next: lowest counter; of equals the one that was served longest ago, then the one that came first."""
        heap = self.heap
        while True:
            counter, _, _, mark, account = heap[0]
            if mark != account.mark:
                heappop(heap)
            elif counter < account.counter:  # charged since: entries are corrected when they come up
                heapreplace(heap, _entry(account))
            else:
                return account

    def enlist(self, account: Account[Item], mark: int) -> None:
        """Puts a waiting account where its counter belongs."""
        account.mark = mark
        heappush(self.heap, _entry(account))
        if len(self.heap) > 2 * self.active + 64:
            self.heap = [entry for entry in self.heap if entry[3] == entry[4].mark]
            heapify(self.heap)


class FairQueue(Generic[Item]):
    """The queue of one pool. It keeps no clock: rates and times are handed in."""

    __slots__ = ("_accounts", "_few", "_lines", "_max_waiting", "_number", "_policy", "waiting")

    def __init__(self, pool: Pool) -> None:
        self._lines: tuple[Line[Item], ...] = tuple(Line(rank) for rank in range(len(PRIORITIES)))
        self._accounts: dict[str, Account[Item]] = {}
        self._few = _FEW_ACCOUNTS
        self._number = 0
        self.waiting = 0
        self.update(pool)

    def update(self, pool: Pool) -> None:
        """Takes the pool's bounds and prices; those that wait stay, even if they are more than may."""
        self._policy = pool.queue
        self._max_waiting = pool.max_waiting
        for account in self._accounts.values():
            self._price(account)

    def by_priority(self) -> Iterator[tuple[str, int]]:
        """How many requests of each class wait."""
        for line in self._lines:
            yield line.priority, line.waiting

    def account(self, tenant: TenantEntry) -> Account[Item]:
        """The tenant's account, as its entry says now."""
        account = self._accounts.get(tenant.name)
        return account if account is not None and account.tenant is tenant else self._open(tenant)

    def admit(self, tenant: TenantEntry, tokens: int) -> Account[Item]:
        """Lets a request of `tokens` input in at once: there is a place, and nobody waits. O(1)."""
        account = self._accounts.get(tenant.name)
        if account is None or account.tenant is not tenant:
            account = self._open(tenant)
        line = account.line
        last = line.last
        if last is not None and account.counter < last.counter:
            account.counter = last.counter
        account.counter += tokens * account.input_price
        account.in_flight += 1
        line.last = account
        return account

    def refusal(self, account: Account[Item], rate: float, deadline_s: float) -> Refusal | None:
        """Why a request of the account may not wait; None if it may.

        Args:
            account: whose it is.
            rate: cost a second that the pool works off, measured while requests waited; 0 if it is not known.
            deadline_s: seconds that it may wait.
        """
        own, others = self._expected(account, rate)
        wait = own + others
        free = self._max_waiting - self.waiting
        reason: Reason
        if free <= 0:
            reason = "full"
            wait = sum(line.cost for line in self._lines) / rate if rate > 0.0 else 0.0
        elif len(account.tickets) > self._policy.headroom * free:
            reason = "share"
        elif wait > deadline_s:
            return Refusal(
                reason="hopeless", own=others <= deadline_s, retry_after_s=max(1.0, wait - deadline_s), wait_s=wait
            )
        else:
            return None
        return Refusal(reason=reason, own=reason == "share", retry_after_s=max(1.0, wait / 2), wait_s=wait)

    def push(self, account: Account[Item], tokens: int, item: Item) -> Ticket[Item]:
        """Lets a request of `tokens` input wait, behind what waits of the same tenant. O(log n) in the tenants that wait."""
        self._number += 1
        ticket = Ticket(account, self._number, tokens, item)
        line = account.line
        if not account.tickets:
            self._lift(account)
            line.active += 1
            line.weight += account.weight
            account.tickets[ticket.number] = ticket
            line.enlist(account, self._number)
        else:
            account.tickets[ticket.number] = ticket
        account.backlog += ticket.cost
        line.cost += ticket.cost
        line.waiting += 1
        self.waiting += 1
        return ticket

    def pop(self) -> Ticket[Item] | None:
        """Who is let in next, its input charged; None if nobody waits. O(log n)."""
        if not self.waiting:
            return None
        line = self._choose()
        account = line.first()
        _, ticket = account.tickets.popitem(last=False)
        account.counter += ticket.tokens * account.input_price
        account.in_flight += 1
        self._number += 1
        account.served = self._number
        line.last = account
        self._left(ticket)
        if account.tickets:
            line.enlist(account, self._number)
        return ticket

    def remove(self, ticket: Ticket[Item]) -> None:
        """Takes a request that waits out of the queue: its client has left, or its time is over. O(log n)."""
        account = ticket.account
        first = next(iter(account.tickets)) == ticket.number
        del account.tickets[ticket.number]
        self._left(ticket)
        if first and account.tickets:
            self._number += 1
            account.line.enlist(account, self._number)

    def settle(self, account: Account[Item], tokens: int, usage: Usage) -> float:
        """Charges what a request that was let in with `tokens` of input has really used, and gives its cost. O(log n) at most.

        Where nothing is known to have been used the estimate stays charged: to fail is not free, or it would go before all others.
        """
        account.in_flight -= 1
        policy = self._policy
        prompt, completion = usage.prompt, usage.completion
        if not prompt and not completion:
            return tokens * policy.input_cost
        cost = prompt * policy.input_cost + completion * policy.output_cost
        mean = account.mean
        account.mean = cost if mean == 0.0 else mean + _SMOOTHING * (cost - mean)
        more = (prompt - tokens) * account.input_price + completion * account.output_price
        account.counter += more
        if more < 0.0 and account.tickets:
            self._number += 1
            account.line.enlist(account, self._number)
        return cost

    def refund(self, account: Account[Item], tokens: int) -> None:
        """Takes back that a request was let in: it left at that moment, and nothing was done for it."""
        account.in_flight -= 1
        account.counter -= tokens * account.input_price
        if account.tickets:
            self._number += 1
            account.line.enlist(account, self._number)

    def _choose(self) -> Line[Item]:
        """The highest class that waits, unless a lower one was passed over often enough."""
        chosen: Line[Item] | None = None
        for line in self._lines:
            if line.waiting and (
                chosen is None or (line.passed >= self._policy.bypass - 1 and line.passed > chosen.passed)
            ):
                chosen = line
        assert chosen is not None
        for line in self._lines:
            if line.waiting and line is not chosen:
                line.passed += 1
        chosen.passed = 0
        return chosen

    def _expected(self, account: Account[Item], rate: float) -> tuple[float, float]:
        """Seconds until a request of the account is let in: those on its own tenant's account, and those on higher classes'.

        By estimate: higher classes go before it (though at least one place in `bypass` is its class's), and of its class's service its
        tenant gets its weight's part of those that wait. Never more than if all of its class went before it.
        """
        if rate <= 0.0:
            return 0.0, 0.0
        line = account.line
        weight = line.weight if account.tickets else line.weight + account.weight
        own = min(line.cost, account.backlog * weight / account.weight) / rate
        higher = sum(other.cost for other in self._lines[: line.rank]) / rate
        return own, min(higher, own * (self._policy.bypass - 1))

    def _lift(self, account: Account[Item]) -> None:
        line = account.line
        if line.waiting:
            level = line.first().counter
        elif line.last is not None:
            level = line.last.counter
        else:
            return
        account.counter = max(account.counter, level)

    def _left(self, ticket: Ticket[Item]) -> None:
        """Counts out a request that is in its account's tickets no more."""
        ticket.waits = False
        account = ticket.account
        line = account.line
        account.backlog -= ticket.cost
        line.cost -= ticket.cost
        line.waiting -= 1
        self.waiting -= 1
        if not account.tickets:
            account.mark = 0
            account.backlog = 0.0
            line.active -= 1
            line.weight -= account.weight
            if not line.waiting:
                line.heap.clear()
                line.weight = line.cost = 0.0  # what rounding left
                line.passed = 0

    def _open(self, tenant: TenantEntry) -> Account[Item]:
        """The account of a tenant that is new here, or whose entry has changed: its class changes when none of it waits."""
        account = self._accounts.get(tenant.name)
        line = self._lines[_RANK[tenant.priority]]
        if account is None:
            if len(self._accounts) >= self._few:
                self._forget()
            account = self._accounts[tenant.name] = Account(tenant, line)
        else:
            if account.line is not line and not account.tickets:
                account.line = line
                account.counter = 0.0  # the lift brings it to its new class's level
            if account.line is line:
                account.tenant = tenant
            weight = max(tenant.weight, _LEAST_WEIGHT)
            if account.tickets:
                account.line.weight += weight - account.weight
            account.weight = weight
        self._price(account)
        return account

    def _price(self, account: Account[Item]) -> None:
        account.input_price = self._policy.input_cost / account.weight
        account.output_price = self._policy.output_cost / account.weight

    def _forget(self) -> None:
        """Drops the accounts that the lift would bring to their line's level anyway: nothing is lost with them."""
        kept: dict[str, Account[Item]] = {}
        for name, account in self._accounts.items():
            last = account.line.last
            if (
                account.in_flight
                or account.tickets
                or last is None
                or last is account
                or account.counter > last.counter
            ):
                kept[name] = account
        self._accounts = kept
        self._few = max(_FEW_ACCOUNTS, 2 * len(kept))


def _entry(account: Account[Item]) -> tuple[float, int, int, int, Account[Item]]:
    return account.counter, account.served, next(iter(account.tickets)), account.mark, account
