"""How many series the worked example has in Prometheus, and what one sample takes: the table of metrics times the labels' values, written by promtool.

Sizes are those of a block of Prometheus' own, of counters and gauges that move as they do under this load, index included.
"""

import random
import subprocess
import tempfile
from math import prod
from pathlib import Path

import msgspec

from penstock.core.metrics import TABLE, Metric

SCRAPE_S = 10  # as deploy/prometheus/prometheus.yml
_BLOCK_S = 7200
_START = 1_795_219_200
# Values of each label in the worked example: one route with an experiment of two arms, whose versions have a pool of four replicas each; ten tenants.
VALUES: dict[str, int] = {
    "route": 1, "gen_ai_request_model": 1, "model": 2, "version": 2, "experiment": 1, "tenant": 10, "pool": 2, "replica": 4, "arm": 2,
    "status": 6, "outcome": 2, "code": 12, "priority": 3, "reason": 3, "result": 3, "action": 2, "rule": 5, "where": 2, "kind": 5, "phase": 6,
    "gen_ai_token_type": 2, "state": 4, "reader": 4, "model_name": 1, "finished_reason": 3, "method": 3, "severity": 3, "alert": 10,
    "signal": 6, "against": 2, "mode": 8, "resource": 3, "who": 2, "device": 1, "direction": 2, "folder": 2, "gpu": 1, "uuid": 1, "part": 2, "layer": 12,
}  # fmt: skip
OTHERS = 3  # values of a label that is not named here
# `route` of control's own requests is a path of its API.
PATHS = 20
PROCESSES = {"gateway": 4, "control": 1, "ship": 1, "engine": 8}


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """`count` series, each with a sample of `sample_bytes` bytes every `SCRAPE_S` seconds."""

    count: int
    sample_bytes: float

    def bytes(self, seconds: float) -> float:
        """Of all of them in that time."""
        return self.count * seconds / SCRAPE_S * self.sample_bytes


def of_metric(one: Metric) -> int:
    """Series of one metric in all processes that tell it."""
    control = one.name.startswith("penstock_control_request")
    values = prod(PATHS if control and label == "route" else VALUES.get(label, OTHERS) for label in one.labels)
    return values * (len(one.buckets) + 3 if one.kind == "histogram" else 1) * sum(PROCESSES[name] for name in one.on)


def count() -> int:
    """Of all metrics."""
    return sum(of_metric(one) for one in TABLE)


def sample_bytes(series: int = 300) -> float:
    """Bytes a sample, of `series` that move: measured on a block that promtool writes.

    Raises:
        RuntimeError: if promtool is not there, or refuses.
    """
    draws = random.Random(3)
    rates = [
        draws.choice((0.0, 0.0, 0.02, 0.5, 5.0, 50.0)) for _ in range(series)
    ]  # many labels' values hardly ever occur
    totals = [0] * series
    lines: list[str] = ["# TYPE made_up counter"]
    moments = [_START + step * SCRAPE_S + draws.random() * 0.01 for step in range(_BLOCK_S // SCRAPE_S)]
    by_series: list[list[str]] = [[] for _ in range(series)]
    for moment in moments:
        for number, rate in enumerate(rates):
            mean = rate * SCRAPE_S
            totals[number] += max(0, round(draws.gauss(mean, mean**0.5))) if mean >= 5 else draws.random() < mean
            labels = f'route="assistant",arm="treatment",worker="gateway-{number % 4}",le="{number}"'
            by_series[number].append(f"made_up_total{{{labels}}} {totals[number]} {moment:.3f}")
    for one in by_series:
        lines += one
    with tempfile.TemporaryDirectory() as folder:
        source, blocks = Path(folder) / "made_up.txt", Path(folder) / "blocks"
        source.write_text("\n".join([*lines, "# EOF", ""]))
        try:
            done = subprocess.run(
                ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(source), str(blocks)],
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise RuntimeError("promtool is needed: scripts/system-packages installs it") from None
        if done.returncode:
            raise RuntimeError(done.stderr)
        size = sum(path.stat().st_size for path in blocks.rglob("*") if path.is_file())
    return size / (series * len(moments))


def measured() -> Series:
    """Of the worked example."""
    return Series(count=count(), sample_bytes=sample_bytes())
