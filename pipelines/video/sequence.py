"""Gives all frames of a video one after the other, for callers that need most of them.

No index is needed, and no frame is kept, so memory does not depend on the length of the video. The frames are the same
as those of `read_frames`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.containers.file_checks import AVI_HEAD, check_regular, check_size, is_cut_short
from pipelines.containers.opening import find_video_stream
from pipelines.errors import FrameError, VideoError
from pipelines.video.scaler import rgb_pixels

_USUAL_RATE = Fraction(25)  # frames a second if the file does not say
_LONGEST_STEP = 10.0  # seconds from one frame to the next; a longer step is taken for damage


class ShownFrame(NamedTuple):
    """A decoded frame, its 0-based `number` in display order, and when it is shown, in seconds after the first one."""

    number: int
    seconds: float
    frame: av.VideoFrame


class FrameSequence:
    """Gives the frames of the video at `path` in display order. Iterate over it once, in a `with` block.

    `fps` is the average frame rate that the file states. Times are those of the file. Where these are missing or do not
    increase, and in AVI, which has none, they are computed with `fps`.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the video. Raises VideoError if there is none, or if it can't be decoded."""
        self.path = str(path)
        self.size = check_regular(self.path).st_size
        self._reformatter = VideoReformatter()
        try:
            self._container: InputContainer = av.open(self.path, metadata_errors="ignore")
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(self.path, "not a readable video", error.strerror or str(error)) from error
        try:
            self._stream = find_video_stream(self.path, self._container)
        except BaseException:
            self._container.close()
            raise
        self.fps = self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE
        self.num_frames = 0  # the number of frames given so far
        self.end_seconds = 0.0  # the time at which the last one of these ends

    def __iter__(self) -> Iterator[ShownFrame]:
        """The frames. Raises FrameError where the file can't be decoded, VideoError at the end if it is truncated."""
        clock = _FrameTimes(self._container, self._stream, self.fps)
        packets, truncated = 0, self._lacks_bytes()
        size: tuple[int, int] | None = None
        try:
            for packet in self._container.demux(self._stream):
                packets += bool(packet.size)
                truncated = truncated or packet.is_corrupt
                for frame in packet.decode():
                    size = size or (frame.height, frame.width)
                    self._check(frame, size)
                    seconds = clock.seconds(frame)
                    self.num_frames += 1
                    self.end_seconds = seconds + clock.step
                    yield ShownFrame(self.num_frames - 1, seconds, frame)
        except (av.error.FFmpegError, ValueError) as error:  # PyAV raises ValueError for some damage
            raise FrameError(self.path, "does not decode", f"after frame {self.num_frames}: {error}") from error
        if self.num_frames == 0:
            raise VideoError(self.path, "no frame decodes")
        if truncated or ("mp4" in self._container.format.name and packets < self._stream.frames):
            raise VideoError(self.path, "truncated", f"{self.num_frames} frames left")

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The pixels of a frame, uint8 [H, W, 3], RGB, the same bit for bit as PyAV's `to_ndarray(format="rgb24")`."""
        return rgb_pixels(self._reformatter.reformat(frame, format="rgb24", threads=1))

    def close(self) -> None:
        """Close the file."""
        self._container.close()

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


class _FrameTimes:
    """When each frame is shown, in seconds after the first."""

    def __init__(self, container: InputContainer, stream: VideoStream, fps: Fraction) -> None:
        self.step = float(1 / fps)  # seconds to the next frame if the file does not say
        self._base = stream.time_base if container.format.name != "avi" else None
        self._fps = fps
        self._count = 0
        self._stamp: int | None = None
        self._seconds = 0.0

    def seconds(self, frame: av.VideoFrame) -> float:
        """The time of `frame`, which must be the one after that of the last call."""
        stamp, before = frame.pts, self._stamp
        if self._base is None:
            self._seconds = float(self._count / self._fps)
        elif self._count:
            step = float((stamp - before) * self._base) if stamp is not None and before is not None else 0.0
            self._seconds += step if 0.0 < step <= _LONGEST_STEP else self.step
        self._stamp = stamp if stamp is not None else before
        self._count += 1
        return self._seconds
