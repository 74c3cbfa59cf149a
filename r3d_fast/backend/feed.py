"""Turns batches of the loader into Paddle tensors on the model's device, without waiting for the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from pipelines.errors import R3DFastError
from pipelines.loader import Batch
from r3d_fast.backend.paddle import from_dlpack, import_paddle, record_event, to_gpu

_MOST_HELD = 2  # batches whose step the GPU has not finished


class DeviceBatch(NamedTuple):
    """A batch as Paddle tensors on the model's device: clips as in `Batch`, labels int64 [N], weights float32 [N].

    After mixup or cutmix, `share` of each clip belongs to its label in `labels`, and the rest to its label in `others`,
    int64 [N].
    """

    clips: Any
    labels: Any
    weights: Any  # 1 / number of real rows in real rows, 0 in padding: a sum with these weights is the mean
    held: tuple[Any, ...] = ()  # host memory that the GPU may still be copying from
    real: int | None = None  # number of real rows; None: all are
    others: Any = None
    share: float = 1.0


def feed(batch: Batch, device: str) -> DeviceBatch:
    """The batch as Paddle tensors on `device`. Clips that are there already are not copied (except by Paddle 2.6)."""
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
    """Yields each batch with its tensors on `device`. Ask for the next one after all work on the last was started.

    On a GPU, the kernels of a step may still be waiting on Paddle's stream when Python has left the step. But as soon
    as no Python object refers to a batch, the loader may write a later batch into its memory, on another stream. So
    this function keeps each batch until an event recorded after its step has passed. It keeps at most two; then it
    calls `wait(event)` for the older one, by default the method `synchronize` of the event.
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
            # Also after an error in a step. If `wait` finds that other ranks have died, that error already says so.
            with suppress(R3DFastError):
                wait(record_event())
