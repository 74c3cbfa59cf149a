"""Every difference between Paddle 2.6 and 3.x, and what has to be said to Paddle before it is imported."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem
from pipelines.machine.cpus import is_amd_with_avx2, usable_cpus

_THREADS = "R3D_FAST_OMP_NUM_THREADS"  # what we set OMP_NUM_THREADS to
_CHOSEN_GPU = "FLAGS_selected_gpus"
_DLPACK_CUDA = 2  # kDLCUDA of dlpack.h


@dataclass(frozen=True)
class Operation:
    """One operation of a graph: `conv3d`, `batch_norm`, ..; (name, shape) of its first tensor in each of its slots."""

    kind: str
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[str, tuple[int, ...]]]


@cache
def import_paddle() -> ModuleType:
    """The paddle module, set up for this CPU. Raises EnvironmentProblem where it can't be imported."""
    said = io.StringIO() if _prepare_cpu() else sys.stderr
    try:
        with warnings.catch_warnings(), redirect_stderr(said):
            # Deprecations inside Paddle and what it imports are nothing that a user of ours can mend.
            warnings.simplefilter("ignore")
            import paddle
    except ImportError as error:
        raise EnvironmentProblem(
            f"Paddle can't be imported ({error}); install it with: pip install 'r3d-fast[cpu]' (any machine) or "
            "'r3d-fast[cuda11]' (V100), or as Paddle's own site says for newer GPUs"
        ) from error
    finally:
        if isinstance(said, io.StringIO):
            # Paddle advises against the number of threads, to which it never comes by itself.
            lines = said.getvalue().splitlines(keepends=True)
            kept = "".join(line for line in lines if "OMP_NUM_THREADS" not in line)
            with suppress(OSError, ValueError):  # nobody reads it any more
                print(kept, end="", file=sys.stderr, flush=True)
    # Said by every batch norm of every training step; it only tells that running statistics are kept, as we want them.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
    return paddle  # type: ignore[no-any-return]


