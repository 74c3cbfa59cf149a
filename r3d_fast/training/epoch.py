"""The steps of an epoch: each takes one batch from the loader, or as many as `train.accumulate` says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.batches import EpochBatches
from pipelines.loader import BadClip, Batch
from r3d_fast.backend.feed import DeviceBatch
from r3d_fast.learning.mixing import Mix
from r3d_fast.learning.step import StepResult

Item = TypeVar("Item")


@dataclass(frozen=True)
class EpochPlan:
    """How an epoch is divided: into `batches` (of all ranks together), `accumulate` of them a step.

    The last step takes the batches that are left, so that every epoch begins with a new step.
    """

    batches: EpochBatches
    accumulate: int

    @property
    def steps(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.batches) // self.accumulate)

    def steps_until(self, position: int) -> int:
        """Steps that end at `position`, a number of clips, or before."""
        return -(-self.batches.number_at(position) // self.accumulate)

    def ends_step(self, position: int) -> bool:
        """Whether the batch that brings the epoch to `position`, a number of clips, is the last of its step."""
        number = self.batches.number_at(position)
        return number % self.accumulate == 0 or number == len(self.batches)

    def ends_epoch(self, position: int) -> bool:
        """Whether all clips of the epoch have been trained on at `position`."""
        return position == self.batches.start(len(self.batches))


@dataclass(frozen=True)
class LearnedBatch:
    """The result of one batch, with its labels int64 [N] and `is_real` bool [N]: which rows are clips of the data."""

    result: StepResult
    labels: NDArray[np.int64]
    is_real: NDArray[np.bool_]


@dataclass
class TakenStep:
    """An optimiser step that was taken: its learning rate, its batches on this rank, and what they came with.

    `videos`: the number of each clip's video in the index. `bad`: clips that could not be read. `position`: clips of
    the epoch trained on after this step, of all ranks. `seconds_waited`: for the loader.
    """

    rate: float
    batches: list[LearnedBatch] = field(default_factory=list)
    videos: list[int] = field(default_factory=list)
    bad: list[BadClip] = field(default_factory=list)
    position: int = 0
    seconds_waited: float = 0.0

    @property
    def result(self) -> StepResult:
        """The result of the whole step."""
        return self.batches[-1].result


class Learn(Protocol):
    """Learns from one batch, as `Learner.step` does."""

    def __call__(self, batch: DeviceBatch, rate: float, *, last: bool, place: tuple[int, int]) -> StepResult:
        """The result of a batch; `last`: whether it ends its step; `place`: epoch and position of the batch."""


def steps_of_epoch(
    batches: Iterable[tuple[Batch, DeviceBatch]], plan: EpochPlan, *, rate: Callable[[], float],
    mix: Callable[[Batch], Mix], channels_last: bool, learn: Learn,
) -> Iterator[TakenStep]:  # fmt: skip
    """Take the steps of an epoch, one each time that the next is asked for: mix each batch, then learn from it.

    `batches` are what is left of the epoch, on the model's device. `rate` is asked once a step for the learning rate.
    `mix` says how the clips of a batch are mixed; `channels_last` how they lie. `learn` does the work.
    """
    step: TakenStep | None = None
    for (batch, on_device), seconds in _timed(batches):
        if step is None:
            step = TakenStep(rate())
        mixing, ends_step = mix(batch), plan.ends_step(batch.position)
        mixed = mixing.apply(on_device, channels_last)
        result = learn(mixed, step.rate, last=ends_step, place=(batch.epoch, batch.position))
        step.batches.append(LearnedBatch(result, mixing.labels(batch.labels), batch.is_real))
        step.videos += batch.video_ids.tolist()
        step.bad += batch.bad
        step.position = batch.position
        step.seconds_waited += seconds
        if ends_step:
            yield step
            step = None


def _timed(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each of `items`, with the seconds until it came."""
    asked = time.monotonic()
    for item in items:
        yield item, time.monotonic() - asked
        asked = time.monotonic()
