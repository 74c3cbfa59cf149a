"""Pipes that results are written to: opened before the work, so that one without a reader is said and not waited for.

A pipe stays open until its result is written: its reader would take a pipe that is closed for the end of the result.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_open: dict[tuple[int, int], int] = {}  # descriptors by device and inode


def is_pipe(path: Path) -> bool:
    """Whether there is a pipe (FIFO) at `path`."""
    return stat.S_ISFIFO(path.stat().st_mode)


def hold_pipe(path: Path) -> None:
    """Open the pipe at `path` for `held_pipe`. Raises OSError, also where nobody reads it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a pipe that nobody reads; start its reader first") from error
        raise
    os.set_blocking(descriptor, True)
    status = os.fstat(descriptor)
    before = _open.pop((status.st_dev, status.st_ino), None)
    if before is not None:
        os.close(before)
    _open[status.st_dev, status.st_ino] = descriptor


def held_pipe(path: Path) -> BinaryIO:
    """A file that writes to the pipe at `path`: as `hold_pipe` opened it, else opened now, which waits for a reader."""
    status = path.stat()
    descriptor = _open.pop((status.st_dev, status.st_ino), None)
    return path.open("wb") if descriptor is None else os.fdopen(descriptor, "wb")
