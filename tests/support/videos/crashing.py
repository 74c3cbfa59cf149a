"""CrashingSource: a clip source for tests of the worker pool, which crashes, raises or hangs at certain positions."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.index.video_index import VideoIndex
from pipelines.stream import Sample
from pipelines.video.decoder import ReadStatistics

CRASHES, RAISES, HANGS = 1000, 1001, 1002


class CrashingSource:
    """Writes the position of a clip into its slot, but crashes, raises or hangs at the positions of these names.

    With `bad_start` it can't be unpickled, so a worker can't start.
    """

    def __init__(self, bad_start: bool = False) -> None:
        self.bad_start = bad_start

    def __setstate__(self, state: dict[str, bool]) -> None:
        if state["bad_start"]:
            raise ImportError("no module named 'what_it_needs'")
        self.__dict__.update(state)

    def slot_bytes(self, index: VideoIndex) -> int:
        return 8

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool = False
    ) -> list[Sample]:
        for position, slot in zip(positions, slots, strict=True):
            if position == CRASHES:
                os.kill(os.getpid(), signal.SIGSEGV)
            if position == RAISES:
                raise MemoryError("no room")
            if position == HANGS:
                time.sleep(3600)
            slot[:8].view(np.int64)[0] = position
        return [sample(position, real=True) for position in positions]

    def failed(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], reason: str
    ) -> list[Sample]:
        return [sample(position, real=False)._replace(reason=reason) for position in positions]

    def statistics(self) -> ReadStatistics:
        return ReadStatistics(packets=1)


def sample(position: int, *, real: bool) -> Sample:
    return Sample((8,), position, 0, real, (1, 1), (0, 0), False)
