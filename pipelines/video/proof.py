"""The full decode of a video, and the proof that the packets of its record give the same frames.

Frames early, in the middle and late are compared, pixel by pixel. They show whether a decoder without the container
knows enough, and whether decoding may begin in the middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipelines.bitstreams.packet_flags import START
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.io_retries import USUAL_RETRIES
from pipelines.containers.opening import open_video
from pipelines.errors import R3DFastError, VideoError
from pipelines.video.decoder import FrameReader
from pipelines.video.orientation import UPRIGHT, Orientation, orientation_of
from pipelines.video.record import VideoRecord
from pipelines.video.scaler import rgb_frame, rgb_pixels

_FIRST = 8  # frames that are also read in a row: of what a decoder leaves in its memory, the first find nothing
_MOST_BYTES = 1 << 28  # of frames that are held at once
Samples = Literal["none", "some", "all"]


@dataclass
class FullDecode:
    """The facts of the frames that decoding a video from its start gives, in display order.

    `packets` are the numbers of the packets that they come from, None where the decoder does not say. `height`,
    `width` (in px, of the upright picture), `pix_fmt` and `orientation` are those of the first frame. `is_interlaced`:
    whether a frame is. `samples` are digests of the pixels of some frames. `error` says why decoding stopped before the
    end. `is_whole`: whether decoding went on to the end, or to that error.
    """

    packets: list[int | None] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    height: int = 0
    width: int = 0
    pix_fmt: str = ""
    orientation: Orientation = UPRIGHT
    is_interlaced: bool = False
    samples: dict[int, bytes] = field(default_factory=dict)
    error: str = ""
    is_whole: bool = False

    @property
    def tags(self) -> NDArray[np.int64] | None:
        """The number of the packet of each frame, int64 [F]; None if a frame has none, or two have the same."""
        if None in self.packets or len(set(self.packets)) < len(self.packets):
            return None
        return np.array(self.packets, np.int64)

    def end_before(self, packets: Collection[int]) -> None:
        """Leave out the first frame that comes from one of `packets`, and all frames after it."""
        end = next((number for number, packet in enumerate(self.packets) if packet in packets), len(self.packets))
        self.packets, self.corrupt = self.packets[:end], [number for number in self.corrupt if number < end]


def decode_fully(
    path: str,
    *,
    limit: int | None = None,
    form: str | None = None,
    threads: int = 1,
    samples: Samples = "some",
    watch: Callable[[int], None] | None = None,
) -> FullDecode:
    """The facts of the frames that decoding the whole video gives, or only of its first `limit` frames.

    `samples` says of which frames digests are made; of none saves a quarter of the time.

    `threads` decode a sound video; one with damage is decoded again by one thread, so that chance has no part in it.
    `watch` is called with the number of packets that are decoded. Raises VideoError if the file is no video, if there
    is no frame or if their size changes.
    """
    try:
        if threads > 1:
            found = _decode(path, limit, form, threads, watch, samples)
            if not found.corrupt and not found.error:
                return found
        head = _decode(path, 1, form, 1, None, "none") if samples == "all" and limit is None else None
        return _decode(path, limit, form, 1, watch, samples, head)
    except MemoryError:  # FFmpeg's too, which says nothing about the file
        raise
    except av.error.FFmpegError as error:
        raise VideoError(path, "not a readable video", reason_of(error)) from error


def _decode(
    path: str,
    limit: int | None,
    form: str | None,
    threads: int,
    watch: Callable[[int], None] | None,
    samples: Samples,
    head: FullDecode | None = None,
) -> FullDecode:
    """What `decode_fully` says of one decode.

    `head` are the facts of the first frame, by another decode: a frame that was asked for them is given back late, and
    some decoders leave in damaged pictures what was in the memory that they get.
    """
    found, reformatter = FullDecode(), VideoReformatter()
    first: tuple[int, int] | None = None
    latest: VideoFrame | None = None
    with open_video(path, form=form, threads=threads) as video:
        try:
            for number, packet in enumerate(video.container.demux(video.stream)):
                if packet.size:
                    packet.pts = number
                if watch is not None:
                    watch(number)
                for latest in packet.decode():
                    size = (latest.height, latest.width)
                    if first is None:
                        first = size
                        _describe(found, latest, orientation_of(latest) if head is None else head.orientation)
                    found.is_interlaced |= latest.interlaced_frame
                    if size != first:
                        detail = f"{first[1]}x{first[0]}, then {size[1]}x{size[0]}"
                        raise VideoError(path, "frame size changes", detail)
                    count = len(found.packets)
                    if samples == "all" or (samples == "some" and _is_sample(count)):
                        found.samples[count] = _digest(path, latest, found.orientation, reformatter)
                    if latest.is_corrupt:
                        found.corrupt.append(count)
                    found.packets.append(latest.pts)
                    if limit is not None and len(found.packets) >= limit:
                        return found
        except (VideoError, MemoryError):
            raise
        except (av.error.FFmpegError, ValueError) as error:  # PyAV raises ValueError for some damage
            found.error = reason_of(error)
        if latest is None:
            raise VideoError(path, "no frame decodes", found.error)
        found.is_whole = True
        if samples != "none":
            found.samples[len(found.packets) - 1] = _digest(path, latest, found.orientation, reformatter)
    return found


def mismatch(record: VideoRecord, samples: dict[int, bytes], *, root: str) -> str:
    """Why reading by `record` does not give the frames whose digests are `samples`, in words; empty if it does.

    Of many samples those early, in the middle and late are read; all if there are samples of all. Raises VideoError if
    the file can't be read now.
    """
    count = record.num_frames
    numbers = sorted(number for number in samples if number < count)
    middle = min(numbers, key=lambda number: abs(number - count // 2))
    chosen = sorted({*numbers[:2], middle, *numbers[-2:]})
    groups = [chosen]
    if len(numbers) == count and not record.packets.ordinal:
        groups = [numbers[:_FIRST], *_frames_by_run(record)]
    return next((found for group in groups if (found := _mismatch(record, group, samples, root))), "")


def _frames_by_run(record: VideoRecord) -> Iterator[list[int]]:
    """The numbers of the frames that decoding from each start gives, in pieces that fit into memory."""
    table, most = record.packets, max(1, _MOST_BYTES // (3 * record.height * record.width))
    starts = np.flatnonzero(table.flags & START)
    run = np.searchsorted(starts, table.packets_of(np.arange(record.num_frames)), side="right")
    for number in np.unique(run).tolist():
        frames = np.flatnonzero(run == number).tolist()
        yield from (frames[at : at + most] for at in range(0, len(frames), most))


def _mismatch(record: VideoRecord, chosen: list[int], samples: dict[int, bytes], root: str) -> str:
    """What `mismatch` says, of the frames `chosen`."""
    try:
        frames = FrameReader(recovers=False, io_retries=USUAL_RETRIES).read(record, chosen, root=root)
    except R3DFastError as error:
        if isinstance(error, VideoError) and error.is_passing:
            raise
        return str(error)
    for number, pixels in zip(chosen, frames, strict=True):
        if hashlib.sha256(pixels.data).digest() != samples[number]:
            return f"frame {number} differs from that of a full decode"
    return ""


def _describe(found: FullDecode, frame: VideoFrame, orientation: Orientation) -> None:
    found.orientation = orientation
    found.height, found.width = found.orientation.size(frame.height, frame.width)
    found.pix_fmt = frame.format.name


def _is_sample(number: int) -> bool:
    """Whether a frame is kept as a sample: 0, 1, 2, 3, 4, 6, 8, 12, 16, ..., so that some are in the middle."""
    top = max(0, number.bit_length() - 2)
    return number == number >> top << top


def _digest(path: str, frame: VideoFrame, orientation: Orientation, reformatter: VideoReformatter) -> bytes:
    pixels = orientation.turned(rgb_pixels(rgb_frame(path, frame, reformatter)))
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
