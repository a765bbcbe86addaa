"""The registry of a process' metrics: OpenMetrics' `# UNIT` lines come from the table of metrics."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

from penstock.core.metrics import TABLE

# By family; OpenMetrics wants a family's name to end with its unit, so that those of other names have none there (prometheus.io/docs/specs/om, "Unit").
_UNITS = {
    entry.name.removesuffix("_total"): entry.unit
    for entry in TABLE
    if entry.name.removesuffix("_total").endswith(f"_{entry.unit}")
}


class Registry(CollectorRegistry):
    """A registry whose families tell their units, where the table says that they have one."""

    def collect(self) -> Iterable[Family]:
        """All families."""
        for family in super().collect():
            family.unit = _UNITS.get(family.name, "")
            yield family
