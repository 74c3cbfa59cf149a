"""Chooses how threads of this process wait for a GPU: asleep, or spinning, which takes a CPU core each.

A thread waits for each picture that NVDEC decodes, and for each result that is read from the GPU. By itself CUDA spins
where there are at least as many cores as contexts (CU_CTX_SCHED_AUTO in cuda.h). It wakes up some microseconds sooner,
and the core decodes nothing meanwhile.
"""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Literal

from pipelines.errors import UsageError
from pipelines.machine.driver_library import LibraryFailed, call, load_library

GpuWait = Literal["sleep", "spin"]
VARIABLE = "R3D_FAST_GPU_WAIT"
# cuda.h: CU_CTX_SCHED_BLOCKING_SYNC, and the bits of the flags that say how to wait.
_BLOCKING_SYNC, _WAITING = 4, 7
_log = logging.getLogger(__name__)
_chosen: dict[int, GpuWait] = {}  # by the number of the GPU


def choose_gpu_wait(number: int, wanted: GpuWait = "sleep") -> None:
    """Make threads that wait for GPU `number` of this process sleep, if that is `wanted`; "spin" leaves it to CUDA.

    The environment variable R3D_FAST_GPU_WAIT goes before `wanted`. This has to be called before anything, such as
    Paddle or DALI, uses the GPU, since that makes the context to which this belongs. The first call for a GPU counts;
    later ones do nothing. Where the driver refuses, as older ones do for a context that is in use already (708), or
    where there is no driver, nothing changes and the log says so at level DEBUG. Raises UsageError if the variable
    holds something else than "sleep" or "spin".
    """
    given: GpuWait
    match os.environ.get(VARIABLE) or wanted:
        case "sleep" | "spin" as word:
            given = word
        case other:
            raise UsageError(f"{VARIABLE}={other!r}: expected 'sleep' or 'spin'")
    if number in _chosen:
        return
    _chosen[number] = given
    if given == "spin":
        return
    device, flags, active = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int()
    try:
        cuda = load_library("libcuda.so.1")
        call(cuda, ["cuInit"], 0)
        call(cuda, ["cuDeviceGet"], ctypes.byref(device), number)
        call(cuda, ["cuDevicePrimaryCtxGetState"], device, ctypes.byref(flags), ctypes.byref(active))
        names = ["cuDevicePrimaryCtxSetFlags_v2", "cuDevicePrimaryCtxSetFlags"]
        call(cuda, names, device, ctypes.c_uint(flags.value & ~_WAITING | _BLOCKING_SYNC))
    except LibraryFailed as failed:
        _log.debug("gpu:%d: threads that wait for it may spin: %s", number, failed.problem)


def chosen_gpu_wait(number: int) -> GpuWait:
    """How threads are to wait for GPU `number`, as `choose_gpu_wait` was told; "spin", CUDA's own way, before that.

    Whoever makes an event of CUDA has to ask: it has a flag of its own for this, and without it threads that wait for
    the event spin, whatever the context says (cudaEventBlockingSync in driver_types.h).
    """
    return _chosen.get(number, "spin")
