"""What was said in requests, opened for those who may read it, and the destruction of a subject's keys; each leaves an audit event."""

import asyncio
from typing import Any

import msgspec
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.context import Control
from penstock.core.errors import BadRequest, NotFound, Unavailable
from penstock.core.exchange import Exchange
from penstock.journal.keystore import Keystore, subject_of
from penstock.journal.reading import open_content
from penstock.journal.subjects import hash_subject
from penstock.store.schema import audit_events
from penstock.store.schema_experiments import exchanges

FORGOTTEN = "subject.forget"
_PIECE = 500


class Contents:
    """Reads and forgets, over one keystore."""

    def __init__(self, control: Control, keys: Keystore) -> None:
        self._control = control
        self._keys = keys

    async def read(self, who: Principal, request: str) -> dict[str, Any]:
        """The content of the request with this id.

        Raises:
            NotFound: if the request is not known, or not the caller's to see.
            Unavailable: if the keys or the database cannot be read, or the event cannot be written: then nothing is told.
        """
        statement = select(exchanges.c.tenant, exchanges.c.record).where(exchanges.c.id == request)
        async with self._control.database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None or (who.tenant and row.tenant != who.tenant):
            raise NotFound(f"There is no request {request!r} in the index.", param="id")
        exchange = msgspec.msgpack.decode(row.record, type=Exchange)
        try:
            opened = await asyncio.to_thread(open_content, self._keys, exchange)
        except OSError as error:
            raise Unavailable(f"The keys of content cannot be read: {error.strerror}.") from None
        if opened.state == "readable":
            await self._control.note(who, "content.read", request, tenant=exchange.tenant, key=opened.told["key"])
        return {
            "request": request,
            "tenant": exchange.tenant,
            "state": opened.state,
            "why": opened.why,
            "messages": [],
            "replies": [],
        } | opened.told

    async def noted(self, who: Principal, source: str) -> None:
        """Writes down that `who` reads content itself, out of the journal on its machine.

        Raises:
            Unavailable: if the event cannot be written.
        """
        await self._control.note(who, "content.read", source[:255])

    async def forget(
        self,
        who: Principal,
        tenant: str,
        *,
        user: str = "",
        session: str = "",
        everyone: bool = False,
        reason: str = "",
    ) -> dict[str, Any]:
        """Destroys the keys of one subject of `tenant`, or of all that are its.

        Raises:
            BadRequest: if not exactly one of `user`, `session` and `everyone` is given.
            Unavailable: if not all of it could be done: ask again.
        """
        if (bool(user) + bool(session) + everyone) != 1:
            raise BadRequest("Name one subject: a user, a session, or everyone of the tenant.", param="user")
        hashed = hash_subject(self._keys.hash_key, user or session)
        subject = None if everyone else subject_of(hashed if user else "", hashed if session else "")
        now = self._control.clock()
        try:
            count = await asyncio.to_thread(self._keys.forget, tenant, subject, now)
        except OSError as error:
            raise Unavailable(f"The keys could not all be destroyed: {error.strerror}. Ask again.") from None
        name = f"{tenant}/{'*' if subject is None else subject}"
        await self._control.note(who, FORGOTTEN, name, at=now, keys=count, reason=reason)
        return {"tenant": tenant, "subject": "*" if subject is None else subject, "keys": count, "at": now}

    async def forget_again(self) -> int:
        """Destroys what the audit trail says was destroyed and is there again, out of a backup; how many keys that were.

        Raises:
            Unavailable: if the keys or the trail cannot be read.
        """
        count = after = 0
        while True:
            statement = (
                select(audit_events.c.sequence, audit_events.c.subject, audit_events.c.detail)
                .where(audit_events.c.action == FORGOTTEN, audit_events.c.sequence > after)
                .order_by(audit_events.c.sequence)
                .limit(_PIECE)
            )
            async with self._control.database.read() as connection:
                rows = (await connection.execute(statement)).all()
            if not rows:
                return count
            try:
                count += await asyncio.to_thread(self._again, rows)
            except OSError as error:
                raise Unavailable(f"The keys of content cannot be read and written: {error.strerror}.") from None
            after = rows[-1].sequence

    def _again(self, rows: Any) -> int:
        count = 0
        for row in rows:
            tenant, _, subject = row.subject.partition("/")
            at = float(row.detail["at"])
            count += self._keys.forget(tenant, None if subject == "*" else subject, at, made_before=at)
        return count
