"""What a machine is doing, read from Linux' /proc when it is asked: processor, memory, disks, and how long work waited for them.

Sources: proc(5); the kernel's Documentation/accounting/psi.rst and Documentation/admin-guide/iostats.rst. What a kernel does not tell has no series.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.core.metrics import metric

_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_MEMORY = {"MemTotal": "total", "MemFree": "free", "MemAvailable": "available", "Cached": "cached", "SwapTotal": "swap_total", "SwapFree": "swap_free"}  # fmt: skip
_PRESSED = ("cpu", "memory", "io")
_SECTOR_BYTES = 512  # of diskstats, whatever the disk's own are
_NO_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
Numbers = Iterator[tuple[tuple[str, ...], float]]


class HostCollector(Collector):
    """Tells the machine's numbers at each scrape.

    Args:
        disks: folders whose file systems matter, by what they are called.
        proc: where /proc is, and `block` where /sys/block is.
    """

    def __init__(self, disks: dict[str, Path], *, proc: Path = Path("/proc"), block: Path = Path("/sys/block")) -> None:
        self._disks = disks
        self._proc = proc
        self._block = block
        self._ticks = os.sysconf("SC_CLK_TCK")

    def collect(self) -> Iterator[Metric]:
        """All families; those that this kernel does not tell are empty."""
        reads: tuple[tuple[str, Callable[[], Numbers]], ...] = (
            ("penstock_host_cpus", self._cpus),
            ("penstock_host_cpu_seconds_total", self._cpu),
            ("penstock_host_load_average", self._load),
            ("penstock_host_memory_bytes", self._memory),
            ("penstock_host_pressure_seconds_total", self._pressure),
            ("penstock_host_disk_bytes_total", self._disk_bytes),
            ("penstock_host_disk_busy_seconds_total", self._disk_busy),
            ("penstock_host_filesystem_bytes", self._filesystems),
        )
        for name, read in reads:
            yield family(name, read())

    def _text(self, name: str) -> str:
        try:
            return (self._proc / name).read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""

    def _cpus(self) -> Numbers:
        count = sum(line.startswith("cpu") and line[3:4].isdigit() for line in self._text("stat").splitlines())
        if count:
            yield (), float(count)

    def _cpu(self) -> Numbers:
        for line in self._text("stat").splitlines():
            if line.startswith("cpu "):
                for mode, ticks in zip(_MODES, line.split()[1:], strict=False):
                    yield (mode,), int(ticks) / self._ticks

    def _load(self) -> Numbers:
        words = self._text("loadavg").split()
        if words:
            yield (), float(words[0])

    def _memory(self) -> Numbers:
        for line in self._text("meminfo").splitlines():
            name, _, rest = line.partition(":")
            if name in _MEMORY:
                yield (_MEMORY[name],), int(rest.split()[0]) * 1024.0

    def _pressure(self) -> Numbers:
        for resource in _PRESSED:
            for line in self._text(f"pressure/{resource}").splitlines():
                words = line.split()
                total = next((word for word in words if word.startswith("total=")), None)
                if total is not None:
                    yield (resource, words[0]), int(total.removeprefix("total=")) / 1e6

    def _whole_disks(self) -> Iterator[tuple[str, list[int]]]:
        try:
            whole = {entry.name for entry in self._block.iterdir()}
        except OSError:
            whole = set()
        for line in self._text("diskstats").splitlines():
            words = line.split()
            if len(words) >= 14 and words[2] in whole and not words[2].startswith(_NO_DISKS):
                yield words[2], [int(word) for word in words[3:14]]

    def _disk_bytes(self) -> Numbers:
        for name, counts in self._whole_disks():
            yield (name, "read"), float(counts[2] * _SECTOR_BYTES)
            yield (name, "written"), float(counts[6] * _SECTOR_BYTES)

    def _disk_busy(self) -> Numbers:
        for name, counts in self._whole_disks():
            yield (name,), counts[9] / 1e3

    def _filesystems(self) -> Numbers:
        for name, folder in self._disks.items():
            try:
                told = os.statvfs(folder)
            except OSError:
                continue
            yield (name, "total"), float(told.f_blocks * told.f_frsize)
            yield (name, "free"), float(told.f_bavail * told.f_frsize)


def family(name: str, numbers: Numbers) -> Metric:
    """The family of the metrics table called `name`, with `numbers`."""
    entry = metric(name)
    kind = CounterMetricFamily if entry.kind == "counter" else GaugeMetricFamily
    made = kind(entry.name, entry.help, labels=entry.labels)
    for labels, value in numbers:
        made.add_metric(labels, value)
    return made
