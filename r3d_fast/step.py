"""One step of training: forward, backward, update, or no trace of it where the numbers are none."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem
from r3d_fast.compat import import_paddle, is_out_of_memory
from r3d_fast.distributed import Group
from r3d_fast.feed import Fed
from r3d_fast.precision import LossScaler, Precision, float32_parameters


class StepResult(NamedTuple):
    """What a step gave.

    `loss`: mean cross entropy over the real rows of all ranks, NaN where any score is no number; `logits` float32
    [N, C] of this rank; `applied`: whether weights moved.
    """

    loss: float
    logits: NDArray[np.float32]
    applied: bool


class TrainStep:
    """`step(fed)` takes one step of `optimizer` on a batch, in `precision`, the loss scaled by `scaler`.

    A loss that is not a number or a gradient that is not finite moves nothing: neither weights nor moments nor the
    running statistics of batch norms. `precision.decorate` comes before.

    The ranks of `group` step together: gradients are the mean over all their real rows, running statistics the mean of
    theirs, and a step moves all or none. So they stay equal, to the last bit.
    """

    def __init__(
        self, model: Any, optimizer: Any, precision: Precision, scaler: LossScaler, device: str,
        group: Group | None = None, forward: Any = None,
    ) -> None:  # fmt: skip
        """`forward` computes the logits of `model` (default: the model itself)."""
        self.group, self._forward = group or Group(), forward or model
        self.model, self.optimizer = model, optimizer
        self.precision, self.scaler, self.device = precision, scaler, device
        self._parameters = list(float32_parameters(model).values())
        self._halves = [parameter for parameter in model.parameters() if hasattr(parameter, "master")]
        # Paddle keeps them among the parameters.
        self._statistics = [t for key, t in model.state_dict().items() if key.endswith(("._mean", "._variance"))]

    def __call__(self, fed: Fed) -> StepResult:
        """The result of a step on `fed`. Raises EnvironmentProblem, with the batch size that fits, out of memory."""
        try:
            return self._take(fed)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error)
        # Outside the handler: the traceback holds every activation of the failed step.
        size = int(fed.clips.shape[0])
        fits = fitting_batch(lambda rows: self._try(fed, rows), size, self._free)
        raise out_of_memory(said, self.device, size, fits, "loader.batch_size", self.group.count)

    def _take(self, fed: Fed) -> StepResult:
        paddle = import_paddle()
        with paddle.no_grad():
            kept = [tensor.clone() for tensor in self._statistics]
        loss, logits = self._backward(fed)
        scores = logits.numpy()
        # The scores are asked too: Paddle's cross entropy on the CPU gives a number for scores that are none.
        value = float(loss) if np.isfinite(scores).all() else float("nan")
        rows = int((fed.weights > 0).sum()) if self.group.count > 1 else 1
        value, share = self.group.weigh(value, rows)
        applied = bool(np.isfinite(value)) and self._update(share)
        if not applied:
            with paddle.no_grad():
                for tensor, before in zip(self._statistics, kept, strict=True):
                    paddle.assign(before, output=tensor)
        self._clear()
        return StepResult(value, scores, applied)

    def _backward(self, fed: Fed) -> tuple[Any, Any]:
        """(loss, logits float32 [N, C]); the gradients of the scaled loss are there afterwards."""
        functional = import_paddle().nn.functional
        logits = self.precision.forward(self._forward, fed.clips)
        losses = functional.cross_entropy(logits, fed.labels, reduction="none").reshape([-1])
        loss = (losses * fed.weights).sum()
        self.scaler.scale_loss(loss).backward()
        return loss.detach(), logits.detach()

    def _update(self, share: float = 1.0) -> bool:
        """Move the weights, unless a gradient is not finite; whether they moved. `share`: of the rows, of this rank."""
        paddle = import_paddle()
        with paddle.no_grad():
            for half in self._halves:
                if half.grad is not None:
                    # The loss scale is taken out of float32 gradients: in float16 the small ones would vanish.
                    half.master.grad = half.grad.astype("float32")
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self.group.average(gradients, share, self._statistics)
        finite = self.scaler.unscale(gradients)
        self.scaler.update(finite)
        if finite:
            self.optimizer.step()
            with paddle.no_grad():
                for half in self._halves:
                    paddle.assign(half.master.astype(half.dtype), output=half)
        return finite

    def _clear(self) -> None:
        self.optimizer.clear_grad()
        for half in self._halves:
            half.clear_gradient(False)

    def _try(self, fed: Fed, rows: int) -> None:
        """Forward and backward of `rows` blank clips like those of `fed`."""
        paddle = import_paddle()
        clips = paddle.zeros([rows, *fed.clips.shape[1:]], dtype=fed.clips.dtype)
        self._backward(Fed(clips, paddle.zeros([rows], dtype="int64"), paddle.ones([rows]) / rows))

    def _free(self) -> None:
        self._clear()
        free_memory(self.device)


def free_memory(device: str) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device == "gpu":
        import_paddle().device.cuda.empty_cache()


def fitting_batch(attempt: Callable[[int], None], size: int, free: Callable[[], None]) -> int:
    """The first of size/2, size/4, ... rows for which `attempt` has memory enough, 0 if not even one row fits."""
    while size := size // 2:
        free()
        try:
            attempt(size)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            break
    free()
    return size


def out_of_memory(said: str, device: str, size: int, fits: int, key: str, ranks: int = 1) -> EnvironmentProblem:
    """The problem to raise where a batch of `size` did not fit and one of `fits` did, on one of so many `ranks`.

    `said` is Paddle's message.
    """
    size, fits = size * ranks, fits * ranks  # config values are those of all ranks together
    wanted = re.search(r"Cannot allocate ([\d.]+\s?[A-Za-z]+)", said)
    more = f" ({wanted[1]} more were asked for)" if wanted else ""
    apart = "; evaluation has a batch size of its own" if key.startswith("eval.") else ""
    if fits:
        advice = f"a batch of {fits} fits: -o {key}={fits}{apart}"
    else:
        advice = "not even one clip fits: choose a smaller model.width, clip.num_frames or augment.size_px"
    return EnvironmentProblem(
        f"out of memory on the {device.upper()}: a batch of {size} clips does not fit{more}; {advice}"
    )
