"""A CPU that Paddle's mixed precision takes for a GPU, so that its Python side can be tried without one.

Paddle asks the tracer for the place it expects to compute on, and its own helpers what the GPU supports; on the CPU it
warns and leaves autocast off. Here those two questions are answered as on a GPU. All else is Paddle's own: the lists
that autocast puts in force, and the tracer they are put in force on. The CPU has no half-precision kernels, so ops
there cast half weights and activations to float32 and give float32; which type an op computes in only a GPU can show.
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
    """Paddle's tracer, but for the place."""

    _expected_place = _Place()

    def __getattr__(self, name: str) -> Any:
        return getattr(_dygraph_tracer(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_dygraph_tracer(), name, value)


def claim_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let autocast work as if on a GPU that has both half-precision formats."""
    module = importlib.import_module("paddle.amp.auto_cast")
    monkeypatch.setattr(module, "_dygraph_tracer", _Tracer)
    monkeypatch.setattr(module, "_is_gpu_float16_supported", lambda: True)
    monkeypatch.setattr(module, "_is_gpu_bfloat16_supported", lambda: True)


def in_force() -> tuple[str, str, set[str], set[str]]:
    """(level, dtype, white list, black list) of the autocast in which the caller is, out of Paddle's tracer."""
    tracer = _dygraph_tracer()
    white, black = tracer._get_amp_op_list()
    return str(tracer._amp_level).rpartition(".")[2], str(tracer._amp_dtype), set(white), set(black)


def is_half(tensor: Any) -> bool:
    return tensor.dtype in (paddle.float16, paddle.bfloat16)


def precisions_here() -> list[Precision]:
    """The half precisions of the GPU, at both levels."""
    names = ["fp16", "bf16"] if paddle.device.cuda.get_device_capability()[0] >= 8 else ["fp16"]
    return [Precision(name, level) for name in names for level in ("O1", "O2")]  # type: ignore[arg-type]
