"""The CPU time, memory and open files of running processes, read from /proc, and their end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tree_cpu_seconds() -> float:
    """The CPU time in seconds that this process and its descendants, of those still running, have used so far."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # the process has just ended
                continue
            pid = int(folder.name)
            parents.setdefault(int(fields[1]), []).append(pid)
            ticks[pid] = int(fields[11]) + int(fields[12])
    total, left = 0, [os.getpid()]
    while left:
        pid = left.pop()
        total += ticks.get(pid, 0)
        left += parents.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")


def own_memory(pid: int | None = None) -> int:
    """The bytes of memory that process `pid` (default: this one) does not share with other processes.

    Raises OSError if there is no process `pid`.
    """
    for line in (_PROC / str(pid or os.getpid()) / "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def open_files(pid: int) -> int:
    """The number of files that process `pid` has open. Raises OSError if there is no process `pid`."""
    return len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208 - only counted


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends in any way, also by SIGKILL.

    For `preexec_fn` of subprocess: it holds for the program that is started then, not for what that one starts.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
