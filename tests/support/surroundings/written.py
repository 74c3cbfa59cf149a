"""What tests of writing files use: pipes with a reader, processes that write, and what /dev holds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]
BEFORE = "import os, sys\nfrom pathlib import Path\nfrom r3d_fast.files import *\n"  # what code of `python` knows
_NODES = ("/dev/stdout", "/dev/stderr", "/dev/null", "/dev/full", "/dev/fd")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def device_nodes() -> list[tuple[int, int]]:
    """(kind, device number) of each name in /dev that a careless writer would replace."""
    status = [os.lstat(name) for name in _NODES]
    return [(stat.S_IFMT(s.st_mode), s.st_rdev) for s in status]


class Reader:
    """What comes out of a FIFO."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path, self._content = path, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self._content = self.path.read_bytes()

    def content(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self._content


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A finished process that ran `code`, in which sys, Path and all of files.py are known."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-c", BEFORE + code, *map(str, arguments)], cwd=REPO, check=False, **options)


def break_off(writing: Any, write: Any, error: Any) -> None:
    """Raise `error` after `write` in the block of `writing`."""
    with writing as new:
        write(new)
        raise error
