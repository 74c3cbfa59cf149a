"""Gives all frames of a video one after the other, for callers that need most of them.

No index is needed, and no frame is kept, so memory does not depend on the length of the video. The frames are the same
as those of `read_frames`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.containers.clock import FrameClock, TimeBase, usual_rate
from pipelines.containers.completeness import completeness
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import DOES_NOT_DECODE, MAX_PIXELS, TRUNCATED, check_regular, check_size
from pipelines.containers.opening import open_video
from pipelines.errors import FrameError, VideoError
from pipelines.video.orientation import UPRIGHT, orientation_of
from pipelines.video.scaler import rgb_frame, rgb_pixels


class ShownFrame(NamedTuple):
    """A decoded frame: its 0-based `number` in display order, and the `seconds` from the file's start to its time."""

    number: int
    seconds: float
    frame: av.VideoFrame


class FrameSequence:
    """Gives the frames of the video at `path` in display order. Iterate over it once, in a `with` block.

    `fps` is the usual frame rate of the video. `clock` tells when its frames are shown, as the file states it (see
    containers.clock), and `clock.end` when the latest one ends.
    """

    def __init__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
        """Open the video. Raises VideoError if there is none, or none that can be decoded and is of that size."""
        self.path = str(path)
        self._max_pixels = max_pixels
        check_regular(self.path)
        self._reformatter = VideoReformatter()
        self._orientation = UPRIGHT
        self._open = ExitStack()
        try:
            video = self._open.enter_context(open_video(self.path, max_pixels=max_pixels))
            self._container, self._stream = video
            entries = ((entry.pos, entry.size) for entry in self._stream.index_entries)
            self._whole = completeness(self.path, video.format, entries)
        except (av.error.FFmpegError, OSError) as error:
            self._open.close()
            raise VideoError(self.path, "not a readable video", reason_of(error)) from error
        self.fps = usual_rate(self._stream)
        self.clock = FrameClock(TimeBase.of(self._stream))
        self.num_frames = 0  # the number of frames given so far

    def __iter__(self) -> Iterator[ShownFrame]:
        """The frames. Raises VideoError after the last one if the file is truncated, or can't be decoded further."""
        error = ""
        try:
            for frame in self._frames():
                self.num_frames += 1
                yield ShownFrame(self.num_frames - 1, self.clock.read(frame), frame)
        except VideoError:
            raise
        except (av.error.FFmpegError, ValueError) as problem:  # PyAV raises ValueError for some damage
            error = reason_of(problem)
        missing = self._whole.missing
        if self.num_frames == 0:
            raise VideoError(self.path, "no frame decodes", missing or error)
        if missing:
            raise VideoError(self.path, TRUNCATED, f"{self.num_frames} frames left; {missing}")
        if error:
            raise FrameError(self.path, DOES_NOT_DECODE, f"after frame {self.num_frames}: {error}")

    def _frames(self) -> Iterator[av.VideoFrame]:
        """The frames of the decoder; of a truncated file those before that of its last packet, if that is cut."""
        size: tuple[int, int] | None = None
        cut: int | None = None  # the time stamp of that packet
        for packet, is_last in _with_last(self._container.demux(self._stream)):
            self.clock.prepare(packet)
            if is_last and packet.is_corrupt and self._whole.missing:
                cut = packet.pts
            for frame in packet.decode():
                if cut is not None and frame.pts == cut:
                    return
                if size is None:
                    size, self._orientation = (frame.height, frame.width), orientation_of(frame)
                    self.pixels(frame)  # fails at once if the colours are of no known kind
                self._check(frame, size)
                yield frame

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The pixels of a frame as they are shown, uint8 [H, W, 3], RGB: a view that is turned upright.

        They are those of PyAV's `to_ndarray(format="rgb24")`, bit for bit, turned as the file says. Raises VideoError
        for colours that PyAV can't convert.
        """
        return self._orientation.turned(rgb_pixels(rgb_frame(self.path, frame, self._reformatter)))

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    def __enter__(self) -> FrameSequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, frame: av.VideoFrame, size: tuple[int, int]) -> None:
        check_size(self.path, frame.width, frame.height, self._max_pixels)
        if (frame.height, frame.width) != size:
            detail = f"{size[1]}x{size[0]}, then {frame.width}x{frame.height}"
            raise FrameError(self.path, "frame size changes", detail)


def _with_last(packets: Iterator[av.Packet[VideoStream]]) -> Iterator[tuple[av.Packet[VideoStream], bool]]:
    """Each packet, and whether it is the last one with content: the demuxer gives an empty one at the end."""
    held: av.Packet[VideoStream] | None = None
    try:
        for packet in packets:
            if held is not None:
                yield held, not packet.size
            held = packet
    except av.error.FFmpegError:
        if held is not None:
            yield held, True
        raise
    if held is not None:
        yield held, False
