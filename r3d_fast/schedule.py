"""The learning rate as a pure function of the step: nothing to save, nothing to restore, the same on every rank."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.errors import UsageError
from pipelines.specs import Fraction, Spec


class ScheduleSpec(Spec):
    """How the learning rate falls.

    `piecewise`: times `gamma` at each milestone. `cosine`: half a cosine from the base rate at the end of the warmup to
    `final` at the end of training (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, one cycle). `constant`: stays.
    The warmup is a straight line on top of any of them.
    """

    kind: Literal["piecewise", "cosine", "constant"] = Field("constant", description="how the rate falls")
    milestones_epochs: tuple[float, ...] = Field(
        (), description="epochs done when the rate falls; (15, 20): epochs 16 and 21 are the first at a lower rate"
    )
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.1, description="factor at each milestone")
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(0.0, description="length of the warmup, in epochs")
    warmup_start: Fraction = Field(0.0, description="where the warmup begins, as a fraction of the base rate")
    final: Fraction = Field(0.0, description="where the cosine ends, as a fraction of the base rate")

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
        if self.kind != "cosine" and self.final != 0.0:
            raise ValueError(f"final {self.final} has no meaning for kind {self.kind!r}; expected 0")
        if self.warmup_epochs == 0.0 and self.warmup_start != 0.0:
            raise ValueError(f"warmup_start {self.warmup_start} has no meaning without warmup_epochs; expected 0")
        return self


def learning_rate(step: int, *, base: float, steps_per_epoch: int, epochs: int, spec: ScheduleSpec) -> float:
    """The learning rate of optimiser step `step` (0-based, counted from the first epoch on).

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
    if step < warmup:
        factor *= spec.warmup_start + (1.0 - spec.warmup_start) * step / warmup
    return base * factor
