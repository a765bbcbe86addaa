"""What the gateway needs of parts that it does not build itself."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock.access.leases import Reservation
from penstock.core.exchange import Record
from penstock.core.snapshot import KeyEntry, TenantEntry


class JournalCounts(Protocol):
    """What a journal has taken and lost since the process started."""

    bytes: int
    records: int
    failures: int
    lost: int


class Journal(Protocol):
    """Where records go. `append` never waits; what was appended is in the kernel when `committed` is done."""

    @property
    def counts(self) -> JournalCounts:
        """For the metrics."""

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

    def requests(self) -> tuple[int, int, float] | None:
        """Requests per minute, how many are left, and seconds until the whole limit is free again."""

    def tokens(self) -> tuple[int, int, float] | None:
        """Tokens per minute, how many are left, and seconds until the whole limit is free again."""


class Limiter(Protocol):
    """The limits of keys and tenants, over all workers. `now` is `time.monotonic()`."""

    async def count(self, key: KeyEntry, tenant: TenantEntry, now: float) -> Standing | None:
        """Counts one request; raises `RateLimited` if it is one too many. None: nothing is limited."""

    async def reserve(
        self, key: KeyEntry, tenant: TenantEntry, tokens: int, now: float, nanousd: int = 0
    ) -> Reservation | None:
        """Holds `tokens`, `nanousd` and a seat; raises `RateLimited` if they are not there. None: none is limited."""

    def settle(self, reservation: Reservation, tokens: int, now: float, nanousd: int = 0) -> None:
        """The reserved request is over, and used this much in truth."""
