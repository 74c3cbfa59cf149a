"""Decodes the wanted frames of a video out of the packets that they need.

The rule: the frames are bit-identical to those that PyAV gives when it decodes the whole video from the start, or an
error is raised. Every packet gets its number as its timestamp. The decoder hands timestamps on to the frames, so each
frame says which packet it comes from, whatever the order in which frames come out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.bitstreams.mpeg4_strictness import well_ended_slices
from pipelines.bitstreams.packet_flags import KEY
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import DOES_NOT_DECODE, NEEDS_MEMORY
from pipelines.containers.io_retries import is_of_system, with_retries
from pipelines.containers.opening import open_video
from pipelines.errors import INDEX_FULLY, FrameError, R3DFastError, VideoError
from pipelines.video.packet_reader import check_unchanged, demux_packets, read_ranges
from pipelines.video.packets import DecodeRun, PacketTable, select
from pipelines.video.record import VideoRecord
from pipelines.video.scaler import Box, BoxScaler, rgb_frame, rgb_pixels

# So decoders stop at damage instead of hiding it (libavcodec, err_detect).
_OPTIONS = {"err_detect": "crccheck+bitstream+buffer+explode"}
# H.264's would stop at a key frame of an open GOP too, but marks the frames in which it hides damage. Without "strict"
# it guesses how far frames are reordered, and drops those that come later than that.
_H264_OPTIONS = {"strict": "1"}


@dataclass(frozen=True)
class Cut:
    """The part of a video's frames that one clip needs, and the array to write it to.

    `frames` int [T] are 0-based frame numbers in display order; they may come in any order and repeat. `box` is
    (y, x, height, width) in px of the upright picture: this part of each frame is cut out. With a `size_px` the box is
    also scaled to a square of that side by FFmpeg's scaler (see scaler.py). The result is written to `out`: uint8
    [T, height, width, 3] or [T, size_px, size_px, 3], RGB.
    """

    frames: Sequence[int] | NDArray[np.integer]
    box: Box
    size_px: int | None
    out: NDArray[np.uint8]


@dataclass
class ReadStatistics:
    """The cost of reading so far: wall seconds of each stage, bytes read from files, packets decoded.

    `io_retries`: how often a file was read again after an error of the system.
    """

    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    convert_seconds: float = 0.0
    bytes_read: int = 0
    packets: int = 0
    io_retries: int = 0

    def retried(self) -> None:
        """Count one more time that a file was read again after an error of the system."""
        self.io_retries += 1


_Places = dict[int, list[tuple[Cut, int]]]  # for each frame number, where its pixels go


class FrameReader:
    """Reads frames of indexed videos. It keeps colour converter and scalers, so use one in each process or thread."""

    def __init__(self, *, recovers: bool = True, io_retries: int = 0) -> None:
        """With `recovers` frames that need damaged packets are read from the start of the file, without it an error.

        After an error of the system, such as EIO, a file is read up to `io_retries` times again.
        """
        self.statistics = ReadStatistics()
        self._recovers, self._io_retries = recovers, io_retries
        self._reformatter = VideoReformatter()
        self._scaler = BoxScaler()

    def read(
        self,
        record: VideoRecord,
        frames: Sequence[int] | NDArray[np.integer],
        *,
        root: str = "",
        box: Box | None = None,
    ) -> NDArray[np.uint8]:
        """The frames with the numbers `frames`, uint8 [T, H, W, 3], RGB; with a `box` only that part of each.

        `frames` are 0-based numbers in display order; they may come in any order and repeat. Raises the errors of
        `fill`.
        """
        box = box or (0, 0, record.height, record.width)
        try:
            out = np.empty((len(frames), box[2], box[3], 3), np.uint8)
        except MemoryError as error:
            raise VideoError(Path(root, record.path), NEEDS_MEMORY, reason_of(error), passing=True) from error
        self.fill(record, [Cut(frames, box, None, out)], root=root)
        return out

    def fill(self, record: VideoRecord, cuts: Sequence[Cut], *, root: str = "") -> None:
        """Write the frames of all `cuts` to their arrays. The packets that the cuts need are decoded once.

        Raises VideoError if the file can't be read now or has changed since it was indexed, FrameError if a frame can't
        be decoded exactly, IndexError for a frame number that the video does not have. After an error the arrays hold
        nothing of use.
        """
        path = os.path.join(root, record.path)  # noqa: PTH118 - in the hot path, and root may be empty
        places: _Places = {}
        for cut in cuts:
            for place, number in enumerate(cut.frames):
                places.setdefault(int(number), []).append((cut, place))
        begin, before = perf_counter(), self.statistics.read_seconds + self.statistics.convert_seconds

        def fill() -> _Places:
            check_unchanged(path, record)
            return self._fill(path, record, places)

        try:
            left = with_retries(fill, self._io_retries, self.statistics.retried)
        except R3DFastError:
            raise
        except MemoryError as error:
            raise VideoError(path, NEEDS_MEMORY, reason_of(error), passing=True) from error
        except (av.error.FFmpegError, ValueError, OSError) as error:  # PyAV raises ValueError for some damage
            if is_of_system(error):
                raise VideoError(path, "can't be read", reason_of(error)) from error
            raise FrameError(path, DOES_NOT_DECODE, reason_of(error)) from error
        finally:
            spent = self.statistics.read_seconds + self.statistics.convert_seconds - before
            self.statistics.decode_seconds += perf_counter() - begin - spent
        if left:
            raise FrameError(
                path,
                "frames missing",
                f"{sorted(left)[:10]} of {record.num_frames} did not come out of the decoder; "
                f"the file is damaged or changed: {INDEX_FULLY}",
            )

    def _fill(self, path: str, record: VideoRecord, places: _Places) -> _Places:
        """Write the frames to their places; gives the places of those that did not come.

        Where the packets that they need are damaged, the decoder hides that with frames that it decoded before. Then
        the frames are counted from the start of the file, as in a full decode. In a part that begins later, where that
        number is not known, damage is an error.
        """
        table = record.packets
        counts = self._recovers and not table.left_out and not table.ordinal
        try:
            left = self._take(record, path, places, self._frames(path, record, table, select(table, list(places))))
        except av.error.FFmpegError:
            if not counts:
                raise
            left = places
        if left and counts:
            self.statistics.bytes_read += record.size
            left = self._take(record, path, places, _counted(path, {number + table.skip: number for number in places}))
        return left

    def _take(
        self, record: VideoRecord, path: str, places: _Places, frames: Iterator[tuple[int | None, av.VideoFrame, bool]]
    ) -> _Places:
        """Write `frames` to their places up to the first that may be wrong; gives the places that are left."""
        left = dict(places)
        for wanted, frame, is_certain in frames:
            if not is_certain:
                return places
            if wanted is not None:
                _check_same_size(path, wanted, frame, record)
                self._write(frame, record, left.pop(wanted))
        return left

    def _write(self, frame: av.VideoFrame, record: VideoRecord, places: list[tuple[Cut, int]]) -> None:
        begin = perf_counter()
        orientation = record.orientation
        whole_frame: NDArray[np.uint8] | None = None
        for cut, place in places:
            if cut.size_px is not None:
                box = orientation.stored_box(cut.box, record.height, record.width)
                cut.out[place] = orientation.turned(self._scaler.scale(frame, box, cut.size_px))
                continue
            if whole_frame is None:
                whole_frame = orientation.turned(rgb_pixels(rgb_frame(record.path, frame, self._reformatter)))
            y, x, height, width = cut.box
            cut.out[place] = whole_frame[y : y + height, x : x + width]
        self.statistics.convert_seconds += perf_counter() - begin

    def _frames(
        self, path: str, record: VideoRecord, table: PacketTable, runs: list[DecodeRun]
    ) -> Iterator[tuple[int | None, av.VideoFrame, bool]]:
        """Each decoded frame as (its number, None if it is not wanted; the frame; whether it is certainly right)."""
        if table.ordinal:
            self.statistics.bytes_read += record.size
            yield from _counted(path, {count: number for run in runs for count, number in run.wanted.items()})
            return
        decoder = record.parameters.decoder(record.decoder, record.extradata) if table.addressable else None
        options = _H264_OPTIONS if record.codec == "h264" else _OPTIONS
        if decoder is not None:
            decoder.options = options
            if record.codec == "mpeg4":
                _make_strict(decoder, record.extradata)
        for run in runs:
            self.statistics.packets += len(run.packets)
            self.statistics.bytes_read += int(table.size[run.packets].sum())
            wanted: dict[int | None, int] = dict(run.wanted)  # type: ignore[arg-type]  # pts may be None, keys are not
            if decoder is None:
                decoded = _by_demuxing(path, table, run, options)
            else:
                decoded = self._by_offsets(path, table, run, decoder)
            for frame in decoded:
                yield wanted.pop(frame.pts, None), frame, not frame.is_corrupt

    def _by_offsets(
        self, path: str, table: PacketTable, run: DecodeRun, decoder: VideoCodecContext
    ) -> Iterator[av.VideoFrame]:
        """The frames that the run gives, each with the number of its packet as time stamp."""
        begin = perf_counter()
        pairs = list(read_ranges(path, table, run))
        self.statistics.read_seconds += perf_counter() - begin
        for number, data in pairs:
            # The decoder reads up to 64 bytes past the end of a packet, which must be zeros. A packet that is made by
            # its size has them; av.Packet(data) would use our buffer, which has not.
            packet = av.Packet(len(data))
            packet.update(data)  # type: ignore[arg-type]  # any buffer will do
            packet.pts = number
            packet.is_keyframe = bool(table.flags[number] & KEY)
            yield from decoder.decode(packet)
        yield from decoder.decode(None)
        decoder.flush_buffers()


def _make_strict(decoder: VideoCodecContext, header: bytes) -> None:
    """Let a decoder of MPEG-4 know that pictures end well, as it knows after a decode from the start of the file."""
    slices = _slices_for(header)
    if slices:
        packet = av.Packet(len(slices))
        packet.update(slices)
        decoder.decode(packet)
        decoder.flush_buffers()


@lru_cache(maxsize=64)
def _slices_for(header: bytes) -> bytes:
    layer = parse_video_object_layer(header)
    if layer is None or layer.interlaced or not layer.quant_bits:
        return b""
    return well_ended_slices(layer.width, layer.height, layer.time_increment_bits, layer.quant_bits)


def _by_demuxing(path: str, table: PacketTable, run: DecodeRun, options: dict[str, str]) -> Iterator[av.VideoFrame]:
    """The frames that the run gives by the container's own decoder, each with the number of its packet as its time."""
    last = int(run.packets[-1])
    for number, packet in demux_packets(path, table, run, options):
        packet.pts = number
        yield from packet.decode()
        if number == last:  # before the file is closed
            yield from packet.stream.decode(None)


