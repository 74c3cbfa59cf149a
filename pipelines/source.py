"""Picklable callables that hand DALI the samples of a batch. Each worker process holds one and opens what it needs.

A clip that fails is handed on as a blank one, with the reason beside it and not real: it is never replaced by another.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.decode import FrameReader
from pipelines.errors import R3DFastError
from pipelines.index import VideoIndex
from pipelines.sampler import ClipPlan, ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

_BLANK_PX = 8


@dataclass(frozen=True)
class ClipStream:
    """Which batches a source gives: those of `epoch` from `batch` on; with `endless` those of the next epochs too."""

    index_path: str
    root: str
    split: str | None
    clip: ClipSpec
    augment: AugmentSpec
    shard: ShardSpec
    batch_size: int
    seed: int
    train: bool
    epoch: int = 0
    batch: int = 0
    endless: bool = False

    def sampler(self, index: VideoIndex) -> ClipSampler:
        """The sampler of this stream's videos."""
        columns = index.columns(self.split)
        return ClipSampler(columns, self.clip, self.augment, seed=self.seed, train=self.train, shard=self.shard)


class DecodedSource:
    """Samples decoded by PyAV: `source(info)` for DALI's external_source, one clip a call.

    Gives frames uint8 [T, H, W, 3] of the plan's crop box, resized size float32 [2], window int32 [2], mirror int32
    [1], (label, video id, is_real, position) int64 [4], and the reason of a failure as UTF-8, uint8 [bytes], one zero
    byte if there is none. Raises StopIteration at the end of a stream that is not endless.
    """

    def __init__(self, stream: ClipStream) -> None:
        self.stream = stream
        self._open: tuple[VideoIndex, ClipSampler, FrameReader] | None = None

    def __getstate__(self) -> ClipStream:
        return self.stream

    def __setstate__(self, stream: ClipStream) -> None:
        self.stream, self._open = stream, None
        _die_with_parent()  # now, not at the first sample: the parent may be killed while workers still start

    def __call__(self, info: Any) -> tuple[NDArray[Any], ...]:
        """The sample that DALI's `SampleInfo` asks for."""
        stream = self.stream
        if self._open is None:
            index = VideoIndex.open(stream.index_path, stream.root)
            self._open = index, stream.sampler(index), FrameReader()
        index, sampler, reader = self._open
        per_epoch = sampler.num_batches(stream.batch_size)
        number = info.iteration + (stream.batch if info.epoch_idx == 0 else 0)
        if number >= per_epoch and not stream.endless:
            raise StopIteration
        epoch = stream.epoch + number // per_epoch
        place = (number % per_epoch) * stream.batch_size + info.idx_in_batch
        position = place * stream.shard.count + stream.shard.index
        plan = sampler.plan(epoch, position)
        frames, reason = _read(index, reader, plan)
        real = plan.is_real and not reason
        return (
            frames,
            np.array(plan.resized, np.float32),
            np.array(plan.window, np.int32),
            np.array([plan.mirror], np.int32),
            np.array([plan.label, plan.video_id, real, position], np.int64),
            np.frombuffer(reason.encode() or b"\0", np.uint8),
        )


def _die_with_parent() -> None:
    """End this worker when the process that started it is gone: killed outright, it could not end us itself."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="die with parent", daemon=True).start()


def _read(index: VideoIndex, reader: FrameReader, plan: ClipPlan) -> tuple[NDArray[np.uint8], str]:
    """The plan's frames, and why there are none (blank frames then)."""
    blank = np.zeros((len(plan.frames), _BLANK_PX, _BLANK_PX, 3), np.uint8)
    if not plan.is_real:
        return blank, ""
    try:
        return reader.read(index[plan.video_id], plan.frames, root=str(index.root), box=plan.box), ""
    except R3DFastError as error:
        return blank, str(error) or type(error).__name__
