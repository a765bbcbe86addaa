"""Where the shipper's records go beside control: the analytical store, traces, documents, lines."""

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.compose.settings import analytics_folder
from penstock.core.errors import BadRequest
from penstock.core.settings import Settings, ShipSettings

if TYPE_CHECKING:
    from penstock.journal.analytics.sink import ParquetSink
    from penstock.journal.ship import Sink
    from penstock.journal.traces import Carrier


def parquet_sink(settings: Settings) -> "ParquetSink | None":
    """What writes the analytical store; None where it is switched off or its extra is not installed."""
    if not settings.analytics.enabled or not find_spec("duckdb"):
        return None
    from penstock.journal.analytics.sink import ParquetSink

    return ParquetSink(analytics_folder(settings), clock=time.time, disk_bytes=settings.analytics.disk_bytes)


def sinks_beside_control(ship: ShipSettings, data: Path) -> "list[Sink]":
    """What `ship` names: traces, documents, lines. What a sink refuses goes to a file of its own in DATA/dead-letters.

    Raises:
        BadRequest: if a sink needs a package that is not installed, or its headers cannot be read.
    """
    from penstock.journal.refusals import DeadLetters
    from penstock.journal.sampling import Sampling
    from penstock.journal.traces import TraceSink

    def dead(name: str) -> DeadLetters:
        return DeadLetters(data / "dead-letters" / f"{name}.ndjson")

    sampling = Sampling(share=ship.trace_share, slow_s=ship.slow_s)
    sinks: list[Sink] = []
    if ship.otlp_url:
        sinks.append(TraceSink(_collector(ship), sampling, dead("otlp")))
    if ship.zipkin_url:
        from penstock.journal.zipkin import Zipkin

        sinks.append(TraceSink(Zipkin(ship.zipkin_url), sampling, dead("zipkin")))
    if ship.stdout:
        from penstock.journal.lines import LinesSink

        sinks.append(LinesSink(sys.stdout.buffer, slow_s=ship.slow_s))
    if ship.elasticsearch_url:
        from penstock.journal.elastic import ElasticSink

        sinks.append(
            ElasticSink(
                ship.elasticsearch_url,
                dead("elasticsearch"),
                api_key=ship.elasticsearch_api_key,
                retention_days=ship.elasticsearch_retention_days,
                slow_s=ship.slow_s,
            )
        )
    return sinks


def _collector(ship: ShipSettings) -> "Carrier":
    from penstock.journal.posting import parse_headers

    headers = parse_headers(ship.otlp_headers)
    try:
        if ship.otlp_url.startswith("grpc"):
            from penstock.journal.otlp_grpc import OtlpGrpc

            return OtlpGrpc(ship.otlp_url, headers)
        from penstock.journal.otlp import OtlpHttp

        return OtlpHttp(ship.otlp_url, headers)
    except ImportError as error:
        raise BadRequest(
            f"Traces by OTLP need a package that is not there ({error.name}).",
            param="ship.otlp_url",
            hint="Install penstock[otlp].",
        ) from None
