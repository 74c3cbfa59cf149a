"""The batches of an epoch become steps, one at a time, each with the rate of its beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.batches import EpochBatches
from pipelines.loader import BadClip, Batch
from r3d_fast.backend.feed import DeviceBatch, feed
from r3d_fast.learning.mixing import Mix
from r3d_fast.learning.step import StepResult
from r3d_fast.training.epoch import EpochPlan, steps_of_epoch


def batches(count: int, rows: int = 2) -> list[tuple[Batch, DeviceBatch]]:
    made = []
    for number in range(count):
        clips = np.full((rows, 3, 2, 4, 4), number, np.float32)
        videos, bad = np.arange(rows) + number * rows, (BadClip(number, "gone"),) if number == 1 else ()
        batch = Batch(clips, np.arange(rows), videos, np.ones(rows, bool), 3, (number + 1) * rows, bad)
        made.append((batch, feed(batch, "cpu")))
    return made


@pytest.mark.parametrize(
    ("accumulate", "ends"), [(1, [2, 4, 6, 8, 10]), (2, [4, 8, 10]), (5, [10]), (7, [10])], ids=str
)
def test_an_epoch_is_divided_into_steps_and_the_last_takes_what_is_left(accumulate: int, ends: list[int]) -> None:
    plan = EpochPlan(EpochBatches(10, 2), accumulate)
    assert plan.steps == len(ends)
    assert [position for position in range(2, 11, 2) if plan.ends_step(position)] == ends
    assert [position for position in range(0, 11, 2) if plan.ends_epoch(position)] == [10]


def test_steps_are_taken_one_at_a_time_and_know_their_batches() -> None:
    learned: list[tuple[Any, ...]] = []
    rates = iter((0.3, 0.2, 0.1))

    def learn(batch: DeviceBatch, rate: float, *, last: bool, place: tuple[int, int]) -> StepResult:
        learned.append((float(batch.clips.mean()), rate, last, place))
        return StepResult(None, None, last)

    steps = steps_of_epoch(
        batches(5), EpochPlan(EpochBatches(10, 2), 2), rate=lambda: next(rates), mix=lambda batch: Mix(np.arange(2)),
        channels_last=False, learn=learn,
    )  # fmt: skip
    first = next(steps)
    assert learned == [(0.0, 0.3, False, (3, 2)), (1.0, 0.3, True, (3, 4))]  # and nothing beyond the step
    assert (first.rate, first.position, first.videos) == (0.3, 4, [0, 1, 2, 3])
    assert first.bad == [BadClip(1, "gone")]
    assert first.result is first.batches[-1].result
    rest = list(steps)
    assert [(step.rate, step.position, len(step.batches), step.bad) for step in rest] == [
        (0.2, 8, 2, []),
        (0.1, 10, 1, []),
    ]
    assert [last for _, _, last, _ in learned] == [False, True, False, True, True]


def test_what_is_learned_from_is_mixed_and_counts_against_the_greater_share() -> None:
    seen = []

    def learn(batch: DeviceBatch, rate: float, *, last: bool, place: tuple[int, int]) -> StepResult:
        seen.append(batch.others.tolist())
        return StepResult(None, None, True)

    (step,) = steps_of_epoch(
        batches(1), EpochPlan(EpochBatches(2, 2), 1), rate=lambda: 1.0, mix=lambda batch: Mix(np.array([1, 0]), 0.25),
        channels_last=False, learn=learn,
    )  # fmt: skip
    assert seen == [[1, 0]]
    assert step.batches[0].labels.tolist() == [1, 0]
