"""The gateway's metrics: cells that a request adds to for a fraction of a microsecond, told to Prometheus when it asks.

Names, labels and buckets are those of `core.metrics.TABLE`; prometheus-client writes the exposition. A worker is one thread, so the
cells need no locks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Exemplar

from penstock.core.exchange import OPERATIONS, PROVIDER, Exchange, Phases, Quality
from penstock.core.exposition import Registry
from penstock.core.metrics import TABLE, metric

_FOLD_AT = 512
MOST_SERIES = 5000  # of one family, in one worker; what comes beyond is counted together, as OTHER
OTHER = "other"
# Labels whose values come from configuration, and are as many as there are tenants, routes or versions. All others have a few values that stand in code.
OPEN = frozenset(
    {"route", "gen_ai_request_model", "arm", "tenant", "version", "experiment", "rule", "pool", "replica", "code"}
)
_OVERFLOW = "penstock_series_overflow_total"
_END = b"# EOF"  # of OpenMetrics
PLAIN = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_SAMPLED = frozenset("13579bdf")  # last digits of a traceparent's flags whose lowest bit is set
PHASES = ("decode", "admit", "dispatch", "wait", "answer", "settle")


Traced = tuple[str, float, float]  # a trace's id, the value observed, when: Unix seconds
Labels = tuple[str, ...]
Gone = AbstractSet[tuple[str, str]]  # labels and values
Cells = dict[str, dict[Labels, float]]  # numbers by metric and label values
Distributions = dict[str, dict[Labels, tuple[list[int], float]]]  # counts by bucket, and the sum


class Cell:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Distribution:
    """Observations, counted by bucket some at a time.

    Attributes:
        new: those that `fold` has not counted yet; whoever appends many sees to it that it is called.
    """

    __slots__ = ("bounds", "counts", "exemplars", "new", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.exemplars: dict[int, Traced] = {}  # by bucket, the last one
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.new: list[float] = []

    def observe(self, value: float) -> None:
        """Adds one observation."""
        self.new.append(value)
        if len(self.new) >= _FOLD_AT:
            self.fold()

    def exemplify(self, value: float, trace: str, at: float) -> None:
        """Has `trace`, the id of the trace of an observation of `value`, stand for its bucket."""
        self.exemplars[bisect_left(self.bounds, value)] = (trace, value, at)

    def fold(self) -> None:
        """Counts what is new."""
        new, self.new = self.new, []
        bounds, counts = self.bounds, self.counts
        for value in new:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(new)


class PhaseMeters:
    """Where the time of one route's and arm's requests went, counted some at a time: the phases' sums add up to that of the durations."""

    __slots__ = ("_cells", "_new")

    def __init__(self, meters: Meters, route: str, arm: str) -> None:
        self._cells = [meters.cell("penstock_phase_seconds_total", route, arm, phase) for phase in PHASES]
        self._new: list[Phases] = []

    def observe(self, phases: Phases) -> None:
        """Adds those of one request."""
        self._new.append(phases)
        if len(self._new) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Adds up what is new; a phase that was not reached takes no time."""
        new, self._new = self._new, []
        decode = admit = dispatch = wait = answer = settle = 0
        for phases in new:  # `Phases.lengths`, without a call for each
            before = phases.decoded
            decode += before
            end = phases.admitted
            if end > before:
                admit += end - before
                before = end
            end = phases.dispatched
            if end > before:
                dispatch += end - before
                before = end
            end = phases.first_token
            if end > before:
                wait += end - before
                before = end
            end = phases.last_token
            if end > before:
                answer += end - before
                before = end
            end = phases.done
            if end > before:
                settle += end - before
        for cell, spent in zip(self._cells, (decode, admit, dispatch, wait, answer, settle), strict=True):
            cell.value += spent * 1e-9


class QualityMeters:
    """What engines saw of the answers of one route and arm."""

    __slots__ = ("_answered", "_nats", "_perplexity", "_refused", "_repetition", "_scored")

    def __init__(self, meters: Meters, route: str, arm: str) -> None:
        self._nats = meters.cell("penstock_scored_nats_total", route, arm)
        self._scored = meters.cell("penstock_scored_tokens_total", route, arm)
        self._perplexity = meters.distribution("penstock_perplexity", route, arm)
        self._repetition = meters.distribution("penstock_repetition_ratio", route, arm)
        self._answered = meters.cell("penstock_answers_examined_total", route, arm, "answered")
        self._refused = meters.cell("penstock_answers_examined_total", route, arm, "refused")

    def observe(self, quality: Quality) -> None:
        """Adds one answer."""
        perplexity, repetition = quality.perplexity, quality.repetition
        if perplexity is not None:
            self._nats.value -= quality.logprob
            self._scored.value += quality.scored
            self._perplexity.observe(perplexity)
        if repetition is not None:
            self._repetition.observe(repetition)
        (self._refused if quality.refused else self._answered).value += 1


class LegMeters:
    """The cells of one route and arm, and of one of OpenTelemetry's operations."""

    __slots__ = (
        "_meters",
        "_quality",
        "_results",
        "_whose",
        "arm",
        "completion",
        "duration",
        "first",
        "per_token",
        "phases",
        "prompt",
        "route",
    )

    def __init__(self, meters: Meters, route: str, arm: str, operation: str) -> None:
        self._meters = meters
        self.route = route
        self.arm = arm
        whose = (OPERATIONS.get(operation, operation), PROVIDER, route)
        self.duration = meters.distribution("gen_ai_server_request_duration_seconds", *whose, arm)
        self.first = meters.distribution("gen_ai_server_time_to_first_token_seconds", *whose, arm)
        self.per_token = meters.distribution("gen_ai_server_time_per_output_token_seconds", *whose, arm)
        self.prompt = meters.distribution("gen_ai_client_token_usage_tokens", *whose, "input")
        self.completion = meters.distribution("gen_ai_client_token_usage_tokens", *whose, "output")
        self.phases = PhaseMeters(meters, route, arm)
        self._results: dict[tuple[int, str], Cell] = {}
        self._whose: dict[tuple[str, str], tuple[Cell, Cell]] = {}
        self._quality: QualityMeters | None = None

    def trace(self, exchange: Exchange) -> None:
        """Has a request whose caller's trace is sampled stand for the buckets of its times."""
        trace = exchange.trace
        if trace[-1] not in _SAMPLED:
            return
        phases, tokens = exchange.phases, exchange.usage.completion
        name, at = trace[3:35], exchange.at + phases.done * 1e-9
        self.duration.exemplify(phases.done * 1e-9, name, at)
        if phases.first_token:
            self.first.exemplify(phases.first_token * 1e-9, name, at)
            if exchange.stream and tokens > 1 and phases.last_token > phases.first_token:
                self.per_token.exemplify((phases.last_token - phases.first_token) * 1e-9 / (tokens - 1), name, at)

    @property
    def quality(self) -> QualityMeters:
        """Those of what engines saw, made when one first did."""
        if self._quality is None:
            self._quality = QualityMeters(self._meters, self.route, self.arm)
        return self._quality

    def of(self, tenant: str, version: str) -> tuple[Cell, Cell]:
        """The counters of a tenant's requests that a version answered: how many, and what they cost."""
        found = self._whose.get((tenant, version))
        if found is None:
            requests = self._meters.cell("penstock_tenant_requests_total", tenant, self.route, version)
            cost = self._meters.cell("penstock_cost_usd_total", tenant, self.route, version)
            found = (requests, cost)
            if len(self._whose) < self._meters.most_series:
                self._whose[tenant, version] = found
        return found

    def forget(self, gone: Gone) -> None:
        """Lets go of the cells of tenants and versions that are gone."""
        for tenant, version in [
            key for key in self._whose if ("tenant", key[0]) in gone or ("version", key[1]) in gone
        ]:
            del self._whose[tenant, version]

    def result(self, status: int, outcome: str) -> Cell:
        """The counter of requests that ended so."""
        cell = self._results.get((status, outcome))
        if cell is None:
            cell = self._meters.cell("penstock_requests_total", self.route, self.arm, str(status), outcome)
            self._results[status, outcome] = cell
        return cell


