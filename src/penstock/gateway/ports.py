"""What the gateway needs of parts that it does not build itself."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock.core.exchange import Record
from penstock.core.snapshot import KeyEntry, TenantEntry


class Journal(Protocol):
    """Where records go. `append` never waits; what was appended is in the kernel when `committed` is done."""

    def append(self, record: Record) -> None:
        """Adds a record to what the end of this loop turn writes."""

    def committed(self) -> Awaitable[bool]:
        """Done when all that was appended until now is in the kernel."""

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Calls back when all that was appended until now is in the kernel."""

    async def strict(self) -> None:
        """Returns when all that was appended until now is on the disk; raises `Unavailable` if it cannot be."""

    def check_strict(self) -> None:
        """Raises `Unavailable` while the journal cannot be written."""


class Standing(Protocol):
    """Where a caller stands with its limits; None: not limited."""

    requests_limit: int | None
    requests_left: int
    requests_reset_s: float
    tokens_limit: int | None
    tokens_left: int
    tokens_reset_s: float


class Reservation(Protocol):
    """Tokens held for one request until it is settled."""


class Limiter(Protocol):
    """The limits of keys and tenants, over all workers."""

    async def count(self, key: KeyEntry, tenant: TenantEntry, now: float) -> Standing | None:
        """Counts one request; raises `RateLimited` if it is one too many. None: nothing is limited."""

    async def reserve(self, key: KeyEntry, tenant: TenantEntry, tokens: int, now: float) -> Reservation | None:
        """Holds `tokens`; raises `RateLimited` if they are not there. None: nothing is limited."""

    def settle(self, reservation: Reservation, tokens: int, now: float) -> None:
        """The reserved request used `tokens` in truth."""
