"""What the errors of Paddle, DALI and the loader of libraries mean, and the one line that mends each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.machine.container import install_driver
from pipelines.machine.cuda_libraries import needing_paddle
from pipelines.machine.driver_library import MEANINGS, OTHER_DRIVER
from r3d_fast.backend.restart import how_to_find

LEAST_GLIBC = (2, 28)  # of the wheels of PyAV 17 and later, and of DALI 1.53 and later: manylinux_2_28
_CUDA_ERROR = re.compile(r"CUDA error ?\((\d+)\)")
_TOO_OLD = {35, 36}  # cudaErrorInsufficientDriver, cudaErrorCallRequiresNewerDriver of driver_types.h
CUDNN = "pip install --force-reinstall --no-deps 'nvidia-cudnn-cu11==8.9.*'"


@dataclass(frozen=True)
class Cause:
    """Why something failed: in words, and what to do about it."""

    meaning: str
    to_do: str


def cause_of(text: str, *, new_enough: bool = False) -> Cause | None:
    """What the error message `text` means, if that is known.

    `new_enough` says that the driver is known to support the CUDA of the library that failed.
    """
    for pattern, meaning, to_do in _KNOWN:
        if re.search(pattern, text):
            return Cause(meaning, to_do() if callable(to_do) else to_do)
    for found in _CUDA_ERROR.finditer(text):
        number = int(found[1])
        if number in _TOO_OLD and new_enough:
            return Cause(*OTHER_DRIVER)
        if number in _TOO_OLD:
            return Cause("the driver is too old for this build, or is not found", install_driver())
        if number in MEANINGS:
            return Cause(*MEANINGS[number])
    return None


def _find_libraries() -> str:
    """What to do so that the installed Paddle finds its CUDA libraries. Later ones than 2.6 require NVIDIA's wheels."""
    return (
        how_to_find()
        if needing_paddle()
        else "pip check   # names the wheels of NVIDIA that Paddle lacks: install them"
    )


def old_glibc() -> str:
    """What to do on a system whose glibc is older than the wheels need."""
    return "docker build -f docker/Dockerfile.cpu -t r3d-fast .   # or Dockerfile.v100, .cuda12; and run it in there"


# (a pattern of the text, what it means, what to do). The first that fits counts.
_KNOWN: tuple[tuple[str, str, str | Callable[[], str]], ...] = (
    # Of the parts of cuDNN, which load each other.
    (
        r"libcudnn\w*\.so[\s\S]*(undefined symbol|link time reference)",
        "parts of several versions of cuDNN are mixed",
        CUDNN,
    ),
    (
        r"Cannot load \w+ shared library|third-party dynamic library \(lib(cu|nccl|nvrtc)|"
        r"Could not load library libcu|CUDNN_STATUS_(VERSION|ARCH)_MISMATCH",
        "Paddle does not find its CUDA libraries",
        _find_libraries,
    ),
    (r"Out of memory error on GPU|CUDNN_STATUS_NOT_INITIALIZED|CUBLAS_STATUS_ALLOC_FAILED", *MEANINGS[2]),
    (
        r"libgomp\.so",
        "the system's libgomp is not there",
        "sudo apt-get install libgomp1   # or libgomp",
    ),
    (
        r"_ARRAY_API|compiled using NumPy 1|numpy\.core\.multiarray failed to import",
        "it was built for NumPy 1",
        "pip install 'numpy<2'",
    ),
    (r"version .GLIBC_2\.\d+. not found", "it was built for a newer system", old_glibc),
)
