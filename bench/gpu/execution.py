"""Runs one part of `bench gpu` as a process: its output in a log, its time limited, its end noted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.gpu.plan import Part
from bench.measuring.fresh_python import last_line, python_environment
from pipelines.errors import ExitCode
from pipelines.machine.processes import end_with_parent

State = Literal["done", "failed", "over its time", "interrupted", "left out"]
# A process that is ended gets SIGINT, as by Ctrl-C, so that it can write what it has; then SIGTERM, in case that is
# ignored, as it is in what a shell started with `&`; then it is killed.
_PATIENCE = ((signal.SIGINT, 20.0), (signal.SIGTERM, 10.0))
_LAST_BYTES = 20_000


@dataclass(frozen=True)
class Ending:
    """What became of a part: `code` is its exit code, None where it has none; `says` its last line, or why.

    `command` is what ran; a part of another command is not done by it.
    """

    step: str
    command: str
    state: State
    code: int | None = None
    seconds: float = 0.0
    says: str = ""


def log_file(out: Path, part: Part) -> Path:
    """Where the output of a part goes."""
    return out / "logs" / f"{part.name}.log"


def run_part(part: Part, out: Path) -> Ending:
    """Run a part to its end, or as long as it may take. Its process and all below it are gone afterwards.

    Its process ends too when this one is killed, so that whoever starts again does not measure beside it.

    An exception that a signal raises meanwhile ends it too, and is raised again. Raises OSError where the log can't be
    written.
    """
    log, begin = log_file(out, part), time.monotonic()

    def ending(state: State, code: int | None, says: str) -> Ending:
        return Ending(part.step, part.shown, state, code, round(time.monotonic() - begin, 1), says)

    with log.open("wb") as file:
        file.write(f"{part.shown}\n".encode(errors="replace"))
        file.flush()
        try:
            process = subprocess.Popen(
                part.command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=part.folder,
                env=python_environment(**part.environment), start_new_session=True,
                preexec_fn=end_with_parent,
            )  # fmt: skip
        except OSError as error:
            return ending("failed", None, f"can't be started: {error.strerror}")
        try:
            code = process.wait(None if part.minutes is None else 60 * part.minutes)
        except subprocess.TimeoutExpired:
            end(process)
            return ending("over its time", None, f"ended after its {part.minutes:g} minutes: {said(log)}")
        except BaseException:
            end(process)
            raise
    if code < 0:
        why = signal.strsignal(-code) or "unknown"
        return ending("failed", code, f"its process was ended by signal {-code} ({why}); {said(log)}")
    return ending("done" if code == ExitCode.OK else "failed", code, said(log))


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group of its own, and then kill what is left of the group; at once after a signal."""
    try:
        for number, seconds in _PATIENCE:
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                break
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def said(log: Path) -> str:
    """The last line of a log after the command in its first, shortened to 300 characters."""
    with log.open("rb") as file:
        file.readline()
        file.seek(max(file.tell(), log.stat().st_size - _LAST_BYTES))
        return last_line(file.read().decode(errors="replace")).strip()[:300]
