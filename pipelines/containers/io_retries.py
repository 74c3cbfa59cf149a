"""Passing errors of the system: which they are, and reading that is tried again after one.

A file on a server or on a disk with a bad cable may be unreadable for a moment. Such an error says nothing about the
bytes of the file, so nobody remembers it: the file is tried again after a short wait, and again the next time.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

import av.error

from pipelines.errors import PASSING_ERRORS

FIRST_WAIT, GROWTH = 0.1, 4.0  # seconds before the first retry, and how much longer each further wait is
USUAL_RETRIES = 3

# Errors after which the next try comes at once: a file that is gone, or that we may not read, stays so for a while.
_RETRIED = PASSING_ERRORS - {errno.ENOENT, errno.EACCES, errno.EPERM}
# Those of them that FFmpeg gives only where the file can't be read; others are also its own, for damaged bytes.
_OF_FILES = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EACCES}
)

Result = TypeVar("Result")


def is_of_system(error: BaseException) -> bool:
    """Whether `error` comes from the system that reads the file, and not from what is in the file."""
    if isinstance(error, av.error.FFmpegError):
        return error.errno in _OF_FILES
    return isinstance(error, OSError)


def with_retries(read: Callable[[], Result], retries: int, on_retry: Callable[[], object] = lambda: None) -> Result:
    """What `read` gives; it is called up to `retries` times again, after growing waits, while it raises passing errors.

    `on_retry` is called before each wait. The last error is raised.
    """
    wait = FIRST_WAIT
    while True:
        try:
            return read()
        except (OSError, av.error.FFmpegError) as error:
            if retries <= 0 or not is_of_system(error) or error.errno not in _RETRIED:
                raise
        retries -= 1
        on_retry()
        time.sleep(wait)
        wait *= GROWTH


def fitting_retries(retries: int, seconds: float) -> int:
    """As many of `retries` as wait for at most half of `seconds` together, after which a process counts as hanging."""
    total, wait, count = 0.0, FIRST_WAIT, 0
    while count < retries and total + wait <= seconds / 2:
        total, wait, count = total + wait, wait * GROWTH, count + 1
    return count