class Meters:
    """All cells of one worker. Those of one that has gone, told by another, tell nothing of a process.

    A family has at most `most_series` of them, and few more: what comes beyond is counted where the labels of `OPEN` are `OTHER`.
    """

    def __init__(self, worker: str, *, gone: bool = False, most_series: int = MOST_SERIES) -> None:
        self.most_series = most_series
        self._worker = worker
        self._cells: dict[str, dict[tuple[str, ...], Cell]] = {}
        self._distributions: dict[str, dict[tuple[str, ...], Distribution]] = {}
        self._gauges: dict[str, Callable[[], Iterator[tuple[tuple[str, ...], float]]]] = {}
        self._legs: dict[tuple[str, str, str], LegMeters] = {}
        self._registry = Registry(auto_describe=False)
        self._registry.register(self)
        self._process = None if gone else ProcessCollector(registry=None)
        self.cache_semantic = self.cell("penstock_cache_total", "semantic")
        self.embedding = self.distribution("penstock_semantic_embedding_seconds")
        self.cache_hit = self.cell("penstock_cache_total", "hit")
        self.cache_miss = self.cell("penstock_cache_total", "miss")
        self.chunks = self.cell("penstock_stream_chunks_total")
        self.in_flight = 0

    def cell(self, name: str, *labels: str) -> Cell:
        """The counter `name` with these label values, made when it is first asked for.

        Raises:
            KeyError: if the table has no such metric.
        """
        family = self._cells.get(name)
        if family is None:
            metric(name)
            family = self._cells[name] = {}
        found = family.get(labels)
        if found is None:
            if len(family) >= self.most_series:
                labels = self._others(name, labels)
                found = family.get(labels)
            if found is None:
                found = family[labels] = Cell()
        return found

    def distribution(self, name: str, *labels: str) -> Distribution:
        """The histogram `name` with these label values, made when it is first asked for.

        Raises:
            KeyError: if the table has no such metric.
        """
        entry = metric(name)
        family = self._distributions.setdefault(name, {})
        found = family.get(labels)
        if found is None:
            if len(family) >= self.most_series:
                labels = self._others(name, labels)
                found = family.get(labels)
            if found is None:
                found = family[labels] = Distribution(entry.buckets)
        return found

    def _others(self, name: str, labels: Labels) -> Labels:
        """The label values under which `labels` are counted, for which there is no room."""
        if name != _OVERFLOW:
            self.cell(_OVERFLOW, name).value += 1
        names = metric(name).labels
        return tuple(OTHER if label in OPEN else value for label, value in zip(names, labels, strict=True))

    def values(self) -> set[tuple[str, str]]:
        """The labels of `OPEN` and their values, as far as there are series of them."""
        found: set[tuple[str, str]] = set()
        for name, keys in self._series():
            places = [(index, label) for index, label in enumerate(metric(name).labels) if label in OPEN]
            found.update((label, key[index]) for key in keys for index, label in places)
        return found

    def forget(self, gone: Gone) -> None:
        """Lets go of all series of which a label has a value that is gone. A request that still runs makes them anew, from 0."""
        routes = {value for label, value in gone if label == "route"}
        self._legs = {
            key: leg for key, leg in self._legs.items() if key[0] not in routes and ("arm", key[1]) not in gone
        }
        for leg in self._legs.values():
            leg.forget(gone)
        for name, keys in self._series():
            labels = metric(name).labels
            for key in keys:
                if any(pair in gone for pair in zip(labels, key, strict=True)):
                    self._cells.get(name, {}).pop(key, None)
                    self._distributions.get(name, {}).pop(key, None)

    def _series(self) -> list[tuple[str, list[Labels]]]:
        families = [(name, list(cells)) for name, cells in self._cells.items()]
        return families + [(name, list(told)) for name, told in self._distributions.items()]

    def gauge(self, name: str, read: Callable[[], Iterator[tuple[tuple[str, ...], float]]]) -> None:
        """Has `read` asked for the label values and numbers of `name` whenever the metrics are told; counters may be read so too.

        Raises:
            KeyError: if the table has no such metric.
        """
        metric(name)
        self._gauges[name] = read

    def leg(self, route: str, arm: str, operation: str) -> LegMeters:
        """The cells of a route and an arm, and of what was asked (`Exchange.operation`)."""
        found = self._legs.get((route, arm, operation))
        if found is None:
            found = self._new_leg(route, arm, operation)
        return found

    def _new_leg(self, route: str, arm: str, operation: str) -> LegMeters:
        if len(self._legs) >= self.most_series and (route, arm) != (OTHER, OTHER):
            return self.leg(OTHER, OTHER, operation)
        found = self._legs[route, arm, operation] = LegMeters(self, route, arm, operation)
        return found

    def error(self, code: str) -> None:
        """Counts a refusal or failure."""
        self.cell("penstock_errors_total", code).value += 1

    def numbers(self) -> tuple[Cells, Distributions]:
        """What has been counted, of this worker and of those that bore its name before it."""
        for leg in self._legs.values():
            leg.phases.fold()
        counters = [entry for entry in TABLE if "gateway" in entry.on and entry.kind == "counter"]
        cells = {entry.name: dict(self._counted(entry.name)) for entry in counters}
        distributions: Distributions = {}
        for name, family in self._distributions.items():
            for key, found in family.items():
                found.fold()
                distributions.setdefault(name, {})[key] = (list(found.counts), found.sum)
        return cells, distributions

    def resume(self, cells: Cells, distributions: Distributions) -> None:
        """Goes on from the numbers of a worker of this name that has gone; what the table no longer has is forgotten."""
        known = {entry.name: entry for entry in TABLE if "gateway" in entry.on}
        for name, values in cells.items():
            entry = known.get(name)
            for key, value in values.items():
                if entry is not None and len(key) == len(entry.labels):
                    self.cell(name, *key).value += value
        for name, told in distributions.items():
            entry = known.get(name)
            for key, (counts, total) in told.items():
                if entry is None or len(key) != len(entry.labels) or len(counts) != len(entry.buckets) + 1:
                    continue
                found = self.distribution(name, *key)
                found.sum += total
                for index, count in enumerate(counts):
                    found.counts[index] += count

    def _counted(self, name: str) -> Iterator[tuple[Labels, float]]:
        """A counter's values: those of cells, and those that are read elsewhere, on top of what cells hold of the time before."""
        values = {key: cell.value for key, cell in self._cells.get(name, {}).items()}
        if name in self._gauges:
            for key, value in self._gauges[name]():
                values[key] = values.get(key, 0.0) + value
        return iter(values.items())

    def collect(self) -> Iterator[Family]:
        """For prometheus-client: every family of the table that the gateway exposes."""
        for leg in self._legs.values():
            leg.phases.fold()
        for entry in TABLE:
            if "gateway" not in entry.on or entry.name.startswith("process_"):
                continue
            labels = (*entry.labels, "worker")
            if entry.kind == "histogram":
                yield self._histogram(entry.name, entry.help, labels)
                continue
            kind = CounterMetricFamily if entry.kind == "counter" else GaugeMetricFamily
            family = kind(entry.name, entry.help, labels=labels)
            for key, value in self._counted(entry.name):
                family.add_metric((*key, self._worker), value)
            yield family
        if self._process is None:
            return
        for told in self._process.collect():
            for sample in told.samples:
                sample.labels["worker"] = self._worker
            yield told

    def exposition(self, openmetrics: bool = False) -> bytes:
        """All of it, in Prometheus' text format, or in OpenMetrics', which has exemplars too."""
        if openmetrics:
            return bytes(generate_openmetrics(self._registry))  # type: ignore[no-untyped-call]
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...]) -> Family:
        family = HistogramMetricFamily(name, text, labels=labels)
        for key, found in self._distributions.get(name, {}).items():
            found.fold()
            total = 0
            buckets: list[Any] = []
            for index, (bound, count) in enumerate(zip((*found.bounds, float("inf")), found.counts, strict=True)):
                total += count
                traced = found.exemplars.get(index)
                exemplar = Exemplar({"trace_id": traced[0]}, traced[1], traced[2]) if traced is not None else None
                buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(total), exemplar))
            family.add_metric((*key, self._worker), buckets, found.sum)
        return family


def wants_openmetrics(accept: bytes | None) -> bool:
    """Whether a scraper with this `accept` reads OpenMetrics."""
    return accept is not None and b"application/openmetrics-text" in accept


def merge_expositions(texts: list[bytes], openmetrics: bool = False) -> bytes:
    """Several expositions in one format as one: each family's help and type once, then the samples of all."""
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for text in texts:
        family = b""
        for line in text.split(b"\n"):
            if line.startswith((b"# HELP ", b"# TYPE ", b"# UNIT ")):
                family = line.split(b" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
            elif line and line != _END:
                samples.setdefault(family, []).append(line)
    lines: list[bytes] = []
    for family, head in heads.items():
        lines += head
        lines += samples.get(family, [])
    if openmetrics:
        lines.append(_END)
    return b"\n".join(lines) + b"\n"
