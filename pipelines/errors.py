"""The errors that `pipelines` raises. Each has an exit code for the command line and inherits from a builtin error."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


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
    """The base class of the errors of r3d-fast. The message is one line: what came, what was expected, what to do."""

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
    "truncated" or "no video stream". `detail` says more about this video.
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.detail = detail
        super().__init__(f"{self.path}: {reason}" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, str]]:
        """Pickle the three parts, so that the error can be sent from one process to another."""
        return type(self), (self.path, self.reason, self.detail)


class FrameError(VideoError):
    """The decoder did not give a frame that the index lists, or gave it in another size."""
