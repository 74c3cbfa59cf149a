"""What is trained: a model with its optimiser, loss scale and averaged weights, and what a checkpoint keeps of them.

The weights in a checkpoint are those to evaluate, predict with and export. Where `train.ema_decay` is set these are the
averages, and the weights that training goes on with are stored beside the moments, as `NAME|raw`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.draws import below, random_words
from pipelines.loader import ClipLoader
from pipelines.specs import ClipSpec
from r3d_fast.backend.feed import DeviceBatch
from r3d_fast.backend.memory import free_memory
from r3d_fast.backend.paddle import import_paddle, release_graphs
from r3d_fast.backend.precision import Precision, float32_weights
from r3d_fast.backend.snapshot import Arrays, as_arrays
from r3d_fast.config.sections import InitSpec, ModelSpec, OptimizerSpec, TrainSpec
from r3d_fast.evaluation.evaluate import Evaluation, OnBatch, OnClips, evaluate_model
from r3d_fast.learning.ema import Ema
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.optimizer import load_moments, moments, new_optimizer
from r3d_fast.learning.step import StepResult, TrainStep
from r3d_fast.models.architectures import freeze
from r3d_fast.ranks.group import Group
from r3d_fast.weights.checkpoint import Checkpoint
from r3d_fast.weights.stored_model import load_weights, new_model

_RAW = "|raw"


def model_to_train(spec: ModelSpec, num_classes: int, seed: int, init: InitSpec) -> Any:
    """A new model with random weights from `seed`, of which the parts before `init.freeze_until` are not trained."""
    model = new_model(spec, num_classes, seed)
    if init.freeze_until is not None:
        freeze(model, init.freeze_until, statistics=init.frozen_statistics)
    return model


class Learner:
    """A model in training: `step` learns from a batch, `evaluate` tests what was learned."""

    def __init__(
        self, model: Any, optimizer: OptimizerSpec, spec: TrainSpec, precision: Precision, device: str,
        start: Checkpoint | None = None, group: Group | None = None, *, padded_stem: bool = False,
        rows: int | None = None, class_weights: NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        """Train `model`, a new one, in `precision` on `device`; with `start` go on as that checkpoint left it.

        `padded_stem` is for a GPU; see `gpu.accelerate_training`. `rows`: those of a full batch (default: all batches
        have equally many). `class_weights`, float32 [C], are those of TrainStep. The ranks of `group` learn together,
        from the weights of the first. Raises CheckpointError where `start` does not fit the model.
        """
        self.model, self.precision, self.device = model, precision, device
        self.group, self._seed, self._padded_stem = group or Group(), spec.seed, padded_stem
        self.optimizer = new_optimizer(optimizer, model)
        self.scaler = LossScaler(enabled=precision.name == "fp16")
        # Paddle has no moments before its first step: a run resumed at the end of an epoch keeps those it loaded.
        self._loaded: Arrays = {}
        self._taken: tuple[Arrays, Arrays] | None = None  # what `arrays` gave since the last step
        if start is not None:
            raw = {key.removesuffix(_RAW): value for key, value in start.optimizer.items() if key.endswith(_RAW)}
            self._loaded = {key: value for key, value in start.optimizer.items() if not key.endswith(_RAW)}
            load_weights(self.model, {**start.weights, **raw}, "the checkpoint")
            load_moments(self.model, self.optimizer, self._loaded)
            self.scaler.load_state_dict(start.state.get("scaler", {}))
        self.group.copy_first(list(self.model.state_dict().values()))
        self.model, self.optimizer = precision.decorate(self.model, self.optimizer)
        self.ema = None if spec.ema_decay is None else Ema(self.model, spec.ema_decay)
        if self.ema is not None and start is not None:
            self.ema.load(start.weights, int(start.state["ema_updates"]))
        self._step = TrainStep(
            self.model, self.optimizer, precision, self.scaler, device, self.group, forward=self._forward(),
            accumulate=spec.accumulate, label_smoothing=spec.label_smoothing, clip_norm=optimizer.clip_norm,
            rows=rows, class_weights=class_weights,
        )  # fmt: skip

    def _forward(self) -> Any:
        """What computes the model's logits in training."""
        if self.device == "gpu":
            from r3d_fast.acceleration import gpu  # imports Paddle

            gpu.search_algorithms()
            gpu.choose_batch_norm(self.precision, self.model.architecture.data_format)
            return gpu.accelerate_training(self.model, padded_stem=self._padded_stem)
        if self.device != "cpu" or self.precision.name != "fp32":
            return self.model
        from r3d_fast.acceleration.cpu import accelerate_training  # imports Paddle

        return accelerate_training(self.model)

    def step(
        self, batch: DeviceBatch, rate: float, *, last: bool = True, place: tuple[int, int] = (0, 0)
    ) -> StepResult:
        """The result of a batch, which a GPU may still compute; with `last` the step ends, at the learning rate `rate`.

        `place`: epoch and position of the batch; dropout draws its random numbers from them.
        """
        self._taken = None
        self.model.train()
        self.optimizer.set_lr(rate)
        seed_batch(self._seed, *place, self.group.index)
        result = self._step(batch, last)
        if last and self.ema is not None:
            self.ema.update(result.applied_tensor)
        return result

    def undo_begun_step(self) -> None:
        """Undo what a step that was begun, and has not ended, has changed: batches of it will not come."""
        self._step.undo()

    def evaluate(
        self, loader: ClipLoader, on_clips: OnClips | None = None, on_batch: OnBatch | None = None
    ) -> Evaluation:
        """The evaluation on the clips of `loader`, with the averaged weights where there are any.

        `on_clips` and `on_batch` are called as `evaluate_model` does.
        """
        with self._room(), nullcontext() if self.ema is None else self.ema.applied():
            classes = len(loader.index.classes)
            return evaluate_model(
                self.model,
                loader,
                classes,
                self.device,
                on_batch,
                precision=self.precision,
                group=self.group,
                on_clips=on_clips,
            )

    @contextmanager
    def _room(self) -> Iterator[None]:
        """A block in which the memory of training steps on the CPU is free, and after which that of the block is.

        What both keep would add up. The next step takes a fraction of a second more.
        """
        if self.device != "cpu":
            yield
            return
        from r3d_fast.acceleration.cpu import forget_traced  # imports Paddle

        release_graphs()
        free_memory("cpu")
        try:
            yield
        finally:
            forget_traced(self.model)
            free_memory("cpu")

    def arrays(self) -> tuple[Arrays, Arrays]:
        """(weights, moments and all other arrays) for a checkpoint, float32, as they are now.

        The checkpoints that follow the same step share the arrays, which nobody changes.
        """
        if self._taken is None:
            self._taken = self._copies()
        return self._taken

    def _copies(self) -> tuple[Arrays, Arrays]:
        if self.device == "cpu":
            free_memory("cpu")  # what malloc keeps for the next step would add to the copies
        weights = as_arrays(float32_weights(self.model))
        rest = {**self._loaded, **moments(self.model, self.optimizer)}
        if self.ema is None:
            return weights, rest
        return self.ema.arrays(), {**rest, **{name + _RAW: array for name, array in weights.items()}}

    def state(self) -> dict[str, Any]:
        """What else a checkpoint keeps of the learner, as JSON values."""
        averaged = {} if self.ema is None else {"ema_updates": self.ema.updates}
        layout = {"data_format": self.model.architecture.data_format, "padded_stem": self._padded_stem}
        return {"precision": str(self.precision), "layout": layout, "scaler": self.scaler.state_dict(), **averaged}