def _prepare_cpu() -> bool:
    """Set Paddle up for this machine's CPUs, but for what the user set; whether the number of threads is ours."""
    # Left to itself, Paddle computes on one core.
    given = os.environ.get("OMP_NUM_THREADS")
    # What a parent of ours set is not the user's choice: its child may be one of several that share the CPUs.
    ours = given in (None, os.environ.get(_THREADS)) and "paddle" not in sys.modules
    if ours:
        processes = int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))  # of one machine, under paddle.distributed.launch
        os.environ["OMP_NUM_THREADS"] = os.environ[_THREADS] = str(max(1, usable_cpus() // processes))
    # A thread that waits for work sleeps at once: what it would burn in 0.2 s, decoding can use.
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    # Each graph says at level INFO that it is run.
    os.environ.setdefault("GLOG_minloglevel", "1")
    if is_amd_with_avx2():
        # The MKL inside Paddle does not use AVX2 on AMD processors otherwise: matrix products three times as fast.
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    return ours


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
    if device == "gpu" and gpu_number() >= seen:
        raise EnvironmentProblem(
            f"this process is to use GPU {gpu_number()}, Paddle sees {seen} of them; start one process a GPU"
        )
    paddle.set_device(f"gpu:{gpu_number()}" if device == "gpu" else device)
    return device


def gpu_number() -> int:
    """The GPU of this process, as Paddle's launcher chose it: 0 where nobody launched it."""
    return int((os.environ.get(_CHOSEN_GPU) or "0").split(",")[0])


def compute_capability() -> tuple[int, int]:
    """(major, minor) of the current GPU, such as (7, 0) of a V100."""
    major, minor = import_paddle().device.cuda.get_device_capability()
    return int(major), int(minor)


def from_dlpack(exporter: Any) -> Any:
    """A Paddle tensor of what `exporter` holds, on the device it lies on: 3.x shares the memory, 2.6 copies it.

    Where that is a GPU, the exporter is told Paddle's current stream and makes it wait for the data. 2.6 takes only the
    capsule, for which nobody but us can name the stream; so both versions get one. 2.6 copies on that stream and drops
    the capsule at once: whoever calls holds `exporter` until the stream has come past.
    """
    if exporter.__dlpack_device__()[0] == _DLPACK_CUDA:
        capsule = exporter.__dlpack__(stream=stream_handle())
    else:
        capsule = exporter.__dlpack__()
    return import_paddle().utils.dlpack.from_dlpack(capsule)


def stream_handle() -> int:
    """The CUDA stream on which Paddle computes, as DLPack wants it named: 1 is the legacy default one."""
    return int(import_paddle().device.current_stream().stream_base.cuda_stream) or 1


def record_event() -> Any:
    """An event after everything that was put on Paddle's current stream so far; `query`, `synchronize`. GPU only."""
    event = import_paddle().device.Event()
    event.record()
    return event


def to_gpu(array: NDArray[Any]) -> tuple[Any, Any]:
    """(tensor on the GPU, what has to live until the copy is done) of `array`; the host does not wait for the copy."""
    paddle = import_paddle()
    pinned = paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())
    return pinned.cuda(blocking=False), pinned


def unscale_gradients(gradients: list[Any], scale: Any) -> Any:
    """A bool tensor [1]: whether any number is not finite. Divides `gradients` by `scale` float32 [1] in place."""
    from paddle import _C_ops  # what Paddle's own GradScaler calls: one kernel for all gradients

    return _C_ops.check_finite_and_unscale_(gradients, scale)[1]


def autocast(dtype: str, level: str, white_list: frozenset[str]) -> Any:
    """Paddle's autocast context for `dtype`, with `white_list` beside its own list of ops to run in it."""
    return import_paddle().amp.auto_cast(custom_white_list=set(white_list), level=level, dtype=dtype)


def without_autocast() -> Any:
    """A context in which no autocast is in force, whatever the caller is in."""
    return import_paddle().amp.auto_cast(enable=False)


def new_parameter(tensor: Any) -> Any:
    """A trainable parameter with the values and dtype of `tensor`."""
    from paddle.base.framework import EagerParamBase

    return EagerParamBase.from_tensor(tensor.detach())


def describe_forward(build: Callable[[], Any], shape: tuple[int, ...]) -> list[Operation]:
    """The operations by which what `build` makes, a Layer, takes clips float32 of `shape`; nothing is computed.

    Weights are described too, not made, so that the largest model takes no memory.
    """
    paddle = import_paddle()
    guard = getattr(import_module("paddle.pir_utils"), "OldIrGuard", None)
    with nullcontext() if guard is None else guard(), paddle.utils.unique_name.guard():
        paddle.enable_static()
        try:
            program = paddle.static.Program()
            with paddle.static.program_guard(program, paddle.static.Program()):
                build()(paddle.static.data("clips", list(shape), "float32"))
        finally:
            paddle.disable_static()
    block = program.global_block()

    def tensors(names: Callable[[str], list[str]], slots: list[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {slot: (name, tuple(block.var(name).shape)) for slot in slots for name in names(slot)[:1]}

    return [
        Operation(op.type, tensors(op.input, op.input_names), tensors(op.output, op.output_names)) for op in block.ops
    ]


def older_graphs() -> AbstractContextManager[Any]:
    """A context in which graphs are traced and run in the form of 2.6; 3.x has another, which can't train by oneDNN."""
    import_paddle()
    guard = getattr(import_module("paddle.pir_utils"), "DygraphOldIrGuard", None)
    return nullcontext() if guard is None else guard()


def has_newer_graphs() -> bool:
    """Whether this Paddle has the graphs of 3.x, which `jit.save` writes as model.json: 2.6 can't read them."""
    import_paddle()
    return hasattr(import_module("paddle.pir_utils"), "DygraphOldIrGuard")


def use_onednn(config: Any) -> None:
    """Have an inference config compute by oneDNN on the CPU."""
    (getattr(config, "enable_onednn", None) or config.enable_mkldnn)()


def cpu_threads() -> int:
    """How many threads Paddle computes with: it sets the variable while it is imported, if nobody has before."""
    import_paddle()
    return int(os.environ["OMP_NUM_THREADS"])


def restore_threads() -> None:
    """Give the process back its threads, of which a run of the inference engine leaves it one."""
    import_paddle().base.core.set_num_threads(cpu_threads())


def tensorrt_version() -> tuple[int, int, int]:
    """The TensorRT that this Paddle was built for and can load; (0, 0, 0) where it lacks either."""
    import_paddle()
    from paddle import inference

    found: list[tuple[int, int, int]] = []
    for name in ("get_trt_compile_version", "get_trt_runtime_version"):
        try:
            major, minor, patch = getattr(inference, name)()
        except Exception:  # no such function in this build, or no such library to load
            return (0, 0, 0)
        found.append((int(major), int(minor), int(patch)))
    return found[1] if all(version[0] for version in found) else (0, 0, 0)
