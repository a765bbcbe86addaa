"""What one worker holds of the limits, and how it spends it: without asking, while a lease lasts."""

from penstock.access.limits import REQUESTS, RESOURCES, SEATS, SPEND, TOKENS, Window, limit_of
from penstock.access.register import Lease, Refusal, Return, Want
from penstock.core.errors import RateLimited
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry

REMEMBER_REFUSAL_S = 0.05


class Account:
    """One limit of one scope, as one worker sees it. `balance` may be spent until `expires`."""

    __slots__ = (
        "balance",
        "expires",
        "in_use",
        "limit",
        "most",
        "refusal",
        "refused_need",
        "refused_until",
        "remaining",
        "reset",
        "resource",
        "scope",
        "share",
        "slot",
    )

    def __init__(self, scope: str, resource: int, limit: int) -> None:
        self.scope = scope
        self.resource = resource
        self.limit = limit
        self.balance = 0
        self.most = 0  # how much may stay here unspent: what the last lease gave beyond the need
        self.expires = 0.0
        self.slot = 0
        self.remaining = limit
        self.reset = 0.0
        self.in_use = 0  # seats taken by requests that run
        self.refused_until = 0.0
        self.refused_need = 0
        self.refusal: Refusal | None = None
        self.share: Window | None = None  # what the worker granted itself while the ledger was down

    def want(self, need: int) -> Want:
        """What to ask the ledger for."""
        return Want(self.scope, self.resource, self.limit, need)

    def drop(self) -> Return | None:
        """What is left of the lease, to be given back."""
        if self.balance <= 0:
            return None
        left = Return(self.scope, self.resource, self.slot, self.balance)
        self.balance = 0
        return left

    def accept(self, lease: Lease) -> None:
        """A new lease, once the old one has been dropped."""
        self.balance = self.most = lease.extra
        self.slot = lease.slot
        self.expires = lease.expires
        self.remaining = lease.remaining
        self.reset = lease.reset

    def refuse(self, refusal: Refusal, need: int, now: float) -> None:
        """Remember a refusal for a moment, so that a flood does not ask again and again."""
        self.remaining = refusal.remaining
        self.reset = refusal.reset
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
        scale, unit = (1e-9, "US dollars") if self.resource == SPEND else (1, resource.name)
        asked = f"{need * scale:.10g} {unit}"
        limit = f"{self.limit * scale:.10g} {unit} {resource.per}"
        if refusal.wait == float("inf"):
            return RateLimited(
                f"This request needs up to {asked}, more than the limit of {limit} of {kind} {name}: it can never be served.",
                code=resource.code,
            )
        return RateLimited(
            f"Limit reached for {kind} {name}: {limit}, {refusal.remaining * scale:.10g} left, {asked} asked for."
            f" Try again in {refusal.wait:.3g} s.",
            code=resource.code,
            retry_after=refusal.wait,
        )


class Holder:
    """All accounts that a key's requests draw on: its own and its tenant's, by resource."""

    __slots__ = ("requests", "seats", "spend", "tokens")

    def __init__(
        self,
        requests: tuple[Account, ...],
        tokens: tuple[Account, ...],
        spend: tuple[Account, ...],
        seats: tuple[Account, ...],
    ) -> None:
        self.requests = requests
        self.tokens = tokens
        self.spend = spend
        self.seats = seats


class Reservation:
    """What one request has taken: to be settled once."""

    __slots__ = ("nanousd", "settled", "taken", "tokens")

    def __init__(self, tokens: int, nanousd: int, taken: list[tuple[Account, int, int]]) -> None:
        self.tokens = tokens
        self.nanousd = nanousd
        self.taken = taken  # account, slot, amount
        self.settled = False


class LeaseBook:
    """All accounts of one worker; `leased` are those that may have something unspent."""

    __slots__ = ("accounts", "leased")

    def __init__(self) -> None:
        self.accounts: dict[tuple[str, int], Account] = {}
        self.leased: set[Account] = set()

    def holder(self, key: KeyEntry, tenant: TenantEntry) -> Holder:
        """The accounts of `key` and `tenant` for the limits that they have; what is leased stays when limits change."""
        scopes = ((f"key:{key.id}", key.limits), (f"tenant:{tenant.name}", tenant.limits))
        return Holder(
            self._accounts(REQUESTS, scopes),
            self._accounts(TOKENS, scopes),
            self._accounts(SPEND, scopes),
            self._accounts(SEATS, scopes),
        )

    def expire(self, now: float) -> list[Return]:
        """What is left of leases that are over, to be given back; seats that stand idle, too."""
        over = [account for account in self.leased if now >= account.expires]
        self.leased.difference_update(over)
        return [left for account in over if (left := account.drop()) is not None]

    def forget(self) -> None:
        """Drop all accounts that hold nothing: those of keys that are gone, and of others until they come again."""
        for key, account in list(self.accounts.items()):
            if not (account.balance or account.in_use or account.share is not None):
                del self.accounts[key]

    def seats(self) -> dict[str, int]:
        """Seats that this worker holds, in use and idle, by scope."""
        held = {a.scope: a.in_use + a.balance for a in self.accounts.values() if a.resource == SEATS}
        return {scope: amount for scope, amount in held.items() if amount}

    def _accounts(self, resource: int, scopes: tuple[tuple[str, Limits], ...]) -> tuple[Account, ...]:
        found: list[Account] = []
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
