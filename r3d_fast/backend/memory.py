"""Recognises that memory ran out, and finds the largest batch that would fit."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import TypeVar

from pipelines.errors import EnvironmentProblem
from pipelines.machine.memory import fitting_size, trim_memory
from r3d_fast.backend.paddle import import_paddle

_EXHAUSTED = re.compile(r"Out of memory error|ResourceExhausted|_ALLOC_FAILED|cudaErrorMemoryAllocation")
Computed = TypeVar("Computed")


def run_batch(
    run: Callable[[], Computed], attempt: Callable[[int], object], size: int, device: str, key: str, *,
    free: Callable[[], None] | None = None, ranks: int = 1, accumulate: int | None = None,
) -> Computed:  # fmt: skip
    """Call `run`, which computes a batch of `size` clips on `device`, and return its result.

    If memory runs out, `attempt(rows)` is called with smaller and smaller batches, and an EnvironmentProblem is raised
    that names the first size that fits, as a value for `key`: an option such as "--batch-size", or a setting such as
    "eval.batch_size". Before each attempt unused memory is freed, by `free` if that is given. If `ranks` processes
    share the batch, the sizes in the message count all of them. `accumulate` is the number of batches per step in
    training. Other errors of `run` and `attempt` are passed on.
    """
    try:
        return run()
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error)
    # Not in the except block, because there the traceback keeps all activations of the failed batch in memory.
    give_back = free or (lambda: free_memory(device))

    def attempt_afresh(rows: int) -> None:
        give_back()
        attempt(rows)

    fits = fitting_size(size, attempt_afresh, is_out_of_memory)
    give_back()
    raise _out_of_memory(said, device, size * ranks, fits * ranks, key, accumulate)


def free_memory(device: str) -> None:
    """Give the memory of objects that are no longer used back to the system, also that of a GPU."""
    gc.collect()
    trim_memory()
    if device == "gpu":
        import_paddle().device.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, from Paddle, cuDNN or cuBLAS, means that memory ran out.

    Paddle's allocators raise MemoryError ("ResourceExhaustedError: Out of memory error on GPU 0 ..."). For cuDNN and
    cuBLAS it is an OSError or RuntimeError with their own status.
    """
    return isinstance(error, (MemoryError, OSError, RuntimeError)) and _EXHAUSTED.search(str(error)) is not None


def _out_of_memory(
    said: str, device: str, size: int, fits: int, key: str, accumulate: int | None
) -> EnvironmentProblem:
    """The error for a batch of `size` clips that does not fit into the memory of `device`.

    `said` is Paddle's message; `fits` is the number of clips that do fit, 0 if none do; `key` is the setting or option
    of the batch size; `accumulate` is `train.accumulate`, or None if no training step is taken.
    """
    wanted = re.search(r"Cannot allocate ([\d.]+\s?[A-Za-z]+)", said)
    more = f" ({wanted[1]} more were needed)" if wanted else ""
    apart = "; evaluation has a batch size of its own" if key.startswith("eval.") else ""
    if fits:
        option = f"{key} {fits}" if key.startswith("--") else f"-o {key}={fits}"
        advice = f"a batch of {fits} fits: {option}{apart}"
        if accumulate is not None and size % fits == 0:
            advice += f" -o train.accumulate={accumulate * size // fits} (the same steps, except for batch norm)"
    else:
        advice = "not even one clip fits: choose a smaller model.width, clip.num_frames or augment.size_px"
    return EnvironmentProblem(
        f"out of memory on the {device.upper()}: a batch of {size} clips does not fit{more}; {advice}"
    )
