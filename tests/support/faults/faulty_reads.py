"""Faults of reading in the processes that a test starts, by a library that stands before those of the system."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
ALWAYS = 1_000_000_000


class FaultyReads:
    """Makes reading of the files whose paths end with a name fail, kill or block processes that are started then."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Build the library in `folder`, which must be there. Skips the test where there is no C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler: cc or gcc")
        self._library, self._count = folder / "faulty_reads.so", folder / "faults"
        self._monkeypatch = monkeypatch
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    def begin(self, name: str, what: int | str, times: int = ALWAYS, after: int = 0) -> None:
        """After `after` more reads, the next `times` of `name` give the error `what`, or are a "segv" or a "block"."""
        self._count.unlink(missing_ok=True)
        for key, value in {
            "LD_PRELOAD": self._library, "FAULT_NAME": name, "FAULT_WHAT": what, "FAULT_TIMES": times,
            "FAULT_AFTER": after, "FAULT_COUNT": self._count,
        }.items():  # fmt: skip
            self._monkeypatch.setenv(key, str(value))

    def end(self) -> None:
        """Processes that are started from now on read as ever."""
        self._monkeypatch.delenv("LD_PRELOAD")

    @property
    def count(self) -> int:
        """How often it has happened; with `after`, how often the file was read before, too."""
        return self._count.stat().st_size if self._count.exists() else 0
