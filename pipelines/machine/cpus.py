"""The CPUs of this machine: how many this process may use, what they are called and what they can do."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def usable_cpus(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of CPUs that this process may use: its CPU affinity, or less if its container has a CPU limit."""
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


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """The name of the processor; its architecture if the kernel does not say the name, as on many ARM machines."""
    return _first("model name", cpuinfo) or platform.processor() or platform.machine() or "unknown"


def is_amd_with_avx2(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor is made by AMD and has AVX2, instructions on 256 bits."""
    return _first("vendor_id", cpuinfo) == "AuthenticAMD" and "avx2" in _first("flags", cpuinfo).split()


def _first(key: str, cpuinfo: Path) -> str:
    """The value in the first line `key : value` of /proc/cpuinfo, with single spaces; empty if there is none."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*:\s*(\S.*)$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""
