"""Measures, before a run begins, the memory and the time that its training steps and evaluation batches take.

A child process takes the steps, on random numbers (`trial_process.py`): the memory and the random generators of the run
stay as they are, and where memory runs out, the kernel ends only the child. It takes steps of few clips; what larger
batches take is on the straight line through these.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from pipelines.errors import EnvironmentProblem
from pipelines.machine.processes import start_program
from r3d_fast.config.config import Config
from r3d_fast.console import counted
from r3d_fast.progress import Progress

_MAIN = "r3d_fast.planning.trial_process.main"
_STAGES = 5  # the model, an evaluation, and training steps of three sizes, the last of which slow networks leave out


class NoTrial(Exception):
    """A trial failed, and not because memory ran out: the run itself will say better what is wrong."""


@dataclass(frozen=True)
class Line:
    """A figure that grows with the clips of a batch in a straight line: `fixed` + `per_clip` x clips."""

    fixed: float
    per_clip: float

    def at(self, clips: int) -> float:
        """The figure for a batch of `clips` clips."""
        return self.fixed + self.per_clip * clips

    def plus(self, fixed: float, per_clip: float) -> Line:
        """The line that lies higher by `fixed`, and by `per_clip` for each clip."""
        return Line(self.fixed + fixed, self.per_clip + per_clip)


@dataclass(frozen=True)
class Reading:
    """What steps of `clips` clips took: seconds of one, and the most memory and address space of the process so far."""

    clips: int
    seconds: float
    memory_bytes: int
    address_bytes: int


@dataclass(frozen=True)
class Failure:
    """Why a trial ended before its end, and whether that was for lack of memory."""

    reason: str
    lacks_memory: bool


@dataclass(frozen=True)
class Measured:
    """What a trial has measured, for any number of clips in a batch.

    `train_bytes` and `eval_bytes`: the most memory that the process takes while it trains and while it evaluates; on a
    GPU it is that of the GPU. `address_bytes`: the most address space of the process. None of them counts what the
    loader holds. `step_seconds` and `eval_seconds`: how long a training step and an evaluation batch take, without the
    time in which they wait for clips. `seconds`: how long the trial took.
    """

    train_bytes: Line
    eval_bytes: Line
    address_bytes: Line
    step_seconds: Line
    eval_seconds: Line
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def measure(config: Config, num_classes: int, device: str) -> Measured:
    """What training and evaluating the model of `config`, with `num_classes` classes, on `device` take.

    Takes some seconds, and shows its progress on stderr. Raises EnvironmentProblem where not even one clip fits into
    the memory, NoTrial where the steps fail otherwise.
    """
    start = time.monotonic()
    readings: dict[str, list[Reading]] = {"evaluation": [], "training": []}
    task = {"config": config.model_dump(mode="json"), "classes": num_classes, "device": device}
    with closing(_messages(task)) as messages, Progress("measuring", _STAGES, left=lambda: None) as progress:
        progress.note("starting")
        for message in messages:
            if isinstance(message, Failure):
                _refuse(message, is_over=all(readings.values()))
            else:
                subject, reading = message
                readings[subject].append(reading)
                progress.step(_in_words(subject, reading))
    training, evaluation = readings["training"], readings["evaluation"]
    return Measured(
        _line([(r.clips, r.memory_bytes) for r in training]),
        _line([(r.clips, r.memory_bytes) for r in evaluation]),
        _line([(r.clips, r.address_bytes) for r in training]),
        _line([(r.clips, r.seconds) for r in training]),
        _line([(r.clips, r.seconds) for r in evaluation]),
        time.monotonic() - start,
    )


def _in_words(subject: str, reading: Reading) -> str:
    """What was measured last, for the eyes of the user who waits."""
    if not reading.clips:
        return "the model is made"
    what = "an evaluation" if subject == "evaluation" else "a step"
    return f"{what} of {counted(reading.clips, 'clip')}: {reading.seconds:.2g} s"


def _refuse(failure: Failure, *, is_over: bool) -> None:
    """Raise what `failure` means; nothing where `is_over`: what was measured before it is enough."""
    if failure.lacks_memory and not is_over:
        raise EnvironmentProblem(
            f"not even one clip can be trained on with the memory that is free ({failure.reason}); choose a smaller "
            "model.width, clip.num_frames or augment.size_px, or free memory"
        )
    if not is_over:
        raise NoTrial(f"a training step that was tried failed ({failure.reason})")


def _messages(task: dict[str, Any]) -> Generator[tuple[str, Reading] | Failure, None, None]:
    """What the child says: (subject, Reading) of each size, and a Failure where it fails or is ended."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = start_program(_MAIN, theirs.fileno())
    try:
        with closing(Connection(ours.detach())) as connection, suppress(EOFError, OSError):
            connection.send(task)
            while (message := connection.recv()) is not None:
                yield message
            return
        code = process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        yield Failure(f"the process was ended by {name}", lacks_memory=code == -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def _line(points: Sequence[tuple[int, float]]) -> Line:
    """The line through the last two of `points` (clips, figure); through the only one, a figure that all have."""
    (x, y), (last_x, last_y) = points[-2:] if len(points) > 1 else (points[0], points[0])
    slope = max(0.0, (last_y - y) / (last_x - x)) if last_x != x else 0.0
    return Line(max(0.0, last_y - slope * last_x), slope)
