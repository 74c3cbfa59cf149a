"""Finds the layout in which a model trains fastest on this machine, by timing training steps in each candidate.

Which layout is fastest depends on the card, the number format, and the versions of Paddle and cuDNN: which of them have
kernels that take channels-last tensors as they lie, and copy them otherwise (`compute_in_nhwc` in
paddle/phi/kernels/gpudnn/conv_kernel.cu; `models/channels_last.py` says it of batch norm and pools).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.errors import UsageError
from r3d_fast.backend.memory import free_memory, is_out_of_memory
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import Precision, choose_data_format
from r3d_fast.config.config import DataFormat

STEPS = 10  # timed in each layout
# Steps before that. In the first one the graph is traced, cuDNN searches its algorithms, and Paddle makes the moments
# of the optimiser; with them the second one is the first that takes the usual way (`TrainStep._apply`).
_WARM_UP = 3
# The steps of a later candidate have to be shorter by 2 %, so that chance does not choose between equal ones.
_CLEARLY = 0.98

Step = Callable[[], object]


@dataclass(frozen=True)
class Layout:
    """How tensors lie while a model trains: the order of their axes, and whether its graph has a padded stem."""

    data_format: DataFormat = "NCDHW"
    padded_stem: bool = False  # see `gpu.accelerate_training`

    def __str__(self) -> str:
        return f"{self.data_format} with a padded stem" if self.padded_stem else self.data_format


@dataclass(frozen=True)
class Attempt:
    """A layout that was tried: seconds a step took, or why it could not be timed."""

    layout: Layout
    seconds: float | None
    failure: str | None = None


@dataclass(frozen=True)
class Trial:
    """What a trial found; `clips` is the number of clips in a step, `seconds` how long the whole trial took."""

    attempts: tuple[Attempt, ...]
    clips: int
    seconds: float

    @property
    def layout(self) -> Layout:
        """The layout that won. It is the first one tried where none could be timed: training itself says why."""
        best = self.attempts[0]
        for attempt in self.attempts[1:]:
            if attempt.seconds is not None and (best.seconds is None or attempt.seconds < _CLEARLY * best.seconds):
                best = attempt
        return best.layout

    def __str__(self) -> str:
        figures = ", ".join(f"{attempt.layout} {self._figure(attempt)}" for attempt in self.attempts)
        return f"layout {self.layout}, by a trial of {STEPS} steps each: {figures}"

    def record(self, step: int) -> dict[str, Any]:
        """The trial as a record for metrics.jsonl, before the run took its step number `step`, from 0."""
        tried = [
            {**asdict(attempt.layout), "clips_per_second": self._speed(attempt), "failure": attempt.failure}
            for attempt in self.attempts
        ]
        return {"kind": "layout", "step": step, **asdict(self.layout), "seconds": self.seconds, "tried": tried}

    def _figure(self, attempt: Attempt) -> str:
        speed = self._speed(attempt)
        return str(attempt.failure) if speed is None else f"{speed:.1f} clips/s"

    def _speed(self, attempt: Attempt) -> float | None:
        return None if attempt.seconds is None else self.clips / attempt.seconds


def candidates(wanted: Literal["auto"] | DataFormat, precision: Precision, device: str) -> tuple[Layout, ...]:
    """The layouts among which a trial decides, or the only one: `wanted` is `model.data_format`.

    There is a choice in half precision on a GPU, if `wanted` is "auto". In float32 Paddle copies channels-last tensors
    for each convolution.
    """
    first = Layout(choose_data_format(wanted, precision, device))
    if wanted != "auto" or first.data_format == "NCDHW":
        return (first,)
    return (first, Layout("NDHWC", padded_stem=True), Layout("NCDHW"))


def stored_layout(state: Mapping[str, Any], precision: Precision) -> Layout | None:
    """The layout in which the run with the checkpoint state `state` was trained in `precision`; None if not known."""
    values = state.get("layout")
    return Layout(**values) if values is not None and state.get("precision") == str(precision) else None


def try_layouts(layouts: Sequence[Layout], begin: Callable[[Layout], Step], clips: int, device: str) -> Trial:
    """Time the steps of each of `layouts` on `device`, "cpu" or "gpu".

    `begin(layout)` makes a new model and gives a function that takes a training step with it, of `clips` clips. A
    layout fails where that raises an error, for instance because the memory runs out; only a UsageError, which all of
    them would meet, is passed on. Afterwards Paddle's flags and the random generators of its device are as before, and
    the memory is free again.
    """
    start = time.monotonic()
    with _kept_state():
        attempts = tuple(_attempt(layout, begin, device) for layout in layouts)
    return Trial(attempts, clips, time.monotonic() - start)


def _attempt(layout: Layout, begin: Callable[[Layout], Step], device: str) -> Attempt:
    try:
        return Attempt(layout, _time_steps(begin(layout), device))
    except UsageError:
        raise
    except Exception as error:  # whatever a layout fails with, another one may work
        lines = str(error).strip().splitlines() or [type(error).__name__]
        ran_out = is_out_of_memory(error) or lines[0].startswith("out of memory")
        failure = "runs out of memory" if ran_out else f"fails ({lines[-1]})"
    finally:
        free_memory(device)
    return Attempt(layout, None, failure)


def _time_steps(step: Step, device: str) -> float:
    """Seconds that a step takes, the mean of `STEPS` after the warm-up."""
    for _ in range(_WARM_UP):
        step()
    _synchronise(device)
    start = time.monotonic()
    for _ in range(STEPS):
        step()
    _synchronise(device)
    return (time.monotonic() - start) / STEPS


def _synchronise(device: str) -> None:
    """Wait until `device` has done all that was started; a CPU always has."""
    if device == "gpu":
        import_paddle().device.cuda.synchronize()


@contextmanager
def _kept_state() -> Iterator[None]:
    """A block after which the flags and the random generators of Paddle's device are as before it."""
    from r3d_fast.acceleration import gpu  # imports Paddle

    paddle = import_paddle()
    state, flags = paddle.get_rng_state(), gpu.flags()
    try:
        yield
    finally:
        paddle.set_rng_state(state)
        if flags:
            paddle.set_flags(flags)
