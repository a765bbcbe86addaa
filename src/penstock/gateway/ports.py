"""What the gateway needs of parts that it does not build itself."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock.access.leases import Holder, Reservation
from penstock.core.exchange import Record
from penstock.core.snapshot import KeyEntry, LedgerDown, Limits, TenantEntry
from penstock.journal.sealing import Messages, Replies


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

    @property
    def name(self) -> str:
        """The journal's, unlike that of any other host's."""

    def append(self, record: Record) -> None:
        """Adds a record to what the end of this loop turn writes."""

    def add(self, record: Record) -> None:
        """Adds a record to what the next `flush` writes: the caller flushes within this turn."""

    def committed(self) -> Awaitable[bool]:
        """Done when all that was appended until now is in the kernel."""

    def flush(self) -> bool:
        """Writes what was appended, now; whether it is in the kernel."""

    async def strict(self) -> None:
        """Returns when all that was appended until now is on the disk; raises `Unavailable` if it cannot be."""

    def check_strict(self) -> None:
        """Raises `Unavailable` while the journal cannot be written."""


class Vault(Protocol):
    """Seals content under the keys of its subjects."""

    kept: int
    lost: int

    def seal(
        self, tenant: str, subject: str, record: str, messages: Messages, replies: Replies
    ) -> tuple[str, bytes] | None:
        """The key's id and the sealed bytes; None, and counted, if it cannot be done."""

    async def strict(self) -> None:
        """Returns when the keys of all that was sealed are on the disk; raises `Unavailable` if they cannot be."""


class SharedCache(Protocol):
    """Answers that gateways keep for each other. Whatever it cannot say in time is not there; nothing here raises."""

    failures: int

    async def fetch(self, tenant: str, key: bytes, shelf: bytes, after: str) -> tuple[bytes | None, list[bytes], str]:
        """The value under `key`; with a `shelf`, the rows put on it since `after`, and the mark to go on from."""

    async def value(self, tenant: str, key: bytes) -> bytes | None:
        """The value under `key`, if there is one."""

    def put(self, tenant: str, key: bytes, value: bytes, ttl_s: float, shelf: bytes, row: bytes) -> None:
        """Keeps `value` for `ttl_s` seconds, and with a `shelf` the row that tells of it."""


class Limiter(Protocol):
    """The limits of keys, tenants and models, over all workers. `now` is `time.monotonic()`."""

    @property
    def up(self) -> bool:
        """Whether the ledger that the workers share can be asked."""

    def holder(self, key: KeyEntry, tenant: TenantEntry) -> Holder:
        """What the requests of `key` draw on, whatever the model; to be kept as long as these entries are."""

    def holder_on(self, key: KeyEntry, tenant: TenantEntry, model: str, limits: Limits) -> Holder:
        """The same with the limits on one model: the caller's, and the model's own (`limits`)."""

    def try_count(self, holder: Holder, now: float) -> bool:
        """Counts one request, if that can be done at once; False: nothing was done, and `count` must be awaited."""

    async def count(self, holder: Holder, now: float, down: LedgerDown | None = None) -> None:
        """Counts one request; raises `RateLimited` if it is one too many."""

    def try_reserve(self, holder: Holder, tokens: int, now: float, nanousd: int = 0) -> Reservation | None:
        """Holds `tokens`, `nanousd`, a request of the model and a seat, if that can be done at once; None: `reserve` must be awaited."""

    async def reserve(
        self, holder: Holder, tokens: int, now: float, nanousd: int = 0, down: LedgerDown | None = None
    ) -> Reservation:
        """Holds `tokens`, `nanousd`, a request of the model and a seat; raises `RateLimited` if they are not there."""

    def settle(self, reservation: Reservation, tokens: int, now: float, nanousd: int = 0) -> None:
        """The reserved request is over, and used this much in truth."""


class Answer(Protocol):
    """An answer that is relayed: a `Response`, or what stands before one."""

    status: int

    def header(self, name: bytes) -> bytes | None:
        """See `Response.header`."""

    async def read(self, limit: int) -> bytes:
        """See `Response.read`."""

    async def flow(self, sink: Callable[[bytes, bytes], bool]) -> bool:
        """See `Response.flow`."""

    def leave(self) -> None:
        """See `Response.leave`."""
