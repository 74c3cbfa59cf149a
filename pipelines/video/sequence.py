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
from numpy.typing import NDArray

from pipelines.containers.clock import FrameClock, TimeBase, usual_rate
from pipelines.containers.file_checks import AVI_HEAD, check_regular, check_size, is_cut_short
from pipelines.containers.opening import open_video
from pipelines.errors import FrameError, VideoError
from pipelines.video.orientation import UPRIGHT, orientation_of
from pipelines.video.scaler import rgb_pixels


class ShownFrame(NamedTuple):
    """A decoded frame: its 0-based `number` in display order, and the `seconds` from the file's start to its time."""

    number: int
    seconds: float
    frame: av.VideoFrame


class FrameSequence:
    """Gives the frames of the video at `path` in display order. Iterate over it once, in a `with` block.

    `fps` is the usual frame rate of the video, `clock` tells the times of its frames: those that the file states, as
    `containers.clock` says.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the video. Raises VideoError if there is none, or if it can't be decoded."""
        self.path = str(path)
        self.size = check_regular(self.path).st_size
        self._reformatter = VideoReformatter()
        self._orientation = UPRIGHT
        self._open = ExitStack()
        try:
            self._container, self._stream = self._open.enter_context(open_video(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(self.path, "not a readable video", error.strerror or str(error)) from error
        self.fps = usual_rate(self._stream)
        self.clock = FrameClock(TimeBase.of(self._stream))
        self.num_frames = 0  # the number of frames given so far

    @property
    def end_seconds(self) -> float:
        """When the last frame given so far ends, in seconds from the start of the file."""
        return self.clock.end

    def __iter__(self) -> Iterator[ShownFrame]:
        """The frames. Raises FrameError where the file can't be decoded, VideoError at the end if it is truncated."""
        packets, truncated = 0, self._lacks_bytes()
        size: tuple[int, int] | None = None
        try:
            for packet in self._container.demux(self._stream):
                packets += bool(packet.size)
                truncated = truncated or packet.is_corrupt
                self.clock.prepare(packet)
                for frame in packet.decode():
                    if size is None:
                        size, self._orientation = (frame.height, frame.width), orientation_of(frame)
                    self._check(frame, size)
                    self.num_frames += 1
                    yield ShownFrame(self.num_frames - 1, self.clock.read(frame), frame)
        except (av.error.FFmpegError, ValueError) as error:  # PyAV raises ValueError for some damage
            raise FrameError(self.path, "does not decode", f"after frame {self.num_frames}: {error}") from error
        if self.num_frames == 0:
            raise VideoError(self.path, "no frame decodes")
        if truncated or ("mp4" in self._container.format.name and packets < self._stream.frames):
            raise VideoError(self.path, "truncated", f"{self.num_frames} frames left")

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The pixels of a frame as they are shown, uint8 [H, W, 3], RGB: a view that is turned upright.

        They are those of PyAV's `to_ndarray(format="rgb24")`, bit for bit, turned as the file says.
        """
        return self._orientation.turned(rgb_pixels(self._reformatter.reformat(frame, format="rgb24", threads=1)))

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
        check_size(self.path, frame.width, frame.height)
        if (frame.height, frame.width) != size:
            detail = f"{size[1]}x{size[0]}, then {frame.width}x{frame.height}"
            raise FrameError(self.path, "frame size changes", detail)

    def _lacks_bytes(self) -> bool:
        """Whether an AVI is shorter than its header says."""
        if self._container.format.name != "avi":
            return False
        with Path(self.path).open("rb") as file:
            return is_cut_short(file.read(AVI_HEAD), self.size)
