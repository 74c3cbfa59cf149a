"""The errors that `pipelines` raises. Each has an exit code for the command line and inherits from a builtin error."""

from __future__ import annotations

import errno
from enum import IntEnum
from pathlib import Path

# Errors of the system that say nothing about the bytes of a file: they may be gone at the next try.
PASSING_ERRORS = frozenset({
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENETDOWN, errno.ENETUNREACH, errno.ENFILE,
    errno.ENODEV, errno.ENOENT, errno.ENOLINK, errno.ENOMEM, errno.ENOTCONN, errno.ENXIO, errno.EPERM,
    errno.EREMOTEIO, errno.ESHUTDOWN, errno.ESTALE, errno.ETIMEDOUT,
})  # fmt: skip

# What mends the index where a file is not as it says, though its size and time may be.
INDEX_FULLY = "bring the file back, or index the data set again with --full"


class ExitCode(IntEnum):
    """The exit codes of the commands; `r3d_fast.errors.exit_code_table` says what each means and what to do."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 3
    ENVIRONMENT = 4
    CHECKPOINT = 5
    DIVERGED = 6
    STOPPED = 75
    INTERRUPTED = 130


class R3DFastError(Exception):
    """The base class of the errors of r3d-fast. The message is one line: what came, what was expected, what to do.

    What has to be said on further lines, such as commands, are its notes (`add_note`).
    """

    exit_code: int = ExitCode.INTERNAL


class UsageError(R3DFastError, ValueError):
    """A value given by the user (an argument, an option, a field of a spec) breaks a stated rule."""

    exit_code = ExitCode.USAGE


class DataError(R3DFastError, ValueError):
    """A data set, a list or an index can't be used as it is."""

    exit_code = ExitCode.DATA


class ListError(DataError):
    """A line of a list file breaks the format; the message names the file and the line."""


class IndexFileError(DataError):
    """The index file is missing, damaged or of another schema; the message names the command that rebuilds it."""


class EnvironmentProblem(R3DFastError, RuntimeError):
    """The machine or the installation lacks something; the message names what to install or change."""

    exit_code = ExitCode.ENVIRONMENT


class VideoError(DataError):
    """One video can't be read.

    `path` is the file. `reason` is a short phrase that is the same for all videos with this problem, such as "empty",
    "truncated" or "no video stream". `detail` says more about this video. `passing`: see `is_passing`.
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "", passing: bool = False) -> None:
        self.path = str(path)
        self.reason = reason
        self.detail = detail
        self._passing = passing
        super().__init__(f"{self.path}: {reason}" + (f": {detail}" if detail else ""))

    @property
    def is_passing(self) -> bool:
        """Whether the bytes of the file do not prove the error, so that the next try may succeed.

        That holds where it was raised with `passing`, as for a process that was killed or took too long, or from an
        error of the system such as EIO or EACCES, also by FFmpeg.
        """
        return self._passing or getattr(self.__cause__, "errno", None) in PASSING_ERRORS

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, str, bool]]:
        """Pickle the parts, so that the error can be sent from one process to another; its cause stays behind."""
        return type(self), (self.path, self.reason, self.detail, self.is_passing)


class FrameError(VideoError):
    """The decoder did not give a frame that the index lists, or gave it in another size."""
