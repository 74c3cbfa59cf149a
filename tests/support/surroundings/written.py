"""Helps to test the writing of files: pipes with a reader, processes that write, and the device nodes in /dev."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from waiting import PATIENCE

REPO = Path(__file__).resolve().parents[3]
# The first lines of each program.
BEFORE = """import os, sys
from pathlib import Path
from pipelines.output.files import *
from pipelines.output.folders import *
"""
_NODES = ("/dev/stdout", "/dev/stderr", "/dev/null", "/dev/full", "/dev/fd")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def device_nodes() -> list[tuple[int, int]]:
    """(type of file, device number) of each name in /dev that a careless writer would replace by a file."""
    status = [os.lstat(name) for name in _NODES]
    return [(stat.S_IFMT(s.st_mode), s.st_rdev) for s in status]


class Reader:
    """Makes a FIFO and reads it to its end in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._content = b""
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that it has a reader from now on
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        waiting = select.poll()
        waiting.register(self._file)
        waiting.poll()  # until something was written, or a writer has come and gone
        os.set_blocking(self._file, True)
        with os.fdopen(self._file, "rb") as file:
            self._content = file.read()

    def content(self) -> bytes:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self._content


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The finished process that ran `code`, after imports of os, sys, Path and all names of files.py."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-c", BEFORE + code, *map(str, arguments)], cwd=REPO, check=False, **options)


def break_off(writing: Any, write: Any, error: Any) -> None:
    """Enter the context `writing`, call `write` with its value, and then raise `error` in the block."""
    with writing as new:
        write(new)
        raise error
