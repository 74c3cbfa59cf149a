"""The learning rate of a step, as a pure function. For a plateau it also depends on how often the rate has fallen.

Only a plateau has a state that checkpoints keep: its `Plateau`, which changes at evaluations, alike on every rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.errors import UsageError
from r3d_fast.config.sections import ScheduleSpec


@dataclass(frozen=True)
class Plateau:
    """The state of a plateau schedule: the best figure so far, evaluations since then, how often the rate has fallen.

    The rule is that of Paddle's ReduceOnPlateau with a relative threshold and no cooldown.
    """

    best: float | None = None
    waited: int = 0
    falls: int = 0

    def after(self, figure: float, spec: ScheduleSpec) -> Plateau:
        """The state after an evaluation with `figure`, the one that `spec.watch` names.

        NaN is never better than the best. Other kinds of schedule change nothing.
        """
        if spec.kind != "plateau":
            return self
        sign = -1.0 if spec.watch == "top1" else 1.0
        if math.isfinite(figure) and (
            self.best is None or sign * figure < sign * self.best * (1.0 - sign * spec.threshold)
        ):
            return Plateau(figure, 0, self.falls)
        if self.waited == spec.patience_evals:
            return Plateau(self.best, 0, self.falls + 1)
        return Plateau(self.best, self.waited + 1, self.falls)


def learning_rate(
    step: int, *, base: float, steps_per_epoch: int, epochs: int, spec: ScheduleSpec, falls: int = 0
) -> float:
    """The learning rate of optimiser step `step` (0-based, counted from the first epoch on).

    `falls`: how often the rate has fallen, of the run's Plateau; 0 for other kinds.

    Lengths in epochs are rounded to whole steps: 0.7 epochs of 10 steps are 7 steps. The warmup gives step 0 exactly
    `warmup_start * base`, and the first step after the warmup the full rate. The cosine reaches `final * base` one step
    after the last, so that no step is spent at a rate of 0; later steps stay there. Raises UsageError for a number out
    of its range.
    """
    if step < 0 or steps_per_epoch < 1 or epochs < 1 or not 0.0 < base < math.inf:
        raise UsageError(
            f"step {step}, base {base}, steps_per_epoch {steps_per_epoch}, epochs {epochs}: "
            "expected step >= 0, a finite base > 0, the others >= 1"
        )
    total = epochs * steps_per_epoch
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    if warmup >= total:
        raise UsageError(
            f"schedule.warmup_epochs {spec.warmup_epochs}, train.epochs {epochs}: expected a warmup shorter than "
            "training"
        )

    factor = 1.0
    if spec.kind == "piecewise":
        factor = spec.gamma ** sum(step >= round(m * steps_per_epoch) for m in spec.milestones_epochs)
    elif spec.kind == "cosine":
        done = min(max(step - warmup, 0) / (total - warmup), 1.0)
        factor = spec.final + (1.0 - spec.final) * (1.0 + math.cos(math.pi * done)) / 2.0
    elif spec.kind == "plateau":
        factor = max(spec.gamma**falls, spec.final)
    if step < warmup:
        factor *= spec.warmup_start + (1.0 - spec.warmup_start) * step / warmup
    return base * factor
