"""One step of training: forward, backward, update. A step whose loss or gradients are not finite changes nothing.

On a GPU the host only starts the work and waits for nothing; the results stay there until somebody reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.backend.feed import DeviceBatch
from r3d_fast.backend.memory import free_memory, run_batch
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import Precision, float32_parameters
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.optimizer import can_be_undone, clip_gradients, moment_tensors
from r3d_fast.ranks.group import Group


class StepResult:
    """The loss and logits of a batch, and what its step did. They stay on the device: the first read waits for it.

    A batch that does not end its step has the loss of that batch alone, and has not changed the weights yet.
    """

    def __init__(
        self, loss: Any, logits: Any, applied: Any, grad_norm: Any = None, scale: Any = None, collapsed: Any = None
    ) -> None:
        self._loss, self._logits, self._norm = loss, logits, grad_norm
        self._scale, self._collapsed = scale, collapsed
        self.applied_tensor = applied  # bool or bool [1]

    @cached_property
    def loss(self) -> float:
        """The mean loss over the real rows of all ranks; NaN where any logit is not finite."""
        return float(self._loss.item())

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The logits float32 [N, C] of this rank's last batch."""
        logits: NDArray[np.float32] = self._logits.numpy()
        return logits

    @cached_property
    def applied(self) -> bool:
        """Whether the step changed the weights."""
        return bool(self.applied_tensor if isinstance(self.applied_tensor, bool) else self.applied_tensor.item())

    @cached_property
    def grad_norm(self) -> float | None:
        """The L2 norm of all gradients before clipping; None where they are not clipped."""
        return None if self._norm is None else float(self._norm.item())

    @cached_property
    def loss_scale(self) -> float:
        """The loss scale after the step."""
        return 1.0 if self._scale is None else float(self._scale.item())

    @cached_property
    def is_hopeless(self) -> bool:
        """Whether no loss scale can mend the step: the loss, or gradients at the smallest scale, are not finite."""
        return not np.isfinite(self.loss) or (self._collapsed is not None and bool(self._collapsed.item()))


