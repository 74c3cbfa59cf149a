"""Writes all files of a run and shows its progress: metrics, curves and checkpoints; progress goes to stderr."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from r3d_fast.config.sections import TrainSpec
from r3d_fast.progress import Progress
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.runs.curves import ScalarLogs
from r3d_fast.runs.metrics_file import MetricsFile
from r3d_fast.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class _Open:
    """The files of a run and its progress, all open."""

    metrics: MetricsFile
    curves: ScalarLogs
    progress: Progress
    checkpoints: CheckpointWriter


class RunWriter:
    """Writes the files of a run and shows its progress. Use it in a `with` block, whose end writes what still waits.

    Of several ranks only the first writes. On the others the writer has no folder, and every method does nothing.
    """

    def __init__(
        self, folder: Path | None, spec: TrainSpec, total: int, done: int, records: int,
        left: Callable[[], float | None] | None = None,
    ) -> None:  # fmt: skip
        """Go on in the run's `folder` after `done` of `total` steps and the first `records` lines of metrics.jsonl.

        `left` gives the seconds that the rest of the run takes, None as long as that is not known. `folder` is None on
        every rank but the first. Raises UsageError where the files can't be written.
        """
        self._open: _Open | None = None
        self._stack = ExitStack()
        if folder is None:
            return
        with ExitStack() as stack:
            metrics = stack.enter_context(closing(MetricsFile(folder, records, done)))
            progress = stack.enter_context(
                Progress("train", total, done, spec.log_every_steps, seconds=spec.log_every_seconds, left=left)
            )
            curves = stack.enter_context(
                closing(ScalarLogs(folder, spec.log_to, metrics.records, progress.say, spec.log_every_steps))
            )
            checkpoints = stack.enter_context(
                CheckpointWriter(folder, spec.keep_checkpoints, metrics.sync, progress.say)
            )
            self._open = _Open(metrics, curves, progress, checkpoints)
            self._stack = stack.pop_all()

    @property
    def records(self) -> int:
        """The number of lines in metrics.jsonl."""
        return 0 if self._open is None else self._open.metrics.count

    def log(self, record: dict[str, Any]) -> None:
        """Add a record to metrics and curves."""
        if self._open is not None:
            self._open.metrics.write(record)
            self._open.curves.write(record)

    def say(self, line: str) -> None:
        """Show the user a line."""
        if self._open is not None:
            self._open.progress.say(line)

    def step(self, text: str) -> None:
        """Advance the progress by one step; `text` is shown with it."""
        if self._open is not None:
            self._open.progress.step(text)

    def note(self, text: str) -> None:
        """Show `text` beside the progress until the next step."""
        if self._open is not None:
            self._open.progress.note(text)

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Start writing `checkpoint` and return at once; its arrays must not change any more."""
        if self._open is not None:
            self._open.checkpoints.submit(checkpoint, best=best)

    def finish(self) -> None:
        """Return when every checkpoint is on the disk. Raises CheckpointError where the disk refuses."""
        if self._open is not None:
            self._open.checkpoints.finish()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
