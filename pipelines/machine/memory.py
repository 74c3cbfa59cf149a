"""The memory of this machine, as far as this process may use it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: those of the machine, or what its container is given of them."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limits.append(int((cgroups / name).read_text()))
    return min(limits)
