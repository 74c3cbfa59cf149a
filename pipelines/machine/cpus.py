"""The CPUs of this machine: how many this process may use, and what they are called."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path


def usable_cpus(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: those it may run on, or the share of them that its container is given."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (cgroups / "cpu.max").read_text().split()  # "max 100000" where there is no limit
        return max(1, min(allowed, -(-int(quota) // int(period))))
    with suppress(OSError, ValueError):
        quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:
            return max(1, min(allowed, -(-int(quota) // int(period))))
    return allowed


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
