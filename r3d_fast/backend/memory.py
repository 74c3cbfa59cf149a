"""Memory that runs out: how it is recognised, and which batch would have fitted."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable

from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.paddle import import_paddle, is_out_of_memory


def free_memory(device: str) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device == "gpu":
        import_paddle().device.cuda.empty_cache()


def fitting_batch(attempt: Callable[[int], None], size: int, free: Callable[[], None]) -> int:
    """The first of size/2, size/4, ... rows for which `attempt` has memory enough, 0 if not even one row fits."""
    while size := size // 2:
        free()
        try:
            attempt(size)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            break
    free()
    return size


def out_of_memory(
    said: str, device: str, size: int, fits: int, key: str, ranks: int = 1, accumulate: int | None = None
) -> EnvironmentProblem:
    """The problem to raise where a batch of `size` did not fit and one of `fits` did, on one of so many `ranks`.

    `said` is Paddle's message, `accumulate` the batches of a step in training.
    """
    size, fits = size * ranks, fits * ranks  # config values are those of all ranks together
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
