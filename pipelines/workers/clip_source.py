"""What makes clips: picklable sources that put the clips of a decode pass where DALI reads them.

Each worker process holds one and opens what it needs. A clip that fails is handed on as a blank one, with the reason
beside it and not real: it is never replaced by another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import FrameError, R3DFastError
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import NO_JITTER, ClipPlan, ClipSampler
from pipelines.stream import ClipStream, Sample
from pipelines.video.decoder import Cut, FrameReader, ReadStatistics
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import INEXACT, remux

_BLANK_PX = 8
_MAX_REASON = 2000  # characters: reasons wait in a socket's buffer until they are read


class ClipSource(Protocol):
    """What workers hold: see DecodedSource."""

    stream: ClipStream

    def slot_bytes(self, index: VideoIndex) -> int:
        """Bytes that the largest clip of `index` could take."""

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool
    ) -> list[Sample]:
        """The samples at `positions` of `epoch`, all of one video, their data written to `slots`.

        `encoded`: for DALI to decode, if it can.
        """

    def failed(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], reason: str
    ) -> list[Sample]:
        """The same as blank samples that were given up."""

    def statistics(self) -> ReadStatistics:
        """What loading has cost since this was asked last."""


class _IndexedClipSource:
    """What sources share: the index and the sampler of their stream, opened where they are used."""

    def __init__(self, stream: ClipStream) -> None:
        self.stream = stream
        self._opened: tuple[VideoIndex, ClipSampler] | None = None
        self._statistics = ReadStatistics()

    def __reduce__(self) -> tuple[type[_IndexedClipSource], tuple[ClipStream]]:
        """Pickle by the stream: each process opens the index itself."""
        return type(self), (self.stream,)

    def statistics(self) -> ReadStatistics:
        """What loading has cost since this was asked last."""
        statistics, self._statistics = self._statistics, ReadStatistics()
        return statistics

    def _open(self) -> tuple[VideoIndex, ClipSampler]:
        if self._opened is None:
            index = VideoIndex.open(self.stream.index_path, self.stream.root)
            self._opened = index, self.stream.sampler(index)
        return self._opened

    def _plans(self, epoch: int, positions: Sequence[int]) -> list[ClipPlan]:
        _, sampler = self._open()
        return [sampler.plan(epoch, position) for position in positions]


class DecodedSource(_IndexedClipSource):
    """Clips decoded by PyAV: frames uint8 [T, h, w, 3] of the plan's crop box, or scaled to [T, S, S, 3]."""

    def __init__(self, stream: ClipStream) -> None:
        super().__init__(stream)
        self._reader = FrameReader()

    def slot_bytes(self, index: VideoIndex) -> int:
        """Bytes that the largest clip of the split could take."""
        spec, columns = self.stream.augment, index.columns(self.stream.split)
        frame_px = spec.size_px**2 if self.stream.scaled else int((columns.height * columns.width).max())
        return self.stream.clip.num_frames * max(frame_px, _BLANK_PX**2) * 3

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool = False
    ) -> list[Sample]:
        """The samples at `positions` of `epoch`, all of one video, their frames written to `slots`; never encoded."""
        index, _ = self._open()
        plans = self._plans(epoch, positions)
        cuts = [self._cut(plan, slot) for plan, slot in zip(plans, slots, strict=True) if plan.is_real]
        self._reader.statistics = self._statistics
        try:
            if cuts:
                self._reader.fill(index[plans[0].video_id], cuts, root=str(index.root))
        except R3DFastError as error:
            return self.failed(epoch, positions, slots, str(error) or type(error).__name__)
        return [
            _sample(plan, self._shape(plan)) if plan.is_real else self._blank(plan, slot)
            for plan, slot in zip(plans, slots, strict=True)
        ]

    def failed(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], reason: str
    ) -> list[Sample]:
        """The same as blank samples, `reason` saying why."""
        return [
            self._blank(plan, slot, reason) for plan, slot in zip(self._plans(epoch, positions), slots, strict=True)
        ]

    def _shape(self, plan: ClipPlan) -> tuple[int, int, int, int]:
        size_px = self.stream.augment.size_px
        height, width = (size_px, size_px) if self.stream.scaled else plan.box[2:]
        return len(plan.frames), height, width, 3

    def _cut(self, plan: ClipPlan, slot: NDArray[np.uint8]) -> Cut:
        shape = self._shape(plan)
        size_px = self.stream.augment.size_px if self.stream.scaled else None
        return Cut(plan.frames, plan.box, size_px, slot[: math.prod(shape)].reshape(shape))

    def _blank(self, plan: ClipPlan, slot: NDArray[np.uint8], reason: str = "") -> Sample:
        side = self.stream.augment.size_px if self.stream.scaled else _BLANK_PX
        shape = (len(plan.frames), side, side, 3)
        slot[: math.prod(shape)] = 0
        return _given_up(plan, shape, reason)


