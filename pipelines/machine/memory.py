"""The memory that this process may use, and how large a batch may be to fit into a memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory in bytes that this process may use: that of the machine, or less if its container has a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limits.append(int((cgroups / name).read_text()))
    return min(limits)


def fitting_size(size: int, attempt: Callable[[int], object], lacks_memory: Callable[[Exception], bool]) -> int:
    """The first of `size`/2, `size`/4, ... rows for which `attempt` has enough memory; 0 if not even one row fits.

    `attempt` is called with the number of rows. `lacks_memory` says whether an error that it raised means that it was
    out of memory; any other error is raised again.
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
