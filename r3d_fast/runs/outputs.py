"""What a run leaves and says: progress, metrics, curves, checkpoints. Of several ranks only the first has any."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from r3d_fast.config.sections import TrainConfig
from r3d_fast.console import Progress
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.runs.curves import ScalarLogs
from r3d_fast.runs.metrics_file import MetricsFile
from r3d_fast.weights.checkpoint import Checkpoint


class Outputs:
    """The files and the progress of the run in a folder; to be left by `with`, which writes what still waits."""

    def __init__(self, run: Path, spec: TrainConfig, total: int, done: int, records: int) -> None:
        """Go on after `done` of `total` steps and the first `records` lines of metrics.jsonl.

        Raises UsageError where the files can't be written.
        """
        self._metrics = MetricsFile(run, records)
        with ExitStack() as stack:
            stack.enter_context(closing(self._metrics))
            self.progress = stack.enter_context(Progress("train", total, done, spec.log_every_steps))
            self._curves = stack.enter_context(
                closing(ScalarLogs(run, spec.log_to, self._metrics.records, self.progress.say, spec.log_every_steps))
            )
            self._saver = stack.enter_context(
                CheckpointWriter(run, spec.keep_checkpoints, self._metrics.sync, self.progress.say)
            )
            self._stack = stack.pop_all()

    @property
    def records(self) -> int:
        """Lines of metrics.jsonl so far."""
        return self._metrics.count

    def log(self, record: dict[str, Any]) -> None:
        """Add a record to metrics and curves."""
        self._metrics.write(record)
        self._curves.write(record)

    def say(self, line: str) -> None:
        """A line for the user."""
        self.progress.say(line)

    def step(self, text: str) -> None:
        """One more step is done; `text` says how it goes."""
        self.progress.step(text)

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Have `checkpoint` written meanwhile; its arrays must not change any more."""
        self._saver.submit(checkpoint, best=best)

    def finish(self) -> None:
        """Return when every checkpoint is on the disk. Raises CheckpointError where it refuses."""
        self._saver.finish()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class Silent:
    """What the other ranks have in place of the first one's files and progress: takes everything, keeps nothing."""

    count = 0

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass
