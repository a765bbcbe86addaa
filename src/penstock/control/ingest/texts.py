"""Whose the texts of feedback and reports are: the subject of the request that each is about, in ingest's transaction.

The gateway seals a text under a key of the request; a person's name leads there only by the request's own record. It may come later than the
text, and the text later than the wish to be forgotten: what should have been destroyed already is given back, to be destroyed now.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.experiments.store import chunks
from penstock.core.exchange import Exchange, Observation, Record
from penstock.journal.keystore import subject_of
from penstock.store.schema import audit_events
from penstock.store.schema_experiments import exchanges, told_texts

FORGOTTEN = "subject.forget"
_decode = msgspec.msgpack.Decoder(Exchange).decode


class Text(NamedTuple):
    """Texts about one request."""

    tenant: str
    request: str


class Late(NamedTuple):
    """A text whose author was forgotten at `at`, after it was told and before it was read here."""

    text: Text
    at: float


async def link_texts(connection: AsyncConnection, records: Sequence[Record]) -> list[Late]:
    """Writes down whose the texts in `records` are, and those that waited for an exchange in `records`; gives those that are to be destroyed."""
    told: dict[Text, float] = {}
    for record in records:
        if isinstance(record, Observation) and record.content is not None:
            name = Text(record.tenant, record.request)
            told[name] = min(record.received, told.get(name, record.received))
    owners = {record.id: record for record in records if isinstance(record, Exchange)}
    linked: dict[Text, tuple[str, float]] = {}
    for name, received in (await _waiting(connection, owners)).items():
        linked[name] = (_subject(name, owners[name.request]), received)
    if told:
        owners |= await _stored(connection, {name.request for name in told} - owners.keys())
        known = await _known(connection, {name.request for name in told})
        for name, received in told.items():
            owner = owners.get(name.request)
            subject = None if owner is None else _subject(name, owner)
            if name not in known:
                values = {"tenant": name.tenant, "request": name.request, "subject": subject, "received": received}
                await connection.execute(insert(told_texts).values(**values))
            if subject is not None:
                linked[name] = (subject, received)
    for name, (subject, _) in linked.items():
        await connection.execute(
            update(told_texts)
            .where(told_texts.c.tenant == name.tenant, told_texts.c.request == name.request)
            .values(subject=subject)
        )
    return await _late(connection, linked)


async def texts_of(connection: AsyncConnection, tenant: str, subject: str, until: float) -> list[str]:
    """The requests of the subject that texts of before `until` are about."""
    statement = select(told_texts.c.request).where(
        told_texts.c.tenant == tenant, told_texts.c.subject == subject, told_texts.c.received <= until
    )
    return sorted((await connection.execute(statement)).scalars())


def _subject(name: Text, owner: Exchange) -> str:
    """Of a text about another tenant's request, nobody but the tenant that told it."""
    return subject_of(owner.user, owner.session) if owner.tenant == name.tenant else ""


async def _waiting(connection: AsyncConnection, owners: Iterable[str]) -> dict[Text, float]:
    """Texts whose request was not there, and is now."""
    waits = select(told_texts.c.request).where(told_texts.c.subject.is_(None)).limit(1)
    wanted = set(owners)
    if not wanted or (await connection.execute(waits)).first() is None:
        return {}
    found: dict[Text, float] = {}
    for piece in chunks(wanted):
        rows = await connection.execute(
            select(told_texts).where(told_texts.c.request.in_(piece), told_texts.c.subject.is_(None))
        )
        found |= {Text(row.tenant, row.request): row.received for row in rows}
    return found


async def _stored(connection: AsyncConnection, wanted: set[str]) -> dict[str, Exchange]:
    found: dict[str, Exchange] = {}
    for piece in chunks(wanted):
        rows = await connection.execute(select(exchanges.c.id, exchanges.c.record).where(exchanges.c.id.in_(piece)))
        found |= {row.id: _decode(row.record) for row in rows}
    return found


async def _known(connection: AsyncConnection, wanted: set[str]) -> set[Text]:
    found: set[Text] = set()
    for piece in chunks(wanted):
        rows = await connection.execute(
            select(told_texts.c.tenant, told_texts.c.request).where(told_texts.c.request.in_(piece))
        )
        found |= {Text(row.tenant, row.request) for row in rows}
    return found


async def _late(connection: AsyncConnection, linked: dict[Text, tuple[str, float]]) -> list[Late]:
    by_subject: dict[str, list[tuple[Text, float]]] = {}
    for name, (subject, received) in linked.items():
        if subject:
            by_subject.setdefault(f"{name.tenant}/{subject}", []).append((name, received))
    late: list[Late] = []
    for piece in chunks(by_subject):
        rows = await connection.execute(
            select(audit_events.c.subject, audit_events.c.at).where(
                audit_events.c.subject.in_(piece), audit_events.c.action == FORGOTTEN
            )
        )
        for row in rows:
            late += [Late(name, row.at) for name, received in by_subject[row.subject] if received <= row.at]
    return late
