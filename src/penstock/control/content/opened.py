"""What was said in requests, opened for those who may read it, and the destruction of a subject's keys; each leaves an audit event."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from sqlalchemy import delete, select

from penstock.access.principals import Principal
from penstock.control.content.keystore import KeyHost
from penstock.control.context import Control
from penstock.control.ingest.reader import reserve
from penstock.control.ingest.texts import FORGOTTEN, Late, Text, texts_of
from penstock.core.errors import BadRequest, NotFound, Unavailable
from penstock.core.exchange import Exchange, Observation
from penstock.journal.keystore import Keystore, subject_of
from penstock.journal.reading import Opened, open_content
from penstock.journal.subjects import hash_subject
from penstock.journal.telling import open_texts, subject_of_request
from penstock.store.schema import audit_events
from penstock.store.schema_experiments import exchanges, observations, told_texts

Hosts = Callable[[], Awaitable[list[KeyHost]]]
_LOG = logging.getLogger("penstock.control")
_PIECE = 500
STRAY_S = 7 * 86400.0  # a text waits so long for its request: longer than any shipper should be away
_observation = msgspec.msgpack.Decoder(Observation).decode


async def no_hosts() -> list[KeyHost]:
    """Each host has its own keys."""
    return []


class Contents:
    """Reads and forgets, over one keystore."""

    def __init__(self, control: Control, keys: Keystore, hosts: Hosts = no_hosts) -> None:
        """`hosts` tells of the hosts that have keys, where several have."""
        self._control = control
        self._keys = keys
        self._hosts = hosts
        self._owed: list[Late] = []

    async def read(self, who: Principal, request: str) -> dict[str, Any]:
        """The content of the request with this id.

        Raises:
            NotFound: if the request is not known, or not the caller's to see.
            Unavailable: if the keys or the database cannot be read, or the event cannot be written: then nothing is told.
        """
        statement = select(exchanges.c.tenant, exchanges.c.record).where(exchanges.c.id == request)
        async with self._control.database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
            if row is None or not who.sees(row.tenant):
                raise NotFound(f"There is no request {request!r} in the index.", param="id")
            about = select(observations.c.record).where(
                observations.c.request == request, observations.c.tenant == row.tenant
            )
            rows = (await connection.execute(about.order_by(observations.c.sequence))).all()
        exchange = msgspec.msgpack.decode(row.record, type=Exchange)
        told = [_observation(one.record) for one in rows]
        try:
            opened, texts = await asyncio.to_thread(self._open, exchange, told)
        except OSError as error:
            raise Unavailable(f"The keys of content cannot be read: {error.strerror}.") from None
        read = [one.told["key"] for one in (opened, *texts) if one.state == "readable" and "key" in one.told]
        if read:
            await self._control.note(
                who,
                "content.read",
                request,
                of_tenant=exchange.tenant,
                tenant=exchange.tenant,
                keys=sorted(set(read)),
            )
        return {
            "request": request,
            "tenant": exchange.tenant,
            "state": opened.state,
            "why": opened.why,
            "messages": [],
            "replies": [],
            "texts": [
                {"id": one.id, "kind": one.kind, "at": one.at, "state": text.state, "why": text.why} | text.told
                for one, text in zip(told, texts, strict=True)
                if text.state != "none"
            ],
        } | opened.told

    def _open(self, exchange: Exchange, told: list[Observation]) -> tuple[Opened, list[Opened]]:
        return open_content(self._keys, exchange), [open_texts(self._keys, one) for one in told]

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
        await self._control.note(who, FORGOTTEN, name, of_tenant=tenant, at=now, keys=count, reason=reason)
        if subject:
            # After the note: what is taken in from now on finds it, and what was taken in before is found here.
            async with self._control.database.write() as connection:
                await reserve(connection, 0)  # waits for those who take in
                requests = await texts_of(connection, tenant, subject, now)
            count += await self._destroy_texts([Late(Text(tenant, one), now) for one in requests])
        return {
            "tenant": tenant,
            "subject": "*" if subject is None else subject,
            "keys": count,
            "at": now,
            "hosts": [msgspec.to_builtins(one) for one in await self._hosts()],
        }

    async def forget_late(self, texts: list[Late]) -> None:
        """Destroys the keys of texts whose authors are forgotten already. What cannot be destroyed now is at the next call, or at the next start."""
        self._owed += texts
        owed = list(self._owed)
        try:
            await self._destroy_texts(owed)
        except Unavailable as error:
            _LOG.error("texts of people who are forgotten can still be read: %s", error.message)
            return
        del self._owed[: len(owed)]

    async def forget_strays(self) -> int:
        """Destroys texts whose request has not come for `STRAY_S`, or had been removed before they came; how many keys that were.

        Whose they are is known to nobody, so that no wish to be forgotten would ever reach them.

        Raises:
            Unavailable: if not all of it could be done.
        """
        waits = told_texts.c.subject.is_(None) & (told_texts.c.received < self._control.clock() - STRAY_S)
        async with self._control.database.read() as connection:
            found = select(told_texts.c.tenant, told_texts.c.request).where(waits).limit(_PIECE)
            strays = [Text(row.tenant, row.request) for row in await connection.execute(found)]
        if not strays:
            return 0
        count = await self._destroy_texts([Late(one, self._control.clock()) for one in strays])
        async with self._control.database.write() as connection:
            for one in strays:
                mine = (told_texts.c.tenant == one.tenant) & (told_texts.c.request == one.request)
                await connection.execute(delete(told_texts).where(mine, told_texts.c.subject.is_(None)))
        return count

    async def _destroy_texts(self, texts: list[Late]) -> int:
        now = self._control.clock()

        def destroy() -> int:
            forget = self._keys.forget
            return sum(
                forget(one.text.tenant, subject_of_request(one.text.request), now, made_before=one.at) for one in texts
            )

        try:
            return await asyncio.to_thread(destroy)
        except OSError as error:
            raise Unavailable(f"The keys could not all be destroyed: {error.strerror}. Ask again.") from None

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
            texts: list[Late] = []
            async with self._control.database.read() as connection:
                for row in rows:
                    tenant, _, subject = row.subject.partition("/")
                    if subject and subject != "*":
                        at = float(row.detail["at"])
                        texts += [
                            Late(Text(tenant, one), at) for one in await texts_of(connection, tenant, subject, at)
                        ]
            count += await self._destroy_texts(texts)
            after = rows[-1].sequence

    def _again(self, rows: Any) -> int:
        count = 0
        for row in rows:
            tenant, _, subject = row.subject.partition("/")
            at = float(row.detail["at"])
            count += self._keys.forget(tenant, None if subject == "*" else subject, at, made_before=at)
        return count
