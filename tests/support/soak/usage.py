"""Memory and open files of processes over a long run, from /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Usage:
    """What processes took at times of a run: after how many units of work, MiB of memory (RSS), open files."""

    done: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def note(self, done: int, pids: Sequence[int]) -> None:
        """Add what the processes `pids` take now, together; those that are gone take nothing."""
        memory, files = 0.0, 0
        for pid in pids:
            with suppress(OSError):
                memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20
                files += len(os.listdir(f"/proc/{pid}/fd"))
        self.done.append(done)
        self.memory.append(memory)
        self.files.append(files)

    def growth(self, unit: int) -> float:
        """MiB of memory a `unit` of work in the second half of the run, by least squares; 0 of fewer than 4 times."""
        half = len(self.done) // 2
        if half < 2:
            return 0.0
        return float(np.polyfit(self.done[half:], self.memory[half:], 1)[0]) * unit
