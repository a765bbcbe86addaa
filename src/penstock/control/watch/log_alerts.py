"""Log alerts without Elasticsearch: the leader reads records as they are taken in, and raises what fires where Alertmanager's alerts stand."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from blake3 import blake3
from sqlalchemy import func, select

from penstock.control.context import Control
from penstock.control.leases import Lease
from penstock.control.watch.alerts import Alert, Notice, Told, read_alerts, take
from penstock.control.watch.log_windows import Firing, LogWindows
from penstock.core.errors import PenstockError
from penstock.core.exchange import Exchange, Observation
from penstock.journal.log_rules import TABLE, LogAlert
from penstock.store.schema_experiments import exchanges, observations

_LOG = logging.getLogger("penstock.control")
EVERY_S = 10.0
PIECE = 2_000
_STATES = ("attributed", "kept", "pending", "unattributed", "foreign")

_exchange = msgspec.msgpack.Decoder(Exchange).decode
_observation = msgspec.msgpack.Decoder(Observation).decode


class LogAlerts:
    """The loop. A process that begins to lead reads back as far as the longest alert looks."""

    def __init__(self, control: Control, alerts: Sequence[LogAlert] = TABLE) -> None:
        self._control = control
        self._alerts = {alert.name: alert for alert in alerts}
        self._lease = Lease(control, "log-alerts")
        self._windows: LogWindows | None = None
        self._sequence = 0  # of the last exchange that was read
        self._told = 0  # and of the last observation
        self._raised: dict[str, Alert] = {}  # by fingerprint

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if await self._lease.held():
                    await self.step()
                else:
                    self._windows = None
            except PenstockError as error:
                _LOG.warning("log alerts: %s", error.message)
            await asyncio.sleep(EVERY_S)

    async def step(self) -> None:
        """Read what is new, and tell what began or ended.

        Raises:
            Unavailable: if the database cannot be read or written; the next step does it then.
        """
        now = self._control.clock()
        windows = self._windows
        if windows is None:
            windows = await self._begin(now)
        await self._read(windows)
        self._windows = windows
        firing = {_fingerprint(one): one for one in windows.firing(now)}
        told = [_told(name, one, ended=None) for name, one in firing.items() if name not in self._raised]
        told += [_over(alert, now) for name, alert in self._raised.items() if name not in firing]
        if not told:
            return
        changed = await take(self._control, Notice(version="4", alerts=tuple(told)))
        for alert in changed:
            for listener in self._control.alerted:
                listener(alert)
        self._raised = await self._firing()

    async def _begin(self, now: float) -> LogWindows:
        longest = max(alert.minutes for alert in self._alerts.values()) * 60
        self._raised = await self._firing()
        async with self._control.database.read() as connection:
            first = select(func.min(exchanges.c.sequence)).where(exchanges.c.at >= now - longest)
            found = (await connection.execute(first)).scalar_one_or_none()
            if found is None:
                newest = (await connection.execute(select(func.max(exchanges.c.sequence)))).scalar_one_or_none()
                self._sequence = newest or 0
            else:
                self._sequence = found - 1
            told = select(func.min(observations.c.sequence)).where(
                observations.c.state.in_(_STATES), observations.c.received >= now - longest
            )
            earliest = (await connection.execute(told)).scalar_one_or_none()
            if earliest is None:
                last = select(func.max(observations.c.sequence))
                self._told = (await connection.execute(last)).scalar_one_or_none() or 0
            else:
                self._told = earliest - 1
        return LogWindows(tuple(self._alerts.values()), self._control.settings.ship.slow_s)

    async def _firing(self) -> dict[str, Alert]:
        """Of ours, what stands as firing, whoever raised it."""
        found = await read_alerts(self._control, state="firing", tenant=None, limit=100_000)
        return {one.fingerprint: one for one in found if one.name in self._alerts}

    async def _read(self, windows: LogWindows) -> None:
        """Every record that came since the last time, once: sequences are committed in their order."""
        more = True
        while more:
            more = await self._piece(windows)
            await asyncio.sleep(0)

    async def _piece(self, windows: LogWindows) -> bool:
        """Some of them; whether there may be more."""
        happened = select(exchanges.c.sequence, exchanges.c.record).where(exchanges.c.sequence > self._sequence)
        said = select(observations.c.sequence, observations.c.record).where(observations.c.sequence > self._told)
        async with self._control.database.read() as connection:
            rows = (await connection.execute(happened.order_by(exchanges.c.sequence).limit(PIECE))).all()
            told = (await connection.execute(said.order_by(observations.c.sequence).limit(PIECE))).all()
        for row in rows:
            windows.add(_exchange(row.record))
            self._sequence = row.sequence
        for row in told:
            windows.add(_observation(row.record))
            self._told = row.sequence
        return len(rows) == PIECE or len(told) == PIECE


def _fingerprint(one: Firing) -> str:
    return blake3(f"{one.alert.name}\0{one.group}".encode("utf-8", "surrogatepass")).hexdigest(length=16)


def _told(fingerprint: str, one: Firing, *, ended: datetime | None) -> Told:
    alert = one.alert
    labels = {"alertname": alert.name, "severity": alert.severity, "source": "log"}
    if alert.by:
        labels["group"] = one.group
    if alert.by in {"organization.id", "penstock.tenant"}:
        labels["tenant"] = one.group
    return Told(
        status="firing" if ended is None else "resolved",
        fingerprint=fingerprint,
        labels=labels,
        annotations={
            "summary": alert.summary.format(count=f"{one.count} or more", group=one.group),
            "runbook_url": f"docs/runbooks/{alert.runbook}.md",
        },
        starts_at=datetime.fromtimestamp(one.since, UTC),
        ends_at=ended,
    )


def _over(alert: Alert, now: float) -> Told:
    return Told(
        status="resolved",
        fingerprint=alert.fingerprint,
        labels=alert.labels,
        annotations={"summary": alert.summary, "runbook_url": alert.runbook},
        starts_at=datetime.fromtimestamp(alert.starts_at, UTC),
        ends_at=datetime.fromtimestamp(now, UTC),
    )