def step_on_noise(learner: Learner, rows: int, clip: ClipSpec, size_px: int) -> Callable[[], StepResult]:
    """A function that takes a training step of `learner` on the same `rows` clips of random numbers each time."""
    paddle = import_paddle()
    spec, classes = learner.model.architecture, learner.model.head.fc.bias.shape[0]
    video = [clip.num_frames, size_px, size_px]
    video.insert(0 if spec.data_format == "NCDHW" else 3, 3)
    clips = paddle.randn([rows, *video]).astype(learner.precision.clip_dtype)
    batch = DeviceBatch(clips, paddle.arange(rows) % classes, paddle.full([rows], 1.0 / rows))
    return lambda: learner.step(batch, learner.optimizer.get_lr())


_STREAM = 102  # number of this stream of Philox words; those of the sampler are lower, that of mixing is 101


def seed_batch(seed: int, epoch: int, position: int, rank: int = 0) -> None:
    """Seed Paddle's generator for the batch at `position` of `epoch`, for what dropout draws in it.

    So a resumed run draws the same numbers as one that was never stopped, and each rank drops other features. The state
    of the generator can't go into a checkpoint instead: on the CPU Paddle 2.6 gives only its seed, and what
    `paddle.get_rng_state` returns there can't be written to a file (paddle/fluid/pybind/generator_py.cc).
    """
    # 31 bits: CPU generators use 32 of a seed (seed_seq in paddle/phi/core/generator.cc).
    import_paddle().seed(int(below(random_words(1, seed, epoch, position, rank, _STREAM), 2**31)[0]))
