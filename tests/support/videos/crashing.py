"""CrashingSource: a clip source for tests of the worker pool, which crashes, raises or hangs at certain positions."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.index.video_index import VideoIndex
from pipelines.stream import Sample
from pipelines.video.decoder import ReadStatistics
from pipelines.workers.clip_source import LeftOut

CRASHES, RAISES, HANGS, SPINS = 1000, 1001, 1002, 1003


class CrashingSource:
    """Writes the position of a clip into its slot, but crashes, raises, hangs or spins at the positions of these
    names.

    With `bad_start` it can't be unpickled, so a worker can't start.
    """

    def __init__(self, bad_start: bool = False) -> None:
        self.bad_start = bad_start
        self.left_out: list[LeftOut] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
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
            if position == SPINS:
                while True:
                    pass
            slot[:8].view(np.int64)[0] = position
        return [sample(position, real=True) for position in positions]

    def failed(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], reason: str
    ) -> list[Sample]:
        return [sample(position, real=False)._replace(reason=reason) for position in positions]

    def path_of(self, epoch: int, position: int) -> str:
        return f"/videos/{position}.avi"

    def quarantine(self, epoch: int, position: int, reason: str, detail: str) -> LeftOut:
        video = LeftOut(position, f"{reason}: {detail}")
        self.left_out.append(video)
        return video

    def leave_out(self, video: LeftOut) -> None:
        self.left_out.append(video)

    def statistics(self) -> ReadStatistics:
        return ReadStatistics(packets=1)


def sample(position: int, *, real: bool) -> Sample:
    return Sample((8,), position, 0, real, (1, 1), (0, 0), False)
