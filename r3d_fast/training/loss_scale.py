"""The loss scale of fp16: small gradients are scaled up, and a step whose gradients overflow is skipped."""

from __future__ import annotations

from typing import Any

from r3d_fast.backend.paddle import import_paddle, unscale_gradients


class LossScaler:
    """Dynamic scaling of the loss, so that small float16 gradients don't vanish (Micikevicius et al. 2018,
    arXiv:1710.03740, section 3.2).

    The scale starts at 2^15. A step with a gradient that is not finite is skipped and halves it, down to 1;
    `GROWTH_STEPS` applied steps in a row double it, up to 2^24. Not enabled, it stays 1. Gradients are looked at either
    way: Paddle's ReLU makes 0 of a NaN, so a broken activation need not show in the loss.
    """

    FIRST, LEAST, MOST = 2.0**15, 1.0, 2.0**24
    GROWTH_STEPS = 1000

    def __init__(self, *, enabled: bool = True) -> None:
        """A scaler on Paddle's current device, where its state stays: it is read on demand only."""
        paddle = import_paddle()
        self.enabled = enabled
        self._scale = paddle.full([1], self.FIRST if enabled else 1.0, "float32")
        self._good_steps = paddle.zeros([1], "int32")
        self._collapsed = paddle.zeros([1], "bool")

    @property
    def scale(self) -> float:
        """What the loss is multiplied by."""
        return float(self._scale.item())

    @scale.setter
    def scale(self, value: float) -> None:
        self._scale = import_paddle().full([1], value, "float32")

    @property
    def scale_tensor(self) -> Any:
        """The scale float32 [1], which no later step changes."""
        return self._scale

    @property
    def good_steps(self) -> int:
        """Applied steps in a row, since the scale changed last."""
        return int(self._good_steps.item())

    @property
    def collapsed(self) -> bool:
        """Whether the last gradients were not finite and no smaller scale can mend it."""
        return bool(self._collapsed.item())

    @property
    def collapsed_tensor(self) -> Any:
        """The same as bool [1], which no later step changes."""
        return self._collapsed

    def scale_loss(self, loss: Any) -> Any:
        """`loss` times the scale."""
        return loss * self._scale.reshape(loss.shape) if self.enabled else loss

    def unscale(self, gradients: list[Any], divisor: float = 1.0) -> Any:
        """Bool [1]: whether `gradients`, divided by scale and `divisor` in place, are all finite, so may be applied."""
        return import_paddle().logical_not(unscale_gradients(gradients, self._scale * divisor))

    def update(self, finite: Any) -> None:
        """Grow or back off, after a step that could be applied or not (bool, or bool [1])."""
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
        """Go on where `state_dict` was taken; a state of a run that scaled nothing changes nothing."""
        if self.enabled and state:
            self.scale = float(state["scale"])
            self._good_steps = import_paddle().full([1], int(state["good_steps"]), "int32")
