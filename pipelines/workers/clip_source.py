"""Clip sources: they make the clips of a task and write them into slots, where DALI reads them.

Each worker process gets a source by pickling and opens the files it needs itself. If a clip can't be read, its slot is
black and its sample is not real and says why; no other clip takes its place.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import FrameError, R3DFastError, UsageError
from pipelines.index.known_bad import BadVideo, KnownBad
from pipelines.index.video_index import VideoIndex
from pipelines.output.temporary import is_temporary
from pipelines.sampler import NO_JITTER, ClipPlan, ClipSampler
from pipelines.stream import ClipStream, Sample
from pipelines.video.decoder import Cut, FrameReader, ReadStatistics
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import INEXACT, remux

_BLANK_PX = 8
_log = logging.getLogger(__name__)
_MAX_REASON = 2000  # characters of a reason, so that it fits into the buffer of a socket


class LeftOut(NamedTuple):
    """A video that is not read any more, by its number, and why."""

    video_id: int
    reason: str


class ClipSource(Protocol):
    """What a worker needs to make clips; DecodedSource and EncodedSource have it."""

    stream: ClipStream

    def slot_bytes(self, index: VideoIndex) -> int:
        """The number of bytes that the largest clip of `index` can take."""

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool
    ) -> list[Sample]:
        """Make the clips at `positions` of `epoch`, which must be of one video: write them to `slots`, give samples.

        `encoded` asks for encoded clips, for DALI to decode, where DALI can.
        """

    def failed(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], reason: str
    ) -> list[Sample]:
        """Make the same clips black and not real, with `reason`, without reading the video."""

    def path_of(self, epoch: int, position: int) -> str:
        """The path of the file that the clip at `position` of `epoch` is of, as messages name it."""

    def quarantine(self, epoch: int, position: int, reason: str, detail: str) -> LeftOut:
        """Never read the video of the clip at `position` of `epoch` again, also in later runs, and say so."""

    def leave_out(self, video: LeftOut) -> None:
        """Do not read `video` any more: its clips are failed ones."""

    def statistics(self) -> ReadStatistics:
        """The cost of loading since the last call."""


class _IndexedClipSource:
    """A source with the index and the sampler of its stream, which are opened on first use in each process."""

    def __init__(self, stream: ClipStream, left_out: Mapping[int, str] | None = None) -> None:
        """`left_out`: why videos are not read, by number, beside those that the index knows to be bad."""
        self.stream = stream
        self._left_out = dict(left_out or {})
        self._opened: tuple[VideoIndex, ClipSampler] | None = None
        self._statistics = ReadStatistics()

    def __reduce__(self) -> tuple[type[_IndexedClipSource], tuple[ClipStream, dict[int, str]]]:
        """Pickle the stream and what is left out only: each process opens the index itself."""
        return type(self), (self.stream, self._left_out)

    def path_of(self, epoch: int, position: int) -> str:
        """The path of the file that the clip at `position` of `epoch` is of, as messages name it."""
        index, sampler = self._open()
        number = sampler.plan(epoch, position).video_id
        return self.stream.name_of(number, index[number].path)

    def quarantine(self, epoch: int, position: int, reason: str, detail: str) -> LeftOut:
        """Never read the video of the clip at `position` of `epoch` again, also in later runs, and say so.

        An index in a temporary folder has no later runs.
        """
        index, sampler = self._open()
        number = sampler.plan(epoch, position).video_id
        record = index[number]
        video = LeftOut(number, f"{reason}: {detail}")
        self.leave_out(video)
        if is_temporary(index.path):  # there is no later run
            return video
        place = self.stream.name_of(number, record.path)
        try:
            KnownBad(index.path).add(BadVideo.of_file(index.root, record.path, record.span, reason, detail))
        except (OSError, UsageError) as error:
            _log.warning("%s: is not read again in this run (%s)", place, error)
        else:
            again = f"r3d-fast data check {index.path} --clear-quarantine"
            _log.warning("%s: is not read any more, also in later runs; to try it again: %s", place, again)
        return video

    def leave_out(self, video: LeftOut) -> None:
        """Do not read `video` any more: its clips are failed ones."""
        self._left_out[video.video_id] = video.reason

    def statistics(self) -> ReadStatistics:
        """The cost of loading since the last call."""
        statistics, self._statistics = self._statistics, ReadStatistics()
        return statistics

    def _open(self) -> tuple[VideoIndex, ClipSampler]:
        if self._opened is None:
            index = VideoIndex.open(self.stream.index_path, self.stream.root, self.stream.index_digest)
            self._opened = index, self.stream.sampler(index)
            self._left_out = {**index.known_bad, **self._left_out}
        return self._opened

    def _why_left_out(self, video_id: int) -> str:
        """Why a video is not read, with its path; empty if it is."""
        reason = self._left_out.get(video_id)
        if reason is None:
            return ""
        index, _ = self._open()
        return f"{self.stream.name_of(video_id, index[video_id].path)}: quarantined: {reason}"

    def _why(self, error: R3DFastError, video_id: int) -> str:
        """The text of an `error` of reading a video, which names it as messages do."""
        index, _ = self._open()
        path = index[video_id].path
        name = self.stream.name_of(video_id, path)
        return str(error).replace(str(index.root / path), name) or type(error).__name__

    def _plans(self, epoch: int, positions: Sequence[int]) -> list[ClipPlan]:
        _, sampler = self._open()
        return [sampler.plan(epoch, position) for position in positions]


class DecodedSource(_IndexedClipSource):
    """Makes clips that PyAV decodes: frames uint8 [T, h, w, 3], cut to the crop box, or scaled to [T, S, S, 3]."""

    def __init__(self, stream: ClipStream, left_out: Mapping[int, str] | None = None) -> None:
        super().__init__(stream, left_out)
        self._reader = FrameReader(io_retries=stream.io_retries)

    def slot_bytes(self, index: VideoIndex) -> int:
        """The number of bytes that the largest clip of the split can take."""
        spec, columns = self.stream.augment, index.columns(self.stream.split)
        frame_px = spec.size_px**2 if self.stream.scaled else int((columns.height * columns.width).max())
        return self.stream.clip.num_frames * max(frame_px, _BLANK_PX**2) * 3

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool = False
    ) -> list[Sample]:
        """Write the frames of the clips at `positions` of `epoch`, all of one video, to `slots`, and give the samples.

        `encoded` is ignored: these clips are always decoded.
        """
        index, _ = self._open()
        plans = self._plans(epoch, positions)
        if why := self._why_left_out(plans[0].video_id):
            return self.failed(epoch, positions, slots, why)
        cuts = [self._cut(plan, slot) for plan, slot in zip(plans, slots, strict=True) if plan.is_real]
        self._reader.statistics = self._statistics
        try:
            if cuts:
                self._reader.fill(index[plans[0].video_id], cuts, root=str(index.root))
        except R3DFastError as error:
            return self.failed(epoch, positions, slots, self._why(error, plans[0].video_id))
        return [
            _sample(plan, self._shape(plan)) if plan.is_real else self._blank(plan, slot)
            for plan, slot in zip(plans, slots, strict=True)
        ]

    def failed(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], reason: str
    ) -> list[Sample]:
        """Make the same clips black and not real, with `reason`."""
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
    """Makes clips for DALI to decode: the packets that a clip needs, as a small video in memory, uint8 [bytes].

    The small video has the frames as they are stored; the sample says how the graph turns them upright.
    DALI gives the same frames. Its colours differ from PyAV's by a mean below 2.5 of 255, because PyAV's default
    conversion rounds more coarsely; from FFmpeg's accurate conversion they differ by at most 1
    (tests/pipelines/video/test_remuxer.py, tests/pipelines/workers/test_clip_source_encoded.py).

    Clips that DALI can't decode exactly are decoded here, as by DecodedSource, and may be in the same batch. These are
    the videos that `stream.limits` refuse, and clips that can't be remuxed exactly. Black clips are decoded ones too.
    """

    def slot_bytes(self, index: VideoIndex) -> int:
        """The number of bytes that the largest clip of the split can take, decoded or encoded.

        An encoded clip may hold all packets of its file, and a container around them.
        """
        return max(super().slot_bytes(index), index.largest_file(self.stream.split) * 2 + 2**16)

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool = True
    ) -> list[Sample]:
        """Write the bytes or frames of the clips at `positions` of `epoch`, all of one video, to `slots`.

        Gives their samples. With `encoded` false, all clips are decoded here.
        """
        if not encoded:
            return super().load(epoch, positions, slots)
        index, _ = self._open()
        plans = self._plans(epoch, positions)
        if why := self._why_left_out(plans[0].video_id):
            return self.failed(epoch, positions, slots, why)
        assert self.stream.limits is not None
        begin = perf_counter()
        try:
            record = index[plans[0].video_id]
            if self.stream.limits.refuses(record):
                return super().load(epoch, positions, slots)
            samples = [
                self._remux(record, plan, slot, str(index.root)) if plan.is_real else self._blank(plan, slot)
                for plan, slot in zip(plans, slots, strict=True)
            ]
        except R3DFastError as error:
            if isinstance(error, FrameError) and error.reason == INEXACT:
                return super().load(epoch, positions, slots)
            return self.failed(epoch, positions, slots, self._why(error, plans[0].video_id))
        self._statistics.read_seconds += perf_counter() - begin
        return samples

    def _remux(self, record: VideoRecord, plan: ClipPlan, slot: NDArray[np.uint8], root: str) -> Sample:
        # Each frame is asked for once: if a number repeats, DALI decodes the video from its beginning again.
        frames, order = np.unique(plan.frames, return_inverse=True)
        retries, statistics = self.stream.io_retries, self._statistics
        video = remux(record, frames, root=root, io_retries=retries, on_retry=statistics.retried)
        slot[: len(video.data)] = video.data
        self._statistics.bytes_read += len(video.data)
        return _sample(plan, video.data.shape)._replace(
            numbers=tuple(video.frames.tolist()),
            order=tuple(order.tolist()),
            box=record.orientation.stored_box(plan.box, record.height, record.width),
            orientation=record.orientation,
        )


def _given_up(plan: ClipPlan, shape: tuple[int, ...], reason: str) -> Sample:
    """The sample of a black clip, which is not real. It has no change of colours, and for padding no reason."""
    sample = _sample(plan, shape)._replace(jitter=NO_JITTER)
    return sample._replace(is_real=False, reason=reason[:_MAX_REASON] if plan.is_real else "")


def _sample(plan: ClipPlan, shape: tuple[int, ...]) -> Sample:
    return Sample(
        shape, plan.video_id, plan.label, plan.is_real, plan.resized, plan.window, plan.mirror, jitter=plan.jitter
    )


def clip_source(stream: ClipStream, left_out: Mapping[int, str]) -> DecodedSource | EncodedSource:
    """The source for the clips of `stream`: a DecodedSource if PyAV decodes all of them, else an EncodedSource.

    `left_out`: why videos are not read, by number, beside those that the index knows to be bad.
    """
    return DecodedSource(stream, left_out) if stream.limits is None else EncodedSource(stream, left_out)
