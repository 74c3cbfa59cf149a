"""Imports Paddle and sets it up, and hides the differences between Paddle 2.6 and 3.x."""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem
from pipelines.machine.cpus import is_amd_with_avx2, usable_cpus
from pipelines.machine.gpu_wait import GpuWait, choose_gpu_wait, chosen_gpu_wait
from pipelines.machine.nvidia import probe_driver
from pipelines.output.temporary import temporary_folder
from r3d_fast.backend.restart import OF_EVERY_MODEL, what_paddle_lacks

_log = logging.getLogger(__name__)

_THREADS = "R3D_FAST_OMP_NUM_THREADS"  # the value that we gave OMP_NUM_THREADS, for child processes to recognise it
_CHOSEN_GPU = "FLAGS_selected_gpus"
_DLPACK_CUDA = 2  # kDLCUDA of dlpack.h


@dataclass(frozen=True)
class Operation:
    """One operation of a graph, such as `conv3d` or `batch_norm`.

    `inputs` and `outputs` have (name, shape) of the first tensor in each of its slots, such as "Filter".
    """

    kind: str
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[str, tuple[int, ...]]]


@cache
def import_paddle() -> ModuleType:
    """The paddle module, set up for this CPU. Raises EnvironmentProblem where it can't be imported."""
    if lacks := what_paddle_lacks():
        _log.warning("%s", lacks)
    said = io.StringIO() if _prepare_cpu() else sys.stderr
    try:
        with warnings.catch_warnings(), redirect_stderr(said), _sigterm_kept():
            # Users of r3d-fast can't do anything about deprecations inside Paddle and the packages it imports.
            warnings.simplefilter("ignore")
            import paddle
    except ImportError as error:
        raise EnvironmentProblem(
            f"Paddle can't be imported ({error}); install it with: pip install 'r3d-fast[cpu]' (any machine) or "
            "'r3d-fast[cuda11]' (V100; Python 3.12 or older), or as Paddle's own site says for newer GPUs"
        ) from error
    finally:
        if isinstance(said, io.StringIO):
            # Paddle warns about an OMP_NUM_THREADS above 1, which it would never choose by itself.
            lines = said.getvalue().splitlines(keepends=True)
            kept = "".join(line for line in lines if "OMP_NUM_THREADS" not in line)
            with suppress(OSError, ValueError):  # stderr is closed
                print(kept, end="", file=sys.stderr, flush=True)
    with suppress(ImportError):  # another Paddle may have it elsewhere, and then writes where it likes
        graphs: Any = import_module("paddle.jit.dy2static.utils")
        graphs.get_temp_dir = _graph_folder
    # Each batch norm prints this in each training step. It means that running statistics are kept, which we want.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
    return paddle  # type: ignore[no-any-return]


def _graph_folder() -> str:
    """The folder into which Paddle writes the code that it makes graphs of: one of this process, gone when it ends.

    Paddle's own choice lies in the user's home, where a container may not let it write; training would be slower.
    """
    folder = _folder_of(os.getpid())
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - what cleans up temporary files may have taken it
    return folder


