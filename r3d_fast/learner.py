"""What learns: a model with its optimiser and loss scale, and what a checkpoint keeps of them."""

from __future__ import annotations

from typing import Any

from pipelines.loader import ClipLoader
from r3d_fast.checkpoint import Arrays, Checkpoint, as_arrays
from r3d_fast.config import Config
from r3d_fast.distributed import Group
from r3d_fast.evaluate import Evaluation, evaluate_model
from r3d_fast.feed import Fed
from r3d_fast.optim import load_moments, moments, new_optimizer
from r3d_fast.precision import LossScaler, Precision, float32_weights
from r3d_fast.restore import load_weights, new_model
from r3d_fast.step import StepResult, TrainStep


class Learner:
    """A model in training. `load` comes before the first step, if at all."""

    def __init__(
        self, config: Config, num_classes: int, precision: Precision, device: str, start: Checkpoint | None = None,
        group: Group | None = None,
    ) -> None:  # fmt: skip
        """A new model of `config`, whose data format is settled; with `start` as that checkpoint left it.

        It learns from the gradients of all ranks of `group`. Raises CheckpointError where `start` does not fit.
        """
        self.num_classes, self.precision, self.device = num_classes, precision, device
        self.model = new_model(config, num_classes)
        self.optimizer = new_optimizer(config, self.model)
        self.scaler = LossScaler(enabled=precision.name == "fp16")
        # Paddle has no moments before its first step: a run resumed at the end of an epoch keeps those it loaded.
        self._loaded: Arrays = {}
        if start is not None:
            load_weights(self.model, start.weights, "the checkpoint")
            load_moments(self.model, self.optimizer, start.optimizer)
            self.scaler.load_state_dict(start.state.get("scaler", {}))
            self._loaded = start.optimizer
        self.group = group or Group()
        self.group.copy_first(list(self.model.state_dict().values()))
        self.model, self.optimizer = precision.decorate(self.model, self.optimizer)
        self._step = TrainStep(
            self.model, self.optimizer, precision, self.scaler, device, self.group, forward=self._forward()
        )

    def _forward(self) -> Any:
        """What computes the model's logits in training."""
        if self.device != "cpu" or self.precision.name != "fp32":
            return self.model
        from r3d_fast.cpu import accelerate_training  # imports Paddle

        return accelerate_training(self.model)

    def step(self, fed: Fed, rate: float) -> StepResult:
        """The result of a step on `fed` at the learning rate `rate`."""
        self.model.train()
        self.optimizer.set_lr(rate)
        return self._step(fed)

    def evaluate(self, loader: ClipLoader) -> Evaluation:
        """The evaluation over one pass of `loader`."""
        return evaluate_model(
            self.model, loader, self.num_classes, self.device, precision=self.precision, group=self.group
        )

    def arrays(self) -> tuple[Arrays, Arrays]:
        """(weights, everything else) as arrays of their own, float32."""
        return as_arrays(float32_weights(self.model)), {**self._loaded, **moments(self.model, self.optimizer)}

    def state(self) -> dict[str, Any]:
        """What else a checkpoint keeps, as JSON values."""
        return {"precision": str(self.precision), "scaler": self.scaler.state_dict()}
