"""The shipper: one reader of the journal for control and each sink, and what tells of the machine."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.compose.keys import exchange_keys
from penstock.compose.process import data_folder, log_to_stdout, run
from penstock.compose.settings import service_token
from penstock.compose.sinks import parquet_sink, sinks_beside_control
from penstock.core.errors import BadRequest, Unavailable
from penstock.core.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from penstock.journal.ship import Shipper, Sink

_FLUSH_S = 5.0  # how long a shipper that was told to stop goes on passing on what is left


def run_ship(settings: Settings) -> None:
    """The shipper, until SIGTERM; then it passes on what is left, for a bounded time.

    Raises:
        BadRequest: if it is not said where control is.
        Unavailable: if its port cannot be had.
    """
    log_to_stdout()
    if not settings.ship.control_url:
        raise BadRequest("The shipper must know where control is: give --control-url.", param="--control-url")
    run(_ship(settings))


def _host_collectors(data: Path) -> "list[Collector]":
    """What tells of the machine, and of what was probed on it: of each there is one shipper."""
    from penstock.engine.probe.records import ProbeCollector
    from penstock.runtime.gpus import GpuCollector, find_nvml
    from penstock.runtime.host import HostCollector

    nvml = find_nvml()
    host = HostCollector({"data": data})
    probes = ProbeCollector(data / "probes")
    return [host, probes] if nvml is None else [host, probes, GpuCollector(nvml)]


async def _ship(settings: Settings) -> None:
    from penstock.journal.analytics.asking import RetentionAsker
    from penstock.journal.control_client import ControlClient
    from penstock.journal.elastic import ElasticSink
    from penstock.journal.event_carrier import ControlEvents, EventCarrier
    from penstock.journal.lines import LinesSink
    from penstock.journal.offsets import keep_readers
    from penstock.journal.serve import serve_ship
    from penstock.journal.ship import ControlSink, Shipper

    data = data_folder(settings)
    loop = asyncio.get_running_loop()
    told, stop = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    control = ControlSink(
        settings.ship.control_url, service_token(settings), journal=data / "journal", offsets=data / "ship"
    )
    sinks: list[Sink] = [control, *sinks_beside_control(settings.ship, data)]
    parquet = parquet_sink(settings)
    if parquet is not None:
        sinks.append(parquet)
    for gone in keep_readers(data / "ship", [sink.name for sink in sinks]):
        logging.getLogger("penstock.ship").warning("%s: has no sink any more, and holds the journal no longer", gone)
    shippers = [
        Shipper(
            sink,
            data / "journal",
            data / "ship",
            poll_s=settings.analytics.flush_s if sink is parquet else settings.ship.poll_s,
            heard=control.heard if sink is control else None,
        )
        for sink in sinks
    ]
    # What is not in a Parquet file yet waits in the journal, also over a restart: nothing to drain.
    quick = [shipper for shipper, sink in zip(shippers, sinks, strict=True) if sink is not parquet]
    asked = ControlClient(settings.ship.control_url, service_token(settings))
    carriers = [
        EventCarrier(sink, ControlEvents(asked), data / "ship")
        for sink in sinks
        if settings.ship.events and isinstance(sink, ElasticSink | LinesSink)
    ]
    beside = [asyncio.create_task(_drain(quick, settings.ship.poll_s, told, stop))]
    if settings.keys.shared:
        beside.append(asyncio.create_task(exchange_keys(settings)))
    if parquet is not None:
        beside.append(asyncio.create_task(parquet.keep(RetentionAsker(asked).ask, settings.analytics.upkeep_s)))
    also = [*_host_collectors(data), *([] if parquet is None else [parquet])]
    try:
        await serve_ship(
            shippers, also=also, carriers=carriers, host=settings.ship.host, port=settings.ship.port, stop=stop
        )
    except OSError as error:
        raise Unavailable(
            f"The shipper cannot listen on {settings.ship.host}:{settings.ship.port}: {error.strerror or error}.",
            hint="Choose another port with --ship-port.",
        ) from None
    finally:
        for task in beside:
            task.cancel()
        for sink in sinks:
            await sink.close()
        await asked.close()


async def _drain(shippers: "Sequence[Shipper]", poll_s: float, told: asyncio.Event, stop: asyncio.Event) -> None:
    """When the process has been `told` to end, `stop` it as soon as nothing is left to pass on, or time is up."""
    await told.wait()
    for _ in range(round(_FLUSH_S / poll_s)):
        if not any(shipper.lag() for shipper in shippers):
            break
        await asyncio.sleep(poll_s)
    stop.set()
