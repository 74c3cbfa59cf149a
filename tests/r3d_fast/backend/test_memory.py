from __future__ import annotations

from typing import Any

import pytest
from fed import GPU_TEXT

from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.memory import is_out_of_memory, run_batch
from r3d_fast.backend.paddle import import_paddle


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (MemoryError(GPU_TEXT), True),
        (MemoryError("(ResourceExhausted) Fail to alloc memory of 70368744177664 size, error code is 12."), True),
        (OSError("(External) CUDNN error(4), CUDNN_STATUS_ALLOC_FAILED."), True),
        (OSError("(External) CUBLAS error(3). [Hint: 'CUBLAS_STATUS_ALLOC_FAILED'...]"), True),
        (OSError("(External) CUDA error(2), out of memory. [Hint: 'cudaErrorMemoryAllocation'...]"), True),
        (OSError("(External) CUDA error(700), an illegal memory access was encountered."), False),
        (ValueError("Out of memory error on GPU 0"), False),
        (EnvironmentProblem("out of memory on the GPU: a batch of 8 clips does not fit"), False),
    ],
)
def test_what_counts_as_exhausted_memory(error: Exception, exhausted: bool) -> None:
    assert is_out_of_memory(error) is exhausted


class Machine:
    """Runs batches of up to `most` clips; more are an error of Paddle's own: it is asked for 2^46 bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, []  # type: ignore[var-annotated]
        self.freed = 0

    def run(self, rows: int) -> int:
        self.sizes.append(rows)
        if rows > self.most:
            import_paddle().empty([2**44])
        return rows

    def free(self) -> None:
        self.freed += 1

    def batch(self, size: int, key: str = "--batch-size", **more: Any) -> int:
        return run_batch(lambda: self.run(size), self.run, size, "cpu", key, free=self.free, **more)


def test_a_batch_that_fits_is_run_once() -> None:
    machine = Machine(8)
    assert machine.batch(8) == 8
    assert (machine.sizes, machine.freed) == ([8], 0)


def test_a_batch_that_does_not_fit_names_the_first_that_does() -> None:
    machine = Machine(3)
    with pytest.raises(EnvironmentProblem) as caught:
        machine.batch(13)
    assert machine.sizes == [13, 6, 3]
    assert machine.freed == 3  # before each attempt, and after the last
    assert str(caught.value) == (
        "out of memory on the CPU: a batch of 13 clips does not fit; a batch of 3 fits: --batch-size 3"
    )
    assert caught.value.exit_code == 4
    assert caught.value.__context__ is None  # its traceback would hold what the batch computed


@pytest.mark.parametrize(
    ("most", "key", "more", "advice"),
    [
        (2, "eval.batch_size", {}, "a batch of 2 fits: -o eval.batch_size=2; evaluation has a batch size of its own"),
        (2, "loader.batch_size", {"ranks": 4}, "a batch of 8 fits: -o loader.batch_size=8"),
        (2, "loader.batch_size", {"accumulate": 3}, "-o loader.batch_size=2 -o train.accumulate=12 (the same steps"),
        (0, "--batch-size", {}, "not even one clip fits: choose a smaller model.width"),
    ],
)
def test_what_the_user_is_told_to_set(most: int, key: str, more: dict[str, int], advice: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        Machine(most).batch(8, key, **more)
    assert advice in str(caught.value)


def test_other_errors_come_through() -> None:
    def broken(rows: int = 8) -> int:
        raise RuntimeError("(PreconditionNotMet) something else")

    with pytest.raises(RuntimeError, match="something else"):
        run_batch(broken, broken, 8, "cpu", "--batch-size")
    with pytest.raises(RuntimeError, match="something else"):
        run_batch(lambda: Machine(3).run(8), broken, 8, "cpu", "--batch-size")
