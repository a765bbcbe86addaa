"""Limits on the hot path: count, reserve, settle; a round trip to the ledger only when a lease is empty or over."""

import asyncio
from collections.abc import Callable
from typing import Literal

from penstock.access.leases import Account, Holder, LeaseBook, Reservation
from penstock.access.limits import RESOURCES, SEATS, TOKENS, Window
from penstock.access.register import Refusal, Return
from penstock.core.errors import Unavailable
from penstock.core.snapshot import KeyEntry, TenantEntry
from penstock.store.ledger import Ledger

TICK_S = 0.25
_MOST_HOLDERS = 100_000
_OWN_SHARE = -1  # in place of a slot: taken while the ledger was away, so not in its books


class Standing:
    """Where a caller stands, as of now: the tightest of its limits on requests and on tokens. None: not limited."""

    __slots__ = ("_holder", "_now")

    def __init__(self, holder: Holder, now: float) -> None:
        self._holder = holder
        self._now = now

    def requests(self) -> tuple[int, int, float] | None:
        """Requests per minute, how many may still be made, and seconds until all of them may if no more come."""
        return self._figures(self._holder.requests)

    def tokens(self) -> tuple[int, int, float] | None:
        """Tokens per minute, how many may still be used, and seconds until all of them may if no more are."""
        return self._figures(self._holder.tokens)

    def _figures(self, accounts: tuple[Account, ...]) -> tuple[int, int, float] | None:
        now = self._now
        tightest: Account | None = None
        least = 0
        for account in accounts:
            left = account.left(now)
            if tightest is None or left < least:
                tightest, least = account, left
        if tightest is None:
            return None
        reset = tightest.reset - now
        return tightest.limit, least, max(0.0, reset)


