"""Asks the NVIDIA driver's libraries for the version of the driver and for the GPUs.

`probe_driver` also works without a GPU or a driver: it does not raise, its result says what is missing. Only ctypes is
used, so DALI need not be installed.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.machine.container import driver_remedy
from pipelines.machine.driver_library import (
    MEANINGS,
    SUCCESS,
    LibraryFailed,
    LibraryNotThere,
    call,
    function_of,
    load_library,
)

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
# For each major version of CUDA: the oldest driver (docs.nvidia.com/deploy/cuda-compatibility, Table 1) and the compute
# capability of the oldest GPU, 35 for 3.5.
_OLDEST = {11: ("450", 35), 12: ("525", 50), 13: ("580", 75)}


@dataclass(frozen=True)
class Gpu:
    """One GPU. `index` is its number in CUDA; `arch` is its compute capability, 70 for 7.0."""

    index: int
    name: str
    arch: int
    memory_mib: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver and its GPUs.

    `version` is the version of the driver, such as "550.54.15", empty if it is not known. `cuda` is the newest version
    of CUDA that the driver supports, (0, 0) if it is not known. `problem` says why CUDA can't be used; it is empty if
    it can. `to_do` says what to do about the problem; it is empty on a machine without an NVIDIA card.
    """

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]
    problem: str
    to_do: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Driver:
        """The driver whose fields were written as JSON."""
        gpus = tuple(Gpu(**gpu) for gpu in values["gpus"])
        return cls(**{**values, "cuda": (values["cuda"][0], values["cuda"][1]), "gpus": gpus})

    def misfit(self, cuda: int, archs: Sequence[int] = ()) -> str:
        """Why code that was built by CUDA version `cuda` for `archs` does not run on these GPUs; empty if it may run.

        `archs` are compute capabilities, 70 for 7.0; empty if they are not known.
        """
        driver, oldest = _OLDEST.get(cuda, ("", 0))
        for gpu in self.gpus:
            # Code for one architecture runs on later ones of the same generation.
            if gpu.arch < oldest:
                return f"no code for {gpu.name} (sm_{gpu.arch}) in it: CUDA {cuda} begins with sm_{oldest}"
            if archs and not any(arch // 10 == gpu.arch // 10 and arch <= gpu.arch for arch in archs):
                return f"no code for {gpu.name} (sm_{gpu.arch}) in it"
        # A driver runs code of its own major version of CUDA and of all earlier ones.
        if not self.gpus or self.cuda >= (cuda, 0):
            return ""
        least = f" (driver {driver} or later)" if driver else ""
        return f"it needs CUDA {cuda}{least}, this driver supports up to {self.cuda[0]}.{self.cuda[1]}"


def probe_driver(
    *, proc: Path = Path("/proc/driver/nvidia/version"), devices: Path = Path("/sys/bus/pci/devices")
) -> Driver:
    """The driver and its GPUs, or why they can't be used."""
    version, cuda = driver_version(proc=proc), (0, 0)
    try:
        library = load_library("libcuda.so.1")
        cuda = _cuda_version(library)
        call(library, ["cuInit"], 0)
        gpus = tuple(_gpus(library))
    except LibraryNotThere as failed:
        # Without a card there is nothing to install.
        to_do = driver_remedy("") if version or cards_on_bus(devices) else ""
        return Driver(version, cuda, (), failed.problem, to_do)
    except LibraryFailed as failed:
        return Driver(version, cuda, (), failed.problem, failed.to_do)
    problem, to_do = ("", "") if gpus else MEANINGS[100]
    return Driver(version, cuda, gpus, problem, to_do)


def pci_bus_id(index: int) -> str:
    """The PCI bus id, such as "0000:3b:00.0", of the GPU that has number `index` in CUDA in this process.

    Raises LibraryFailed if CUDA can't be used or finds no GPU with this number.
    """
    library = load_library("libcuda.so.1")
    device, text = ctypes.c_int(), ctypes.create_string_buffer(32)
    call(library, ["cuInit"], 0)
    if function_of(library, ["cuDeviceGet"])(ctypes.byref(device), index) != SUCCESS:
        raise LibraryFailed(f"CUDA finds no GPU {index}", "")
    call(library, ["cuDeviceGetPCIBusId"], text, len(text), device)
    return text.value.decode(errors="replace")


def driver_version(*, proc: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of the driver, from the kernel or from NVML; empty if neither knows it."""
    try:
        found = re.search(r"^NVRM.*?\s(\d{3,}(?:\.\d+)+)\b", proc.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return found[1]
    text = ctypes.create_string_buffer(96)
    try:
        nvml = load_library("libnvidia-ml.so.1")
        if function_of(nvml, ["nvmlInit_v2"])() != SUCCESS:
            return ""
        code = function_of(nvml, ["nvmlSystemGetDriverVersion"])(text, ctypes.c_uint(len(text)))
        function_of(nvml, ["nvmlShutdown"])()
    except LibraryFailed:
        return ""
    return text.value.decode(errors="replace") if code == SUCCESS else ""


def cards_on_bus(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """The number of NVIDIA display or compute cards on the PCI bus, with or without a driver."""
    count = 0
    for device in devices.glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except (OSError, ValueError):
            continue
        count += vendor.startswith("0x10de") and kind.startswith("0x03")
    return count


def _cuda_version(library: ctypes.CDLL) -> tuple[int, int]:
    value = ctypes.c_int()
    call(library, ["cuDriverGetVersion"], ctypes.byref(value))
    return value.value // 1000, value.value % 1000 // 10


def _gpus(library: ctypes.CDLL) -> Iterator[Gpu]:
    count = ctypes.c_int()
    call(library, ["cuDeviceGetCount"], ctypes.byref(count))
    for index in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
        call(library, ["cuDeviceGet"], ctypes.byref(device), index)
        call(library, ["cuDeviceGetName"], name, len(name), device)
        call(library, ["cuDeviceTotalMem_v2"], ctypes.byref(memory), device)
        capability = []
        for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
            value = ctypes.c_int()
            call(library, ["cuDeviceGetAttribute"], ctypes.byref(value), attribute, device)
            capability.append(value.value)
        arch = 10 * capability[0] + capability[1]
        yield Gpu(index, name.value.decode(errors="replace"), arch, memory.value // 2**20)
