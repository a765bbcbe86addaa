"""Control's own metrics, in the Prometheus text format at /metrics."""

import time
from collections.abc import Callable
from contextlib import suppress

from fastapi import FastAPI, Request, Response
from prometheus_client import Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.control.bound_measures import BoundMeasures
from penstock.control.content.keystore import unconfirmed
from penstock.control.context import Control
from penstock.control.deploy.canary_measures import CanaryMeasures
from penstock.control.deploy.publisher import Publisher
from penstock.control.evaluators.measures import EvaluatorMeasures
from penstock.control.experiments.measures import ExperimentMeasures
from penstock.control.figures.engagement_measures import EngagementMeasures
from penstock.control.gates.measures import GateMeasures
from penstock.control.storage.sweep import read_kept
from penstock.control.versions.build_measures import BuildMeasures
from penstock.control.webhooks.measures import WebhookMeasures
from penstock.core.errors import Unavailable
from penstock.core.exposition import Registry
from penstock.core.metrics import metric
from penstock.experiments.drift_daily import Comparison
from penstock.journal.log_rules import TABLE as LOG_ALERTS
from penstock.store.schema import keys
from penstock.store.schema_alerts import alerts
from penstock.store.schema_drift import drift_days, drift_groups
from penstock.store.schema_experiments import experiments

SEVERITIES = ("page", "ticket", "other")
_IN_USE_S = 3600.0  # what has had no request for so long is not watched any more


