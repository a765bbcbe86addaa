"""Whether a request takes part in an experiment: targeting, the holdout, and the namespace, by stateless hashes as assignment itself.

A namespace is GrowthBook's (docs.growthbook.io/lib/build-your-own, "Namespaces"): hash version 1 of the unit with the seed `__NAME`. A holdout's
bucket is hash version 2 with the holdout's name as the seed: independent of every experiment's arms.
"""

from collections.abc import Mapping
from typing import Any, Final

from penstock.core.snapshot import ExperimentEntry, Slice
from penstock.experiments.hashing import bucket

OUTSIDE_AUDIENCE: Final = "audience"
OUTSIDE_NAMESPACE: Final = "namespace"
HELD_OUT: Final = "holdout"

_KEPT = 4096  # units that one gate remembers


def in_namespace(unit: str, namespace: Slice) -> bool:
    """Whether `unit` is in the part of the namespace."""
    return namespace.low <= bucket(f"__{namespace.name}", unit, 1) < namespace.high


def is_held_out(unit: str, holdout: Slice) -> bool:
    """Whether `unit` takes part in nothing that names the holdout."""
    return holdout.low <= bucket(holdout.name, unit) < holdout.high


class Gate:
    """Who takes part in one experiment, ready for the hot path. Holds a bounded memory of units; one owner, no threads."""

    def __init__(self, entry: ExperimentEntry) -> None:
        audience = entry.audience
        self._tenants = None if audience is None or audience.tenants is None else frozenset(audience.tenants)
        self._headers: list[tuple[bytes, bytes]] = []
        self._metadata: list[tuple[str, str]] = []
        if audience is not None:
            self._headers = [
                (name.lower().encode("latin-1", "replace"), value.encode()) for name, value in audience.headers.items()
            ]
            self._metadata = list(audience.metadata.items())
        self._namespace = entry.namespace
        self._holdout = entry.holdout
        self._by_unit = entry.namespace is not None or entry.holdout is not None
        self._known: dict[str, str] = {}

    def why_not(
        self, tenant: str, headers: Mapping[bytes, bytes], metadata: Mapping[str, Any] | None, unit: str
    ) -> str:
        """Why the request takes no part; "" if it does. Header names are in lower case."""
        if self._tenants is not None and tenant not in self._tenants:
            return OUTSIDE_AUDIENCE
        for field, wanted in self._headers:
            if headers.get(field) != wanted:
                return OUTSIDE_AUDIENCE
        if self._metadata:
            if metadata is None:
                return OUTSIDE_AUDIENCE
            for key, value in self._metadata:
                if metadata.get(key) != value:
                    return OUTSIDE_AUDIENCE
        return self._of_unit(unit) if self._by_unit else ""

    def _of_unit(self, unit: str) -> str:
        found = self._known.get(unit)
        if found is None:
            found = ""
            if self._holdout is not None and is_held_out(unit, self._holdout):
                found = HELD_OUT
            elif self._namespace is not None and not in_namespace(unit, self._namespace):
                found = OUTSIDE_NAMESPACE
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[unit] = found
        return found


def gate_of(entry: ExperimentEntry) -> Gate | None:
    """The gate of `entry`; None if everybody takes part."""
    shut = entry.audience is not None or entry.namespace is not None or entry.holdout is not None
    return Gate(entry) if shut else None
