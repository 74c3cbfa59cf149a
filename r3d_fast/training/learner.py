"""What learns: a model with its optimiser, loss scale and average, and what a checkpoint keeps of them.

A checkpoint's weights are those to evaluate, predict with and export: the averages where `train.ema_decay` is set. The
weights that training goes on with are then among the rest, as `NAME|raw`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from pipelines.draws import below, random_words
from pipelines.loader import ClipLoader
from r3d_fast.backend.feed import Fed
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import Precision, float32_weights
from r3d_fast.backend.snapshot import Arrays, as_arrays
from r3d_fast.config.config import Config
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


class Learner:
    """A model in training. `load` comes before the first step, if at all."""

    def __init__(
        self, config: Config, num_classes: int, precision: Precision, device: str, start: Checkpoint | None = None,
        group: Group | None = None, begin: Callable[[Any], None] | None = None,
    ) -> None:  # fmt: skip
        """A new model of `config`, whose data format is settled; with `start` as that checkpoint left it.

        `begin` gives a new model the weights it starts from, on the first rank, which has the file. It learns from the
        gradients of all ranks of `group`. Raises CheckpointError where `start` does not fit.
        """
        self.num_classes, self.precision, self.device = num_classes, precision, device
        self.group, self._seed = group or Group(), config.train.seed
        self.model = new_model(config, num_classes)
        if config.init.freeze_until is not None:
            freeze(self.model, config.init.freeze_until)
        self.optimizer = new_optimizer(config, self.model)
        self.scaler = LossScaler(enabled=precision.name == "fp16")
        # Paddle has no moments before its first step: a run resumed at the end of an epoch keeps those it loaded.
        self._loaded: Arrays = {}
        if start is not None:
            raw = {key.removesuffix(_RAW): value for key, value in start.optimizer.items() if key.endswith(_RAW)}
            self._loaded = {key: value for key, value in start.optimizer.items() if not key.endswith(_RAW)}
            load_weights(self.model, {**start.weights, **raw}, "the checkpoint")
            load_moments(self.model, self.optimizer, self._loaded)
            self.scaler.load_state_dict(start.state.get("scaler", {}))
        elif begin is not None:
            if self.group.is_first:
                begin(self.model)
            self.group.exchange(None)  # where that failed, the others hear of it here
        self.group.copy_first(list(self.model.state_dict().values()))
        self.model, self.optimizer = precision.decorate(self.model, self.optimizer)
        train = config.train
        self.ema = None if train.ema_decay is None else Ema(self.model, train.ema_decay)
        if self.ema is not None and start is not None:
            self.ema.load(start.weights, int(start.state["ema_updates"]))
        self._step = TrainStep(
            self.model, self.optimizer, precision, self.scaler, device, self.group, forward=self._forward(),
            accumulate=train.accumulate, label_smoothing=train.label_smoothing, clip_norm=config.optimizer.clip_norm,
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
            return evaluate_model(
                self.model, loader, self.num_classes, self.device, precision=self.precision, group=self.group
            )

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