class Measures:
    """What control counts of itself."""

    def __init__(self, control: Control, publisher: Publisher) -> None:
        self._control = control
        self._publisher = publisher
        self.registry = Registry()
        calls, took, generation, gateways = (
            metric(f"penstock_control_{name}")
            for name in ("requests_total", "request_duration_seconds", "snapshot_generation", "gateways")
        )
        self._calls = Counter(calls.name, calls.help, calls.labels, registry=self.registry)
        self._took = Histogram(took.name, took.help, took.labels, buckets=took.buckets, registry=self.registry)
        self._generation = Gauge(generation.name, generation.help, registry=self.registry)
        self._gateways = Gauge(gateways.name, gateways.help, registry=self.registry)
        firing, expires, started, units = (
            metric(f"penstock_{name}")
            for name in (
                "alerts_firing",
                "key_expires_timestamp_seconds",
                "experiment_started_timestamp_seconds",
                "experiment_units",
            )
        )
        drifted, psi, shifted = (metric(f"penstock_drift_{name}") for name in ("alarm", "psi", "shifted"))
        self._drifted = Gauge(drifted.name, drifted.help, drifted.labels, registry=self.registry)
        self._psi = Gauge(psi.name, psi.help, psi.labels, registry=self.registry)
        self._shifted = Gauge(shifted.name, shifted.help, shifted.labels, registry=self.registry)
        self._firing = Gauge(firing.name, firing.help, firing.labels, registry=self.registry)
        self._expires = Gauge(expires.name, expires.help, expires.labels, registry=self.registry)
        self._started = Gauge(started.name, started.help, started.labels, registry=self.registry)
        self._units = Gauge(units.name, units.help, units.labels, registry=self.registry)
        owing = metric("penstock_forgettings_unconfirmed")
        self._owing = Gauge(owing.name, owing.help, owing.labels, registry=self.registry)
        logged = metric("penstock_log_alerts_firing")
        self._logged = Gauge(logged.name, logged.help, logged.labels, registry=self.registry)
        self._engagement = EngagementMeasures()
        self.registry.register(self._engagement)
        kept = metric("penstock_registry_bytes")
        self._kept = Gauge(kept.name, kept.help, kept.labels, registry=self.registry)
        self._canaries = CanaryMeasures()
        self.registry.register(self._canaries)
        self._experiments = ExperimentMeasures()
        self.registry.register(self._experiments)
        self._evaluators = EvaluatorMeasures()
        self.registry.register(self._evaluators)
        self._bounds = BoundMeasures(control)
        self.registry.register(self._bounds)
        self._gates = GateMeasures()
        self.registry.register(self._gates)
        self._builds = BuildMeasures()
        self.registry.register(self._builds)
        self._webhooks = WebhookMeasures()
        self.registry.register(self._webhooks)
        ProcessCollector(registry=self.registry)

    def install(self, app: FastAPI) -> None:
        """Count every request to `app`, and answer /metrics."""
        app.add_middleware(_Counting, count=self._count)

        @app.get("/metrics", tags=["probes"])
        async def metrics(request: Request) -> Response:
            """Prometheus' text format, or OpenMetrics'."""
            current = self._publisher.current
            self._generation.set(current.generation if current is not None else 0)
            fresh = self._control.clock() - 60.0
            self._gateways.set(sum(report.at >= fresh for report in self._publisher.reports.values()))
            with suppress(Unavailable):  # while the database is away, what stands in it is told as it was
                await self._read()
            encode, kind = choose_encoder(request.headers.get("accept", ""))
            return Response(encode(self.registry), media_type=kind)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"]
        path = getattr(scope.get("route"), "path", "other")  # the template: labels stay bounded
        self._calls.labels(method, path, str(status)).inc()
        if not path.startswith("/internal"):  # long polls wait on purpose
            self._took.labels(method, path).observe(seconds)

    async def _read(self) -> None:
        """What stands in the database: alerts that fire, keys that will end, and experiments that run, with their units by arm."""
        now = self._control.clock()
        async with self._control.database.read() as connection:
            for kind, count in (await read_kept(connection)).items():
                self._kept.labels(kind).set(count)
            await self._canaries.read(connection)
            await self._experiments.read(connection)
            await self._evaluators.read(connection, now)
            await self._gates.read(connection)
            await self._builds.read(connection)
            await self._bounds.read(connection, now)
            await self._webhooks.read(connection, now)
            await self._engagement.read(connection)
            by_severity = select(alerts.c.severity, func.count()).where(alerts.c.state == "firing")
            firing = (await connection.execute(by_severity.group_by(alerts.c.severity))).all()
            by_name = select(alerts.c.name, func.count()).where(
                alerts.c.state == "firing", alerts.c.name.in_([one.name for one in LOG_ALERTS])
            )
            found = (await connection.execute(by_name.group_by(alerts.c.name))).all()
            logged = {row[0]: row[1] for row in found}
            ending = select(keys.c.tenant, func.min(keys.c.expires_at).label("at")).where(
                keys.c.revoked_at.is_(None), keys.c.expires_at > now
            )
            expiring = (await connection.execute(ending.group_by(keys.c.tenant))).all()
            running = (
                await connection.execute(
                    select(
                        experiments.c.name, experiments.c.route, experiments.c.started_at, experiments.c.verdict
                    ).where(experiments.c.state == "running")
                )
            ).all()
            await self._read_drift(connection, now)
            owing = await unconfirmed(connection)
        for gauge in (self._firing, self._expires, self._started, self._units, self._owing):
            gauge.clear()
        for one in owing:
            self._owing.labels(one.name).inc(one.waiting)
        for severity in SEVERITIES:
            self._firing.labels(severity).set(0)
        for severity, count in firing:
            self._firing.labels(severity if severity in SEVERITIES else "other").set(count)
        for alert in LOG_ALERTS:
            self._logged.labels(alert.name).set(logged.get(alert.name, 0))
        for key in expiring:
            self._expires.labels(key.tenant or "").set(key.at)
        for row in running:
            self._started.labels(row.name, row.route).set(row.started_at or 0.0)
            for arm in (row.verdict or {}).get("arms", ()):
                self._units.labels(row.name, row.route, arm["arm"]).set(arm["units"])

    async def _read_drift(self, connection: AsyncConnection, now: float) -> None:
        """What has drifted of what is in use, and what the last day that is over shows."""
        using = select(drift_groups.c.model, drift_groups.c.arm, drift_groups.c.alarms).where(
            drift_groups.c.ended_at.is_(None), drift_groups.c.last_at > now - _IN_USE_S
        )
        drifting = (await connection.execute(using)).all()
        ended = select(drift_days).where(drift_days.c.day == int(now // 86400) - 1)
        days = (await connection.execute(ended)).all()
        for gauge in (self._drifted, self._psi, self._shifted):
            gauge.clear()
        for group in drifting:
            for watch in group.alarms:
                labels = (group.model, group.arm, watch["signal"], watch["against"])
                self._drifted.labels(*labels).set(watch["alarm"] is not None)
        for day in days:
            result = Comparison(n=day.n, psi=day.psi, distance=day.distance, p=day.p)
            self._psi.labels(day.model, day.arm, day.signal).set(day.psi)
            self._shifted.labels(day.model, day.arm, day.signal).set(result.shifted)


class _Counting:
    """ASGI middleware: tells `count` of each answer when it begins. It looks at nothing else: bodies of gigabytes go through it."""

    def __init__(self, app: ASGIApp, count: Callable[[Scope, int, float], None]) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, watched)
