"""fp32, bf16 or fp16: which one a device gets, what runs in it, and what stays float32.

Paddle's autocast (2.6 and 3.x) leaves 3D convolutions in float32: `conv3d` is on none of its lists, so it follows its
widest input, the float32 weights. The same rule turns the half output of a biased convolution back into float32, when
the bias is added. Both ops are white-listed here. Batch norm keeps parameters and statistics in float32 and computes in
it, cross entropy gets float32 logits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.paddle import (
    autocast,
    choose_device,
    compute_capability,
    import_paddle,
    new_parameter,
    unscale_gradients,
)
from r3d_fast.config.config import Config

Name = Literal["fp32", "bf16", "fp16"]
Level = Literal["O1", "O2"]

WHITE_LIST = frozenset({"conv3d", "elementwise_add"})  # the names by which autocast asks, in 2.6 and 3.x
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# The least compute capability with tensor cores for the format: Volta and Ampere.
_NEEDS = {"fp16": (7, 0), "bf16": (8, 0)}


@dataclass(frozen=True)
class Precision:
    """What a model computes in. `level` has no meaning for fp32.

    O1: weights stay float32 and are cast for convolutions, additions and matrix products; reductions run in float32.
    O2: the weights of convolutions and linear layers are half too, and whatever has no reason not to be; the optimiser
    works on float32 copies, the master weights.
    """

    name: Name = "fp32"
    level: Level = "O1"

    def __str__(self) -> str:
        return self.name if self.name == "fp32" else f"{self.name} {self.level}"

    @property
    def dtype(self) -> str:
        """Paddle's name of the type in which convolutions run."""
        return _DTYPES[self.name]

    @property
    def clip_dtype(self) -> Literal["float32", "float16"]:
        """What the loader hands over: float16 for bf16 as well, which DALI doesn't have; it is cast on the device."""
        return "float32" if self.name == "fp32" else "float16"

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass; it does nothing for fp32."""
        if self.name == "fp32":
            return nullcontext()
        context: AbstractContextManager[Any] = autocast(self.dtype, self.level, WHITE_LIST)
        return context

    def forward(self, model: Any, clips: Any) -> Any:
        """Logits float32 [N, C] of `model` for clips of any floating type."""
        with self.autocast():
            logits = model(_cast(clips, self.dtype))
        return _cast(logits, "float32")

    def decorate(self, model: Any, optimizer: Any) -> tuple[Any, Any]:
        """(model, optimizer) ready for training: under O2 all layers but batch norm get half-precision weights.

        `optimizer` goes on working on the float32 parameters that it was made with; TrainStep carries gradients to them
        and weights back. Paddle's own `amp.decorate` is not used: without `master_grad` the loss scale is taken out of
        float16 gradients, where small ones vanish; with it, parameters are noted for the life of the process; moments
        go by other names, so that no other precision could resume; and on the CPU, where tests run, it does nothing.
        """
        if self.name != "fp32" and self.level == "O2":
            paddle = import_paddle()
            norms = (paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D, paddle.nn.BatchNorm3D, paddle.nn.SyncBatchNorm)
            layers = [layer for layer in model.sublayers(include_self=True) if not isinstance(layer, norms)]
            for layer in layers:
                for name, parameter in list(layer.named_parameters(include_sublayers=False)):
                    half = new_parameter(parameter.astype(self.dtype))
                    half.stop_gradient = parameter.stop_gradient
                    half.master = parameter
                    setattr(layer, name, half)
        return model, optimizer


def _cast(tensor: Any, dtype: str) -> Any:
    return tensor if tensor.dtype == getattr(import_paddle(), dtype) else tensor.astype(dtype)


def float32_parameters(model: Any) -> dict[str, Any]:
    """The parameters that an optimiser moves, by name: master weights in place of half ones."""
    return {name: getattr(parameter, "master", parameter) for name, parameter in model.named_parameters()}


def float32_weights(model: Any) -> dict[str, Any]:
    """The model's state with master weights in place of half ones: what a checkpoint holds, whatever the precision."""
    return {**model.state_dict(), **float32_parameters(model)}


def choose_precision(
    wanted: Literal["auto", "fp32", "bf16", "fp16"],
    device: str,
    level: Level = "O1",
    *,
    capability: tuple[int, int] | None = None,
) -> Precision:
    """The Precision that `wanted` means on `device` ("cpu" or "gpu").

    `auto`: bf16 from compute capability 8.0 on (Ampere), fp16 from 7.0 on (Volta, Turing), fp32 on older GPUs and on
    the CPU. `capability` is that of the GPU; not given: of the current one. Raises EnvironmentProblem where the device
    can't do what is wanted.
    """
    if wanted == "fp32" or (wanted == "auto" and device == "cpu"):
        return Precision("fp32", level)
    if device == "cpu":
        raise EnvironmentProblem(
            f"train.precision {wanted}: on the CPU Paddle has neither autocast nor 3D convolutions in half precision; "
            "use -o train.precision=auto (fp32 here), or a GPU"
        )
    able = compute_capability() if capability is None else capability
    if wanted == "auto":
        return Precision("bf16" if able >= _NEEDS["bf16"] else "fp16" if able >= _NEEDS["fp16"] else "fp32", level)
    if able < _NEEDS[wanted]:
        least = ".".join(map(str, _NEEDS[wanted]))
        other = "fp16" if able >= _NEEDS["fp16"] else "fp32"
        raise EnvironmentProblem(
            f"train.precision {wanted}: this GPU has compute capability {able[0]}.{able[1]}, {wanted} needs {least}; "
            f"use -o train.precision={other}"
        )
    return Precision(wanted, level)


def available_precision(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: str, level: Level) -> Precision:
    """The Precision that `wanted` means on `device`, or what `auto` means there where the device can't do it."""
    try:
        return choose_precision(wanted, device, level)
    except EnvironmentProblem:
        return choose_precision("auto", device, level)


def with_data_format(config: Config, precision: Precision, device: str) -> Config:
    """`config` with `model.data_format` auto made one of the two, and `augment.layout` to go with it.

    Tensor cores take half-precision convolutions channels last without reordering them; else channels come first.
    """
    if config.model.data_format != "auto":
        return config
    last = device == "gpu" and precision.name != "fp32"
    return config.in_data_format("NDHWC" if last else "NCDHW")


def settle(config: Config) -> tuple[str, Precision, Config]:
    """(device, precision, config with a data format) of a run: every `auto` of `config` that this machine decides.

    Raises EnvironmentProblem where the machine lacks what is asked for.
    """
    device = choose_device(config.train.device)
    precision = choose_precision(config.train.precision, device, config.train.amp_level)
    return device, precision, with_data_format(config, precision, device)


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
