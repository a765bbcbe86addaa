"""The ledger of limits: the port, and the one for a single worker, in its own process."""

from collections.abc import Sequence
from typing import Protocol

from penstock.access.limits import SEATS
from penstock.access.register import Lease, Refusal, Register, Return, Want
from penstock.store.ledger_log import LedgerLog


class Ledger(Protocol):
    """Who keeps the books that several workers share. All times are Unix seconds."""

    workers: int  # that share it, as far as it has told; 0: it has not

    @property
    def up(self) -> bool:
        """Whether it can be asked now."""

    async def grant(self, wants: Sequence[Want], now: float) -> list[Lease] | Refusal:
        """All wants, each with a lease, or none of them.

        If the caller is cancelled meanwhile, what was granted is given back.

        Raises:
            Unavailable: with code `ledger_down` if the ledger does not answer. What it may have granted counts as spent.
        """

    def give_back(self, returned: Sequence[Return], now: float) -> None:
        """Hand in what was not used, or more that was; soon, not at once. It never fails."""


class LocalLedger:
    """The ledger of the only worker. With a log, what was used survives a restart: a budget for a day is not new after each."""

    __slots__ = ("_asked", "_log", "_register", "_session", "workers")

    def __init__(self, log: LedgerLog | None = None) -> None:
        self._log = log
        self._register = Register()
        self._session = "local"
        self.workers = 1
        self._asked = 0
        if log is not None:
            for entry in log.read():
                if entry.resource != SEATS:  # who held them is dead
                    self._register.restore(entry)

    @property
    def up(self) -> bool:
        """Always."""
        return True

    async def grant(self, wants: Sequence[Want], now: float) -> list[Lease] | Refusal:
        """All wants or none; it does not wait."""
        answer = self._register.grant(self._session, wants, now)
        self._asked += 1
        if self._asked % 1024 == 0:
            self._register.sweep(now)
        self._write(now)
        return answer

    def give_back(self, returned: Sequence[Return], now: float) -> None:
        """Booked at once; on disk with the next grant."""
        for one in returned:
            self._register.take_back(self._session, one, now)
        if len(self._register.entries) > 256:
            self._write(now)

    def used(self, scope: str, resource: int, now: float) -> int:
        """What is booked now."""
        return self._register.used(scope, resource, now)

    def close(self, now: float) -> None:
        """Write down the last returns."""
        self._write(now)
        if self._log is not None:
            self._log.close()

    def _write(self, now: float) -> None:
        entries = self._register.entries
        if not entries:
            return
        if self._log is not None:
            self._log.append([e for e in entries if e.resource != SEATS])
            if self._log.full:
                self._log.rewrite([e for e in self._register.dump(now) if e.resource != SEATS])
        entries.clear()
