"""Limits as exact sliding windows, and what a request is expected to use.

A window of length W holds at most the limit in *every* interval of length W: amounts are booked in slots of a fraction of W, and a slot
counts until W after its end. A counter per slot is the sliding window log, coarsened to slots (the "sliding window" of Cloudflare's "How
we built rate limiting", 2017, interpolates instead and is only right on average); a token bucket would let twice the limit through after
a pause. All amounts are whole numbers: tokens, requests, nano-dollars.
"""

import msgspec

from penstock.core.snapshot import Limits

DEFAULT_COMPLETION_TOKENS = 256
BYTES_PER_TOKEN = 4


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is limited.

    `field` is its name in `Limits`. `window_s` is the interval of the limit, `slot_s` the grain of the books; what a worker has leased it
    may spend for `lease_s`. An amount is free again at most `window_s + slot_s + lease_s` after it was spent. A window of 0 is a limit on
    what is in use at once.
    """

    field: str
    name: str
    per: str
    window_s: int = 0
    slot_s: int = 1
    lease_s: float = 1.0
    code: str = "rate_limit_exceeded"


# Numbers stand in ledgers' books: they keep their meaning for ever.
REQUESTS = 0
TOKENS = 1
SPEND = 2
SEATS = 3
SPEND_MINUTE = 4
SPEND_MONTH = 5
REQUESTS_DAY = 6
REQUESTS_MONTH = 7
TOKENS_DAY = 8
TOKENS_MONTH = 9
COUNTS = (REQUESTS, REQUESTS_DAY, REQUESTS_MONTH)
SIZES = (TOKENS, TOKENS_DAY, TOKENS_MONTH)
SPENDS = (SPEND_MINUTE, SPEND, SPEND_MONTH)
# Reserved in windows so long that what a killed worker held must not wait for their end. A request that was counted has come, whatever became of it.
LASTING = (SPEND, SPEND_MONTH, TOKENS_DAY, TOKENS_MONTH)
DAY_S = 86400
MONTH_S = 30 * DAY_S


def _a_minute(field: str, name: str) -> Resource:
    return Resource(field=field, name=name, per="per minute", window_s=60)


def _a_day(field: str, name: str) -> Resource:
    return Resource(
        field=field, name=name, per="per day", window_s=DAY_S, slot_s=300, lease_s=60.0, code="insufficient_quota"
    )


def _a_month(field: str, name: str) -> Resource:
    return Resource(
        field=field,
        name=name,
        per="per 30 days",
        window_s=MONTH_S,
        slot_s=4 * 3600,
        lease_s=60.0,
        code="insufficient_quota",
    )


RESOURCES = (
    _a_minute("requests_per_minute", "requests"),
    _a_minute("tokens_per_minute", "tokens"),
    _a_day("usd_per_day", "nano-dollars"),
    Resource(field="concurrency", name="requests", per="at once", code="concurrency_limit_exceeded"),
    _a_minute("usd_per_minute", "nano-dollars"),
    _a_month("usd_per_month", "nano-dollars"),
    _a_day("requests_per_day", "requests"),
    _a_month("requests_per_month", "requests"),
    _a_day("tokens_per_day", "tokens"),
    _a_month("tokens_per_month", "tokens"),
)


def limit_of(limits: Limits, resource: int) -> int | None:
    """The limit of one resource, of money in nano-dollars; None: there is none."""
    limit: float | None = getattr(limits, RESOURCES[resource].field)
    if limit is None:
        return None
    return round(limit * 1e9) if resource in SPENDS else int(limit)


def estimate_tokens(prompt_bytes: int, max_tokens: int | None, choices: int = 1) -> int:
    """What is reserved before a request runs: a token for 4 bytes of prompt, and all the tokens that it may generate.

    Without `max_tokens`, 256 for each choice. What is really used is settled after, more or less.
    """
    completion = DEFAULT_COMPLETION_TOKENS if max_tokens is None else max_tokens
    return -(-prompt_bytes // BYTES_PER_TOKEN) + completion * choices


class Window:
    """What has been booked of one limit. The one who grants owns it; `now` is Unix seconds, and never goes back for it."""

    __slots__ = ("_now", "_oldest", "limit", "resource", "slots", "used")

    def __init__(self, resource: Resource, limit: int) -> None:
        self.resource = resource
        self.limit = limit
        self.slots: dict[int, int] = {}
        self.used = 0
        self._oldest = 0
        self._now = 0.0

    def slot_at(self, now: float) -> int:
        """The slot in which something that may be spent until `lease_s` from now is booked."""
        return int((max(now, self._now) + self.resource.lease_s) // self.resource.slot_s)

    def free_at(self, slot: int) -> float:
        """When what is booked in `slot` no longer counts."""
        return float((slot + 1) * self.resource.slot_s + self.resource.window_s)

    def advance(self, now: float) -> None:
        """Let go of the slots that no longer count."""
        self._now = max(now, self._now)
        if not self.slots or self._now < self.free_at(self._oldest):
            return
        for slot in [s for s in self.slots if self._now >= self.free_at(s)]:
            self.used -= self.slots.pop(slot)
        self._oldest = min(self.slots, default=0)

    def book(self, slot: int, amount: int) -> int:
        """Add `amount` to `slot`, limit or not; negative takes back, at most what is there. What was really added."""
        before = self.slots.get(slot)
        if before is None:
            if amount <= 0:
                return 0
            if not self.slots or slot < self._oldest:
                self._oldest = slot
            before = 0
        amount = max(amount, -before)
        self.slots[slot] = before + amount
        self.used += amount
        return amount

    def take_oldest(self, amount: int) -> list[tuple[int, int]]:
        """Take back `amount`, at most what is there, from the oldest slots. The changes by slot."""
        changes: list[tuple[int, int]] = []
        for slot in sorted(self.slots):
            taken = self.book(slot, -amount)
            changes.append((slot, taken))
            amount += taken
            if amount == 0:
                break
        return changes

    def wait(self, need: int, now: float) -> float:
        """Seconds until `need` fits if nothing else is booked meanwhile; 0: it fits now; infinite: it is above the limit."""
        self.advance(now)
        excess = self.used + need - self.limit
        if excess <= 0:
            return 0.0
        if need > self.limit:
            return float("inf")
        for slot in sorted(self.slots):
            excess -= self.slots[slot]
            if excess <= 0:
                return self.free_at(slot) - self._now
        return float("inf")

    @property
    def remaining(self) -> int:
        """What may still be booked."""
        return max(0, self.limit - self.used)
