"""The memory that this process may use, and how large a batch may be to fit into a memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipelines.machine.driver_library import LibraryFailed, call, load_library, primary_context


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory in bytes that this process may use: that of the machine, or less if its container has a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limits.append(int((cgroups / name).read_text()))
    return min(limits)


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