@cache
def _folder_of(process: int) -> str:
    stack = ExitStack()
    atexit.register(stack.close)
    return str(stack.enter_context(temporary_folder()))


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """A block, in which Paddle is imported, after which SIGTERM does what it did before.

    Paddle would have it print a trace of C++ and kill the process, before Python can remove its temporary files.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _prepare_cpu() -> bool:
    """Set Paddle up for the CPUs of this machine, except for what the user has set.

    Returns whether the number of threads is our choice.
    """
    # By itself, Paddle computes on one core.
    given = os.environ.get("OMP_NUM_THREADS")
    # A value that a parent process of ours has set is not the user's choice. It must be replaced, because this process
    # may be one of several that share the CPUs.
    ours = given in (None, os.environ.get(_THREADS)) and "paddle" not in sys.modules
    if ours:
        # paddle.distributed.launch sets it to the number of processes on this machine.
        processes = int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))
        os.environ["OMP_NUM_THREADS"] = os.environ[_THREADS] = str(max(1, usable_cpus() // processes))
    # Threads without work sleep at once. By default they spin for 0.2 s first, which takes CPU time from decoding.
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    # At level INFO, Paddle prints a line for each graph that it runs; at WARNING, Paddle 2.6 says that calls of its own
    # are deprecated, in the middle of a progress bar. What fails is an exception besides.
    os.environ.setdefault("GLOG_minloglevel", "2")
    if is_amd_with_avx2():
        # Otherwise the MKL inside Paddle does not use AVX2 on AMD processors, and matrix products take three times as
        # long.
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    return ours


def choose_device(wanted: str, wait: GpuWait = "sleep") -> str:
    """Set Paddle's device and return it: "gpu" or "cpu".

    `wanted` is one of these or "auto", which means the GPU if Paddle sees one. `wait` says how threads wait for a GPU,
    unless R3D_FAST_GPU_WAIT or an earlier call does. One warning says if "auto" means the CPU beside an NVIDIA card.

    Raises EnvironmentProblem if the GPU is wanted but Paddle does not see it, and, for "auto" too, if there is a GPU
    and Paddle lacks libraries to compute there.
    """
    if wanted != "cpu":
        choose_gpu_wait(gpu_number(), wait)  # Paddle's import already makes a context where it sees several GPUs
        if (lacks := what_paddle_lacks(OF_EVERY_MODEL)) and probe_driver().gpus:
            raise EnvironmentProblem(f"{lacks}   # before this program starts; or use device cpu")
    paddle = import_paddle()
    built, seen = paddle.is_compiled_with_cuda(), 0
    if built:
        seen = paddle.device.cuda.device_count()
    device = "gpu" if wanted in ("auto", "gpu") and seen else "cpu"
    if device != wanted and device == "cpu":
        reason = "Paddle sees no GPU" if built else "this is Paddle's CPU build"
        if wanted == "gpu":
            raise EnvironmentProblem(
                f"train.device gpu: {reason}; use device auto or cpu, or see what to do by: r3d-fast doctor"
            )
        _tell_unused_card(reason)
    if device == "gpu" and gpu_number() >= seen:
        raise EnvironmentProblem(
            f"this process was started for GPU {gpu_number()}, but Paddle sees only {seen} GPUs, from 0 on; start one "
            "process per GPU"
        )
    paddle.set_device(f"gpu:{gpu_number()}" if device == "gpu" else device)
    return device


@cache
def _tell_unused_card(reason: str) -> None:
    """Warn, once, that Paddle does not use the NVIDIA card of this machine, for `reason`. Silent where there is none.

    It is also silent where the user has hidden all GPUs.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return
    driver = probe_driver()
    if driver.gpus or driver.to_do:
        name = driver.gpus[0].name if driver.gpus else "an NVIDIA card"
        _log.warning(
            "%s is here, but %s: the CPU computes; to see what to do, run: r3d-fast doctor", name,
            reason if driver.gpus else driver.problem,
        )  # fmt: skip


def gpu_number() -> int:
    """The number of this process's GPU, which Paddle's launcher has chosen; 0 without a launcher."""
    return int((os.environ.get(_CHOSEN_GPU) or "0").split(",")[0])


def compute_capability() -> tuple[int, int]:
    """Compute capability (major, minor) of the current GPU, such as (7, 0) for a V100."""
    major, minor = import_paddle().device.cuda.get_device_capability()
    return int(major), int(minor)


def from_dlpack(exporter: Any) -> Any:
    """A Paddle tensor of the data of `exporter`, on the same device. Paddle 3.x shares the memory, 2.6 copies it.

    On a GPU, the exporter gets Paddle's current stream and makes that stream wait for the data. Paddle 2.6 takes only
    a DLPack capsule and does not name the stream, so for both versions the capsule is made here. Paddle 2.6 copies on
    its stream and drops the capsule at once, so the caller has to keep `exporter` until that copy is done.
    """
    if exporter.__dlpack_device__()[0] == _DLPACK_CUDA:
        capsule = exporter.__dlpack__(stream=stream_handle())
    else:
        capsule = exporter.__dlpack__()
    return import_paddle().utils.dlpack.from_dlpack(capsule)


def stream_handle() -> int:
    """The CUDA stream on which Paddle computes, as a number for DLPack, in which 1 is the legacy default stream."""
    return int(import_paddle().device.current_stream().stream_base.cuda_stream) or 1


def record_event() -> Any:
    """A GPU event behind all work on Paddle's current stream so far; it has the methods `query` and `synchronize`.

    A thread in `synchronize` sleeps or spins, as was chosen for this process's GPU.
    """
    event = import_paddle().device.Event(blocking=chosen_gpu_wait(gpu_number()) == "sleep")
    event.record()
    return event


def to_gpu(array: NDArray[Any]) -> tuple[Any, Any]:
    """(tensor on the GPU, memory to keep until the copy is done) of `array`. The host does not wait for the copy."""
    paddle = import_paddle()
    pinned = paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())
    return pinned.cuda(blocking=False), pinned


