"""Where a file or a folder can be written: what is at a path, and why it can't be written."""

from __future__ import annotations

import errno
import io
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.output.descriptors import STDOUT

# What can be done where a path can't be written, added to the message: a text, or what makes it of the system's error.
Hint = str | Callable[[OSError], str]


@contextmanager
def write_errors(path: Path, hint: Hint = "") -> Iterator[None]:
    """Turn an OSError of the block into a UsageError that names `path`, says why it can't be written, and adds `hint`.

    A BrokenPipeError is passed on: the program that read the pipe has ended, and the command then ends without a
    message. An OSError without an error number is passed on too, because Paddle raises such errors for other reasons.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None and not isinstance(error, io.UnsupportedOperation):
            raise
        name = "stdout" if path == STDOUT else path
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            reason = f"there is no folder {path.parent}; make it first"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = "a part of the path is a file"
        else:
            reason = str(error.strerror or error)
        remedy = hint if isinstance(hint, str) else hint(error)
        raise UsageError(f"{name}: can't be written: {reason}{f'; {remedy}' if remedy else ''}") from error


def resolve(path: Path) -> Path | None:
    """The path to rename a new file to, behind all links; None for a device or a pipe, which is written directly.

    Raises IsADirectoryError for a folder.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file")
    return Path(os.path.realpath(path)) if stat.S_ISREG(mode) else None


def sync(path: Path) -> None:
    """Write `path`, a file or the list of names in a folder, to the disk before returning. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # some files may be written, but not opened for reading
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks can't sync a folder
            raise
    finally:
        os.close(descriptor)


def keep_aside(path: Path, ending: str) -> Path:
    """Give what is at `path` a second name, `path` + `ending` or that with a number, and return it: nothing is lost.

    On a disk without links it has only the new name. Raises OSError.
    """
    taken = itertools.count(2)
    aside = path.with_name(path.name + ending)
    while os.path.lexists(aside):
        aside = path.with_name(f"{path.name}{ending}-{next(taken)}")
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:
        path.rename(aside)
    return aside


def keep_as(path: Path, name: Path) -> None:
    """Give the file at `path` a second name on the same disk, by which it is there after `path` is replaced.

    Raises OSError, also if there is something of that name.
    """
    os.link(path, name)
