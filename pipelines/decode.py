"""Packets to pixels. The only file that decodes.

The law: the frames that come out are bit-identical to those of PyAV's full sequential decode, or an error is raised.
Every packet carries its number as timestamp, so a frame says which packet it came from, whatever order it comes in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipelines.errors import FrameError, VideoError
from pipelines.packets import PacketTable, Run, select, whole
from pipelines.records import VideoRecord

Box = tuple[int, int, int, int]  # y, x, height, width in px


@dataclass(frozen=True)
class ScannedFrame:
    """One frame of a full sequential decode: the number of its packet (None: unknown), its size in px, its format."""

    packet: int | None
    height: int
    width: int
    pix_fmt: str
    corrupt: bool


def scan_frames(path: str) -> Iterator[ScannedFrame]:
    """Every frame of a full sequential decode, pixels dropped. Raises av.error.FFmpegError where decoding fails."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                packet.pts = number
            for frame in packet.decode():
                yield ScannedFrame(frame.pts, frame.height, frame.width, frame.format.name, frame.is_corrupt)


class FrameReader:
    """Reads frames of indexed videos; keeps one colour converter. One per process or thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def read(
        self,
        record: VideoRecord,
        frames: Sequence[int] | NDArray[np.integer],
        *,
        root: str = "",
        box: Box | None = None,
    ) -> NDArray[np.uint8]:
        """Frames `frames` of the video, uint8 [T, H, W, 3], RGB; with `box` only that part of each.

        `frames` are 0-based numbers in display order, in any order, repeats allowed. Raises VideoError if the file
        is gone or changed since it was indexed, FrameError if a frame can't be had exactly, IndexError if it
        doesn't exist.
        """
        path = os.path.join(root, record.path)  # noqa: PTH118 - in the hot path, and root may be empty
        table = record.packets
        y, x, height, width = box or (0, 0, record.height, record.width)
        numbers = [int(k) for k in frames]
        out = np.empty((len(numbers), height, width, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            places.setdefault(number, []).append(place)
        try:
            _check_unchanged(path, os.stat(path), record)  # noqa: PTH116 - in the hot path
            for choose in (select, whole):
                left = dict(places)
                for wanted, frame in self._frames(path, record, table, choose(table, frames)):
                    if frame.is_corrupt and choose is select and not table.ordinal:
                        break  # damage is concealed out of what the decoder saw before: show it everything
                    if wanted is None:
                        continue
                    _check_size(path, wanted, frame, record)
                    rgb = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
                    for place in left.pop(wanted):
                        out[place] = rgb[y : y + height, x : x + width]
                else:
                    if not left:
                        return out
        except av.error.FFmpegError as error:
            raise FrameError(path, "does not decode", str(error)) from error
        except OSError as error:
            raise VideoError(path, "can't be read", error.strerror or str(error)) from error
        raise FrameError(
            path,
            "frames missing",
            f"{sorted(left)[:10]} of {record.num_frames} did not come out of the decoder; "
            "the file is damaged or changed: index the data set again",
        )

    def _frames(
        self, path: str, record: VideoRecord, table: PacketTable, runs: list[Run]
    ) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """(frame number, frame) of every wanted frame, and (None, frame) of those decoded on the way."""
        if table.ordinal:
            yield from _counted(path, runs)
            return
        context = _open_context(record)
        for run in runs:
            packets = _read_ranges(path, table, run) if table.addressable else _demux(path, table, run)
            wanted: dict[int | None, int] = dict(run.wanted)  # type: ignore[arg-type]  # None: no key of it
            for number, data in packets:
                # Not av.Packet(data): that lends the decoder our buffer, and it reads up to 64 bytes past the end,
                # which must be zeros. A packet made by size has them.
                packet = av.Packet(len(data))
                packet.update(data)  # type: ignore[arg-type]  # any buffer will do
                packet.pts = number
                for frame in context.decode(packet):
                    yield wanted.pop(frame.pts, None), frame
            for frame in context.decode(None):
                yield wanted.pop(frame.pts, None), frame
            context.flush_buffers()


def read_frames(
    record: VideoRecord, frames: Sequence[int] | NDArray[np.integer], *, root: str | Path = ""
) -> NDArray[np.uint8]:
    """Frames `frames` of a video, uint8 [T, H, W, 3], RGB: PyAV's `to_ndarray(format="rgb24")`, bit for bit.

    `frames` are 0-based numbers in display order of a full sequential decode, in any order, repeats allowed;
    `root` is the folder that `record.path` is relative to. Raises what FrameReader.read raises.
    """
    return FrameReader().read(record, frames, root=str(root))


def _check_unchanged(path: str, status: os.stat_result, record: VideoRecord) -> None:
    if status.st_size != record.size or status.st_mtime_ns != record.mtime_ns:
        raise VideoError(
            path,
            "changed since it was indexed",
            f"{record.size} bytes then, {status.st_size} now; index the data set again",
        )


def _check_size(path: str, number: int, frame: av.VideoFrame, record: VideoRecord) -> None:
    if frame.height != record.height or frame.width != record.width:
        raise FrameError(
            path,
            "frame size changes",
            f"frame {number} is {frame.width}x{frame.height}, the index says {record.width}x{record.height}",
        )


def _open_context(record: VideoRecord) -> av.VideoCodecContext:
    context = av.CodecContext.create(record.decoder, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.extradata = record.extradata or None
    context.width, context.height = record.width, record.height
    context.thread_count = 1  # workers are the parallelism; slices on threads would only fight them
    if record.codec == "h264":
        # Without it the decoder guesses the reordering depth and drops pictures that come later than it guessed.
        context.options = {"strict": "1"}
    return context


def _read_ranges(path: str, table: PacketTable, run: Run) -> Iterator[tuple[int, bytes | memoryview]]:
    """(number, bytes) of the run's packets, out of one read of the byte range they span."""
    offset, size = table.offset[run.packets], table.size[run.packets]
    begin, end = int(offset.min()), int((offset + size).max())
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if end - begin > 4 * int(size.sum()) + 2**20:  # a sparse run, such as a long one without its B-pictures
            for number, at, length in zip(run.packets.tolist(), offset.tolist(), size.tolist(), strict=True):
                yield number, os.pread(descriptor, length, at)
            return
        data = memoryview(os.pread(descriptor, end - begin, begin))
    finally:
        os.close(descriptor)
    for number, at, length in zip(run.packets.tolist(), (offset - begin).tolist(), size.tolist(), strict=True):
        yield number, data[at : at + length]


