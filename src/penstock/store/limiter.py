"""Limits on the hot path: count, reserve, settle; a round trip to the ledger only when a lease is empty or over."""

import asyncio
from collections.abc import Callable

from penstock.access.leases import Account, Holder, LeaseBook, Reservation
from penstock.access.limits import COUNTS, LASTING, RESOURCES, SEATS, SIZES, Window
from penstock.access.register import OLDEST, Refusal, Return
from penstock.core.errors import Unavailable
from penstock.core.snapshot import KeyEntry, LedgerDown, Limits, TenantEntry
from penstock.store.ledger import Ledger
from penstock.store.slate import Slate

TICK_S = 0.25
AWAY_S = 5.0


class Limiter:
    """The limits of one worker. Every `now` is monotonic seconds.

    Args:
        ledger: who keeps the books.
        epoch: what is added to `now` to make it Unix seconds, for the ledger: the difference of the clocks at start.
        down: what happens while the ledger is away: `closed` refuses with 503 what needs it; `open` lets each worker use up to its share
            of each limit (the limit divided by `workers`, or by how many the ledger told of), which is reported when the ledger is back. A caller's policy may say otherwise.
        workers: how many share the ledger, at least.
        slate: where what running requests hold of a day's or a month's tokens and money is noted; what a killed predecessor held is given back.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        epoch: float = 0.0,
        down: LedgerDown = "open",
        workers: int = 1,
        slate: Slate | None = None,
    ) -> None:
        self.book = LeaseBook()
        self.refusals = 0
        self.outages = 0
        self._ledger = ledger
        self._epoch = epoch
        self._down: LedgerDown = down
        self._workers = max(1, workers)
        self._stamp = 0
        self._slate = slate
        self._sharing: list[Account] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def up(self) -> bool:
        """Whether the ledger can be asked."""
        return self._ledger.up

    def start(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """Call `tick` from time to time; `clock` is the one of `now`."""

        def again() -> None:
            self.tick(clock())
            self._timer = loop.call_later(TICK_S, again)

        self._timer = loop.call_later(TICK_S, again)
        if self._slate is not None and self._slate.left:
            self._ledger.give_back(self._slate.left, clock() + self._epoch)

    def close(self, now: float) -> None:
        """Give back what is left of all leases, and report what was used while the ledger was away."""
        if self._timer is not None:
            self._timer.cancel()
        self.tick(now)
        left = self.book.expire(float("inf"))
        if left:
            self._ledger.give_back(left, now + self._epoch)

    def tick(self, now: float) -> None:
        """Give back leases that are over, and report what was used while the ledger was away."""
        back = self.book.expire(now)
        if self._sharing and self._ledger.up:
            for account in self._sharing:
                if account.share is not None:
                    if account.share.used:
                        back.append(Return(account.scope, account.resource, 0, -account.share.used))
                    account.share = None
            self._sharing.clear()
        if back:
            self._ledger.give_back(back, now + self._epoch)

    def holder(self, key: KeyEntry, tenant: TenantEntry) -> Holder:
        """What the requests of `key` draw on, whatever the model; to be kept as long as these entries are."""
        return self.book.holder(key, tenant)

    def holder_on(self, key: KeyEntry, tenant: TenantEntry, model: str, limits: Limits) -> Holder:
        """The same with the limits on one model: the caller's, and the model's own (`limits`)."""
        return self.book.holder(key, tenant, model, limits)

    def try_count(self, holder: Holder, now: float) -> bool:
        """Count one request, if the leases at hand cover it; False: nothing was done, and `count` must be awaited."""
        counted = holder.counted
        if now >= holder.counted_until:
            holder.counted_until = min([a.expires for a in counted], default=float("inf"))
            if now >= holder.counted_until:
                return False
        for account in counted:
            if account.balance < 1:
                return False
        for account in counted:
            account.balance -= 1
        return True

    async def count(self, holder: Holder, now: float, down: LedgerDown | None = None) -> None:
        """Count one request, asking the ledger; `down` in place of the limiter's.

        Raises:
            RateLimited: if it is one too many.
            Unavailable: if the ledger is needed, away, and it is `closed` then.
        """
        await self._claim([(account, 1) for account in holder.counted], now, down)

    def try_reserve(self, holder: Holder, tokens: int, now: float, nanousd: int = 0) -> Reservation | None:
        """Hold `tokens`, `nanousd`, a request of the model and a seat, if the leases at hand cover them all.

        None: nothing was done, and `reserve` must be awaited.
        """
        if now >= holder.until:
            holder.until = min([a.expires for a, _ in holder.parts(0, 0)], default=float("inf"))
            if now >= holder.until:
                return None
        for account in holder.tokens:
            if account.balance < tokens:
                return None
        for account in holder.seats:
            if account.balance < 1:
                return None
        if holder.more and not _take_more(holder, nanousd):
            return None
        for account in holder.tokens:
            account.balance -= tokens
        for account in holder.seats:
            account.balance -= 1
        if self._slate is not None and holder.lasting:
            for account in holder.lasting:
                amount = tokens if account.resource in SIZES else nanousd
                self._slate.add(account.scope, account.resource, account.slot, amount)
        return Reservation(holder, tokens, nanousd, self._stamp)

    async def reserve(
        self, holder: Holder, tokens: int, now: float, nanousd: int = 0, down: LedgerDown | None = None
    ) -> Reservation:
        """Hold `tokens`, `nanousd`, a request of the model and a seat, all or nothing, asking the ledger for what is not leased.

        Raises:
            RateLimited: if one of them is not there.
            Unavailable: if the ledger is needed, away, and it is `closed` then.
        """
        taken = await self._claim(holder.parts(tokens, nanousd), now, down)
        if self._slate is not None and holder.lasting:
            for account, slot, amount in taken:
                if account.resource in LASTING and slot >= 0:
                    self._slate.add(account.scope, account.resource, slot, amount)
        return Reservation(holder, tokens, nanousd, self._stamp, taken)

    def settle(self, reservation: Reservation, tokens: int, now: float, nanousd: int = 0) -> None:
        """The request is over and used this much: the rest is given back, more is charged whatever the limit. Once; again is nothing."""
        if reservation.settled:
            return
        reservation.settled = True
        holder = reservation.holder
        unused = reservation.tokens - tokens
        if reservation.taken is None and not holder.more and unused >= 0 and now < holder.until:
            stamp = reservation.stamp
            for account in holder.tokens:
                balance = account.balance + unused
                if account.stamp > stamp or balance > account.most:
                    break
            else:
                for account in holder.seats:
                    if account.balance >= account.most:
                        break
                else:  # all of it goes back to the leases that it came from
                    for account in holder.tokens:
                        account.balance += unused
                    for account in holder.seats:
                        account.balance += 1
                    if self._slate is not None and holder.lasting:
                        for account in holder.lasting:
                            self._slate.take(account.scope, account.resource, account.slot, reservation.tokens)
                    return
        self._settle(reservation, tokens, now, nanousd)

    def _settle(self, reservation: Reservation, tokens: int, now: float, nanousd: int) -> None:
        taken = reservation.taken
        if taken is None:
            stamp = reservation.stamp
            parts = reservation.holder.parts(reservation.tokens, reservation.nanousd)
            taken = [(a, slot, n) for a, n in parts if (slot := a.slot_of(stamp)) is not None]
        back: list[Return] = []
        slate = self._slate if reservation.holder.lasting else None
        for account, slot, amount in taken:
            resource = account.resource
            if resource in COUNTS:
                continue
            if slate is not None and resource in LASTING:
                slate.take(account.scope, resource, slot, amount)
            unused = amount if resource == SEATS else amount - (tokens if resource in SIZES else nanousd)
            if unused > 0:
                self._put(account, slot, unused, now, back)
            elif unused < 0:
                more = -unused
                if account.balance > 0 and now < account.expires:
                    own = min(account.balance, more)
                    account.balance -= own
                    more -= own
                if more:
                    back.append(Return(account.scope, resource, 0, -more))
        if back:
            self._ledger.give_back(back, now + self._epoch)

    def _put(self, account: Account, slot: int, amount: int, now: float, back: list[Return]) -> None:
        if slot < 0:
            if now - _granted_at(slot) >= RESOURCES[account.resource].window_s:
                return  # what is booked now is of others
            if account.share is not None:
                account.share.take_oldest(amount)
            else:
                back.append(Return(account.scope, account.resource, OLDEST, amount))
        elif account.slot == slot and now < account.expires and account.balance + amount <= account.most:
            account.balance += amount
        else:
            if account.resource == SEATS:
                account.held -= amount
            back.append(Return(account.scope, account.resource, slot, amount))

    async def _claim(
        self, parts: list[tuple[Account, int]], now: float, down: LedgerDown | None
    ) -> list[tuple[Account, int, int]]:
        """Take all parts, from leases at hand or from the ledger; nothing is taken if it raises."""
        taken: list[tuple[Account, int, int]] = []
        short: list[tuple[Account, int]] = []
        done = False
        try:
            for account, amount in parts:
                if account.balance >= amount and now < account.expires:
                    account.balance -= amount
                    taken.append((account, account.slot, amount))
                elif account.refusal is not None and now < account.refused_until and amount >= account.refused_need:
                    self.refusals += 1
                    raise account.error(account.refusal, amount)
                else:
                    short.append((account, amount))
            if short:
                await self._ask(short, taken, now, down)
            done = True
        finally:
            if not done:
                self._undo(taken, now)
        return taken

    async def _ask(
        self,
        short: list[tuple[Account, int]],
        taken: list[tuple[Account, int, int]],
        now: float,
        down: LedgerDown | None,
    ) -> None:
        old = [r for a, _ in short if (r := a.drop()) is not None]
        if old:
            self._ledger.give_back(old, now + self._epoch)
        try:
            answer = await self._ledger.grant([a.want(n) for a, n in short], now + self._epoch)
        except Unavailable:
            self.outages += 1
            if (down or self._down) == "closed":
                raise
            self._use_share(short, taken, now)
            return
        if isinstance(answer, Refusal):
            account, amount = short[answer.index]
            account.refuse(answer, amount, now)
            self.refusals += 1
            raise account.error(answer, amount)
        self._stamp += 1
        left: list[Return] = []
        for (account, amount), lease in zip(short, answer, strict=True):
            if (rest := account.drop()) is not None:  # another request has had one meanwhile
                left.append(rest)
            account.accept(lease, amount, now, self._stamp)
            if lease.extra:
                self.book.leased.add(account)
            taken.append((account, lease.slot, amount))
        if left:
            self._ledger.give_back(left, now + self._epoch)

    def _use_share(self, short: list[tuple[Account, int]], taken: list[tuple[Account, int, int]], now: float) -> None:
        for account, amount in short:
            share = max(1, account.limit // max(self._workers, self._ledger.workers))
            if account.resource == SEATS:
                if account.held - account.balance + amount > share:
                    self.refusals += 1
                    raise account.error(Refusal(0, 1.0, 0, 1.0), amount)
                account.held += amount
                taken.append((account, 0, amount))
                continue
            if account.share is None:
                account.share = Window(RESOURCES[account.resource], share)
                self._sharing.append(account)
            account.share.limit = share
            wait = account.share.wait(amount, now)
            if wait:
                self.refusals += 1
                if amount <= account.limit:
                    wait = min(wait, AWAY_S)  # the ledger may be back before
                raise account.error(Refusal(0, wait, account.share.remaining, wait), amount)
            account.share.book(account.share.slot_at(now), amount)
            taken.append(
                (account, _own_grant(now), amount)
            )  # the ledger will book it later, if this is not settled before

    def _undo(self, taken: list[tuple[Account, int, int]], now: float) -> None:
        back: list[Return] = []
        for account, slot, amount in taken:
            self._put(account, slot, amount, now, back)
        if back:
            self._ledger.give_back(back, now + self._epoch)


def _own_grant(now: float) -> int:
    """In place of a slot, for what the worker grants itself: when that was, below zero."""
    return OLDEST - int(now)


def _granted_at(slot: int) -> int:
    return OLDEST - slot


def _take_more(holder: Holder, nanousd: int) -> bool:
    """Takes money and a request of the model, all or nothing."""
    for account in holder.spend:
        if account.balance < nanousd:
            return False
    for account in holder.requests:
        if account.balance < 1:
            return False
    for account in holder.spend:
        account.balance -= nanousd
    for account in holder.requests:
        account.balance -= 1
    return True
