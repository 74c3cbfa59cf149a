"""Single frames of indexed videos, read by another process: a video that crashes or blocks it costs its frames only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import VideoError
from pipelines.isolation.jobs import STALL_SECONDS, Lost, do_apart
from pipelines.isolation.process import Tell
from pipelines.video.decoder import FrameReader
from pipelines.video.record import VideoRecord

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB


class Chosen(NamedTuple):
    """The `frames` of a video that are wanted, by their numbers.

    The other process gives each to `change` first, if there is one: a function that can be pickled.
    """

    record: VideoRecord
    frames: tuple[int, ...]
    change: Callable[[Pixels], Pixels] | None = None


def read_apart(
    chosen: Sequence[Chosen], root: Path, *, stall_seconds: float = STALL_SECONDS
) -> Iterator[list[Pixels] | VideoError]:
    """For each of `chosen`, in order, its frames as `read_frames` gives them, or the error for which there are none.

    `root` is the folder that the videos' paths are relative to. An error may be that the file crashes the process that
    reads it, or that this does nothing for `stall_seconds`. Raises EnvironmentProblem where no process can be started.
    """
    results = do_apart(_Reading(str(root)), chosen, workers=1, stall_seconds=stall_seconds)
    for one, result in zip(chosen, results, strict=True):
        yield VideoError(root / one.record.path, *result, passing=True) if isinstance(result, Lost) else result


class _Reading(NamedTuple):
    root: str

    def __call__(self, job: Chosen, tell: Tell) -> list[Pixels] | VideoError:
        reader, found = FrameReader(), []
        try:
            for number in job.frames:  # one by one, as four frames of 8K together take 400 MB
                (pixels,) = reader.read(job.record, [number], root=self.root)
                found.append(pixels if job.change is None else job.change(pixels))
                tell(len(found) / len(job.frames))
        except VideoError as error:
            return error
        return found
