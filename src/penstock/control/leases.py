"""Leadership by a lease in the database: of several control processes one runs the loops."""

import os
import socket

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from penstock.control.context import Control
from penstock.store.schema import leases

LEASE_S = 5.0


class Lease:
    """One named lease, as this process sees it.

    The holder's name is the host and the data folder, not the process: a process that is killed and started again leads at once.
    """

    def __init__(self, control: Control, name: str) -> None:
        self._control = control
        self._name = name
        self._holder = f"{socket.gethostname()[:20]}:{os.fsdecode(control.data.resolve())[-40:]}"
        self._until = 0.0

    async def held(self) -> bool:
        """Whether this process leads for the next moment; takes or renews the lease when that is due.

        Raises:
            Unavailable: if the database cannot be written.
        """
        now = self._control.clock()
        if now < self._until - LEASE_S / 2:
            return True
        until = now + LEASE_S
        async with self._control.database.read() as connection:
            row = (await connection.execute(select(leases).where(leases.c.name == self._name))).one_or_none()
        if row is not None and row.holder != self._holder and row.expires_at > now:
            return False
        async with self._control.database.write() as connection:
            insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            await connection.execute(
                insertion(leases).values(name=self._name, holder=self._holder, expires_at=0.0).on_conflict_do_nothing()
            )
            taken = await connection.execute(
                update(leases)
                .where(
                    leases.c.name == self._name,
                    (leases.c.holder == self._holder) | (leases.c.expires_at <= now),
                )
                .values(holder=self._holder, expires_at=until)
            )
        self._until = until if taken.rowcount == 1 else 0.0
        return self._until > 0.0
