"""Makes Paddle's mixed precision take the CPU for a GPU, so that its Python side can be tested without a GPU.

Paddle asks its tracer on which device it computes, and its own functions what the GPU supports. On the CPU it would
warn and leave autocast off, so here these two questions are answered as on a GPU. All else is Paddle's own, for
instance the lists of operations that autocast uses. The CPU has no half-precision kernels: operations cast half weights
and activations to float32 and give float32. In which type an operation computes can be seen on a GPU only.
"""

from __future__ import annotations

import importlib
from typing import Any

import paddle
import pytest
from paddle.base.framework import _dygraph_tracer

from r3d_fast.backend.precision import Precision


class _Place:
    def is_gpu_place(self) -> bool:
        return True

    def is_xpu_place(self) -> bool:
        return False

    def is_custom_place(self) -> bool:
        return False


class _Tracer:
    """Paddle's tracer, except that its device is a GPU."""

    _expected_place = _Place()

    def __getattr__(self, name: str) -> Any:
        return getattr(_dygraph_tracer(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_dygraph_tracer(), name, value)


def claim_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make autocast work as on a GPU that has both half-precision formats."""
    module = importlib.import_module("paddle.amp.auto_cast")
    monkeypatch.setattr(module, "_dygraph_tracer", _Tracer)
    monkeypatch.setattr(module, "_is_gpu_float16_supported", lambda: True)
    monkeypatch.setattr(module, "_is_gpu_bfloat16_supported", lambda: True)


def in_force() -> tuple[str, str, set[str], set[str]]:
    """(level, dtype, white list, black list) of the autocast around the caller, from Paddle's tracer."""
    tracer = _dygraph_tracer()
    white, black = tracer._get_amp_op_list()
    return str(tracer._amp_level).rpartition(".")[2], str(tracer._amp_dtype), set(white), set(black)


def is_half(tensor: Any) -> bool:
    return tensor.dtype in (paddle.float16, paddle.bfloat16)


def precisions_here() -> list[Precision]:
    """The half precisions that this GPU supports, at both levels."""
    names = ["fp16", "bf16"] if paddle.device.cuda.get_device_capability()[0] >= 8 else ["fp16"]
    return [Precision(name, level) for name in names for level in ("O1", "O2")]  # type: ignore[arg-type]
