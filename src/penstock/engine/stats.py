"""What the engine counts, told to Prometheus under vLLM's names. Counting costs an addition; the rest waits for a scrape."""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.core.metrics import metric


class Histogram:
    """Observations in the buckets that the metrics table gives to `name`."""

    __slots__ = ("_bounds", "_counts", "name", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self._bounds = metric(name).buckets
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts `value`, as often as `times`."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds and cumulative counts, as Prometheus wants them."""
        so_far = 0
        told: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            so_far += count
            told.append((bound, so_far))
        return told


class Stats:
    """Counters of one engine, since it was started."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = {"stop": 0, "length": 0, "abort": 0}
        self.restarts = 0
        self.first_token = Histogram("vllm:time_to_first_token_seconds")
        self.between_tokens = Histogram("vllm:inter_token_latency_seconds")
        self.whole = Histogram("vllm:e2e_request_latency_seconds")
        self.code_calls = {"done": 0, "raised": 0, "killed": 0, "abort": 0}
        self.code_seconds = Histogram("penstock_engine_code_seconds")

    @property
    def mean_seconds(self) -> float:
        """How long a sequence takes on average, waiting included; 1 before any has ended."""
        return self.whole.total / self.whole.count if self.whole.count else 1.0


class EngineCollector(Collector):
    """Tells `stats` at each scrape.

    Args:
        now: the numbers of running and waiting sequences, and the share of the KV cache in use.
    """

    def __init__(self, stats: Stats, model: str, now: Callable[[], tuple[int, int, float]]) -> None:
        self._stats = stats
        self._model = model
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """All families."""
        stats, model = self._stats, [self._model]
        running, waiting, cache = self._now()
        gauges = {
            "vllm:num_requests_running": running,
            "vllm:num_requests_waiting": waiting,
            "vllm:kv_cache_usage_perc": cache,
        }
        for name, value in gauges.items():
            gauge = GaugeMetricFamily(name, metric(name).help, labels=metric(name).labels)
            gauge.add_metric(model, value)
            yield gauge
        counters = {
            "vllm:prompt_tokens_total": stats.prompt_tokens,
            "vllm:generation_tokens_total": stats.generation_tokens,
            "penstock_engine_restarts_total": stats.restarts,
        }
        for name, value in counters.items():
            counter = CounterMetricFamily(name, metric(name).help, labels=metric(name).labels)
            counter.add_metric(model, value)
            yield counter
        name = "vllm:request_success_total"
        counter = CounterMetricFamily(name, metric(name).help, labels=metric(name).labels)
        for reason, value in stats.finished.items():
            counter.add_metric([*model, reason], value)
        yield counter
        name = "penstock_engine_code_calls_total"
        counter = CounterMetricFamily(name, metric(name).help, labels=metric(name).labels)
        for outcome, value in stats.code_calls.items():
            counter.add_metric([*model, outcome], value)
        yield counter
        for histogram in (stats.first_token, stats.between_tokens, stats.whole, stats.code_seconds):
            name = histogram.name
            family = HistogramMetricFamily(name, metric(name).help, labels=metric(name).labels)
            family.add_metric(model, histogram.buckets(), histogram.total)
            yield family
