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
_NAMES = ("stdin", "stdout", "stderr")
_MOST_LINKS = 40  # links in a chain; Linux follows as many


_closed: set[int] = set()  # the standard streams that were closed when this process began


def hold_standard_streams() -> None:
    """Open /dev/null in the place of those of stdin, stdout and stderr that are closed, also for child processes.

    Otherwise the next file to be opened, such as an index, would be stdout, and what is printed would be written to it.
    A result that is to go to stdout is still refused.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, "w" if number else "r", closefd=False))  # noqa: SIM115 - for the process
            _closed.add(opened)


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


def check_stdout() -> None:
    """Raise OSError if stdout was closed when this process began."""
    if sys.stdout is None or _STDOUT_NUMBER in _closed:
        raise OSError(errno.EBADF, "stdout is closed")


@contextmanager
def open_descriptor(number: int | None) -> Iterator[BinaryIO]:
    """A binary file that writes to the descriptor `number` (None: to sys.stdout), after what was printed before.

    Raises OSError if the descriptor is not open.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    if number is None or number in _closed:
        check_stdout()
    if number is None:
        try:
            number = sys.stdout.fileno()
        except io.UnsupportedOperation:  # sys.stdout was replaced by an object in memory
            yield sys.stdout.buffer
            sys.stdout.flush()
            return
    with os.fdopen(os.dup(number), "wb") as file:
        yield file
