"""Paths that stand for a file that this process has open already: `-`, /dev/stdout, /dev/fd/3, and links to them.

Opened by its path, a file that stdout was redirected to would lose what was printed so far; replaced, the link would.
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
_MOST_LINKS = 40  # of a chain of links, as in Linux


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
    """A file that writes to a descriptor, after what was printed before; None: sys.stdout. Raises OSError."""
    if sys.stdout is not None:
        sys.stdout.flush()
    if number is None:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        try:
            number = sys.stdout.fileno()
        except io.UnsupportedOperation:  # it was replaced by something that is no file
            yield sys.stdout.buffer
            sys.stdout.flush()
            return
    with os.fdopen(os.dup(number), "wb") as file:
        yield file
