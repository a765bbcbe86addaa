"""Control's own metrics, in the Prometheus text format at /metrics."""

import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from penstock.control.context import Control
from penstock.control.publisher import Publisher
from penstock.core.metrics import metric


class Measures:
    """What control counts of itself."""

    def __init__(self, control: Control, publisher: Publisher) -> None:
        self._control = control
        self._publisher = publisher
        self.registry = CollectorRegistry()
        calls, took, generation, gateways = (
            metric(f"penstock_control_{name}")
            for name in ("requests_total", "request_duration_seconds", "snapshot_generation", "gateways")
        )
        self._calls = Counter(calls.name, calls.help, calls.labels, registry=self.registry)
        self._took = Histogram(took.name, took.help, took.labels, buckets=took.buckets, registry=self.registry)
        self._generation = Gauge(generation.name, generation.help, registry=self.registry)
        self._gateways = Gauge(gateways.name, gateways.help, registry=self.registry)

    def install(self, app: FastAPI) -> None:
        """Count every request to `app`, and answer /metrics."""

        @app.middleware("http")
        async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
            begun = time.perf_counter()
            response = await call_next(request)
            route = request.scope.get("route")
            path = getattr(route, "path", "other")  # the template: labels stay bounded
            self._calls.labels(request.method, path, str(response.status_code)).inc()
            if not path.startswith("/internal"):  # long polls wait on purpose
                self._took.labels(request.method, path).observe(time.perf_counter() - begun)
            return response

        @app.get("/metrics", tags=["probes"])
        async def metrics() -> Response:
            """Prometheus' text format."""
            current = self._publisher.current
            self._generation.set(current.generation if current is not None else 0)
            fresh = self._control.clock() - 60.0
            self._gateways.set(sum(report.at >= fresh for report in self._publisher.reports.values()))
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