class TrainStep:
    """Called with a batch, takes one step of `optimizer` on it, in `precision`, with the loss scale of `scaler`.

    With `accumulate` k a step has up to k batches: `step(batch, last=False)` for all but its last one. The loss is the
    mean over the real rows of all of them. So the step is that of one batch as large as all together, except that batch
    norms see each batch alone.

    Where the loss or a gradient of any of the batches is not finite, the step changes nothing: no weights, no moments,
    no running statistics of batch norms.

    The ranks of `group` step together: gradients are the mean over the real rows of all ranks, running statistics the
    mean over the ranks, and either all ranks change their weights or none does. So they stay equal to the last bit.
    """

    def __init__(
        self, model: Any, optimizer: Any, precision: Precision, scaler: LossScaler, device: str,
        group: Group | None = None, *, forward: Any = None, accumulate: int = 1, label_smoothing: float = 0.0,
        clip_norm: float | None = None, deferred: bool | None = None, rows: int | None = None,
        class_weights: NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        """Train `model`, for which `precision.decorate` was called; `forward` computes its logits (default: itself).

        `rows`: those of a full batch, on every rank (default: all batches have equally many). `deferred`: the device
        itself decides whether a step is applied, and the host never waits to ask (default: on a GPU). `class_weights`,
        float32 [C]: by what the loss of a clip is multiplied, by its class (default: by nothing).
        """
        self.group, self._forward = group or Group(), forward or model
        self.model, self.optimizer = model, optimizer
        self.precision, self.scaler, self.device = precision, scaler, device
        self.accumulate, self.label_smoothing, self.clip_norm = accumulate, label_smoothing, clip_norm
        self._full_rows = rows
        self._class_weights = None if class_weights is None else import_paddle().to_tensor(class_weights)
        self.deferred = (device == "gpu" if deferred is None else deferred) and can_be_undone(optimizer)
        self._parameters = list(float32_parameters(model).values())
        self._halves = [parameter for parameter in model.parameters() if hasattr(parameter, "master")]
        # Running statistics of batch norms; in Paddle's state dict they are among the parameters.
        self._statistics = [t for key, t in model.state_dict().items() if key.endswith(("._mean", "._variance"))]
        self._begun: _Begun | None = None

    def __call__(self, batch: DeviceBatch, last: bool = True) -> StepResult:
        """The result of a batch; with `last` it ends its step, and the weights are updated.

        Raises EnvironmentProblem where the memory runs out, with the batch size that would fit. After any error the
        model and the optimiser are as they were before the step.
        """
        try:
            return run_batch(
                lambda: self._take(batch, last), lambda rows: self._try(batch, rows), int(batch.clips.shape[0]),
                self.device, "loader.batch_size", free=self._free, ranks=self.group.count, accumulate=self.accumulate,
            )  # fmt: skip
        except Exception:
            self.undo()
            raise

    def _take(self, batch: DeviceBatch, last: bool) -> StepResult:
        paddle = import_paddle()
        if self._begun is None:
            with paddle.no_grad():
                self._begun = _Begun([tensor.clone() for tensor in self._statistics], paddle.zeros([1]))
        begun = self._begun
        loss, logits = self._backward(batch)
        with paddle.no_grad():
            # The logits are checked too: for NaN logits Paddle's cross entropy on the CPU gives a finite loss.
            all_numbers = paddle.isfinite(logits).all().reshape([1])
            loss = paddle.where(all_numbers, loss.reshape([1]), paddle.full([1], float("nan")))
            begun.loss = begun.loss + loss * float(_real(batch))
        begun.rows += _real(batch)
        self._master_gradients()
        if not last:
            return StepResult(loss, logits, False)
        # The ranks exchange their rows before the first collective, so that a rank that failed is noticed here.
        rows = max(1, self.group.total(begun.rows))
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self.group.add_up([*gradients, begun.loss], self._statistics)
        mean = begun.loss / float(rows)
        finite, norm = self._judge(gradients, mean, rows / self._rows_of(batch))
        applied = self._apply(finite, begun.statistics)
        self._clear()
        return StepResult(mean, logits, applied, norm, self.scaler.scale_tensor, self.scaler.collapsed_tensor)

    def _rows_of(self, batch: DeviceBatch) -> int:
        """Rows of a full step, all of them real; gradients are divided by this number first, and corrected later.

        It is the same for all batches of a step on all ranks, because their gradients are added up.
        """
        return self.accumulate * (self._full_rows or int(batch.clips.shape[0]))

    def _backward(self, batch: DeviceBatch) -> tuple[Any, Any]:
        """(loss of the batch, logits float32 [N, C]); adds its scaled gradients to those of earlier batches."""
        logits = self.precision.forward(self._forward, batch.clips)
        losses = self._losses(logits, batch.labels)
        if batch.others is not None:
            losses = losses * batch.share + self._losses(logits, batch.others) * (1.0 - batch.share)
        loss = (losses * batch.weights).sum()
        self.scaler.scale_loss(loss * (_real(batch) / self._rows_of(batch))).backward()
        return loss.detach(), logits.detach()

    def _losses(self, logits: Any, labels: Any) -> Any:
        """The cross entropy of each row, float32 [N], times the weight of its class.

        With label smoothing as of Szegedy et al. 2016, arXiv:1512.00567.
        """
        paddle = import_paddle()
        functional = paddle.nn.functional
        losses = functional.cross_entropy(logits, labels, reduction="none").reshape([-1])
        if self.label_smoothing:
            spread = -functional.log_softmax(logits, axis=1).mean(axis=1)
            losses = losses * (1.0 - self.label_smoothing) + spread * self.label_smoothing
        return losses if self._class_weights is None else losses * paddle.gather(self._class_weights, labels)

    def _master_gradients(self) -> None:
        """Add half-precision gradients to the float32 gradients of the master weights.

        Sums of many batches lose few bits there, and the loss scale is divided out of float32 numbers: in float16 the
        small ones would become 0.
        """
        with import_paddle().no_grad():
            for half in self._halves:
                if half.grad is not None:
                    gradient = half.grad.astype("float32")
                    half.master.grad = gradient if half.master.grad is None else half.master.grad + gradient
                    half.clear_gradient(False)

    def _judge(self, gradients: list[Any], mean: Any, share: float) -> tuple[Any, Any]:
        """(bool [1]: whether the step may be applied, norm of the gradients); divides the loss scale out of them.

        `mean`: the loss float32 [1]; `share`: the real rows as a share of those that gradients were divided by.
        """
        paddle = import_paddle()
        with paddle.no_grad():
            finite = paddle.logical_and(self.scaler.unscale(gradients, share), paddle.isfinite(mean))
            norm = None
            if self.clip_norm is not None:
                norm = clip_gradients(gradients, self.clip_norm)
                finite = paddle.logical_and(finite, paddle.isfinite(norm))  # the squares may have overflowed
        self.scaler.update(finite)
        return finite, norm

    def _apply(self, finite: Any, statistics: list[Any]) -> Any:
        """Update the weights if `finite`, else set running statistics back to `statistics`; returns whether it did."""
        paddle = import_paddle()
        moments = moment_tensors(self.optimizer) if self.deferred else []
        if not moments:  # Paddle makes them in the first step
            applied = bool(finite.item())
            if applied:
                self._move()
            else:
                _set(self._statistics, statistics)
            return applied
        with paddle.no_grad():
            moved = [p for p in self._parameters if p.grad is not None] + moments
            before = [*(tensor.clone() for tensor in moved), *statistics]
            self.optimizer.step()
            for tensor, old in zip([*moved, *self._statistics], before, strict=True):
                paddle.assign(paddle.where(finite.expand(tensor.shape), tensor, old), output=tensor)
        self._round()
        return finite

    def _move(self) -> None:
        self.optimizer.step()
        self._round()

    def _round(self) -> None:
        """Give half-precision weights the values of their float32 masters."""
        paddle = import_paddle()
        with paddle.no_grad():
            for half in self._halves:
                paddle.assign(half.master.astype(half.dtype), output=half)

    def undo(self) -> None:
        """Undo what a step that was begun, and has not ended, has changed."""
        if self._begun is not None:
            _set(self._statistics, self._begun.statistics)
        self._clear()

    def _clear(self) -> None:
        self._begun = None
        self._free_gradients()

    def _free_gradients(self) -> None:
        # Paddle would keep gradients of zeros, to which the next backward pass would add its own: both at once.
        self.optimizer.clear_grad(set_to_zero=False)
        for half in self._halves:
            half.clear_gradient(False)

    def _try(self, batch: DeviceBatch, rows: int) -> None:
        """Forward and backward of `rows` blank clips like those of `batch`."""
        paddle = import_paddle()
        clips = paddle.zeros([rows, *batch.clips.shape[1:]], dtype=batch.clips.dtype)
        self._backward(DeviceBatch(clips, paddle.zeros([rows], dtype="int64"), paddle.ones([rows]) / rows))

    def _free(self) -> None:
        self._free_gradients()
        free_memory(self.device)


@dataclass
class _Begun:
    """A step that has begun and has not ended.

    `statistics`: running statistics before the step; `loss`: sum of the losses of its `rows` real rows, float32 [1].
    """

    statistics: list[Any]
    loss: Any
    rows: int = 0


def _real(batch: DeviceBatch) -> int:
    return int(batch.clips.shape[0]) if batch.real is None else batch.real


def _set(tensors: list[Any], values: list[Any]) -> None:
    paddle = import_paddle()
    with paddle.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            paddle.assign(value, output=tensor)
