"""What the metrics of all gateway workers of a machine tell of replicas, queues, ledger and journals."""

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from penstock.diagnosis.seen import QueueSeen


class Counted:
    """One exposition, read."""

    def __init__(self, samples: dict[str, list[Sample]]) -> None:
        self._samples = samples

    def _all(self, name: str) -> list[Sample]:
        return self._samples.get(name, [])

    def workers(self) -> int:
        """How many told anything."""
        return len({one.labels["worker"] for one in self._all("penstock_snapshot_generation")})

    def out(self, pool: str, replica: str) -> int:
        """How many workers leave `replica` out."""
        return sum(
            1
            for one in self._all("penstock_replica_up")
            if one.labels["pool"] == pool and one.labels["replica"] == replica and not one.value
        )

    def ejections(self, pool: str, replica: str) -> dict[str, int]:
        """How often it was left out so far, by reason."""
        found: dict[str, int] = {}
        for one in self._all("penstock_replica_ejections_total"):
            if one.labels["pool"] == pool and one.labels["replica"] == replica and one.value:
                found[one.labels["reason"]] = found.get(one.labels["reason"], 0) + int(one.value)
        return found

    def queues(self) -> tuple[QueueSeen, ...]:
        """Of all pools that have one."""
        waiting: dict[str, int] = {}
        refusals: dict[str, dict[str, int]] = {}
        for one in self._all("penstock_queue_waiting"):
            waiting[one.labels["pool"]] = waiting.get(one.labels["pool"], 0) + int(one.value)
        for one in self._all("penstock_queue_refusals_total"):
            mine = refusals.setdefault(one.labels["pool"], {})
            mine[one.labels["reason"]] = mine.get(one.labels["reason"], 0) + int(one.value)
        return tuple(
            QueueSeen(pool=pool, waiting=waiting.get(pool, 0), refusals=refusals.get(pool, {}))
            for pool in sorted(waiting.keys() | refusals.keys())
        )

    def ledgerless(self) -> tuple[str, ...]:
        """Workers that cannot ask the ledger."""
        return tuple(sorted(one.labels["worker"] for one in self._all("penstock_ledger_up") if not one.value))

    def journal(self) -> tuple[dict[str, int], dict[str, int]]:
        """Lost records and failed writes, by worker."""
        lost, failures = (
            {one.labels["worker"]: int(one.value) for one in self._all(name)}
            for name in ("penstock_journal_lost_records_total", "penstock_journal_failures_total")
        )
        return lost, failures


def counted(text: bytes) -> Counted | None:
    """What `text`, an exposition in Prometheus' format, tells; None if it is none."""
    samples: dict[str, list[Sample]] = {}
    try:
        for family in text_string_to_metric_families(text.decode()):
            for one in family.samples:
                samples.setdefault(one.name, []).append(one)
    except ValueError:  # UnicodeDecodeError is one
        return None
    return Counted(samples) if samples else None
