"""Where a run is, how long it has taken, and what is due after each of its steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from pipelines.errors import DataError
from r3d_fast.config.sections import ScheduleSpec, TrainSpec
from r3d_fast.console import counted
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.learning.schedule import Plateau
from r3d_fast.ranks.group import News
from r3d_fast.weights.checkpoint import Checkpoint


@dataclass
class RunState:
    """Where a run is: the next step to take, the next clip to take it on, the best evaluation so far.

    A checkpoint keeps every field under its name.
    """

    epoch: int = 0
    position: int = 0  # clips of the epoch that were trained on, counted over all ranks
    step: int = 0  # optimiser steps taken
    skipped: int = 0  # steps that changed no weight; the learning rate does not count them
    best_top1: float = -1.0
    best_loss: float | None = None  # of videos, in the best evaluation; None in checkpoints of older versions
    best_step: int = -1
    last_top1: float | None = None
    seconds: float = 0.0  # in all parts of the run, up to its last step
    evals_since_best: int = 0
    plateau_best: float | None = None
    plateau_waited: int = 0
    falls: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> RunState:
        """Where the run was when `checkpoint` was made."""
        names = cls.__dataclass_fields__.keys() & checkpoint.state.keys()
        return cls(**{name: checkpoint.state[name] for name in names})

    def early_end(self, spec: TrainSpec) -> str | None:
        """Why the run ends before its last epoch, in words; None if it goes on."""
        evals, minutes = spec.early_stop_evals, spec.max_minutes
        if evals is not None and self.evals_since_best >= evals:
            return f"no better top1 in {counted(self.evals_since_best, 'evaluation')} (train.early_stop_evals {evals})"
        if minutes is not None and self.seconds >= 60 * minutes:
            return f"{self.seconds / 60:.1f} minutes are over (train.max_minutes {minutes:g})"
        return None

    def note(self, evaluation: Evaluation, schedule: ScheduleSpec, *, whole_epoch: bool) -> bool:
        """Take an evaluation into account; returns whether it is the best so far.

        The best is the one with the highest top1 of videos; of several with that top1, the one with the lowest loss.
        Early stopping counts the evaluations since top1 rose: a lower loss at the same top1 does not begin it anew.
        An evaluation in the middle of an epoch happens only when the time is up. Early stopping and the plateau do not
        count it, so that a run that is given more time goes on as if it had not been. Raises DataError where no video
        could be read.
        """
        top1, loss, clip_loss = evaluation.video["top1"], evaluation.video["loss"], evaluation.clip["loss"]
        if top1 is None or loss is None or clip_loss is None:
            raise DataError(
                f"none of the {evaluation.num_videos} videos of split {evaluation.source.split!r} could be read"
            )
        self.last_top1 = top1
        if whole_epoch:
            watched = {"loss": loss, "top1": top1, "clip_loss": clip_loss}[schedule.watch]
            plateau = Plateau(self.plateau_best, self.plateau_waited, self.falls).after(watched, schedule)
            self.plateau_best, self.plateau_waited, self.falls = plateau.best, plateau.waited, plateau.falls
            self.evals_since_best += 1
        if top1 > self.best_top1:
            self.evals_since_best = 0
        elif top1 < self.best_top1 or self.best_loss is None or not loss < self.best_loss:
            return False
        self.best_top1, self.best_step = top1, self.step
        self.best_loss = math.inf if math.isnan(loss) else loss
        return True


class RunClock:
    """The time that a run has taken, and the time since its last checkpoint."""

    def __init__(self, seconds_before: float) -> None:
        """Start measuring; earlier parts of the run took `seconds_before`."""
        self._before = seconds_before
        self._began = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds in all parts of the run."""
        return self._before + time.monotonic() - self._began

    def saved(self) -> None:
        """Note that a checkpoint was made now."""
        self._saved = time.monotonic()

    def is_save_late(self, spec: TrainSpec) -> bool:
        """Whether the last checkpoint is older than `train.checkpoint_every_minutes`."""
        minutes = spec.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved > 60 * minutes


@dataclass(frozen=True)
class Due:
    """What has to be done after a step; the same on all ranks.

    `save`: write a checkpoint. `stop`: end this process, as a signal asked for; the run can go on later.
    `end`: evaluate and end the run, which has no progress or no time left.
    """

    save: bool
    stop: bool
    end: bool


def due_after(state: RunState, news: News, spec: TrainSpec) -> Due:
    """What is due after the step that brought the run to `state`; `news` is what the ranks had to tell after it."""
    every = spec.checkpoint_every_steps
    return Due(
        save=news.save or news.stop or (every is not None and state.step % every == 0),
        stop=news.stop,
        end=state.early_end(spec) is not None,
    )
