"""The records of runs: the last one of each version in DATA/probes, told to Prometheus by the shipper."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.core.metrics import metric
from penstock.engine.probe.record import ProbeRecord

_MOST = 64  # versions that are told: the ones probed last
_log = logging.getLogger("penstock.probe")


def save_record(folder: Path, record: ProbeRecord) -> Path:
    """Writes the record of a version's last run; where it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{quote(record.model, safe='')}.json"
    temporary = file.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.replace(file)
    return file


def read_records(folder: Path) -> list[ProbeRecord]:
    """The last record of each version, newest first; files that hold none are left out."""
    found = []
    for file in folder.glob("*.json"):
        try:
            found.append(msgspec.json.decode(file.read_bytes(), type=ProbeRecord))
        except (OSError, ValueError) as error:
            _log.warning("%s holds no record of a probe: %s", file, error)
    return sorted(found, key=lambda record: -record.at)


class ProbeCollector(Collector):
    """Tells the records in `folder` at each scrape."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """All families; a version that was never probed has no series."""
        records = read_records(self._folder)[:_MOST]
        reads: tuple[tuple[str, Callable[[ProbeRecord], float | None]], ...] = (
            ("penstock_probe_timestamp_seconds", lambda r: r.at),
            ("penstock_probe_requests", lambda r: r.requests),
            ("penstock_probe_perplexity", lambda r: r.perplexity),
        )
        for name, read in reads:
            family = GaugeMetricFamily(name, metric(name).help, labels=metric(name).labels)
            for record in records:
                value = read(record)
                if value is not None:
                    family.add_metric((record.model,), value)
            yield family
        for name, field in (
            ("penstock_probe_attention_entropy_ratio", "entropy_ratio"),
            ("penstock_probe_attention_sink_ratio", "sink_ratio"),
        ):
            family = GaugeMetricFamily(name, metric(name).help, labels=metric(name).labels)
            for record in records:
                family.add_metric((record.model, "all"), getattr(record, field))
                for layer in record.layers:
                    family.add_metric((record.model, str(layer.layer)), getattr(layer, field))
            yield family
