"""The loss scale of fp16: it scales small gradients up; a step whose gradients overflow is skipped."""

from __future__ import annotations

from typing import Any

from r3d_fast.backend.paddle import import_paddle, unscale_gradients


class LossScaler:
    """Dynamic scaling of the loss, so that small float16 gradients don't vanish (Micikevicius et al. 2018,
    arXiv:1710.03740, section 3.2).

    The scale starts at 2^15. A step with a gradient that is not finite is skipped and halves the scale, down to 1;
    `GROWTH_STEPS` applied steps in a row double it, up to 2^24. If not enabled, the scale stays 1. In either case
    gradients are checked: Paddle's ReLU turns NaN into 0, so a broken activation need not show in the loss.
    """

    FIRST, LEAST, MOST = 2.0**15, 1.0, 2.0**24
    GROWTH_STEPS = 1000

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the state on Paddle's current device; reading a property waits for it."""
        paddle = import_paddle()
        self.enabled = enabled
        self._scale = paddle.full([1], self.FIRST if enabled else 1.0, "float32")
        self._good_steps = paddle.zeros([1], "int32")
        self._collapsed = paddle.zeros([1], "bool")

    @property
    def scale(self) -> float:
        """The factor of the loss."""
        return float(self._scale.item())

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = import_paddle().full([1], value, "float32")

    @property
    def scale_tensor(self) -> Any:
        """The scale as float32 [1] on the device; later steps make new tensors and leave this one as it is."""
        return self._scale

    @property
    def good_steps(self) -> int:
        """Applied steps in a row since the scale last changed."""
        return int(self._good_steps.item())

    @property
    def collapsed(self) -> bool:
        """Whether the last gradients were not finite although the scale is the smallest."""
        return bool(self._collapsed.item())

    @property
    def collapsed_tensor(self) -> Any:
        """`collapsed` as bool [1] on the device; later steps make new tensors and leave this one as it is."""
        return self._collapsed

    def scale_loss(self, loss: Any) -> Any:
        """`loss` times the scale."""
        return loss * self._scale.reshape(loss.shape) if self.enabled else loss

    def unscale(self, gradients: list[Any], divisor: float = 1.0) -> Any:
        """Divide `gradients` by scale and `divisor`, in place; returns bool [1]: whether all of them are finite."""
        return import_paddle().logical_not(unscale_gradients(gradients, self._scale * divisor))

    def update(self, finite: Any) -> None:
        """Adapt the scale after a step; `finite` (bool, or bool [1]): whether its gradients were."""
        paddle = import_paddle()
        with paddle.no_grad():
            finite = paddle.to_tensor([finite]) if isinstance(finite, bool) else finite
            self._collapsed = paddle.logical_and(~finite, self._scale <= self.LEAST)
            if not self.enabled:
                return
            good = paddle.where(finite, self._good_steps + 1, paddle.zeros_like(self._good_steps))
            grows = good == self.GROWTH_STEPS
            grown = paddle.where(grows, paddle.clip(self._scale * 2.0, max=self.MOST), self._scale)
            self._scale = paddle.where(finite, grown, paddle.clip(self._scale / 2.0, min=self.LEAST))
            self._good_steps = paddle.where(grows, paddle.zeros_like(good), good)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON values; empty where nothing is scaled."""
        return {"scale": self.scale, "good_steps": self.good_steps} if self.enabled else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the empty state of a run without a loss scale changes nothing."""
        if self.enabled and state:
            self.scale = float(state["scale"])
            self._good_steps = import_paddle().full([1], int(state["good_steps"]), "int32")
