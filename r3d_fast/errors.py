"""The errors of training, evaluation, prediction and export, and the table of all errors by exit code."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Iterator

from pipelines.errors import EnvironmentProblem, ExitCode, R3DFastError, UsageError


class ConfigError(UsageError):
    """A config or an override can't be used; the message has a line for each problem."""


class CheckpointError(R3DFastError, ValueError):
    """A checkpoint or a weights file can't be used; the message names the file and what is wrong with it."""

    exit_code = ExitCode.CHECKPOINT


class DivergedError(R3DFastError, ArithmeticError):
    """The loss or the gradients are no longer finite numbers."""

    exit_code = ExitCode.DIVERGED


class Stopped(R3DFastError):
    """A signal ended the run; a checkpoint was written, from which it can be resumed."""

    exit_code = ExitCode.STOPPED


class ParityError(R3DFastError):
    """An exported model can't be run, or gives other outputs than the trained model; no export was written."""


class RankLost(EnvironmentProblem):
    """One of several training processes (ranks) has died, or gives no sign of life."""


class RankFailed(R3DFastError):
    """Another training process (rank) ended with an error; has its exit code and, in rank 0, its message."""

    def __init__(self, exit_code: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code


# What the system refuses, whatever a program does: how that is mended, and what else can be done.
_REFUSALS = {
    errno.EACCES: ("change its permissions", "choose another place"),
    errno.EDQUOT: ("delete what you don't need", "choose another disk"),
    errno.EFBIG: ("raise the limit of a file's size (ulimit -f)", "choose another disk"),
    errno.EIO: ("the disk or the network behind it fails: check it", ""),
    errno.ELOOP: ("its links lead in a circle: remove them", ""),
    errno.EMFILE: ("raise the limit of open files (ulimit -n)", "use fewer workers"),
    errno.ENAMETOOLONG: ("", "choose a shorter name"),
    errno.ENFILE: ("the whole system has too many files open: end what you don't need", ""),
    errno.ENOMEM: ("free memory", "use fewer workers"),
    errno.ENOSPC: ("make room there", "choose another disk"),
    errno.ENOTDIR: ("", "a part of the path is a file: choose another place"),
    errno.EPERM: ("change its permissions", "choose another place"),
    errno.EROFS: ("mount its disk for writing", "choose another place"),
    errno.ESTALE: ("the server of the files has changed: mount it again", ""),
    errno.ETIMEDOUT: ("the server of the files does not answer: check it", ""),
}
_AGAIN = "then run the same again"


def mending(error: OSError) -> str:
    """How what the system refused by `error` is mended where it is; "" where nothing is known that helps."""
    return _REFUSALS.get(error.errno or 0, ("", ""))[0]


_LOOP = "Symlink loop from "


def refusal(error: Exception) -> str:
    """What the system refused and what to do, in one line; "" if the program itself may be to blame for `error`."""
    if isinstance(error, RuntimeError) and str(error).startswith(_LOOP):  # of Path.resolve
        return f"{str(error).removeprefix(_LOOP).strip()}: {_REFUSALS[errno.ELOOP][0]}"
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{error.object}: this name is not UTF-8, which this command needs; rename it"
    if not isinstance(error, OSError):
        return ""
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        return "the current folder was deleted; go to another one (cd), and run the same again"
    mend, instead = _REFUSALS.get(error.errno or 0, ("", ""))
    if not mend and not instead:
        return ""
    remedy = f"{mend}, or {instead}" if mend and instead else instead or f"{mend}, {_AGAIN}"
    name = error.filename
    place = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    return f"{place}{error.strerror}; {remedy}"


def _has_current_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() is no better
    except OSError:
        return False
    return True


_MEANINGS = {
    ExitCode.OK: ("The command did what it was asked to.", ""),
    ExitCode.INTERNAL: (
        "An unexpected error, or an exported model that gives other outputs than the trained model.",
        "Run the command again as `r3d-fast --debug COMMAND` to see the traceback, and report it.",
    ),
    ExitCode.USAGE: (
        "An argument, an option or a config can't be used. Also: there is no model, run or config at a path, or a "
        "result, an index or a run folder can't be written, as on a full disk.",
        "Change what the message names. No data set, checkpoint or result was changed; only where stdout alone can't "
        "be written, all other results are there. A training that could not start leaves no run folder.",
    ),
    ExitCode.DATA: (
        "A data set, a list or an index is missing or can't be used, or some of the videos could not be read.",
        "Do what the message says: correct the line of a list that it names, or run `r3d-fast data index ROOT`, which "
        "makes the index again and lists the files that it leaves out, and why.",
    ),
    ExitCode.ENVIRONMENT: (
        "The machine or the installation lacks something: a library, a GPU, memory. Or the system refused another file "
        "than those of 2 and 5.",
        "Do what the message says. `r3d-fast doctor` checks the whole installation.",
    ),
    ExitCode.CHECKPOINT: (
        "A checkpoint or a weights file is damaged, belongs to another model, or could not be written, as on a full "
        "disk.",
        "Use another file, or free space on the disk. `--resume auto` goes back to the last good checkpoint by itself.",
    ),
    ExitCode.DIVERGED: (
        "Training diverged: the loss or the gradients were not finite for 20 steps in a row.",
        "Lower `optimizer.lr`, set `optimizer.clip_norm`, or train with `train.precision: fp32`.",
    ),
    ExitCode.STOPPED: (
        "A signal stopped the training; a checkpoint was written.",
        "Run the command in the message: it continues from the checkpoint.",
    ),
    ExitCode.INTERRUPTED: (
        "Ctrl-C ended the command before it had finished. A training stops with 75 instead, and with 130 at a second "
        "signal.",
        "Run it again. A training goes on from its last checkpoint, by the command in its message.",
    ),
}


def error_classes() -> list[type[R3DFastError]]:
    """The error classes of `pipelines.errors` and of this module, sorted by exit code, then by name.

    A class that another module derives from one of these is a case of it, which only that module tells apart.
    """

    def below(kind: type[R3DFastError]) -> Iterator[type[R3DFastError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    public = {kind for kind in below(R3DFastError) if kind.__module__ in (R3DFastError.__module__, __name__)}
    return sorted(public, key=lambda kind: (kind.exit_code, kind.__name__))


def exit_code_table() -> str:
    """Two Markdown tables: the exit codes of the command line, and the error classes in Python."""
    lines = ["| exit code | what happened | what to do |", "| ---: | --- | --- |"]
    lines += [f"| {code.value} | {' | '.join(_MEANINGS[code])} |" for code in ExitCode]
    lines += ["", "| error class | exit code | also a | meaning |", "| --- | ---: | --- | --- |"]
    for kind in error_classes():
        builtin = next(base.__name__ for base in kind.__mro__ if base.__module__ == "builtins")
        says = (inspect.getdoc(kind) or "").partition("\n")[0]
        name = f"`{kind.__module__.partition('.')[0]}.errors.{kind.__name__}`"
        lines.append(f"| {name} | {int(kind.exit_code)} | `{builtin}` | {says} |")
    return "\n".join(lines) + "\n"
