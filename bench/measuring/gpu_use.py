"""How busy a GPU is while something is measured: asked of the driver (NVML) by a thread, a few times a second.

What the driver does not tell is absent, with the reason; it is never 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from threading import Event, Thread
from types import TracebackType
from typing import Any, ClassVar

from pydantic import ConfigDict

from bench.measuring.machine import STRICT
from pipelines.errors import UsageError
from pipelines.machine.driver_library import LibraryFailed
from pipelines.machine.nvidia import pci_bus_id

# NVML's names: TX is what the GPU sends, RX what it receives; throughput is counted over 20 ms, in kB/s. Utilisation is
# the share of the last 1/6 to 1 s in which the unit had work, however little.
FIGURES = {
    "nvdec_percent": "NVDEC busy, %",
    "sm_percent": "a kernel running, %",
    "pcie_to_gpu_mb_per_second": "PCIe to the GPU, MB/s",
    "pcie_from_gpu_mb_per_second": "PCIe from the GPU, MB/s",
    "process_memory_mib": "GPU memory of the process, all contenders in it, MiB",
    "card_memory_mib": "GPU memory in use on the card, MiB",
}
INSTALL = "pip install nvidia-ml-py"


@dataclass(frozen=True)
class GpuUse:
    """Use of a GPU: (median, highest) of the samples for each name of FIGURES, or why there is none."""

    gpu: str  # its name
    samples: int
    figures: dict[str, tuple[float, float]]
    absent: dict[str, str]
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError unless each figure is there or absent for a reason."""
        both = [*self.figures, *self.absent]
        if sorted(both) != sorted(FIGURES):
            raise UsageError(f"gpu: figures and absent hold {sorted(both)}; expected each once of {sorted(FIGURES)}")
        for name, (middle, high) in self.figures.items():
            if not (0 <= middle <= high and math.isfinite(high)):
                raise UsageError(f"gpu: {name} {middle}, {high}; expected 0 <= median <= highest")
        for name, reason in self.absent.items():
            if not reason.strip():
                raise UsageError(f"gpu: {name} is absent without a reason")
        if self.figures and self.samples < 1:
            raise UsageError(f"gpu: figures of {self.samples} samples; expected at least 1")

    def median(self, name: str) -> float | None:
        """The median of a figure, None where it is absent."""
        return self.figures[name][0] if name in self.figures else None

    def high(self, name: str) -> float | None:
        """The highest sample of a figure, None where it is absent."""
        return self.figures[name][1] if name in self.figures else None


class _Absent(Exception):
    """Why there is no figure."""


class GpuSampler:
    """Samples GPU `device` (as CUDA counts) in a thread while it is entered; entered again, it goes on with the same.

    A context manager that never raises of itself: what can't be read is told by `use`.
    """

    def __init__(self, device: int = 0, *, period_seconds: float = 0.1) -> None:
        self._device, self._period = device, period_seconds
        self._name = ""
        self._values: dict[str, list[float]] = {name: [] for name in FIGURES}
        self._reasons: dict[str, str] = {}
        self._samples = 0
        self._end = Event()
        self._thread: Thread | None = None
        self._nvml: Any = None

    def __enter__(self) -> GpuSampler:
        try:
            self._nvml = _start_nvml()
            handle = self._find()
        except _Absent as absent:
            self._reasons |= {name: str(absent) for name in FIGURES}
            return self
        self._end.clear()
        self._thread = Thread(target=self._run, args=(self._readings(handle),), name="gpu use", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None
        if self._nvml is not None:
            _ask(self._nvml, self._nvml.nvmlShutdown)
            self._nvml = None

    def use(self) -> GpuUse:
        """What was seen in all the time that it was entered."""
        seen = {name: values for name, values in self._values.items() if values}
        figures = {name: (round(median(values), 3), round(max(values), 3)) for name, values in seen.items()}
        absent = {name: self._reasons.get(name, "no sample was taken") for name in FIGURES if name not in seen}
        return GpuUse(self._name, self._samples, figures, absent)

    def _find(self) -> Any:
        """NVML's handle of the GPU. By its place on the bus: NVML counts others than CUDA_VISIBLE_DEVICES shows."""
        try:
            bus_id = pci_bus_id(self._device)
        except LibraryFailed as failed:
            raise _Absent(failed.problem) from failed
        handle, reason = _ask(self._nvml, self._nvml.nvmlDeviceGetHandleByPciBusId, bus_id)
        if reason:
            raise _Absent(f"NVML finds no GPU at {bus_id}: {reason}")
        name, _ = _ask(self._nvml, self._nvml.nvmlDeviceGetName, handle)
        self._name = name or ""
        return handle

    def _readings(self, handle: Any) -> dict[str, Callable[[], float]]:
        nvml = self._nvml

        def of_this_process() -> float:
            own = [p for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
            if not own:
                raise _Absent("the driver doesn't list this process; in a container it knows it by another number")
            if own[0].usedGpuMemory is None:
                raise _Absent("the driver doesn't count memory by process here")
            return float(own[0].usedGpuMemory) / 2**20

        return {
            "nvdec_percent": lambda: float(nvml.nvmlDeviceGetDecoderUtilization(handle)[0]),
            "sm_percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "pcie_to_gpu_mb_per_second": lambda: (
                nvml.nvmlDeviceGetPcieThroughput(handle, nvml.NVML_PCIE_UTIL_RX_BYTES) / 1e3
            ),
            "pcie_from_gpu_mb_per_second": lambda: (
                nvml.nvmlDeviceGetPcieThroughput(handle, nvml.NVML_PCIE_UTIL_TX_BYTES) / 1e3
            ),
            "process_memory_mib": of_this_process,
            "card_memory_mib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20,
        }

    def _run(self, readings: dict[str, Callable[[], float]]) -> None:
        """Sample at once, then every period; what the driver refused once isn't asked again."""
        while True:
            self._samples += 1
            for name, read in list(readings.items()):
                value, reason = _ask(self._nvml, read)
                if reason:
                    self._reasons[name] = reason
                    if name != "process_memory_mib":  # this one comes with the first use of the GPU
                        del readings[name]
                else:
                    self._values[name].append(value)
            if self._end.wait(self._period):
                return


def _ask(nvml: Any, function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """(what it gives, why it gives nothing): one of the two."""
    try:
        return function(*arguments), ""
    except _Absent as absent:
        return None, str(absent)
    except nvml.NVMLError as error:
        return None, f"the driver says: {error}"


def _start_nvml() -> Any:
    """The module pynvml, its library loaded. Raises _Absent."""
    try:
        import pynvml
    except ImportError as error:
        raise _Absent(f"nvidia-ml-py can't be imported ({error}): {INSTALL}") from error
    _, reason = _ask(pynvml, pynvml.nvmlInit)
    if reason:
        raise _Absent(f"NVML can't be used; {reason}")
    return pynvml
