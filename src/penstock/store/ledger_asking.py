"""What every client of a shared ledger does: keep who waits for an answer, and add up what is to be handed in."""

import asyncio
from collections.abc import Callable, Sequence

from penstock.access.limits import SEATS
from penstock.access.register import Lease, Refusal, Return, Want
from penstock.core.errors import Unavailable

ANSWER_S = 1.0  # how long a worker waits for an answer; not longer than the shortest lease


class AskingLedger:
    """The part of a ledger's client that is the same whatever the way to the ledger is.

    Attributes:
        seats: tells the seats that this worker holds, by scope, whenever it joins.
        workers: how many share the ledger, as far as it has told; 0: it has not.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seats: Callable[[], dict[str, int]] = dict
        self.workers = 0
        self._clock = clock  # monotonic seconds, for time limits
        self._asked: dict[int, tuple[asyncio.Future[list[Lease] | Refusal], Sequence[Want], float]] = {}
        self._next = 0
        self._asks: list[tuple[int, list[Want]]] = []
        self._returns: dict[tuple[str, int, int, bool], int] = {}

    @property
    def up(self) -> bool:
        """Whether the ledger can be asked."""
        raise NotImplementedError

    def _schedule(self) -> None:
        """See to it that what is waiting is sent, if the ledger can be asked."""
        raise NotImplementedError

    async def grant(self, wants: Sequence[Want], now: float) -> list[Lease] | Refusal:
        """Ask, with all that is asked in this loop turn."""
        if not self.up:
            raise ledger_is_down()
        waiter: asyncio.Future[list[Lease] | Refusal] = asyncio.get_running_loop().create_future()
        self._next += 1
        deadline = self._clock() + ANSWER_S
        self._asked[self._next] = (waiter, wants, deadline)
        self._asks.append((self._next, list(wants)))
        self._schedule()
        try:
            answer = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._return_all(wants, waiter.result(), now)
            raise
        if self._clock() > deadline:  # the lease may be over before it is spent
            self._return_all(wants, answer, now)
            raise ledger_is_down()
        return answer

    def give_back(self, returned: Sequence[Return], now: float) -> None:
        """Sent at the end of this loop turn, added up by slot; kept while the ledger is away, seats excepted: joining tells them."""
        del now
        for one in returned:
            if one.resource == SEATS and not self.up:
                continue
            key = (one.scope, one.resource, one.slot, one.amount > 0)
            self._returns[key] = self._returns.get(key, 0) + one.amount
        self._schedule()

    def _answer(self, identity: int, answer: list[Lease] | Refusal) -> None:
        entry = self._asked.pop(identity, None)
        if entry is None:
            return
        waiter, wants, _ = entry
        if waiter.done():  # the caller has been cancelled
            self._return_all(wants, answer, 0.0)
        else:
            waiter.set_result(answer)

    def _fail_all(self) -> None:
        """The ledger is away: nobody will be answered."""
        self._asks.clear()
        asked, self._asked = self._asked, {}
        for waiter, _, _ in asked.values():
            if not waiter.done():
                waiter.set_exception(ledger_is_down())

    def _overdue(self) -> bool:
        now = self._clock()
        return any(deadline < now for _, _, deadline in self._asked.values())

    def _forget_seats(self) -> None:
        """What is told on joining is not handed in beside it."""
        for key in [k for k in self._returns if k[1] == SEATS]:
            del self._returns[key]

    def _take_returns(self) -> list[Return]:
        returned = [Return(s, r, slot, amount) for (s, r, slot, _), amount in self._returns.items() if amount]
        self._returns.clear()
        return returned

    def _return_all(self, wants: Sequence[Want], answer: list[Lease] | Refusal, now: float) -> None:
        if isinstance(answer, list):
            pairs = zip(wants, answer, strict=True)
            self.give_back([Return(w.scope, w.resource, lease.slot, w.need + lease.extra) for w, lease in pairs], now)


def ledger_is_down() -> Unavailable:
    """What a request is told that needs the ledger while it is away."""
    return Unavailable("The ledger of limits does not answer.", code="ledger_down", retry_after=1.0)