def _demux(path: str, table: PacketTable, run: Run) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of the run's packets, by seeking in the container; packets are known again by timestamp."""
    assert table.pts is not None
    number_of = {pts: number for number, pts in enumerate(table.pts.tolist())}
    left = set(run.packets.tolist())
    first, last = int(run.packets[0]), int(run.packets[-1])
    for seeks in (True, False):
        with av.open(path) as container:
            stream = container.streams.video[0]
            if seeks:
                try:
                    container.seek(int(table.pts[first]), stream=stream)
                except av.error.FFmpegError:
                    continue  # too short a file, say: read from the beginning instead
            started = False
            for packet in container.demux(stream):
                number = number_of.get(packet.pts) if packet.pts is not None and packet.size else None
                if number is None or number < first:
                    continue
                if not started and number != first:
                    break  # the seek went past the packet: read from the beginning instead
                started = True
                if number in left:
                    left.discard(number)
                    yield number, bytes(packet)
                if number >= last or not left:
                    return
            if started:
                return


def _counted(path: str, runs: list[Run]) -> Iterator[tuple[int, av.VideoFrame]]:
    wanted = {count for run in runs for count in run.wanted}
    with av.open(path) as container:
        for count, frame in enumerate(container.decode(container.streams.video[0])):
            if count in wanted:
                wanted.discard(count)
                yield count, frame
            if not wanted:
                return
