"""The keys of all hosts in control's database, beside the files of control's own machine: `docs/decisions/0031-keys-of-several-hosts.md`.

The port is synchronous, since workers of gateways use it in the middle of a request; here each call waits for the loop that the database is used from, and so
comes from another thread.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.experiments.store import chunks
from penstock.core.errors import Conflict, Damaged, NotFound
from penstock.journal.key_exchange import SKEW_S, Order, Orders
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keyslots import Slot, hash_of_subject, hash_of_tenant
from penstock.journal.keystore import Census, Tombstone
from penstock.journal.sealing import SubjectKey
from penstock.store.schema_keys import key_hosts, key_orders, subject_keys
from penstock.store.sql import Database, next_value

_PATIENCE_S = 60.0
_MOST_ORDERS = 500
T = TypeVar("T")


class KeyHost(msgspec.Struct, frozen=True, kw_only=True):
    """A host that has keys: how many orders it has not carried out, and when it was last heard of."""

    id: str
    name: str
    waiting: int
    at: float


class SharedKeystore:
    """A `Keystore` of several hosts. Each makes its own keys; here they are found, and from here they are destroyed."""

    def __init__(
        self, database: Database, local: FileKeystore, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]
    ) -> None:
        """`local` has the root key of all, and the keys of this machine; `loop` is that of the database."""
        self._database = database
        self._local = local
        self._loop = loop
        self._clock = clock

    # -- the port --------------------------------------------------------------------------------------------------------

    @property
    def hash_key(self) -> bytes:
        """See `Keystore.hash_key`."""
        return self._local.hash_key

    def find(self, key: str) -> SubjectKey | Tombstone | None:
        """See `Keystore.find`."""
        row = self._wait(self._row(key))
        if row is None:
            return self._local.find(key)  # made on this machine a moment ago
        if not row.wrapped:
            return Tombstone(row.id, row.destroyed_at)
        slot = Slot(b"", b"", bytes.fromhex(row.id), row.made_at, row.wrapped, row.head)
        return self._local.open_slot(slot)

    def forget(self, tenant: str, subject: str | None, now: float, *, made_before: float = math.inf) -> int:
        """See `Keystore.forget`. Other hosts do it when they hear of it: `hosts` tells which have."""
        marks = hash_of_tenant(tenant), None if subject is None else hash_of_subject(tenant, subject)
        here = self._local.living(*marks)
        self._local.destroy(*marks, now, made_before)
        return self._wait(self._forget(*marks, now, made_before, here))

    def census(self) -> Census:
        """See `Keystore.census`."""
        return self._wait(self._census())

    def close(self) -> None:
        """See `Keystore.close`."""

    # -- for hosts -------------------------------------------------------------------------------------------------------

    async def orders(self, host: str, name: str, root: str, after: int, at: float | None = None) -> Orders:
        """What comes after order `after`, which `host` has carried out, and all before.

        `at` is what that order said. If it is another one here, this database is an older one that was put back, and has given the number
        anew: then nothing is confirmed, and the host is to begin from the first.

        Raises:
            Conflict: if the host's keys have another root.
            Unavailable: if the database cannot be read or written.
        """
        self._check(root)
        async with self._database.write() as connection:
            newest = (await connection.execute(select(func.max(key_orders.c.sequence)))).scalar_one_or_none() or 0
            if at is not None and await _is_another(connection, after, at):
                newest = after = 0
            values = {"name": name, "applied": min(after, newest), "at": self._clock()}
            insertion = _insertion(connection)(key_hosts).values(id=host, slots=0, **values)
            made = insertion.on_conflict_do_update(index_elements=["id"], set_=values).returning(key_hosts.c.slots)
            slots = (await connection.execute(made)).scalar_one()
            rows = await connection.execute(
                select(key_orders)
                .where(key_orders.c.sequence > after)
                .order_by(key_orders.c.sequence)
                .limit(_MOST_ORDERS if newest else 0)
            )
            found = tuple(Order(sequence=r.sequence, tenant=r.tenant, subject=r.subject, at=r.at) for r in rows)
        return Orders(orders=found, newest=newest, slots=slots)

    async def take(self, host: str, root: str, slots: Sequence[Slot]) -> int:
        """Keeps slots of `host`; how many could not be opened, and are left out.

        Raises:
            Conflict: if the host's keys have another root.
            Unavailable: if the database cannot be written.
        """
        self._check(root)
        good, wrong = [], 0
        for slot in slots:
            try:
                if slot.wrapped:
                    self._local.open_slot(slot)
                good.append(slot)
            except Damaged:
                wrong += 1
        async with self._database.write() as connection:
            await next_value(connection, "key_orders")  # an order is seen here, or sees what is kept here
            await self._keep(connection, good)
            more = update(key_hosts).where(key_hosts.c.id == host).values(slots=key_hosts.c.slots + len(slots))
            await connection.execute(more)
        return wrong

    async def hosts(self) -> list[KeyHost]:
        """All that have keys, by name.

        Raises:
            Unavailable: if the database cannot be read.
        """
        async with self._database.read() as connection:
            return await unconfirmed(connection)

    async def remove(self, host: str) -> None:
        """Waits for this host no longer: it is gone, and its disk too.

        Raises:
            NotFound: if there is none with this id.
            Unavailable: if the database cannot be written.
        """
        async with self._database.write() as connection:
            gone = (await connection.execute(delete(key_hosts).where(key_hosts.c.id == host))).rowcount
        if not gone:
            raise NotFound(f"There is no host {host!r} that has keys.", param="id")

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    def _check(self, root: str) -> None:
        if root != self._local.mark:
            raise Conflict(
                f"These keys have the root {root}; control's have {self._local.mark}.",
                code="other_root_key",
                hint="This host had keys of its own before. Put its folder of keys aside and start it again; what they encrypt is readable there alone.",
            )

    async def _row(self, key: str) -> Any:
        async with self._database.read() as connection:
            return (await connection.execute(select(subject_keys).where(subject_keys.c.id == key))).one_or_none()

    async def _census(self) -> Census:
        counted = select(func.count(), func.count(subject_keys.c.destroyed_at)).select_from(subject_keys)
        async with self._database.read() as connection:
            every, destroyed = (await connection.execute(counted)).one()
        return Census(every - destroyed, destroyed)

    async def _forget(
        self, tenant: bytes, subject: bytes | None, now: float, made_before: float, here: list[Slot]
    ) -> int:
        at = min(now, made_before)
        marks = {"tenant": tenant.hex(), "subject": "" if subject is None else subject.hex()}
        whose: ColumnElement[bool] = (
            subject_keys.c.tenant == marks["tenant"] if subject is None else subject_keys.c.subject == marks["subject"]
        )
        if made_before < math.inf:
            whose &= subject_keys.c.made_at < made_before
        whose &= subject_keys.c.destroyed_at.is_(None)
        known = select(key_orders.c.sequence).where(
            key_orders.c.tenant == marks["tenant"], key_orders.c.subject == marks["subject"], key_orders.c.at >= at
        )
        if not here:  # what every start repeats is mostly done: it is not to wait for the disk again, order by order
            async with self._database.read() as connection:
                ordered = (await connection.execute(known.limit(1))).first() is not None
                if (
                    ordered
                    and (await connection.execute(select(subject_keys.c.id).where(whose).limit(1))).first() is None
                ):
                    return 0
        async with self._database.write() as connection:
            sequence = await next_value(connection, "key_orders")  # also makes writers wait for one another
            await self._keep(connection, here)
            if (await connection.execute(known.limit(1))).first() is None:
                await connection.execute(_insertion(connection)(key_orders).values(sequence=sequence, at=at, **marks))
            statement = update(subject_keys).where(whose)
            return (await connection.execute(statement.values(wrapped=b"", destroyed_at=now))).rowcount

    async def _keep(self, connection: AsyncConnection, slots: Sequence[Slot]) -> None:
        ordered = await _ordered(connection, slots)
        living: list[dict[str, Any]] = []
        dead: list[dict[str, Any]] = []
        for slot in slots:
            dead_at = ordered.get(slot.id) if slot.wrapped else slot.at
            row = {
                "id": slot.id.hex(),
                "subject": slot.subject.hex(),
                "tenant": slot.tenant.hex(),
                "made_at": slot.at,
                "head": slot.head,
                "wrapped": slot.wrapped if dead_at is None else b"",
                "destroyed_at": dead_at,
            }
            (living if dead_at is None else dead).append(row)
        made = _insertion(connection)(subject_keys)
        if living:
            await connection.execute(made.on_conflict_do_nothing(), living)
        if dead:
            gone = {
                "wrapped": b"",
                "destroyed_at": func.coalesce(subject_keys.c.destroyed_at, made.excluded.destroyed_at),
            }
            await connection.execute(made.on_conflict_do_update(index_elements=["id"], set_=gone), dead)


async def _ordered(connection: AsyncConnection, slots: Sequence[Slot]) -> dict[bytes, float]:
    """By id, when the subjects of slots that come late were forgotten. A slot that is not there was made afterwards, or its subject never was."""
    newest: dict[tuple[str, str], float] = {}
    last = select(key_orders.c.tenant, key_orders.c.subject, func.max(key_orders.c.at).label("at"))
    last = last.group_by(key_orders.c.tenant, key_orders.c.subject)
    tenants, subjects = {slot.tenant.hex() for slot in slots}, {slot.subject.hex() for slot in slots}
    whose: list[ColumnElement[bool]] = [
        (key_orders.c.tenant.in_(piece)) & (key_orders.c.subject == "") for piece in chunks(tenants)
    ]
    whose += [key_orders.c.subject.in_(piece) for piece in chunks(subjects)]
    for condition in whose:
        for row in await connection.execute(last.where(condition)):
            newest[row.tenant, row.subject] = row.at
    found: dict[bytes, float] = {}
    for slot in slots:
        tenant = slot.tenant.hex()
        at = max(newest.get((tenant, subject), -math.inf) for subject in (slot.subject.hex(), ""))
        if at + SKEW_S > slot.at:
            found[slot.id] = at
    return found


async def _is_another(connection: AsyncConnection, sequence: int, at: float) -> bool:
    """Whether order `sequence` is not there, or says another time than `at`."""
    statement = select(key_orders.c.at).where(key_orders.c.sequence == sequence)
    return (await connection.execute(statement)).scalar_one_or_none() != at


async def unconfirmed(connection: AsyncConnection) -> list[KeyHost]:
    """The hosts that have keys, by name, each with what it has not carried out."""
    behind = (
        select(func.count())
        .select_from(key_orders)
        .where(key_orders.c.sequence > key_hosts.c.applied)
        .scalar_subquery()
    )
    rows = await connection.execute(
        select(key_hosts, behind.label("behind")).order_by(key_hosts.c.name, key_hosts.c.id)
    )
    return [KeyHost(id=row.id, name=row.name, waiting=row.behind, at=row.at) for row in rows]


def _insertion(connection: AsyncConnection) -> Any:
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
