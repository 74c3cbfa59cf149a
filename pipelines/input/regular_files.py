"""Opens only regular files, without waiting for anybody, and reads no more of them than is allowed."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}  # fmt: skip


def kind_of(mode: int) -> str:
    """What a file that is no regular one is, by its `mode`: "folder", "FIFO", "socket" or "device"."""
    return _KINDS.get(stat.S_IFMT(mode), "file of an unknown kind")


def what_lies_at(path: Path) -> str:
    """What is at `path`, behind links, with its article: "a file", "a FIFO", "a link to nothing" or "nothing".

    Raises OSError where it can't be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else "nothing"
    return "a file" if stat.S_ISREG(mode) else f"a {kind_of(mode)}"


def open_regular(path: Path) -> io.BufferedReader:
    """The file at `path`, open for reading in binary; links are followed.

    Raises OSError where it can't be read, also where it is no regular file: opening a pipe could wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"it is a {kind_of(mode)}; expected a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The content of the regular file at `path`, which has `most` bytes or fewer.

    Raises OSError where it is larger, where it can't be read, and where it is no regular file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""  # it may have grown since
    if max(size, len(content)) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes; expected at most so many", str(path))
    return content
