"""What a run leaves for its user to look at: the files of its best evaluation, and its report.

Neither is needed to go on or to use the model: where one can't be written, that is a warning, and the run goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from r3d_fast.console import quoted, tell
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.evaluation.result_files import write_evaluation
from r3d_fast.runs.history import EVALUATION
from r3d_fast.training.state import RunState


def keep_evaluation(
    run: Path, evaluation: Evaluation, classes: tuple[str, ...], state: RunState, say: Callable[[str], None]
) -> None:
    """Write the files of `evaluation`, the best so far, to the folder evaluation/ in `run`; `say` shows a warning.

    figures.json also says after which epoch and step it was. There is no picture of the confusion matrix: the report
    has the matrix.
    """
    about = {"epoch": state.epoch + 1, "step": state.step}
    try:
        write_evaluation(run / EVALUATION, evaluation, classes, hint="training goes on", picture=False, about=about)
    except Exception as error:
        say(f"warning: {run / EVALUATION}: the evaluation could not be written ({error})")


@contextmanager
def reporting(run: Path | None) -> Iterator[None]:
    """A block after which report.html is written in `run` (None: nowhere), whether it ends well or by an error."""
    try:
        yield
    finally:
        if run is not None:
            _report(run)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A block that a signal to stop ends by KeyboardInterrupt, also where it was noted only; more are ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    with suppress(ValueError):  # only the main thread can handle signals
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _report(run: Path) -> None:
    page = run / "report.html"
    try:
        if not (run / "metrics.jsonl").stat().st_size:  # the run failed before its first step
            return
        with _interruptible():
            tell(f"writing {page}; Ctrl-C skips it")
            from r3d_fast.report.report import write_report  # imports what draws: half a second

            write_report([run], page, ended=True)
    except (Exception, KeyboardInterrupt) as error:
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        tell(f"warning: {page}: not written ({what}); make it with: {quoted('r3d-fast', 'report', run)}")
