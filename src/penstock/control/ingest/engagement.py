"""Sessions, engagement and conversions of one batch: folded in memory, then added to the rows in one go."""

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.experiments.store import chunks
from penstock.core.exchange import Exchange, Observation, Record
from penstock.experiments.engagement import IDLE_S, Visit, follow
from penstock.store.schema_engagement import engagement_minute, visits

COUNTS = ("sessions", "engaged", "session_requests", "session_ms", "events", "conversions", "feedback", "reports")
KEYS = ("minute", "tenant", "route", "version")
EVER = 0  # the minute of the totals
Place = tuple[str, str]  # route, version
_Visitor = tuple[str, str]  # tenant, visitor
_Key = tuple[int, str, str, str]
_CHUNK = 400  # minutes of one statement


def visitor_of(exchange: Exchange) -> str:
    """Whose request it is: its session's, if the client names one, else its user's; "" if it names neither."""
    if exchange.session:
        return f"s:{exchange.session}"
    return f"u:{exchange.user}" if exchange.user else ""


class EngagementBatch:
    """What one batch of records adds. Copies that nobody has seen and requests that were not answered add nothing."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._visits: dict[_Visitor, Visit] = {}
        self._stored: set[_Visitor] = set()
        self._changed: set[_Visitor] = set()
        self._rows: dict[_Key, dict[str, int]] = {}

    async def read(self, connection: AsyncConnection, records: Iterable[tuple[Record, bytes]]) -> None:
        """Reads the sessions that the records may belong to."""
        wanted: set[_Visitor] = set()
        for record, _ in records:
            if isinstance(record, Exchange) and _counts(record) and visitor_of(record):
                wanted.add((record.tenant, visitor_of(record)))
            elif isinstance(record, Observation) and record.user:
                wanted.add((record.tenant, f"u:{record.user}"))
        for piece in chunks({visitor for _, visitor in wanted}):
            rows = await connection.execute(select(visits).where(visits.c.visitor.in_(piece)))
            for row in rows:
                key = (row.tenant, row.visitor)
                if key in wanted:
                    self._stored.add(key)
                    self._visits[key] = Visit(
                        began=row.began, last=row.last, requests=row.requests, route=row.route, version=row.version
                    )

    def add(self, exchange: Exchange) -> None:
        """Counts an exchange that had not come before."""
        visitor = visitor_of(exchange)
        if not visitor or not _counts(exchange):
            return
        key = (exchange.tenant, visitor)
        self._visits[key], gain = follow(self._visits.get(key), exchange.at, exchange.route, exchange.version)
        self._changed.add(key)
        place = (gain.route, gain.version)
        self._gain(gain.at, exchange.tenant, place, "sessions", gain.sessions)
        self._gain(gain.at, exchange.tenant, place, "engaged", gain.engaged)
        self._gain(gain.at, exchange.tenant, place, "session_requests", gain.requests)
        self._gain(gain.at, exchange.tenant, place, "session_ms", gain.milliseconds)

    def told(self, observation: Observation, place: Place, *, converted: bool) -> None:
        """Counts what was said of a request of `place`; `converted`: it is the request's first conversion."""
        at, tenant = observation.received, observation.tenant
        if observation.kind == "event":
            self._gain(at, tenant, place, "events", 1)
            self._gain(at, tenant, place, "conversions", int(converted))
        elif observation.kind == "report":
            self._gain(at, tenant, place, "reports", 1)
        else:
            self._gain(at, tenant, place, "feedback", 1)

    def told_of_user(self, observation: Observation) -> None:
        """Counts an event that is about a user: for the place at which the user's newest session began, if it is not long over."""
        visit = self._visits.get((observation.tenant, f"u:{observation.user}"))
        near = visit is not None and visit.began - IDLE_S <= observation.received <= visit.last + IDLE_S
        place = (visit.route, visit.version) if visit is not None and near else ("", "")
        self.told(observation, place, converted=observation.name == "conversion")

    def _gain(self, at: float, tenant: str, place: Place, name: str, count: int) -> None:
        if count:
            for minute in (EVER, max(1, int(at // 60))):
                row = self._rows.setdefault((minute, tenant, *place), dict.fromkeys(COUNTS, 0))
                row[name] += count

    async def save(self, connection: AsyncConnection) -> None:
        """Adds the batch to the tables."""
        await self._save_visits(connection)
        await self._save_rows(connection)

    async def _save_visits(self, connection: AsyncConnection) -> None:
        fields = ("began", "last", "requests", "route", "version")
        new, known = [], []
        for tenant, visitor in sorted(self._changed):
            visit = self._visits[tenant, visitor]
            values = {name: getattr(visit, name) for name in fields}
            if (tenant, visitor) in self._stored:
                known.append({"p_tenant": tenant, "p_visitor": visitor} | {f"v_{n}": v for n, v in values.items()})
            else:
                new.append({"tenant": tenant, "visitor": visitor} | values)
        if known:
            await connection.execute(
                update(visits)
                .where(visits.c.tenant == bindparam("p_tenant"), visits.c.visitor == bindparam("p_visitor"))
                .values({name: bindparam(f"v_{name}") for name in fields}),
                known,
            )
        if new:
            await connection.execute(insert(visits), new)

    async def _save_rows(self, connection: AsyncConnection) -> None:
        table = engagement_minute
        known = []
        for piece in chunks({tenant for _, tenant, _, _ in self._rows}):
            minutes = sorted({minute for minute, tenant, _, _ in self._rows if tenant in piece})
            for start in range(0, len(minutes), _CHUNK):
                part = minutes[start : start + _CHUNK]
                found = await connection.execute(
                    select(table).where(table.c.tenant.in_(piece), table.c.minute.in_(part))
                )
                for old in found.mappings():
                    row = self._rows.pop((old["minute"], old["tenant"], old["route"], old["version"]), None)
                    if row is not None:
                        known.append(
                            {f"p_{name}": old[name] for name in KEYS}
                            | {f"v_{name}": old[name] + row[name] for name in COUNTS}
                        )
        if known:
            await connection.execute(
                update(table)
                .where(*(table.c[name] == bindparam(f"p_{name}") for name in KEYS))
                .values({name: bindparam(f"v_{name}") for name in COUNTS}),
                known,
            )
        if self._rows:
            rows = [
                dict(zip(KEYS, key, strict=True)) | {"sequence": self._first} | self._rows[key] for key in self._rows
            ]
            await connection.execute(insert(table), rows)


def _counts(exchange: Exchange) -> bool:
    return exchange.outcome == "ok" and (exchange.pair is None or not exchange.pair.of)


async def forget_visits(connection: AsyncConnection, now: float) -> int:
    """Removes sessions that are over, but for a day in which late records may come; how many there were."""
    return (await connection.execute(delete(visits).where(visits.c.last < now - 86400.0))).rowcount
