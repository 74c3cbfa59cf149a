"""Every difference between Paddle 2.6 and 3.x, and what has to be said to Paddle before it is imported."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.errors import EnvironmentProblem


@cache
def import_paddle() -> ModuleType:
    """The paddle module, set up for this CPU. Raises EnvironmentProblem where it can't be imported."""
    _prepare_cpu()
    try:
        with warnings.catch_warnings():
            # Deprecations inside Paddle and what it imports are nothing that a user of ours can mend.
            warnings.simplefilter("ignore")
            import paddle
    except ImportError as error:
        raise EnvironmentProblem(
            f"Paddle can't be imported ({error}); install it with: pip install 'r3d-fast[cpu]' (any machine) or "
            "'r3d-fast[cuda11]' (V100), or as Paddle's own site says for newer GPUs"
        ) from error
    # Said by every batch norm of every training step; it only tells that running statistics are kept, as we want them.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
    return paddle  # type: ignore[no-any-return]


def _prepare_cpu() -> None:
    """Let the MKL inside Paddle use AVX2 on AMD processors: matrix products three times as fast."""
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if "AuthenticAMD" in cpu and " avx2 " in cpu:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def choose_device(wanted: str) -> str:
    """`gpu` or `cpu`, set as Paddle's device; `auto` takes a GPU if one works. Raises EnvironmentProblem."""
    paddle = import_paddle()
    built, seen = paddle.is_compiled_with_cuda(), 0
    if built:
        seen = paddle.device.cuda.device_count()
    if wanted == "gpu" and not (built and seen):
        reason = "no GPU is visible to Paddle" if built else "this is Paddle's CPU build"
        raise EnvironmentProblem(
            f"train.device gpu: {reason}; use device auto or cpu, or install a GPU build of Paddle"
        )
    device = "gpu" if wanted in ("auto", "gpu") and built and seen else "cpu"
    paddle.set_device(device)
    return device


def from_dlpack(exporter: Any) -> Any:
    """A Paddle tensor that shares the memory of `exporter`: 3.x takes the object itself, 2.6 only its capsule."""
    paddle = import_paddle()
    if hasattr(paddle, "from_dlpack"):
        return paddle.from_dlpack(exporter)
    return paddle.utils.dlpack.from_dlpack(exporter.__dlpack__())
