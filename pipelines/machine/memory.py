"""The memory that this process may use and has used, and how large a batch may be to fit into a memory."""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.machine.driver_library import LibraryFailed, call, load_library, primary_context


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory in bytes that this process may use: that of the machine, or less if its container has a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limits.append(int((cgroups / name).read_text()))
    return min(limits)


@dataclass(frozen=True)
class FreeMemory:
    """`bytes` of memory that are free, and what limits them: "free RAM", "the container's limit", "ulimit -d"."""

    bytes: int
    limit: str


def free_memory(cgroups: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> FreeMemory:
    """The memory that processes started now can use without swapping: what the machine or its container has left.

    What the kernel keeps of files counts as free. `ulimit -d` holds for each process alone.
    """
    found = [FreeMemory(_kib("MemAvailable", meminfo.read_text()), "free RAM")]
    for names in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limit, used, statistics = ((cgroups / name).read_text() for name in names[:3])
            files = re.search(rf"^{names[3]} (\d+)$", statistics, re.MULTILINE)
            kept = int(files[1]) if files else 0
            found.append(FreeMemory(max(0, int(limit) - int(used) + kept), "the container's limit"))
    if (data := resource.getrlimit(resource.RLIMIT_DATA)[0]) != resource.RLIM_INFINITY:
        found.append(FreeMemory(data, "ulimit -d"))
    return min(found, key=lambda free: free.bytes)


def address_limit() -> int | None:
    """The bytes of address space that a process may have (`ulimit -v`); None where there is no limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def trim_memory() -> None:
    """Give the memory that this process has freed, but malloc keeps, back to the system. Needs glibc."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def end_first_without_memory() -> None:
    """Have the kernel end this process before all others where memory runs out, as far as it allows that."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # man 5 proc: the most; raising it needs no privilege


def forget_peak_memory() -> None:
    """Have the memory of `peak_memory` begin again, where the kernel allows it; the address space does not."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc


def peak_memory() -> tuple[int, int]:
    """(memory, address space) in bytes: the most that this process has taken so far."""
    status = Path("/proc/self/status").read_text()
    return _kib("VmHWM", status), _kib("VmPeak", status)


def _kib(name: str, text: str) -> int:
    """The bytes of the line `name: N kB` in a text of /proc; 0 where there is none."""
    line = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def free_gpu_memory(number: int) -> int | None:
    """The bytes of memory of GPU `number` that are free, by what all processes use now; None if the driver fails."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        cuda = load_library("libcuda.so.1")
        with primary_context(cuda, number):
            call(cuda, ["cuMemGetInfo_v2"], ctypes.byref(free), ctypes.byref(total))
    except LibraryFailed:
        return None
    return free.value


def fitting_size(size: int, attempt: Callable[[int], object], lacks_memory: Callable[[Exception], bool]) -> int:
    """How many rows fit into memory: the first of `size` // 2, `size` // 4, ..., 1 that does, or 0 if none does.

    Each number is tried by `attempt(number)`. `lacks_memory(error)` says whether the error that it raised means that
    memory ran out; any other error is raised again.
    """
    while size := size // 2:
        try:
            attempt(size)
        except Exception as error:
            if not lacks_memory(error):
                raise
        else:
            break
    return size
