"""The exponential moving average of a model's weights, which is evaluated and stored in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import float32_weights
from r3d_fast.backend.snapshot import Arrays, as_arrays
from r3d_fast.errors import CheckpointError


class Ema:
    """Averages of a model's float32 weights and of the statistics of its batch norms, over applied steps.

    average = d * average + (1 - d) * weight, where d = min(decay, (1 + n) / (10 + n)) at step n (from 0). In the first
    steps d is small, so that the average soon forgets the untrained weights. The rule is that of TensorFlow's
    ExponentialMovingAverage with num_updates, as EfficientNet's training code uses it (Tan and Le 2019,
    arXiv:1905.11946). Running statistics are averaged too: those of the newest weights would not fit averaged ones.
    """

    def __init__(self, model: Any, decay: float) -> None:
        """Begin the averages at the weights of `model`, for which `Precision.decorate` was called."""
        self.decay = decay
        self._updates = import_paddle().zeros([1], "int64")
        self._live = float32_weights(model)
        self._halves = [parameter for parameter in model.parameters() if hasattr(parameter, "master")]
        with import_paddle().no_grad():
            self._averages = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @property
    def updates(self) -> int:
        """Steps that the averages include so far."""
        return int(self._updates.item())

    def update(self, applied: Any = True) -> None:
        """Include the weights after a step, if it was `applied`: bool, or bool [1] on the device, which is not read."""
        paddle = import_paddle()
        with paddle.no_grad():
            applied = paddle.to_tensor([applied]) if isinstance(applied, bool) else applied
            count = self._updates.astype("float32")
            decay = paddle.clip((1.0 + count) / (10.0 + count), max=self.decay)
            gain = paddle.where(applied, 1.0 - decay, paddle.zeros_like(decay))
            self._updates = self._updates + applied.astype("int64")
            for name, tensor in self._live.items():
                average = self._averages[name]
                # As average + (weight - average) * (1 - d), so that what doesn't move stays the same to the bit.
                paddle.assign(average + (tensor - average) * gain.reshape([1] * average.ndim), output=average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A `with` block in which the model's weights are the averages."""
        paddle = import_paddle()
        with paddle.no_grad():
            kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        try:
            self._put(self._averages)
            yield
        finally:
            self._put(kept)

    def arrays(self) -> Arrays:
        """The averages by the model's own names, float32."""
        return as_arrays(self._averages)

    def load(self, averages: Arrays, updates: int) -> None:
        """Go on from what `arrays` returned after `updates` steps. Raises CheckpointError where names differ."""
        paddle = import_paddle()
        if averages.keys() != self._averages.keys():
            different = sorted(averages.keys() ^ self._averages.keys())
            raise CheckpointError(f"the averaged weights don't fit the model: {', '.join(different[:10])}")
        with paddle.no_grad():
            self._updates = paddle.full([1], updates, "int64")
            for name, average in self._averages.items():
                paddle.assign(paddle.to_tensor(averages[name]), output=average)

    def _put(self, weights: dict[str, Any]) -> None:
        paddle = import_paddle()
        with paddle.no_grad():
            for name, tensor in self._live.items():
                paddle.assign(weights[name], output=tensor)
            for half in self._halves:
                paddle.assign(half.master.astype(half.dtype), output=half)