class Limiter:
    """The limits of one worker.

    Args:
        ledger: who keeps the books.
        epoch: what is added to every `now` to make it Unix seconds: the difference of the clocks at start, if `now` is monotonic.
        down: what happens while the ledger is away: `closed` refuses with 503 what needs it; `open` lets each worker use up to its share
            of each limit (the limit divided by `workers`), which is reported when the ledger is back.
        workers: how many share the ledger.
    """

    def __init__(
        self, ledger: Ledger, *, epoch: float = 0.0, down: Literal["open", "closed"] = "open", workers: int = 1
    ) -> None:
        self.book = LeaseBook()
        self.refusals = 0
        self.outages = 0
        self._ledger = ledger
        self._epoch = epoch
        self._down = down
        self._workers = max(1, workers)
        self._sharing: list[Account] = []
        self._holders: dict[str, tuple[KeyEntry, TenantEntry, Holder]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """Call `tick` from time to time; `clock` is the one of `now`."""

        def again() -> None:
            self.tick(clock())
            self._timer = loop.call_later(TICK_S, again)

        self._timer = loop.call_later(TICK_S, again)

    def close(self, now: float) -> None:
        """Give back what is left of all leases."""
        if self._timer is not None:
            self._timer.cancel()
        now += self._epoch
        left = self.book.expire(float("inf"))
        if left:
            self._ledger.give_back(left, now)

    def tick(self, now: float) -> None:
        """Give back leases that are over, and report what was used while the ledger was away."""
        now += self._epoch
        back = self.book.expire(now)
        if self._sharing and self._ledger.up:
            for account in self._sharing:
                if account.share is not None:
                    if account.share.used:
                        back.append(Return(account.scope, account.resource, 0, -account.share.used))
                    account.share = None
            self._sharing.clear()
        if back:
            self._ledger.give_back(back, now)

    async def count(self, key: KeyEntry, tenant: TenantEntry, now: float) -> Standing | None:
        """Count one request. None: nothing is limited.

        Raises:
            RateLimited: if it is one too many.
            Unavailable: if the ledger is needed, away, and the setting is `closed`.
        """
        now += self._epoch
        holder = self._holder(key, tenant)
        accounts = holder.requests
        for account in accounts:
            if account.balance < 1 or now >= account.expires:
                await self._claim([(a, 1) for a in accounts], now)
                break
        else:
            for account in accounts:
                account.balance -= 1
        return Standing(holder, now) if accounts or holder.tokens else None

    async def reserve(
        self, key: KeyEntry, tenant: TenantEntry, tokens: int, now: float, nanousd: int = 0
    ) -> Reservation | None:
        """Hold `tokens`, `nanousd` and a seat, all or nothing. None: none of them is limited.

        Raises:
            RateLimited: if one of them is not there.
            Unavailable: if the ledger is needed, away, and the setting is `closed`.
        """
        now += self._epoch
        holder = self._holder(key, tenant)
        parts = [(a, tokens) for a in holder.tokens]
        if holder.spend:
            parts += [(a, nanousd) for a in holder.spend]
        if holder.seats:
            parts += [(a, 1) for a in holder.seats]
        if not parts:
            return None
        for account, amount in parts:
            if account.balance < amount or now >= account.expires:
                return Reservation(tokens, nanousd, await self._claim(parts, now))
        taken: list[tuple[Account, int, int]] = []
        for account, amount in parts:  # all of it is leased: the way of nearly every request
            account.balance -= amount
            if account.resource == SEATS:
                account.in_use += amount
            taken.append((account, account.slot, amount))
        return Reservation(tokens, nanousd, taken)

    def settle(self, reservation: Reservation, tokens: int, now: float, nanousd: int = 0) -> None:
        """The request is over and used this much: the rest is given back, more is charged whatever the limit. Once; again is nothing."""
        if reservation.settled:
            return
        reservation.settled = True
        now += self._epoch
        back: list[Return] = []
        for account, slot, amount in reservation.taken:
            resource = account.resource
            if resource == SEATS:
                account.in_use -= amount
                unused = amount
            else:
                unused = amount - (tokens if resource == TOKENS else nanousd)
            if unused > 0:
                # As `_put` does, for what goes back to the lease that it was taken from.
                if account.slot == slot and now < account.expires and account.balance + unused <= account.most:
                    account.balance += unused
                else:
                    self._put(account, slot, unused, now, back)
            elif unused < 0:
                more = -unused
                if account.balance > 0 and now < account.expires:
                    own = min(account.balance, more)
                    account.balance -= own
                    more -= own
                if more:
                    back.append(Return(account.scope, account.resource, 0, -more))
        if back:
            self._ledger.give_back(back, now)

    def _put(self, account: Account, slot: int, amount: int, now: float, back: list[Return]) -> None:
        if slot == _OWN_SHARE:
            if account.share is not None:
                account.share.book(account.share.slot_at(now), -amount)
        elif account.slot == slot and now < account.expires and account.balance + amount <= account.most:
            account.balance += amount
        else:
            back.append(Return(account.scope, account.resource, slot, amount))

    def _holder(self, key: KeyEntry, tenant: TenantEntry) -> Holder:
        known = self._holders.get(key.id)
        if known is not None and known[0] is key and known[1] is tenant:
            return known[2]
        holder = self.book.holder(key, tenant)
        if len(self._holders) > _MOST_HOLDERS:
            self._holders.clear()
            self.book.forget()
        self._holders[key.id] = (key, tenant, holder)
        return holder

    async def _claim(self, parts: list[tuple[Account, int]], now: float) -> list[tuple[Account, int, int]]:
        """Take all parts, from leases at hand or from the ledger; nothing is taken if it raises."""
        taken: list[tuple[Account, int, int]] = []
        short: list[tuple[Account, int]] = []
        done = False
        try:
            for account, amount in parts:
                if account.balance >= amount and now < account.expires:
                    account.balance -= amount
                    self._take(taken, account, account.slot, amount)
                elif account.refusal is not None and now < account.refused_until and amount >= account.refused_need:
                    self.refusals += 1
                    raise account.error(account.refusal, amount)
                else:
                    short.append((account, amount))
            if short:
                await self._ask(short, taken, now)
            done = True
        finally:
            if not done:
                self._undo(taken, now)
        return taken

    async def _ask(self, short: list[tuple[Account, int]], taken: list[tuple[Account, int, int]], now: float) -> None:
        old = [r for a, _ in short if (r := a.drop()) is not None]
        if old:
            self._ledger.give_back(old, now)
        try:
            answer = await self._ledger.grant([a.want(n) for a, n in short], now)
        except Unavailable:
            self.outages += 1
            if self._down == "closed":
                raise
            self._use_share(short, taken, now)
            return
        if isinstance(answer, Refusal):
            account, amount = short[answer.index]
            account.refuse(answer, amount, now)
            self.refusals += 1
            raise account.error(answer, amount)
        left: list[Return] = []
        for (account, amount), lease in zip(short, answer, strict=True):
            if (rest := account.drop()) is not None:  # another request has had one meanwhile
                left.append(rest)
            account.accept(lease)
            if lease.extra:
                self.book.leased.add(account)
            self._take(taken, account, lease.slot, amount)
        if left:
            self._ledger.give_back(left, now)

    def _use_share(self, short: list[tuple[Account, int]], taken: list[tuple[Account, int, int]], now: float) -> None:
        for account, amount in short:
            share = max(1, account.limit // self._workers)
            if account.resource == SEATS:
                wait = 0.0 if account.in_use + amount <= share else 1.0
                slot = 0
            else:
                if account.share is None:
                    account.share = Window(RESOURCES[account.resource], share)
                    self._sharing.append(account)
                account.share.limit = share
                wait = account.share.wait(amount, now)
                slot = _OWN_SHARE
            if wait:
                self.refusals += 1
                raise account.error(Refusal(0, wait, 0, now + 1.0), amount)
            if account.share is not None:
                account.share.book(account.share.slot_at(now), amount)
            self._take(taken, account, slot, amount)

    def _take(self, taken: list[tuple[Account, int, int]], account: Account, slot: int, amount: int) -> None:
        if account.resource == SEATS:
            account.in_use += amount
        taken.append((account, slot, amount))

    def _undo(self, taken: list[tuple[Account, int, int]], now: float) -> None:
        back: list[Return] = []
        for account, slot, amount in taken:
            if account.resource == SEATS:
                account.in_use -= amount
            self._put(account, slot, amount, now, back)
        if back:
            self._ledger.give_back(back, now)
