"""Memory that runs out: how it is recognised, and which batch would have fitted."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import TypeVar

from pipelines.errors import EnvironmentProblem
from pipelines.machine.memory import fitting_size
from r3d_fast.backend.paddle import import_paddle

_EXHAUSTED = re.compile(r"Out of memory error|ResourceExhausted|_ALLOC_FAILED|cudaErrorMemoryAllocation")
Computed = TypeVar("Computed")


def run_batch(
    run: Callable[[], Computed], attempt: Callable[[int], object], size: int, device: str, key: str, *,
    free: Callable[[], None] | None = None, ranks: int = 1, accumulate: int | None = None,
) -> Computed:  # fmt: skip
    """What `run` gives, which computes a batch of `size` clips on `device`.

    Where its memory runs out, `attempt(rows)` is called for ever smaller batches, and the EnvironmentProblem that is
    raised names the first one that fits, as the value to give `key`: an option such as "--batch-size", or a setting
    such as "eval.batch_size". All memory that nobody holds is given back between attempts, by `free` where that has
    more to do. On one of `ranks` processes that share a batch, sizes are those of all; `accumulate`: batches of a step
    in training. Any other error of `run` or `attempt` comes through as it is.
    """
    try:
        return run()
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error)
    # Outside the handler: the traceback holds every activation of the failed batch.
    give_back = free or (lambda: free_memory(device))

    def attempt_afresh(rows: int) -> None:
        give_back()
        attempt(rows)

    fits = fitting_size(size, attempt_afresh, is_out_of_memory)
    give_back()
    raise _out_of_memory(said, device, size * ranks, fits * ranks, key, accumulate)


def free_memory(device: str) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device == "gpu":
        import_paddle().device.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Paddle, cuDNN or cuBLAS says by `error` that memory is exhausted.

    Paddle's allocators raise MemoryError ("ResourceExhaustedError: Out of memory error on GPU 0 ..."), the libraries
    an OSError or RuntimeError with their own status.
    """
    return isinstance(error, (MemoryError, OSError, RuntimeError)) and _EXHAUSTED.search(str(error)) is not None


def _out_of_memory(
    said: str, device: str, size: int, fits: int, key: str, accumulate: int | None
) -> EnvironmentProblem:
    """The problem to raise where a batch of `size` clips did not fit and one of `fits` did; `said` is Paddle's."""
    wanted = re.search(r"Cannot allocate ([\d.]+\s?[A-Za-z]+)", said)
    more = f" ({wanted[1]} more were asked for)" if wanted else ""
    apart = "; evaluation has a batch size of its own" if key.startswith("eval.") else ""
    if fits:
        option = f"{key} {fits}" if key.startswith("--") else f"-o {key}={fits}"
        advice = f"a batch of {fits} fits: {option}{apart}"
        if accumulate is not None and size % fits == 0:
            advice += f" -o train.accumulate={accumulate * size // fits} (the same steps, but for batch norm)"
    else:
        advice = "not even one clip fits: choose a smaller model.width, clip.num_frames or augment.size_px"
    return EnvironmentProblem(
        f"out of memory on the {device.upper()}: a batch of {size} clips does not fit{more}; {advice}"
    )
