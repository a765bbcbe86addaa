"""What every part of the control plane is handed: the stores, the clock, and how a change is made.

A change of configuration is one transaction: it takes the next generation first (so changes go one after the other), writes
rows and their audit events, commits, and wakes those who wait for a Snapshot.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.bounds import Bounds
from penstock.control.logins import Logins
from penstock.control.sockets import Movers
from penstock.control.storage.binder import Binder
from penstock.control.webhooks.outbox import post_event
from penstock.core.ids import make_id
from penstock.core.settings import Settings
from penstock.delivery.events import is_event
from penstock.store.blobs import Blobs
from penstock.store.schema import audit_events
from penstock.store.sql import Database, next_value

if TYPE_CHECKING:
    from penstock.control.watch.alerts import Alert
    from penstock.journal.masterkey import Wrapping

SYSTEM = Principal(key="", tenant="", name="penstock", roles=("admin",), person="penstock")


class Change:
    """One change under way: its connection, generation and time, and the audit trail that goes with it."""

    def __init__(
        self,
        *,
        connection: AsyncConnection,
        generation: int,
        now: float,
        caller: Principal,
        new_id: Callable[[str], str],
        bounds: Bounds,
    ) -> None:
        self.connection = connection
        self.generation = generation
        self.now = now
        self.caller = caller
        self.new_id = new_id
        self.bounds = bounds
        self.abandoned = False
        self.override = ""  # why an administrator lets pools name what has not passed its gates

    def abandon(self) -> None:
        """Keep nothing of this change when its block ends."""
        self.abandoned = True

    async def audit(self, action: str, subject: str, *, of_tenant: str | None = None, **detail: Any) -> None:
        """Record that the caller did `action` (noun.verb) to `subject`; `detail` must be JSON and hold no secret.

        The event is shown to those of the tenant that it is about, `of_tenant`, else of the one that the caller belongs to.
        """
        sequence = await next_value(self.connection, "audit")
        await self.connection.execute(
            insert(audit_events).values(
                sequence=sequence,
                at=self.now,
                principal=self.caller.name,
                key=self.caller.key,
                action=action,
                subject=subject,
                tenant=of_tenant or self.caller.tenant or None,
                detail=detail,
                system=self.caller is SYSTEM,
            )
        )
        if is_event(action):
            await post_event(self, sequence, action, subject, detail)


class Control:
    """The control plane's shared parts; made once by `serve_control`, or by a test."""

    def __init__(
        self,
        *,
        settings: Settings,
        data: Path,
        database: Database,
        blobs: Blobs,
        service_token: str,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.settings = settings
        self.data = data
        self.database = database
        self.blobs = blobs
        blobs.clock = clock
        self.binder = Binder(blobs)
        self.bounds = Bounds(settings.control, self._now)
        self.logins = Logins(settings.control.failed_logins_per_minute, self._now)
        self.movers = Movers()
        self.service_token = service_token
        self.clock = clock
        self.entropy = entropy
        self.listeners: list[Callable[[int], None]] = []  # told each committed generation; must return at once
        self.alerted: list[Callable[[Alert], None]] = []  # told each alert that began or ended; must return at once
        self.sealing: Wrapping | None = None  # what signers' keys are wrapped under, if there is any
        self.changed = asyncio.Event()  # set after each change; the reconcile loop clears it

    def _now(self) -> float:
        return self.clock()

    def new_id(self, prefix: str) -> str:
        """A fresh id that sorts by time."""
        return make_id(prefix, int(self.clock() * 1000), self.entropy(10))

    async def note(
        self, caller: Principal, action: str, subject: str, *, of_tenant: str | None = None, **detail: Any
    ) -> None:
        """An audit event of what changes no configuration; see `Change.audit`.

        Raises:
            Unavailable: if the database cannot be written.
        """
        async with self.deed(caller) as change:
            await change.audit(action, subject, of_tenant=of_tenant, **detail)

    @asynccontextmanager
    async def deed(self, caller: Principal) -> AsyncIterator[Change]:
        """A change of what gateways need not hear of: no generation is taken, and nobody is woken.

        Raises:
            Unavailable: if the database cannot be written.
        """
        async with self.database.write() as connection:
            yield Change(
                connection=connection,
                generation=0,
                now=self.clock(),
                caller=caller,
                new_id=self.new_id,
                bounds=self.bounds,
            )

    @asynccontextmanager
    async def change(self, caller: Principal) -> AsyncIterator[Change]:
        """A change by `caller`: all of it or nothing.

        Raises:
            Unavailable: if the database cannot be written.
        """
        async with self.database.write() as connection:
            generation = await next_value(connection, "generation")
            change = Change(
                connection=connection,
                generation=generation,
                now=self.clock(),
                caller=caller,
                new_id=self.new_id,
                bounds=self.bounds,
            )
            yield change
            if change.abandoned:
                await connection.rollback()
                return
        self.changed.set()
        for listener in self.listeners:
            listener(generation)