def unscale_gradients(gradients: list[Any], scale: Any) -> Any:
    """A bool tensor [1]: whether any number is not finite. Divides `gradients` by `scale` float32 [1] in place."""
    from paddle import _C_ops  # what Paddle's own GradScaler calls: one kernel for all gradients

    return _C_ops.check_finite_and_unscale_(gradients, scale)[1]


def autocast(dtype: str, level: str, white_list: frozenset[str]) -> Any:
    """Paddle's autocast context for `dtype`, which also runs the operations in `white_list` in that type."""
    return import_paddle().amp.auto_cast(custom_white_list=set(white_list), level=level, dtype=dtype)


def without_autocast() -> Any:
    """A context that turns autocast off, if the caller has turned it on."""
    return import_paddle().amp.auto_cast(enable=False)


def new_parameter(tensor: Any) -> Any:
    """A trainable parameter with the values and dtype of `tensor`."""
    from paddle.base.framework import EagerParamBase

    return EagerParamBase.from_tensor(tensor.detach())


def describe_forward(build: Callable[[], Any], shape: tuple[int, ...]) -> list[Operation]:
    """The operations of the Layer that `build` makes, for clips float32 of `shape`. Nothing is computed.

    No memory is allocated for weights either, so that this works for the largest model.
    """
    paddle = import_paddle()
    with _only_described() as program:
        build()(paddle.static.data("clips", list(shape), "float32"))
    block = program.global_block()

    def tensors(names: Callable[[str], list[str]], slots: list[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {slot: (name, tuple(block.var(name).shape)) for slot in slots for name in names(slot)[:1]}

    return [
        Operation(op.type, tensors(op.input, op.input_names), tensors(op.output, op.output_names)) for op in block.ops
    ]


def weight_shapes(build: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of the Layer that `build` makes, by their names in it; no memory is taken for them."""
    with _only_described():
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


@contextmanager
def _only_described() -> Iterator[Any]:
    """A block whose Layers and operations are only noted in the program that it gives: nothing is computed or kept."""
    paddle = import_paddle()
    guard = getattr(import_module("paddle.pir_utils"), "OldIrGuard", None)
    with nullcontext() if guard is None else guard(), paddle.utils.unique_name.guard():
        paddle.enable_static()
        try:
            program = paddle.static.Program()
            with paddle.static.program_guard(program, paddle.static.Program()):
                yield program
        finally:
            paddle.disable_static()


def older_graphs() -> AbstractContextManager[Any]:
    """A context in which graphs are traced and run in the format of 2.6. That of 3.x can't train with oneDNN."""
    import_paddle()
    guard = getattr(import_module("paddle.pir_utils"), "DygraphOldIrGuard", None)
    return nullcontext() if guard is None else guard()


def has_newer_graphs() -> bool:
    """Whether this Paddle has the graph format of 3.x, which `jit.save` writes as model.json and 2.6 can't read."""
    import_paddle()
    return hasattr(import_module("paddle.pir_utils"), "DygraphOldIrGuard")


def release_graphs() -> None:
    """Free the memory that graphs hold between two runs: with oneDNN all convolutions' work space, for each batch size.

    No backward pass of a graph may be outstanding. The next run of a graph takes some 0.1 s more.
    """
    import_paddle().base.core.clear_executor_cache()


def use_onednn(config: Any) -> None:
    """Make the inference engine with this config compute with oneDNN on the CPU."""
    (getattr(config, "enable_onednn", None) or config.enable_mkldnn)()


def cpu_threads() -> int:
    """The number of threads that Paddle computes with. If the variable was not set, Paddle's import has set it."""
    import_paddle()
    return int(os.environ["OMP_NUM_THREADS"])


def restore_threads() -> None:
    """Set the number of threads again, because a run of the inference engine sets it to 1."""
    import_paddle().base.core.set_num_threads(cpu_threads())


def tensorrt_version() -> tuple[int, int, int]:
    """The version of TensorRT, if this Paddle was built for it and can load it; else (0, 0, 0)."""
    import_paddle()
    from paddle import inference

    found: list[tuple[int, int, int]] = []
    for name in ("get_trt_compile_version", "get_trt_runtime_version"):
        try:
            major, minor, patch = getattr(inference, name)()
        except Exception:  # this build has no such function, or the library is not installed
            return (0, 0, 0)
        found.append((int(major), int(minor), int(patch)))
    return found[1] if all(version[0] for version in found) else (0, 0, 0)
