"""The errors of training and of what follows it, and the table of all errors by exit code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from pipelines.errors import EnvironmentProblem, ExitCode, R3DFastError, UsageError


class ConfigError(UsageError):
    """A config or an override can't be used; the message has one line a problem."""


class CheckpointError(R3DFastError, ValueError):
    """A checkpoint or a weights file can't be used; the message names the file and what is wrong with it."""

    exit_code = ExitCode.CHECKPOINT


class DivergedError(R3DFastError, ArithmeticError):
    """The loss is not a number any more."""

    exit_code = ExitCode.DIVERGED


class Stopped(R3DFastError):
    """A signal ended the run, after a checkpoint from which it can go on."""

    exit_code = ExitCode.STOPPED


class ParityError(R3DFastError):
    """An exported model does not give what the model as trained gives; nothing was written."""


class RankLost(EnvironmentProblem):
    """One of several training processes is gone, or gives no sign of life."""


class RankFailed(R3DFastError):
    """Another rank ended with an error: its exit code, and its message unless another rank says that."""

    def __init__(self, exit_code: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code


_MEANINGS = {
    ExitCode.OK: ("The command did what it was asked to.", ""),
    ExitCode.INTERNAL: (
        "Something went wrong that r3d-fast did not expect, or an exported model gave other values than its run.",
        "Run the command again with `--debug` for the traceback, and report it.",
    ),
    ExitCode.USAGE: (
        "An argument, an option or a config can't be used.",
        "Change what the message names. Nothing was written.",
    ),
    ExitCode.DATA: (
        "A data set, a list, an index or a video can't be used, or some of several videos could not be read.",
        "`r3d-fast data index ROOT` makes an index anew and lists the files that were left out, with the reason.",
    ),
    ExitCode.ENVIRONMENT: (
        "The machine or the installation lacks something: a library, a GPU, memory.",
        "Do what the message says; `r3d-fast doctor` looks at everything at once.",
    ),
    ExitCode.CHECKPOINT: (
        "A checkpoint or a weights file is damaged, of another model, or could not be written.",
        "Use another file, or make room on the disk. `--resume auto` goes back to the last good checkpoint by itself.",
    ),
    ExitCode.DIVERGED: (
        "Training diverged: loss or gradients were not numbers for 20 steps in a row.",
        "Lower `optimizer.lr`, set `optimizer.clip_norm`, or train with `train.precision: fp32`.",
    ),
    ExitCode.STOPPED: (
        "A signal stopped training, after a checkpoint.",
        "The message has the command that goes on from there.",
    ),
    ExitCode.INTERRUPTED: ("Ctrl-C ended the command before it was done.", "Run it again."),
}


def error_classes() -> list[type[R3DFastError]]:
    """Every error class of `pipelines` and `r3d_fast`, by exit code, then by name."""

    def below(kind: type[R3DFastError]) -> Iterator[type[R3DFastError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return sorted(set(below(R3DFastError)), key=lambda kind: (kind.exit_code, kind.__name__))


def exit_code_table() -> str:
    """The exit codes and, below them, the error classes of Python, as Markdown."""
    lines = ["| exit code | what happened | what to do |", "| ---: | --- | --- |"]
    lines += [f"| {code.value} | {' | '.join(_MEANINGS[code])} |" for code in ExitCode]
    lines += ["", "| error class | exit code | also a | what it says |", "| --- | ---: | --- | --- |"]
    for kind in error_classes():
        builtin = next(base.__name__ for base in kind.__mro__ if base.__module__ == "builtins")
        says = (inspect.getdoc(kind) or "").partition("\n")[0]
        name = f"`{kind.__module__.partition('.')[0]}.errors.{kind.__name__}`"
        lines.append(f"| {name} | {int(kind.exit_code)} | `{builtin}` | {says} |")
    return "\n".join(lines) + "\n"
