"""What one caller may have under way at a time: pushes, their bytes, evaluations; and how many checks of everything run at all."""

from collections.abc import Callable
from typing import Literal

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.core.errors import RateLimited
from penstock.core.settings import ControlSettings
from penstock.store.schema import uploads
from penstock.store.schema_gates import evaluations
from penstock.store.sql import next_value

Bound = Literal["pushes", "push_bytes", "evaluations", "checks"]
BOUNDS: tuple[Bound, ...] = ("pushes", "push_bytes", "evaluations", "checks")
_RETRY_S = 30.0
_SILENT_S = 60.0  # a check whose reader has asked for nothing so long is over: they left


class _Check(msgspec.Struct):
    """A check of everything that runs."""

    by: str
    heard: float


class Bounds:
    """Refuses what would be too much, and counts what it refused. Control itself, whose calls come with no key, is bounded by nothing."""

    def __init__(self, settings: ControlSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self.refused: dict[Bound, int] = dict.fromkeys(BOUNDS, 0)
        self._checks: list[_Check] = []

    async def check_push(self, connection: AsyncConnection, caller: Principal, size: int) -> None:
        """See that `caller` may begin to push a version of `size` bytes; what follows in this transaction is counted before anybody else's.

        Raises:
            RateLimited: if they have too much under way.
        """
        if not caller.key:
            return
        await next_value(connection, "pushes")  # PostgreSQL: those who begin go one after the other
        mine = (
            (uploads.c.principal == caller.name) & (uploads.c.state == "open") & (uploads.c.lease_until > self._clock())
        )
        statement = select(func.count(), func.coalesce(func.sum(uploads.c.size), 0)).where(mine)
        count, bytes_ = (await connection.execute(statement)).one()
        hint = "Commit them, or give them up: penstock models pushes shows them, penstock models pushes --give-up ID ends one."
        if count >= self._settings.pushes_per_key:
            raise self._refusal(
                "pushes",
                f"{caller.name} has {count} pushes under way, and control.pushes_per_key allows {self._settings.pushes_per_key}.",
                hint,
            )
        if bytes_ + size > self._settings.push_bytes_per_key:
            raise self._refusal(
                "push_bytes",
                f"The pushes that {caller.name} has under way are of {bytes_} bytes; {size} more would exceed the "
                f"{self._settings.push_bytes_per_key} of control.push_bytes_per_key.",
                hint,
            )

    async def check_evaluation(
        self, connection: AsyncConnection, caller: Principal, under_way: tuple[str, ...]
    ) -> None:
        """See that `caller` may ask for one more evaluation, where those in the states `under_way` count.

        Raises:
            RateLimited: if they have too many.
        """
        if not caller.key:
            return
        await next_value(connection, "evaluations")
        statement = select(func.count()).where(
            evaluations.c.requested_by == caller.name, evaluations.c.state.in_(under_way)
        )
        count = (await connection.execute(statement.select_from(evaluations))).scalar_one()
        if count >= self._settings.evaluations_per_key:
            raise self._refusal(
                "evaluations",
                f"{caller.name} has {count} evaluations that wait or run, and control.evaluations_per_key allows {self._settings.evaluations_per_key}.",
                "Wait for them, or cancel some: penstock gates list shows them, penstock gates cancel ID ends one.",
            )

    def begin_check(self, caller: str) -> _Check:
        """A place for a check of everything; `heard` is called while it goes on, `end_check` when it is over.

        Raises:
            RateLimited: if as many run as may.
        """
        now = self._clock()
        self._checks = [one for one in self._checks if one.heard > now - _SILENT_S]
        if len(self._checks) >= self._settings.checks_at_once:
            who = ", ".join(one.by for one in self._checks)
            raise self._refusal(
                "checks",
                f"Everything is being checked already, for {who}: control.checks_at_once allows {self._settings.checks_at_once}.",
                None,
            )
        check = _Check(by=caller, heard=now)
        self._checks.append(check)
        return check

    def heard(self, check: _Check) -> None:
        """Somebody still reads what the check says."""
        check.heard = self._clock()

    def end_check(self, check: _Check) -> None:
        """Give its place back; giving it back again changes nothing."""
        self._checks = [one for one in self._checks if one is not check]

    def _refusal(self, bound: Bound, message: str, hint: str | None) -> RateLimited:
        self.refused[bound] += 1
        return RateLimited(message, code="too_much_under_way", retry_after=_RETRY_S, hint=hint)
