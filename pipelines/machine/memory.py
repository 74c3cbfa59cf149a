"""The memory of this machine, as far as this process may use it, and how large a batch it has room for."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: those of the machine, or what its container is given of them."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limits.append(int((cgroups / name).read_text()))
    return min(limits)


def fitting_size(size: int, attempt: Callable[[int], object], lacks_memory: Callable[[Exception], bool]) -> int:
    """The first of `size`/2, `size`/4, ... rows for which `attempt` has memory enough, 0 if not even one row fits.

    `lacks_memory` says of an error that `attempt` raised whether it is for want of memory; any other error is raised.
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
