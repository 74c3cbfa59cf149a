"""The number formats fp32, bf16 and fp16: which one a device gets, what is computed in it, and what stays float32.

Paddle's autocast (2.6 and 3.x) would leave 3D convolutions in float32: `conv3d` is on none of its lists, so it uses the
widest type among its inputs, which is that of the float32 weights. By the same rule, adding the bias would turn a half
precision output back into float32. So both operations are white-listed here. Batch norm computes in float32 and keeps
its parameters and statistics in it. Cross entropy gets float32 logits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.paddle import (
    autocast,
    compute_capability,
    import_paddle,
    new_parameter,
)

PrecisionName = Literal["fp32", "bf16", "fp16"]
AmpLevel = Literal["O1", "O2"]

WHITE_LIST = frozenset({"conv3d", "elementwise_add"})  # autocast's names of the operations, in 2.6 and 3.x
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# The lowest compute capability that has tensor cores for the format: that of Volta and of Ampere.
_NEEDS = {"fp16": (7, 0), "bf16": (8, 0)}


@dataclass(frozen=True)
class Precision:
    """The number format that a model computes in, and how much of the model uses it. `level` is ignored for fp32.

    O1: weights stay float32 and are cast for convolutions, additions and matrix products; reductions run in float32.
    O2: all weights except those of batch norm are in half precision, and so is all that autocast does not exclude. The
    optimiser works on float32 copies, the master weights.
    """

    name: PrecisionName = "fp32"
    level: AmpLevel = "O1"

    def __str__(self) -> str:
        return self.name if self.name == "fp32" else f"{self.name} {self.level}"

    @property
    def dtype(self) -> str:
        """Paddle's name for the type in which convolutions are computed."""
        return _DTYPES[self.name]

    @property
    def clip_dtype(self) -> Literal["float32", "float16"]:
        """The type of the loader's clips: float16 for bf16 too, because DALI has no bf16; the device casts them."""
        return "float32" if self.name == "fp32" else "float16"

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for a forward pass; for fp32 it does nothing."""
        if self.name == "fp32":
            return nullcontext()
        context: AbstractContextManager[Any] = autocast(self.dtype, self.level, WHITE_LIST)
        return context

    def forward(self, model: Any, clips: Any) -> Any:
        """Logits float32 [N, C] of `model` for clips of any floating point type."""
        with self.autocast():
            logits = model(_cast(clips, self.dtype))
        return _cast(logits, "float32")

    def decorate(self, model: Any, optimizer: Any) -> tuple[Any, Any]:
        """(model, optimizer) ready for training: with O2, all layers except batch norm get half-precision weights.

        `optimizer` keeps working on the float32 parameters that it was made with. TrainStep copies gradients to them
        and weights back. Paddle's own `amp.decorate` is not used, for four reasons. Without `master_grad` it divides
        float16 gradients by the loss scale, and small ones become 0. With it, it registers parameters for the whole
        life of the process. It gives the optimiser's moments other names, so a run could not be resumed in another
        precision. And on the CPU, where the tests run, it does nothing.
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
    """The parameters that the optimiser changes, by name: the float32 master weights instead of half-precision ones."""
    return {name: getattr(parameter, "master", parameter) for name, parameter in model.named_parameters()}


def float32_weights(model: Any) -> dict[str, Any]:
    """The model's state with float32 master weights instead of half-precision ones, as every checkpoint has it."""
    return {**model.state_dict(), **float32_parameters(model)}


def choose_precision(
    wanted: Literal["auto", "fp32", "bf16", "fp16"],
    device: str,
    level: AmpLevel = "O1",
    *,
    capability: tuple[int, int] | None = None,
) -> Precision:
    """The Precision that `wanted` means on `device` ("cpu" or "gpu").

    `auto`: bf16 from compute capability 8.0 on (Ampere), fp16 from 7.0 on (Volta, Turing), fp32 on older GPUs and on
    the CPU. `capability` is that of the GPU (default: that of the current one). Raises EnvironmentProblem if the device
    does not have the wanted precision.
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


def available_precision(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: str, level: AmpLevel) -> Precision:
    """The Precision that `wanted` means on `device`; if the device does not have it, the one that `auto` means."""
    try:
        return choose_precision(wanted, device, level)
    except EnvironmentProblem:
        return choose_precision("auto", device, level)


def choose_data_format(
    wanted: Literal["auto", "NCDHW", "NDHWC"], precision: Precision, device: str
) -> Literal["NCDHW", "NDHWC"]:
    """The data format that `wanted` means for a model that computes in `precision` on `device`.

    `auto` is channels last for half precision on a GPU, because tensor cores take it without reordering; else channels
    first. A training run tries this layout first, and others after it (`acceleration/layout_trial.py`).
    """
    if wanted != "auto":
        return wanted
    return "NDHWC" if device == "gpu" and precision.name != "fp32" else "NCDHW"
