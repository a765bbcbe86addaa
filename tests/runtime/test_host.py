"""What the machine is doing: as /proc says, moving when it does something, silent where there is nothing to tell."""

# ruff: noqa: N802 - NVML names its functions so

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.registry import Collector

from penstock.core.metrics import TABLE
from penstock.runtime.gpus import GpuCollector, find_nvml
from penstock.runtime.host import HostCollector

STAT = "cpu  100 20 300 4000 500 6 70 8 0 0\ncpu0 50 10 150 2000 250 3 35 4 0 0\ncpu1 50 10 150 2000 250 3 35 4 0 0\n"
DISKS = """   7 0 loop0 9 9 9 9 9 9 9 9 9 9 9
 254 0 vda 10 1 2048 5 20 2 4096 7 0 1500 90 1 1 1 1 1 1
 254 1 vda1 10 1 2048 5 20 2 4096 7 0 1500 90 1 1 1 1 1 1
"""


def told(collector: Collector) -> dict[tuple[str, ...], float]:
    """Values by metric and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_it_tells_what_proc_says(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "block" / "vda").mkdir(parents=True)
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "diskstats").write_text(DISKS)
    (tmp_path / "loadavg").write_text("1.25 0.5 0.1 1/200 4321\n")
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemAvailable:  600 kB\nHugePages_Total: 0\n")
    (tmp_path / "pressure" / "io").write_text("some avg10=0.0 total=2500000\nfull avg10=0.0 total=1000000\n")
    found = told(HostCollector({"data": tmp_path}, proc=tmp_path, block=tmp_path / "block"))
    tick = 1 / os.sysconf("SC_CLK_TCK")
    disk = os.statvfs(tmp_path)
    assert found.pop(("penstock_host_filesystem_bytes", "data", "total")) == disk.f_blocks * disk.f_frsize
    assert 0 < found.pop(("penstock_host_filesystem_bytes", "data", "free")) < disk.f_blocks * disk.f_frsize
    modes = {key[1]: value / tick for key, value in found.items() if key[0] == "penstock_host_cpu_seconds_total"}
    assert modes == pytest.approx(
        {"user": 100, "nice": 20, "system": 300, "idle": 4000, "iowait": 500, "irq": 6, "softirq": 70, "steal": 8}
    )
    assert {key: value for key, value in found.items() if key[0] != "penstock_host_cpu_seconds_total"} == {
        ("penstock_host_cpus",): 2,
        ("penstock_host_load_average",): 1.25,
        ("penstock_host_memory_bytes", "total"): 1024000,
        ("penstock_host_memory_bytes", "available"): 614400,
        ("penstock_host_pressure_seconds_total", "io", "some"): 2.5,
        ("penstock_host_pressure_seconds_total", "io", "full"): 1.0,
        ("penstock_host_disk_bytes_total", "vda", "read"): 1048576,
        ("penstock_host_disk_bytes_total", "vda", "written"): 2097152,
        ("penstock_host_disk_busy_seconds_total", "vda"): 1.5,
    }


def test_where_proc_says_nothing_there_is_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert told(HostCollector({"data": gone}, proc=gone, block=gone)) == {}


def test_every_host_metric_of_the_table_is_told() -> None:
    collectors = (HostCollector({}), GpuCollector(FakeNvml()))
    names = {
        family.name + ("_total" if family.type == "counter" else "") for one in collectors for family in one.collect()
    }
    assert names == {m.name for m in TABLE if m.name.startswith(("penstock_host_", "penstock_gpu_"))}


def real_disk(tmp_path: Path) -> Path:
    """A folder whose file system is on a block device."""
    for folder in (tmp_path, Path.cwd()):
        if os.major(folder.stat().st_dev):
            return folder
    pytest.skip("no file system here is on a disk")


def test_io_wait_moves_under_disk_load(tmp_path: Path) -> None:
    folder = real_disk(tmp_path)
    collector = HostCollector({"data": folder})
    before = told(collector)
    waits = [("penstock_host_cpu_seconds_total", "iowait"), ("penstock_host_pressure_seconds_total", "io", "some")]
    file = os.open(folder / "penstock-io-load", os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
    try:
        end, block = time.monotonic() + 30, os.urandom(1 << 20)
        while True:
            os.pwrite(file, block, 0)
            now = told(collector)
            moved = {key: now[key] - before[key] for key in waits if key in now}
            if max(moved.values()) >= 0.02:
                break
            assert time.monotonic() < end, moved
    finally:
        os.close(file)
        (folder / "penstock-io-load").unlink()

    def total(found: dict[tuple[str, ...], float], name: str) -> float:
        return sum(value for key, value in found.items() if key[0] == name)

    if any(key[0] == "penstock_host_disk_bytes_total" for key in now):
        assert total(now, "penstock_host_disk_bytes_total") > total(before, "penstock_host_disk_bytes_total")
        assert total(now, "penstock_host_disk_busy_seconds_total") > total(
            before, "penstock_host_disk_busy_seconds_total"
        )


class NotSupported(Exception):
    """As NVML says it."""


class FakeNvml:
    """Two GPUs; the second tells neither power nor energy."""

    NVMLError: type[Exception] = NotSupported
    NVML_TEMPERATURE_GPU = 0
    started = 0
    count = 2

    def nvmlInit(self) -> None:
        self.started += 1

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return index

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, _handle: Any) -> str:
        return "NVIDIA H100"

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        return SimpleNamespace(gpu=50 + handle, memory=25)

    def nvmlDeviceGetMemoryInfo(self, _handle: Any) -> Any:
        return SimpleNamespace(total=80 << 30, used=1 << 30)

    def nvmlDeviceGetTemperature(self, _handle: Any, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 41

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        if handle:
            raise NotSupported
        return 70500

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        if handle:
            raise NotSupported
        return 123000


def test_gpus_are_told_as_far_as_they_tell() -> None:
    found = told(GpuCollector(FakeNvml()))
    assert found["penstock_gpu_info", "1", "NVIDIA H100", "GPU-1"] == 1
    assert found["penstock_gpu_utilization_ratio", "1", "compute"] == 0.51
    assert found["penstock_gpu_memory_bytes", "0", "total"] == 80 << 30
    assert found["penstock_gpu_temperature_celsius", "0"] == 41
    assert [value for key, value in found.items() if key[0].startswith("penstock_gpu_power")] == [70.5]
    assert [value for key, value in found.items() if key[0].startswith("penstock_gpu_energy")] == [123.0]


def test_without_library_driver_or_gpu_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_nvml() is None
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert find_nvml() == fake
    assert fake.started == 1
    fake.count = 0
    assert find_nvml() is None

    class NoDriver(FakeNvml):
        def nvmlInit(self) -> None:
            raise NotSupported

    monkeypatch.setitem(sys.modules, "pynvml", NoDriver())
    assert find_nvml() is None