class EncodedSource(DecodedSource):
    """Clips for DALI to decode: the packets they need, as a small video in memory, uint8 [bytes].

    DALI gives the same frames; its colours differ from PyAV's by a mean below 2.5 of 255, as PyAV's default conversion
    rounds more coarsely (against FFmpeg's accurate one by at most 1; `tests/pipelines/video/test_remuxer.py` and
    `tests/pipelines/workers/test_clip_source_encoded.py`).
    What DALI can't decode exactly comes decoded, as DecodedSource gives it, in the same batch: what `stream.limits`
    refuse, and clips that can't be cut out of their file. So do blank clips.
    """

    def slot_bytes(self, index: VideoIndex) -> int:
        """Bytes that the largest clip of the split could take, encoded (a whole file and a container) or decoded."""
        return max(super().slot_bytes(index), index.largest_file(self.stream.split) * 2 + 2**16)

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool = True
    ) -> list[Sample]:
        """The samples at `positions` of `epoch`, all of one video, their bytes or frames written to `slots`."""
        if not encoded:
            return super().load(epoch, positions, slots)
        index, _ = self._open()
        plans = self._plans(epoch, positions)
        record = index[plans[0].video_id]
        assert self.stream.limits is not None
        if self.stream.limits.refuses(record):
            return super().load(epoch, positions, slots)
        begin = perf_counter()
        try:
            samples = [
                self._remux(record, plan, slot, str(index.root)) if plan.is_real else self._blank(plan, slot)
                for plan, slot in zip(plans, slots, strict=True)
            ]
        except R3DFastError as error:
            if isinstance(error, FrameError) and error.reason == INEXACT:
                return super().load(epoch, positions, slots)
            return self.failed(epoch, positions, slots, str(error) or type(error).__name__)
        self._statistics.read_seconds += perf_counter() - begin
        return samples

    def _remux(self, record: VideoRecord, plan: ClipPlan, slot: NDArray[np.uint8], root: str) -> Sample:
        # Each frame once: for a repeated one DALI would decode from the beginning again.
        frames, order = np.unique(plan.frames, return_inverse=True)
        video = remux(record, frames, root=root)
        slot[: len(video.data)] = video.data
        self._statistics.bytes_read += len(video.data)
        return _sample(plan, video.data.shape)._replace(
            numbers=tuple(video.frames.tolist()), order=tuple(order.tolist()), box=plan.box
        )


def _given_up(plan: ClipPlan, shape: tuple[int, ...], reason: str) -> Sample:
    """A sample that is not real, black whatever its plan says; padding has no reason to be told."""
    sample = _sample(plan, shape)._replace(jitter=NO_JITTER)
    return sample._replace(is_real=False, reason=reason[:_MAX_REASON] if plan.is_real else "")


def _sample(plan: ClipPlan, shape: tuple[int, ...]) -> Sample:
    return Sample(
        shape, plan.video_id, plan.label, plan.is_real, plan.resized, plan.window, plan.mirror, jitter=plan.jitter
    )


def clip_source(stream: ClipStream) -> DecodedSource | EncodedSource:
    """What makes the clips of `stream`: frames where PyAV decodes all of them, else packets for DALI too."""
    return DecodedSource(stream) if stream.limits is None else EncodedSource(stream)
