"""What learns: a model with its optimiser, loss scale and average, and what a checkpoint keeps of them.

A checkpoint's weights are those to evaluate, predict with and export: the averages where `train.ema_decay` is set. The
weights that training goes on with are then among the rest, as `NAME|raw`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from pipelines.draws import below, random_words
from pipelines.loader import ClipLoader
from r3d_fast.backend.feed import Fed
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import Precision, float32_weights
from r3d_fast.backend.snapshot import Arrays, as_arrays
from r3d_fast.config.sections import ModelSpec, OptimizerSpec, TrainSpec
from r3d_fast.evaluation.evaluate import Evaluation, evaluate_model
from r3d_fast.models.architectures import freeze
from r3d_fast.ranks.group import Group
from r3d_fast.training.ema import Ema
from r3d_fast.training.loss_scale import LossScaler
from r3d_fast.training.optimizer import load_moments, moments, new_optimizer
from r3d_fast.training.step import StepResult, TrainStep
from r3d_fast.weights.checkpoint import Checkpoint
from r3d_fast.weights.stored_model import load_weights, new_model

_RAW = "|raw"


def model_to_train(spec: ModelSpec, num_classes: int, seed: int, freeze_until: str | None) -> Any:
    """A new model, its weights drawn under `seed`; the parts before `freeze_until` are not trained (None: all are)."""
    model = new_model(spec, num_classes, seed)
    if freeze_until is not None:
        freeze(model, freeze_until)
    return model


class Learner:
    """A model in training: `step` learns from a batch, `evaluate` tests what was learned."""

    def __init__(
        self, model: Any, optimizer: OptimizerSpec, spec: TrainSpec, precision: Precision, device: str,
        start: Checkpoint | None = None, group: Group | None = None,
    ) -> None:  # fmt: skip
        """Train `model`, a new one, in `precision` on `device`; with `start` go on as that checkpoint left it.

        The ranks of `group` learn together, from the weights of the first. Raises CheckpointError where `start` does
        not fit the model.
        """
        self.model, self.precision, self.device = model, precision, device
        self.group, self._seed = group or Group(), spec.seed
        self.optimizer = new_optimizer(optimizer, model)
        self.scaler = LossScaler(enabled=precision.name == "fp16")
        # Paddle has no moments before its first step: a run resumed at the end of an epoch keeps those it loaded.
        self._loaded: Arrays = {}
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
        )  # fmt: skip

    def _forward(self) -> Any:
        """What computes the model's logits in training."""
        if self.device == "gpu":
            from r3d_fast.acceleration import gpu  # imports Paddle

            gpu.search_algorithms()
            return gpu.accelerate_training(self.model)
        if self.device != "cpu" or self.precision.name != "fp32":
            return self.model
        from r3d_fast.acceleration.cpu import accelerate_training  # imports Paddle

        return accelerate_training(self.model)

    def step(self, fed: Fed, rate: float, *, last: bool = True, place: tuple[int, int] = (0, 0)) -> StepResult:
        """The result of a batch, with `last` of a step at the learning rate `rate`; a GPU may still be at work on it.

        `place`: epoch and position of the batch, on which it depends what dropout drops.
        """
        self.model.train()
        self.optimizer.set_lr(rate)
        seed_batch(self._seed, *place, self.group.index)
        result = self._step(fed, last)
        if last and self.ema is not None:
            self.ema.update(result.applied_tensor)
        return result

    def evaluate(self, loader: ClipLoader) -> Evaluation:
        """The evaluation over one pass of `loader`, of the averaged weights where there are any."""
        with nullcontext() if self.ema is None else self.ema.applied():
            classes = len(loader.index.classes)
            return evaluate_model(self.model, loader, classes, self.device, precision=self.precision, group=self.group)

    def arrays(self) -> tuple[Arrays, Arrays]:
        """(weights, everything else) as snapshots, float32."""
        weights = as_arrays(float32_weights(self.model))
        rest = {**self._loaded, **moments(self.model, self.optimizer)}
        if self.ema is None:
            return weights, rest
        return self.ema.arrays(), {**rest, **{name + _RAW: array for name, array in weights.items()}}

    def state(self) -> dict[str, Any]:
        """What else a checkpoint keeps, as JSON values."""
        averaged = {} if self.ema is None else {"ema_updates": self.ema.updates}
        return {"precision": str(self.precision), "scaler": self.scaler.state_dict(), **averaged}


_STREAM = 102  # of Philox words; those of the sampler have lower numbers, that of mixing is 101


def seed_batch(seed: int, epoch: int, position: int, rank: int = 0) -> None:
    """Make what the batch at `position` of `epoch` draws (dropout) follow from these and `seed`, whatever came before.

    So a resumed run draws as the uninterrupted one, and each rank drops other features. The generator's own state can't
    go into a checkpoint: on the CPU 2.6 gives only its seed out, and what `paddle.get_rng_state` returns there can't be
    written down (paddle/fluid/pybind/generator_py.cc).
    """
    # 31 bits: CPU generators use 32 of a seed (seed_seq in paddle/phi/core/generator.cc).
    import_paddle().seed(int(below(random_words(1, seed, epoch, position, rank, _STREAM), 2**31)[0]))
