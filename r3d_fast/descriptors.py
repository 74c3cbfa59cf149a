"""Paths that stand for a file which this process has already open: `-`, /dev/stdout, /dev/fd/3, and links to them.

Such a path must not be opened again: that would erase what was already printed to a file behind stdout. It must not be
replaced by a new file either: that would destroy the link.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

STDOUT = Path("-")
_STDOUT_NUMBER = 1
_MOST_LINKS = 40  # links in a chain; Linux follows as many


def is_stdout(path: Path | None) -> bool:
    """Whether what is written to `path` comes out of stdout."""
    return path is not None and (path == STDOUT or descriptor_of(path) == _STDOUT_NUMBER)


def descriptor_of(path: Path) -> int | None:
    """The file descriptor that `path` stands for; None for `-` and for a path of the file system."""
    own = os.path.realpath("/dev/fd")
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if folder == own and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, path.readlink())
    return None


@contextmanager
def open_descriptor(number: int | None) -> Iterator[BinaryIO]:
    """A binary file that writes to the descriptor `number` (None: to sys.stdout), after what was printed before.

    Raises OSError if the descriptor is not open.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    if number is None:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "stdout is closed")
        try:
            number = sys.stdout.fileno()
        except io.UnsupportedOperation:  # sys.stdout was replaced by an object in memory
            yield sys.stdout.buffer
            sys.stdout.flush()
            return
    with os.fdopen(os.dup(number), "wb") as file:
        yield file
