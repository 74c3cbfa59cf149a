"""What `bench train throughput` measures: the model alone, the loader alone, and training, one batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from bench.loader.contenders import endless
from bench.loader.handover import ClipsInfo, wait_for
from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING
from pipelines.errors import UsageError
from pipelines.loader import Batch, ClipLoader
from pipelines.specs import DEFAULT_BATCH
from r3d_fast.backend.feed import DeviceBatch, feeding
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import Config
from r3d_fast.errors import DivergedError
from r3d_fast.learning.learner import Learner, model_to_train
from r3d_fast.learning.step import StepResult


class TrainedModel:
    """A model and its optimiser: `feeding` puts batches on the device, `step` trains on what was fed."""

    def __init__(
        self, config: Config, num_classes: int, device: str, precision: Precision, *, padded_stem: bool = False
    ) -> None:
        """A new model of `config`; `padded_stem` as `gpu.accelerate_training` takes it."""
        self.device, self._rate = device, config.optimizer.lr
        model = model_to_train(config.model, num_classes, config.train.seed, config.init)
        self._learner = Learner(model, config.optimizer, config.train, precision, device, padded_stem=padded_stem)

    def feeding(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, DeviceBatch]]:
        """Each batch and what `step` takes: the batch on the device, as training feeds it."""
        return feeding(batches, self.device)

    def step(self, fed: DeviceBatch) -> StepResult:
        """One step; a GPU may still be at work on it, and whoever reads the result waits for that."""
        return self._learner.step(fed, self._rate)


class SyntheticContender:
    """The model trained on one batch that lies on the device already: what no loader can beat."""

    name = SYNTHETIC

    def __init__(self, model: TrainedModel, batch: Batch) -> None:
        self.losses: list[float] = []
        # Held for as long as it is trained on: what was fed may share its memory.
        self._pairs = model.feeding(iter([batch]))
        self._model, (self.batch, self._fed) = model, next(self._pairs)
        self._seconds = 0.0

    @property
    def learns(self) -> bool:
        """Whether the loss has been below the first one."""
        return min(self.losses[1:], default=math.inf) < self.losses[0]

    def make(self, batches: int) -> int:
        """Clips trained on, after `batches` more steps."""
        begin = perf_counter()
        results = [self._model.step(self._fed) for _ in range(batches)]
        self.losses += [result.loss for result in results]
        self._seconds += perf_counter() - begin
        return batches * len(self.batch.labels)

    def costs(self) -> dict[str, float]:
        """Seconds in steps so far, and their number."""
        return {"step_seconds": self._seconds, "steps": len(self.losses)}

    def close(self) -> None:
        """End nothing: it has no processes."""


class LoaderContender:
    """The clip loader, whose clips nobody uses: what no model can beat."""

    name = LOADER

    def __init__(self, loader: ClipLoader) -> None:
        self._loader, self._batches = loader, endless(loader)

    def make(self, batches: int) -> int:
        """Clips made, after `batches` more batches, each ready on its device."""
        return sum(wait_for(next(self._batches).clips).shape[0] for _ in range(batches))

    def costs(self) -> dict[str, float]:
        """Bytes of file read so far."""
        return {"bytes_read": self._loader.statistics.bytes_read}

    def close(self) -> None:
        """End its processes."""
        self._loader.close()


class TrainingContender:
    """Clips from the loader into training steps, as `r3d-fast train` does."""

    name = TRAINING

    def __init__(self, model: TrainedModel, loader: ClipLoader) -> None:
        self.losses: list[float] = []
        self._model, self._loader, self._pairs = model, loader, model.feeding(endless(loader))
        self._waited = self._seconds = 0.0

    def make(self, batches: int) -> int:
        """Clips trained on, after `batches` more steps."""
        clips, waited, start, results = 0, 0.0, perf_counter(), []
        for _ in range(batches):
            begin = perf_counter()
            batch, fed = next(self._pairs)  # as the training loop counts it: until the batch is on the device
            waited += perf_counter() - begin
            results.append(self._model.step(fed))
            clips += len(batch.labels)
        self.losses += [result.loss for result in results]
        self._waited += waited
        self._seconds += perf_counter() - start - waited
        return clips

    def costs(self) -> dict[str, float]:
        """Seconds of waits for data and in steps so far, the number of steps, bytes of file read."""
        return {
            "waited_seconds": self._waited,
            "step_seconds": self._seconds,
            "steps": len(self.losses),
            "bytes_read": self._loader.statistics.bytes_read,
        }

    def close(self) -> None:
        """End its loader's processes."""
        self._loader.close()


def check_batch(batch: Batch, config: Config, device: str, dtype: str) -> None:
    """Raise UsageError where a batch is not what the model of `config` was promised."""
    size, side = config.loader.batch_size_or(DEFAULT_BATCH), config.augment.size_px
    inner = (3, config.clip.num_frames, side, side)
    shape = (size, *(inner if config.augment.layout == "NCTHW" else (*inner[1:], 3)))
    found, wanted = wait_for(batch.clips), ClipsInfo(device != "cpu", shape, dtype)
    if found != wanted:
        raise UsageError(f"the loader gives {found}; expected {wanted}")
    if batch.labels.shape != (size,) or batch.labels.dtype != np.int64 or not batch.is_real.any():
        raise UsageError(f"the loader gives labels {batch.labels.dtype} {batch.labels.shape}, none of them real")


def check_losses(contender: Any) -> None:
    """Raise DivergedError where a loss of a SyntheticContender or TrainingContender is no number.

    One batch trained on again and again has to be learnt: a SyntheticContender's loss has to fall below its first.
    """
    losses = contender.losses
    wrong = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
    if wrong:
        raise DivergedError(
            f"{contender.name}: the loss of step {wrong[0] + 1} of {len(losses)} is no number, so its speed means "
            "nothing; lower the rate with -o optimizer.lr=..."
        )
    if isinstance(contender, SyntheticContender) and not contender.learns:
        raise DivergedError(
            f"{contender.name}: the loss of one batch, {losses[0]:.4g} at first, did not fall in {len(losses)} steps; "
            "lower the rate with -o optimizer.lr=..."
        )
