"""The learning rate as a pure function of the step and, for a plateau, of how often the rate has fallen so far.

Only a plateau has anything to save and restore: its `Plateau`, which moves on at evaluations and is the same on every
rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.errors import UsageError
from pipelines.specs import Fraction, Spec


class ScheduleSpec(Spec):
    """How the learning rate falls.

    `piecewise`: times `gamma` at each milestone. `cosine`: half a cosine from the base rate at the end of the warmup to
    `final` at the end of training (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, one cycle). `plateau`: times
    `gamma`, down to `final`, whenever more than `patience_evals` evaluations in a row were no better than the best
    before them (Hara et al. 2018, arXiv:1711.09577, section 3.2). `constant`: stays.
    The warmup is a straight line on top of any of them.
    """

    kind: Literal["piecewise", "cosine", "plateau", "constant"] = Field("constant", description="how the rate falls")
    milestones_epochs: tuple[float, ...] = Field(
        (), description="epochs done when the rate falls; (15, 20): epochs 16 and 21 are the first at a lower rate"
    )
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1, description="factor at each milestone, or each time a plateau ends"
    )
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(0.0, description="length of the warmup, in epochs")
    warmup_start: Fraction = Field(0.0, description="where the warmup begins, as a fraction of the base rate")
    final: Fraction = Field(
        0.0, description="where the cosine ends, or what a plateau never falls below, as a fraction of the base rate"
    )
    patience_evals: Annotated[int, Field(ge=0)] = Field(
        10, description="of plateau: evaluations in a row that may be no better; one more, and the rate falls"
    )
    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        1e-4, description="of plateau: a figure counts as better if it is by more than this share of the best one"
    )
    watch: Literal["loss", "top1"] = Field("loss", description="of plateau: the figure of the evaluated videos")

    @model_validator(mode="after")
    def _check(self) -> ScheduleSpec:
        milestones = self.milestones_epochs
        if self.kind == "piecewise" and not milestones:
            raise ValueError("milestones_epochs is empty: kind 'piecewise' needs at least one; expected e.g. [15, 20]")
        if self.kind != "piecewise" and milestones:
            raise ValueError(
                f"milestones_epochs {list(milestones)} have no meaning for kind {self.kind!r}; expected []"
            )
        if any(m <= 0.0 for m in milestones) or any(a >= b for a, b in pairwise(milestones)):
            raise ValueError(f"milestones_epochs {list(milestones)}: expected numbers > 0, each above the one before")
        if self.kind not in ("cosine", "plateau") and self.final != 0.0:
            raise ValueError(f"final {self.final} has no meaning for kind {self.kind!r}; expected 0")
        if self.warmup_epochs == 0.0 and self.warmup_start != 0.0:
            raise ValueError(f"warmup_start {self.warmup_start} has no meaning without warmup_epochs; expected 0")
        for name in ("patience_evals", "threshold", "watch"):
            value, default = getattr(self, name), ScheduleSpec.model_fields[name].default
            if self.kind != "plateau" and value != default:
                raise ValueError(f"{name} {value} has no meaning for kind {self.kind!r}; expected {default}")
        return self


@dataclass(frozen=True)
class Plateau:
    """What a plateau schedule remembers: the best figure so far, evaluations since it, how often the rate has fallen.

    The rule is that of Paddle's ReduceOnPlateau with a relative threshold and no cooldown.
    """

    best: float | None = None
    waited: int = 0
    falls: int = 0

    def after(self, loss: float, top1: float, spec: ScheduleSpec) -> Plateau:
        """The same after an evaluation; figures that are no numbers are no better. Any other kind stays as it is."""
        if spec.kind != "plateau":
            return self
        figure = loss if spec.watch == "loss" else top1
        sign = 1.0 if spec.watch == "loss" else -1.0
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

    `falls`: those of the run's Plateau; other kinds have none.

    Epochs become steps by rounding to the nearest, so that 0.7 epochs of 10 steps are 7 steps whatever the floats say.
    The warmup gives step 0 exactly `warmup_start * base` and the first step after it the full rate. The cosine would
    reach `final * base` one step after the last, so that no step is spent at a rate of 0; later steps stay there.
    Raises UsageError for a number out of its range.
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
            f"warmup_epochs {spec.warmup_epochs} of {epochs} epochs: expected a warmup shorter than training"
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
