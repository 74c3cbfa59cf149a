"""Waits for what happens elsewhere until it has happened, however busy the machine is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 300.0  # seconds after which a test gives up; nothing that happens at all takes as long
_LOOKS = 5  # times that a process must be found asleep, some milliseconds apart


def wait_until(holds: Callable[[], object], what: str = "what is waited for") -> None:
    """Return as soon as `holds` gives something true. Fails after five minutes."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, also if nobody has asked for its exit code yet."""
    return not set(_states(pid)) - set("ZX")


def is_asleep(*pids: int) -> bool:
    """Whether all threads of these processes wait for something. A thread that waits for a CPU is not asleep."""
    for _ in range(_LOOKS):
        if any(set(_states(pid)) != {"S"} for pid in pids):
            return False
        time.sleep(0.005)
    return True


def children_of(pid: int) -> list[int]:
    """The ids of the processes that process `pid` has started and that are still there."""
    lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used so far, in hundredths of a second; all there is where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _states(pid: int) -> list[str]:
    """The state of each thread, a letter as in `man 5 proc`; empty where there is no such process."""
    found = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            found.append(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0])
        except OSError:  # this thread has ended meanwhile
            continue
    return found


class FakeClock:
    """A clock that stands still but for `pass_by`, in place of `time.perf_counter`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds


@contextmanager
def little_work(seconds: float, what: str = "it") -> Iterator[None]:
    """A block that takes at most `seconds` of this process's CPU time, to which other programs add nothing."""
    begin = time.process_time()
    yield
    taken = time.process_time() - begin
    assert taken < seconds, f"{what} took {taken:.1f} s of CPU time, expected less than {seconds} s"
