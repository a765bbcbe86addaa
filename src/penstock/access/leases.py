"""What one worker holds of the limits, and how it spends it: without asking, while a lease lasts.

All times here are the worker's own, monotonic seconds: a lease is good for a time from when it was asked for, so that the clocks of
workers and ledger need not agree.
"""

from math import ceil
from weakref import WeakValueDictionary

import msgspec

from penstock.access.limits import COUNTS, LASTING, RESOURCES, SEATS, SIZES, SPENDS, Window, limit_of
from penstock.access.register import Lease, Refusal, Return, Want
from penstock.core.errors import RateLimited
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry

REMEMBER_REFUSAL_S = 0.05
_NONE = Limits()


class Account:
    """One limit of one scope, as one worker sees it. `balance` may be spent until `expires`."""

    __slots__ = (
        "__weakref__",
        "balance",
        "expires",
        "held",
        "limit",
        "most",
        "past",
        "refusal",
        "refused_need",
        "refused_until",
        "remaining",
        "reset",
        "resource",
        "scope",
        "share",
        "slot",
        "stamp",
    )

    def __init__(self, scope: str, resource: int, limit: int) -> None:
        self.scope = scope
        self.resource = resource
        self.limit = limit
        self.balance = 0
        self.most = 0  # how much may stay here unspent: what the last lease gave beyond the need
        self.expires = 0.0
        self.slot = 0
        self.stamp = 0  # the first of the worker's leases, counted over all accounts, that was booked in `slot`
        self.past: list[tuple[int, int]] = []  # the same of earlier slots, while they still count
        self.remaining = limit
        self.reset = 0.0
        self.held = 0  # of seats: all that this worker has, those in `balance` too
        self.refused_until = 0.0
        self.refused_need = 0
        self.refusal: Refusal | None = None
        self.share: Window | None = None  # what the worker granted itself while the ledger was down

    def want(self, need: int) -> Want:
        """What to ask the ledger for."""
        return Want(self.scope, self.resource, self.limit, need)

    def drop(self) -> Return | None:
        """What is left of the lease, to be given back."""
        balance = self.balance
        if balance <= 0:
            return None
        self.balance = 0
        if self.resource == SEATS:
            self.held -= balance
        return Return(self.scope, self.resource, self.slot, balance)

    def accept(self, lease: Lease, need: int, asked: float, stamp: int) -> None:
        """A new lease, asked for at `asked`, once the old one has been dropped; `need` of it is taken by the caller."""
        if self.resource == SEATS:
            self.held += need + lease.extra
        elif lease.slot != self.slot:
            resource = RESOURCES[self.resource]
            most = resource.window_s // resource.slot_s + 2
            self.past.append((self.stamp, self.slot))
            if len(self.past) > most:
                del self.past[:-most]
            self.slot = lease.slot
            self.stamp = stamp
        self.balance = self.most = lease.extra
        self.expires = asked + RESOURCES[self.resource].lease_s
        self.remaining = lease.remaining
        self.reset = asked + lease.reset_s

    def slot_of(self, stamp: int) -> int | None:
        """The slot in which was booked what was taken when `stamp` was the worker's last lease; None: it no longer counts."""
        if stamp >= self.stamp:
            return self.slot
        for since, slot in reversed(self.past):
            if since <= stamp:
                return slot
        return None

    def refuse(self, refusal: Refusal, need: int, now: float) -> None:
        """Remember a refusal for a moment, so that a flood does not ask again and again."""
        self.remaining = refusal.remaining
        self.reset = now + refusal.reset_s
        self.refusal = refusal
        self.refused_need = need
        self.refused_until = now + min(REMEMBER_REFUSAL_S, refusal.wait)

    def left(self, now: float) -> int:
        """What the caller may still use, as far as this worker knows."""
        if now >= self.reset:
            return self.limit
        return self.remaining + self.balance

    def error(self, refusal: Refusal, need: int) -> RateLimited:
        """The refusal as the caller is told it."""
        resource = RESOURCES[self.resource]
        kind, _, name = self.scope.partition(":")
        money = self.resource in SPENDS
        scale, unit = (1e-9, "US dollars") if money else (1, resource.name)
        asked = f"{need * scale:.10g} {unit}"
        limit = f"{self.limit * scale:.10g} {unit} {resource.per}"
        if refusal.wait == float("inf"):
            return RateLimited(
                f"This request needs up to {asked}, more than the limit of {limit} of {kind} {name}: it can never be served.",
                code=resource.code,
            )
        left = "" if kind == "model" else f" {refusal.remaining * scale:.10g} left,"  # others' use is theirs to know
        return RateLimited(
            f"Limit reached for {kind} {name}: {limit},{left} {asked} asked for. Try again in {in_words(refusal.wait)}.",
            code=resource.code,
            retry_after=refusal.wait,
        )


