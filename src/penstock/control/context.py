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
from penstock.control.sockets import Movers
from penstock.control.storage.binder import Binder
from penstock.core.ids import make_id
from penstock.core.settings import Settings
from penstock.store.blobs import Blobs
from penstock.store.schema import audit_events
from penstock.store.sql import Database, next_value

if TYPE_CHECKING:
    from penstock.control.watch.alerts import Alert
    from penstock.journal.masterkey import Wrapping

SYSTEM = Principal(key="", tenant="", name="penstock", roles=("admin",))


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
    ) -> None:
        self.connection = connection
        self.generation = generation
        self.now = now
        self.caller = caller
        self.new_id = new_id
        self.abandoned = False

    def abandon(self) -> None:
        """Keep nothing of this change when its block ends."""
        self.abandoned = True

    async def audit(self, action: str, subject: str, **detail: Any) -> None:
        """Record that the caller did `action` (noun.verb) to `subject`; `detail` must be JSON and hold no secret."""
        await self.connection.execute(
            insert(audit_events).values(
                sequence=await next_value(self.connection, "audit"),
                at=self.now,
                principal=self.caller.name,
                key=self.caller.key,
                action=action,
                subject=subject,
                detail=detail,
                system=self.caller is SYSTEM,
            )
        )


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
        self.movers = Movers()
        self.service_token = service_token
        self.clock = clock
        self.entropy = entropy
        self.listeners: list[Callable[[int], None]] = []  # told each committed generation; must return at once
        self.alerted: list[Callable[[Alert], None]] = []  # told each alert that began or ended; must return at once
        self.sealing: Wrapping | None = None  # what signers' keys are wrapped under, if there is any
        self.changed = asyncio.Event()  # set after each change; the reconcile loop clears it

    def new_id(self, prefix: str) -> str:
        """A fresh id that sorts by time."""
        return make_id(prefix, int(self.clock() * 1000), self.entropy(10))

    async def note(self, caller: Principal, action: str, subject: str, **detail: Any) -> None:
        """An audit event of what changes no configuration; see `Change.audit`.

        Raises:
            Unavailable: if the database cannot be written.
        """
        async with self.deed(caller) as change:
            await change.audit(action, subject, **detail)

    @asynccontextmanager
    async def deed(self, caller: Principal) -> AsyncIterator[Change]:
        """A change of what gateways need not hear of: no generation is taken, and nobody is woken.

        Raises:
            Unavailable: if the database cannot be written.
        """
        async with self.database.write() as connection:
            yield Change(connection=connection, generation=0, now=self.clock(), caller=caller, new_id=self.new_id)

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
            )
            yield change
            if change.abandoned:
                await connection.rollback()
                return
        self.changed.set()
        for listener in self.listeners:
            listener(generation)
