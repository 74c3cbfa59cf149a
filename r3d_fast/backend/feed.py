"""Batch -> Paddle tensors on the model's device, without a copy on the host and without waiting for the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from pipelines.errors import R3DFastError
from pipelines.loader import Batch
from r3d_fast.backend.paddle import from_dlpack, import_paddle, record_event, to_gpu

_MOST_HELD = 2


class DeviceBatch(NamedTuple):
    """A batch as tensors on the model's device: clips as `Batch.clips`, labels int64 [N], weights float32 [N].

    Where clips are mixed, a row has its own label by `share`, and its label in `others` int64 [N] by the rest.
    """

    clips: Any
    labels: Any
    weights: Any  # 1 / number of real rows for a real row, else 0: a weighted sum is the mean over real rows
    held: tuple[Any, ...] = ()  # host memory from which copies to the GPU may still be under way
    real: int | None = None  # real rows; None: all
    others: Any = None
    share: float = 1.0


def feed(batch: Batch, device: str) -> DeviceBatch:
    """The batch as Paddle tensors on `device`; clips that lie there already share the loader's memory (2.6: copied)."""
    count = int(batch.is_real.sum())
    weights = batch.is_real.astype("float32") / max(1, count)
    clips = from_dlpack(batch.clips)
    if device == "cpu":
        paddle = import_paddle()
        return DeviceBatch(clips, paddle.to_tensor(batch.labels), paddle.to_tensor(weights), real=count)
    if not clips.place.is_gpu_place():  # decoded and augmented on the CPU
        clips = clips.cuda()
    (on_gpu, labels), (weights_on_gpu, pinned) = to_gpu(batch.labels), to_gpu(weights)
    return DeviceBatch(clips, on_gpu, weights_on_gpu, (labels, pinned), count)


def feeding(
    batches: Iterable[Batch], device: str, wait: Callable[[Any], None] | None = None
) -> Generator[tuple[Batch, DeviceBatch], None, None]:
    """Each batch with its tensors on `device`; asking for the next says that all work on the last has been started.

    On a GPU, kernels that read a batch may still wait on Paddle's stream when Python has left the step, while the
    loader is free to write a later batch into the same buffer, on a stream of its own, as soon as nobody holds it. So
    each batch is held, with its tensors and an event after its step, until the event has passed; more than two are
    never held, the host then waits for the oldest: `wait(event)`, by default until it has come.
    """
    wait = wait or (lambda event: event.synchronize())
    held: deque[tuple[Any, Batch, DeviceBatch]] = deque()
    try:
        for batch in batches:
            fed = feed(batch, device)
            yield batch, fed
            if device == "gpu":
                held.append((record_event(), batch, fed))
                while held and (held[0][0].query() or len(held) > _MOST_HELD):
                    wait(held.popleft()[0])
    finally:
        if device == "gpu":
            with suppress(R3DFastError):  # ranks that are gone: the error that ended the step tells
                wait(record_event())  # also after a step that was left by an error
