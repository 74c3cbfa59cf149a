"""How long the rest of a run will take, its evaluations included, by the steps and evaluations that it has taken."""

from __future__ import annotations

from collections import deque
from statistics import fmean

from r3d_fast.config.sections import TrainSpec
from r3d_fast.console import as_time
from r3d_fast.training.state import RunState

_FIRST = 3  # steps after which the first estimate is told; the first of them makes graphs, and does not count
_STEPS = 30  # by how many of the latest steps the next ones are judged


class Forecast:
    """Tells the seconds that a run has left. Tell it of each step, and of each batch of an evaluation.

    `step_seconds` and `eval_seconds` are what a step and an evaluation take by a trial, as long as none was taken.
    """

    def __init__(
        self, spec: TrainSpec, state: RunState, steps_per_epoch: int, step_seconds: float | None = None,
        eval_seconds: float | None = None,
    ) -> None:  # fmt: skip
        """A forecast of the run that is at `state`, which changes as the run goes on."""
        self._spec, self._state, self._steps_per_epoch = spec, state, steps_per_epoch
        self._by_trial, self._eval_seconds = step_seconds, eval_seconds
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._count = 0  # steps of this process
        self._taken = 0  # steps of this epoch
        self._is_evaluating = False
        self._evaluated = 0.0  # share of the evaluation that is going on

    def begin_epoch(self, taken: int) -> None:
        """Note that an epoch begins, or goes on, of which `taken` steps were taken before."""
        self._taken = taken

    def step(self, seconds: float) -> None:
        """Note a step, which took `seconds`, its clips included."""
        self._taken += 1
        if self._count == 1:  # the first step of a process makes graphs, which the next ones use
            self._steps.clear()
        self._count += 1
        self._steps.append(seconds)

    def first_estimate(self) -> str | None:
        """The time of the run in words, when the first steps are taken; None at other steps, and after a trial."""
        if self._by_trial is not None or self._count != _FIRST or (left := self.seconds_left()) is None:
            return None
        epoch = self._steps_per_epoch * fmean(self._steps)
        evaluations = "" if self._eval_seconds is not None else " without evaluations"
        return f"time: about {as_time(epoch)} an epoch, {as_time(left)} left{evaluations}, by the first steps"

    def begin_evaluation(self) -> None:
        """Note that an evaluation begins."""
        self._is_evaluating = True

    def evaluating(self, share: float, seconds: float) -> None:
        """Note that `share` (0 to 1] of an evaluation was done in `seconds`."""
        self._evaluated, self._eval_seconds = share, seconds / share

    def evaluated(self) -> None:
        """Note that the evaluation is over."""
        self._is_evaluating, self._evaluated = False, 0.0

    def seconds_left(self) -> float | None:
        """The seconds until the run ends; None where no step is known yet, and before the first batch evaluated.

        Before the first evaluation begins, evaluations of which nothing is known count nothing. Early stopping is not
        foreseen, max_minutes is.
        """
        is_only_first = self._count == 1 and self._by_trial is not None  # it made graphs, too
        step = fmean(self._steps) if self._steps and not is_only_first else self._by_trial
        if step is None or (self._is_evaluating and self._eval_seconds is None):
            return None
        spec, state = self._spec, self._state
        steps = (spec.epochs - state.epoch) * self._steps_per_epoch - self._taken
        left = max(0, steps) * step + (evaluations_left(spec, state) - self._evaluated) * (self._eval_seconds or 0.0)
        if spec.max_minutes is not None:
            left = min(left, max(0.0, 60 * spec.max_minutes - state.seconds))
        return left


def evaluations_left(spec: TrainSpec, state: RunState) -> int:
    """The evaluations that a run at `state` has still to finish."""
    every, epochs = spec.eval_every_epochs, spec.epochs
    return sum(epoch % every == 0 or epoch == epochs for epoch in range(state.epoch + 1, epochs + 1))
