"""What training, the model alone and the loader alone count, and what is checked of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bench_process import SMALL

from bench.training import trainers
from bench.training.training_throughput import TrainingSettings, configs_of
from pipelines.errors import UsageError
from pipelines.loader import Batch
from r3d_fast.errors import DivergedError


class Clock:
    """Time that only the things that are measured let pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> None:
        self.now += seconds


def batch() -> Batch:
    clips = np.zeros((3, 3, 4, 32, 32), np.float32)
    return Batch(clips, np.zeros(3, np.int64), np.zeros(3, np.int64), np.ones(3, bool), 0, 3, ())


def test_waits_for_data_and_steps_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(trainers, "perf_counter", clock)

    class Loader:
        statistics = SimpleNamespace(bytes_read=77)

        def __iter__(self) -> Iterator[Batch]:
            for _ in range(2):
                clock.takes(3.0)
                yield batch()

    class Model:
        def feeding(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Batch]]:
            for fed in batches:
                clock.takes(0.5)
                yield fed, fed

        def step(self, _: Batch) -> SimpleNamespace:
            clock.takes(1.0)
            return SimpleNamespace(loss=1.0)

    contender = trainers.TrainingContender(Model(), Loader())  # type: ignore[arg-type]
    assert contender.make(5) == 15  # over the end of two epochs
    assert contender.costs() == {"waited_seconds": 17.5, "step_seconds": 5.0, "steps": 5, "bytes_read": 77}
    alone = trainers.SyntheticContender(Model(), batch())  # type: ignore[arg-type]
    assert alone.make(4) == 12
    assert alone.costs() == {"step_seconds": 4.0, "steps": 4}  # fed once, before


def test_batches_and_losses_are_checked_first() -> None:
    (config,) = configs_of(TrainingSettings(overrides=SMALL, batch_size=3)).values()
    trainers.check_batch(batch(), config, "cpu", "float32")
    other = config.model_copy(update={"augment": config.augment.model_copy(update={"layout": "NTHWC"})})
    wrongs = [
        (batch(), config, "gpu", "float32"),
        (batch(), config, "cpu", "float16"),
        (batch(), other, "cpu", "float32"),
        (replace(batch(), labels=np.zeros(2, np.int64)), config, "cpu", "float32"),
        (replace(batch(), is_real=np.zeros(3, bool)), config, "cpu", "float32"),
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(UsageError, match="the loader gives"):
            trainers.check_batch(*wrong)
    synthetic = trainers.SyntheticContender(SimpleNamespace(feeding=lambda batches: ((b, b) for b in batches)), batch())  # type: ignore[arg-type]
    for losses, message in (
        ([2.0, math.nan, 1.0], "the loss of step 2 of 3 is no number"),
        ([2.0, 2.5, 2.0], "the loss of one batch, 2 at first, did not fall in 3 steps"),
    ):
        synthetic.losses = losses
        with pytest.raises(DivergedError, match=message):
            trainers.check_losses(synthetic)
    synthetic.losses = [2.0, 2.5, 1.9]
    trainers.check_losses(synthetic)
