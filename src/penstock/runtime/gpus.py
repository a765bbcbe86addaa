"""What a machine's NVIDIA GPUs are doing, by NVML (docs.nvidia.com/deploy/nvml-api), where the extra `gpu` and a driver are there."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.runtime.host import family


class Nvml(Protocol):
    """The part of the module `pynvml` that is used. What a GPU does not tell raises `NVMLError`."""

    NVMLError: type[Exception]
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...  # noqa: N802, D102 - NVML's own names
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: N802, D102
    def nvmlDeviceGetName(self, handle: Any) -> str: ...  # noqa: N802, D102
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...  # noqa: N802, D102


def find_nvml() -> Nvml | None:
    """NVML, ready; None where its module, the driver or a GPU is not there."""
    try:
        nvml = cast(Nvml, importlib.import_module("pynvml"))
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return nvml if nvml.nvmlDeviceGetCount() > 0 else None
    except nvml.NVMLError:
        return None


class GpuCollector(Collector):
    """Tells the GPUs' numbers at each scrape; of one that has gone, or does not tell one, there is no series."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[Metric]:
        """All families."""
        nvml = self._nvml
        reads: tuple[tuple[str, Callable[[Any], Iterator[tuple[tuple[str, ...], float]]]], ...] = (
            ("penstock_gpu_info", self._info),
            ("penstock_gpu_utilization_ratio", self._utilization),
            ("penstock_gpu_memory_bytes", self._memory),
            (
                "penstock_gpu_temperature_celsius",
                lambda h: iter([((), float(nvml.nvmlDeviceGetTemperature(h, nvml.NVML_TEMPERATURE_GPU)))]),
            ),
            ("penstock_gpu_power_watts", lambda h: iter([((), nvml.nvmlDeviceGetPowerUsage(h) / 1e3)])),
            (
                "penstock_gpu_energy_joules_total",
                lambda h: iter([((), nvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3)]),
            ),
        )
        handles = list(self._handles())
        for name, read in reads:
            yield family(name, self._of_all(handles, read))

    def _handles(self) -> Iterator[tuple[str, Any]]:
        nvml = self._nvml
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError:
            return
        for index in range(count):
            try:
                yield str(index), nvml.nvmlDeviceGetHandleByIndex(index)
            except nvml.NVMLError:
                continue

    def _of_all(
        self, handles: list[tuple[str, Any]], read: Callable[[Any], Iterator[tuple[tuple[str, ...], float]]]
    ) -> Iterator[tuple[tuple[str, ...], float]]:
        for name, handle in handles:
            try:
                for labels, value in read(handle):
                    yield (name, *labels), value
            except self._nvml.NVMLError:
                continue

    def _info(self, handle: Any) -> Iterator[tuple[tuple[str, ...], float]]:
        nvml = self._nvml
        yield (nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetUUID(handle)), 1.0

    def _utilization(self, handle: Any) -> Iterator[tuple[tuple[str, ...], float]]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
        yield ("compute",), rates.gpu / 100
        yield ("memory",), rates.memory / 100

    def _memory(self, handle: Any) -> Iterator[tuple[tuple[str, ...], float]]:
        told = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        yield ("total",), float(told.total)
        yield ("used",), float(told.used)
