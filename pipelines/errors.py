"""The errors of the clip side. Each names the exit code of the command line and also inherits the nearest builtin."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What a command ended with; `r3d_fast.errors.exit_code_table` says what each means and what to do."""

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
    """Root of every error that r3d-fast raises on purpose: one line with what came, what was expected, what to do."""

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

    `path` is the file and `reason` a short phrase ("empty", "truncated", "no video stream") that groups like cases.
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.detail = detail
        super().__init__(f"{self.path}: {reason}" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, str]]:
        """Pickle by the three parts: errors cross process borders."""
        return type(self), (self.path, self.reason, self.detail)


class FrameError(VideoError):
    """A wanted frame did not come out of the decoder as the index promised."""