def in_words(seconds: float) -> str:
    """A time to wait as people say it: `12.5 s`, `6 min`, `23 h 4 min`, `29 d 23 h`; two minutes and more are rounded up to the smaller unit."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = ceil(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = ceil(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


class Holder:
    """All accounts that a caller's requests draw on, by what they limit.

    Attributes:
        counted: requests of the key and the tenant, counted when the caller is known.
        requests: requests of the model, counted when it is known.
        shown: the accounts of requests and of tokens that the caller is told of: its own and its tenant's.
        lasting: those of tokens and of money whose windows are so long that what is held of them must outlive this worker.
        counted_until: until when no lease of `counted` is over, at least.
        until: the same of all the others.
        more: whether there is more to reserve than tokens and seats.
        reserves: whether there is anything to reserve.
        bounds: whether tokens or money are limited, so that no answer may be longer than what is reserved for it.
        spends: whether money is limited.
    """

    __slots__ = (
        "bounds",
        "counted",
        "counted_until",
        "lasting",
        "more",
        "requests",
        "reserves",
        "seats",
        "shown",
        "spend",
        "spends",
        "tokens",
        "until",
    )

    def __init__(
        self,
        *,
        counted: tuple[Account, ...],
        requests: tuple[Account, ...],
        tokens: tuple[Account, ...],
        spend: tuple[Account, ...],
        seats: tuple[Account, ...],
    ) -> None:
        self.counted = counted
        self.requests = requests
        self.tokens = tokens
        self.spend = spend
        self.seats = seats
        self.lasting = tuple(a for a in tokens + spend if a.resource in LASTING)
        self.spends = bool(spend)
        self.bounds = bool(tokens or spend)
        self.more = bool(spend or requests)
        self.reserves = bool(tokens or seats or spend or requests)
        self.shown = (
            tuple(a for a in counted + requests if not a.scope.startswith("model:")),
            tuple(a for a in tokens if not a.scope.startswith("model:")),
        )
        self.counted_until = 0.0
        self.until = 0.0

    def parts(self, tokens: int, nanousd: int) -> list[tuple[Account, int]]:
        """What a request of this size draws on each account, once it is counted."""
        parts = [(a, tokens) for a in self.tokens]
        if self.more:
            parts += [(a, nanousd) for a in self.spend]
            parts += [(a, 1) for a in self.requests]
        parts += [(a, 1) for a in self.seats]
        return parts


class Reservation(msgspec.Struct, eq=False, gc=False):
    """What one request has taken: to be settled once.

    `stamp` is the worker's last lease when it was taken: each account knows from it what the amount was booked in. Where leases were
    asked for meanwhile, `taken` tells account, slot and amount one by one.
    """

    holder: Holder
    tokens: int
    nanousd: int
    stamp: int
    taken: list[tuple[Account, int, int]] | None = None
    settled: bool = False


class LeaseBook:
    """All accounts of one worker, while somebody holds them; `leased` are those that may have something unspent."""

    __slots__ = ("accounts", "leased")

    def __init__(self) -> None:
        self.accounts: WeakValueDictionary[tuple[str, int], Account] = WeakValueDictionary()
        self.leased: set[Account] = set()

    def holder(self, key: KeyEntry, tenant: TenantEntry, model: str | None = None, limits: Limits = _NONE) -> Holder:
        """The accounts of `key` and `tenant` for the limits that they have, and of `model`, which has `limits` itself, if it is given.

        What is leased stays when limits change.
        """
        own = [(f"key:{key.id}", key.limits), (f"tenant:{tenant.name}", tenant.limits)]
        of_model: list[tuple[str, Limits]] = []
        if model is not None:
            of_model = [
                (f"key:{key.id} on model {model}", key.model_limits.get(model, _NONE)),
                (f"tenant:{tenant.name} on model {model}", tenant.model_limits.get(model, _NONE)),
                (f"model:{model}", limits),
            ]
        every = [*own, *of_model]
        return Holder(
            counted=self._accounts(COUNTS, own),
            requests=self._accounts(COUNTS, of_model),
            tokens=self._accounts(SIZES, every),
            spend=self._accounts(SPENDS, every),
            seats=self._accounts((SEATS,), every),
        )

    def expire(self, now: float) -> list[Return]:
        """What is left of leases that are over, to be given back; seats that stand idle, too."""
        over = [account for account in self.leased if now >= account.expires]
        self.leased.difference_update(over)
        return [left for account in over if (left := account.drop()) is not None]

    def seats(self) -> dict[str, int]:
        """Seats that this worker holds, in use and idle, by scope."""
        return {a.scope: a.held for a in self.accounts.values() if a.resource == SEATS and a.held}

    def _accounts(self, resources: tuple[int, ...], scopes: list[tuple[str, Limits]]) -> tuple[Account, ...]:
        found: list[Account] = []
        for resource in resources:
            for scope, limits in scopes:
                limit = limit_of(limits, resource)
                if limit is None:
                    continue
                account = self.accounts.get((scope, resource))
                if account is None:
                    account = self.accounts[scope, resource] = Account(scope, resource, limit)
                account.limit = limit
                found.append(account)
        return tuple(found)
