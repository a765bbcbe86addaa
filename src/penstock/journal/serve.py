"""The shipper as a process: its readers, and a small server that tells how they are."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import msgspec
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from penstock.core.errors import NotFound
from penstock.core.exposition import Registry
from penstock.core.metrics import metric
from penstock.journal.event_carrier import EventCarrier
from penstock.journal.ship import Shipper
from penstock.net.server import Reply, Request, Server

_STOP_S = 3.0  # what a sink may still take in after the order to stop; what it has not confirmed is sent again
_JSON = ((b"content-type", b"application/json"),)


class ShipServer(Collector):
    """`/healthz`, `/readyz` and `/metrics` of a shipper."""

    def __init__(
        self, shippers: Sequence[Shipper], also: Sequence[Collector] = (), carriers: Sequence[EventCarrier] = ()
    ) -> None:
        self._shippers = shippers
        self._carriers = carriers
        self._readers: tuple[Shipper | EventCarrier, ...] = (*shippers, *carriers)
        self._registry = Registry(auto_describe=False)
        for collector in (self, *also):
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    async def handle(self, request: Request, reply: Reply) -> None:
        """One request."""
        if request.path == "/metrics":
            encode, kind = choose_encoder(request.headers.get(b"accept", b"").decode("latin-1"))
            reply.send(200, ((b"content-type", kind.encode()),), encode(self._registry))
        elif request.path in {"/healthz", "/readyz"}:
            readers = {
                s.name: {"lag_bytes": s.lag(), "problem": s.problem, "dead_letters": s.tally.dead}
                for s in self._shippers
            }
            events = {
                c.name: {"behind": c.behind, "problem": c.problem, "carried": c.counts.records} for c in self._carriers
            }
            reply.send(200, _JSON, msgspec.json.encode({"status": "ok", "readers": readers, "events": events}))
        else:
            raise NotFound(f"The shipper has no {request.path}: ask for /metrics, /healthz or /readyz.")

    def collect(self) -> Iterator[Family]:
        """For prometheus-client."""
        counts = [(one.name, one.counts) for one in self._readers]
        yield _family("penstock_ship_records_total", [(name, float(count.records)) for name, count in counts])
        yield _family("penstock_ship_failures_total", [(name, float(count.failures)) for name, count in counts])
        yield _family("penstock_ship_events_behind", [(c.name, float(c.behind)) for c in self._carriers])
        reads: tuple[tuple[str, Callable[[Shipper], float]], ...] = (
            ("penstock_ship_lag_bytes", lambda s: s.lag()),
            ("penstock_ship_damaged_bytes_total", lambda s: s.counts.damaged),
            ("penstock_ship_dead_letters_total", lambda s: s.tally.dead),
            ("penstock_ship_retried_total", lambda s: s.tally.retried),
            ("penstock_ship_unsampled_total", lambda s: s.tally.unsampled),
        )
        for name, read in reads:
            yield _family(name, [(shipper.name, float(read(shipper))) for shipper in self._shippers])


def _family(name: str, values: Sequence[tuple[str, float]]) -> Family:
    """The family of `metric(name)`, by reader."""
    entry = metric(name)
    kind = CounterMetricFamily if entry.kind == "counter" else GaugeMetricFamily
    family = kind(entry.name, entry.help, labels=entry.labels)
    for reader, value in values:
        family.add_metric((reader,), value)
    return family


async def serve_ship(
    shippers: Sequence[Shipper],
    *,
    also: Sequence[Collector] = (),
    carriers: Sequence[EventCarrier] = (),
    host: str,
    port: int,
    stop: asyncio.Event,
    started: Callable[[int], None] | None = None,
) -> None:
    """Run `shippers` and `carriers` until `stop` is set, each on its own; `started` is told the port of the server, whose metrics have `also` too.

    Raises:
        OSError: if the port is in use.
    """
    server = Server(ShipServer(shippers, also, carriers).handle)
    await server.start(host, port)
    if started is not None:
        started(server.port)
    try:
        async with asyncio.TaskGroup() as group:
            readers: tuple[Shipper | EventCarrier, ...] = (*shippers, *carriers)
            tasks = [group.create_task(reader.run(), name=f"ship-{reader.name}") for reader in readers]
            await stop.wait()
            for reader in readers:
                reader.stop()
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=_STOP_S)
                for task in late:
                    task.cancel()
    finally:
        for shipper in shippers:
            shipper.close()
        await server.drain(2.0)