def read_frames(
    record: VideoRecord, frames: Sequence[int] | NDArray[np.integer], *, root: str | Path = ""
) -> NDArray[np.uint8]:
    """The frames of a video with the numbers `frames`, uint8 [T, H, W, 3], RGB.

    They are the same bit for bit as PyAV's `to_ndarray(format="rgb24")` after decoding the whole video, turned upright
    where the file asks for that. `frames` are 0-based numbers in display order; they may come in any order and repeat.
    `root` is the folder that `record.path` is relative to. This process decodes, and what crashes the decoder ends it.
    Raises VideoError if the file is gone or has changed since it was indexed, FrameError if a frame can't be decoded
    exactly, IndexError for a frame number that the video does not have.
    """
    return FrameReader().read(record, frames, root=str(root))


def _check_same_size(path: str, number: int, frame: av.VideoFrame, record: VideoRecord) -> None:
    height, width = record.stored_size
    if (frame.height, frame.width) != (height, width):
        raise FrameError(
            path,
            "frame size changes",
            f"frame {number} is {frame.width}x{frame.height}, the index says {width}x{height}",
        )


def _counted(path: str, wanted: Mapping[int, int]) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """The frames that are `wanted` by their count in a full decode, with the number that this maps to."""
    left = dict(wanted)
    with open_video(path) as video:
        for count, frame in enumerate(video.container.decode(video.stream)):
            if count in left:
                yield left.pop(count), frame, True
            if not left:
                return
