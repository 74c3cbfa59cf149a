"""Loaders as measurements use them, and what their batches are: waited for where they lie, never copied."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.reporting.figures import DecoderUse
from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.machine.nvidia import probe_driver
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec

_CUDA = 2  # kDLCUDA of dlpack.h
_OTHER_GPU_KINDS = (13,)  # kDLCUDAManaged
_SETTLING_BATCHES = 60  # the trials take 17 in one epoch, and begin anew where an epoch ends


def require_gpu() -> None:
    """Raise EnvironmentProblem, with what to do about it, where CUDA finds no GPU."""
    driver = probe_driver()
    if driver.problem:
        remedy = (
            driver.to_do or "there is no NVIDIA card in this machine: measure with --device cpu, or on one that has"
        )
        raise EnvironmentProblem(f"--device gpu: {driver.problem}; {remedy}")


def make_loader(
    index: VideoIndex,
    clip: ClipSpec,
    augment: AugmentSpec,
    loader: LoaderSpec,
    *,
    split: str | None,
    device: str = "cpu",
    dtype: Literal["float32", "float16"] = "float32",
) -> ClipLoader:
    """A loader that trains."""
    return ClipLoader(
        index, clip=clip, augment=augment, loader=loader, split=split, train=True, device=device, dtype=dtype
    )


def routing_of(loader: ClipLoader) -> DecoderUse | None:
    """Who decodes for it; None where it has not found out yet."""
    found = loader.routing
    return None if found is None else DecoderUse(found.decoder, float(found.share), found.reason)


def settle(loader: ClipLoader, make_one: Callable[[], object]) -> None:
    """Call `make_one`, which takes a batch from `loader`, until it has measured who decodes; 60 times at most.

    Until then its batches are trials, which are slower than those that come after.
    """
    for _ in range(_SETTLING_BATCHES):
        if loader.routing is not None:
            return
        make_one()


class _DLTensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class ClipsInfo:
    """What a DLPack object is: `gpu` whether it lies on one, its shape, its type such as "float32"."""

    gpu: bool
    shape: tuple[int, ...]
    dtype: str


def wait_for(clips: Any) -> ClipsInfo:
    """What the clips are, once they are ready; nothing is copied.

    On a GPU: DALI's `__dlpack__(stream=None)` waits on the host until the tensor is made (its docstring, 2.x).
    """
    kind = int(clips.__dlpack_device__()[0])
    gpu = kind == _CUDA or kind in _OTHER_GPU_KINDS
    capsule = clips.__dlpack__(stream=None) if gpu else clips.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    kinds = {0: "int", 1: "uint", 2: "float", 4: "bfloat"}
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    return ClipsInfo(gpu, shape, f"{kinds.get(tensor.code, 'unknown')}{tensor.bits}")


def to_host(clips: Any) -> NDArray[np.float32]:
    """A copy of the clips on the host, for checks alone."""
    if wait_for(clips).gpu:
        clips = clips.as_cpu()
    return np.array(np.from_dlpack(clips), np.float32)
