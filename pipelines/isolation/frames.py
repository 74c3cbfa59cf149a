"""The frames of a video in display order, decoded by another process: one that the file crashes or blocks is ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from time import monotonic
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.file_checks import MAX_PIXELS, check_regular
from pipelines.errors import VideoError
from pipelines.isolation.jobs import STALL_SECONDS
from pipelines.isolation.process import Ready
from pipelines.isolation.reading_process import START_SECONDS, ReadingProcess, send_array
from pipelines.isolation.rights import give_up_rights
from pipelines.video.sequence import FrameSequence

_MAIN = "pipelines.isolation.frames.main"
_ALIVE_SECONDS = 0.5  # how often a process says that it goes on, where it gives no frame


class Wanted(NamedTuple):
    """Which frames are wanted: of every `stride` the one at `offset`, before frame `end` (None: to the last)."""

    stride: int = 1
    offset: int = 0
    end: int | None = None


class RGBFrame(NamedTuple):
    """A frame as it is shown: its 0-based `number`, its time in `seconds`, and `pixels` uint8 [H, W, 3], RGB."""

    number: int
    seconds: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class _Asked:
    path: str
    max_pixels: int


class _Opened(NamedTuple):
    """The usual rate of the frames a second."""

    fps: Fraction


class _Frame(NamedTuple):
    """A frame, whose pixels follow as bytes."""

    number: int
    seconds: float
    shape: tuple[int, ...]


class _State(NamedTuple):
    """How far the process is: frames that are decoded, and when the latest one ends. `is_over`: whether all are."""

    num_frames: int
    end_seconds: float
    is_over: bool = False


class DistantFrames:
    """Gives frames of the video at `path` as FrameSequence does, once, in a `with` block; another process decodes.

    `fps` is the usual frame rate. `num_frames` says how many frames were decoded so far, and `end_seconds` when the
    latest of them ends.
    """

    def __init__(
        self, path: str, *, max_pixels: int = MAX_PIXELS, stall_seconds: float = STALL_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:  # fmt: skip
        """Open the video. Raises the errors of FrameSequence, VideoError if the file crashes or blocks the process.

        That blocks if it does nothing for `stall_seconds`, and for `start_seconds` more while it imports its modules.
        """
        self.path = path
        self.num_frames, self.end_seconds = 0, 0.0
        self._is_over = False
        check_regular(path)
        self._process = ReadingProcess(path, _MAIN, stall_seconds=stall_seconds, start_seconds=start_seconds)
        self._is_open = True
        try:
            self._process.send(_Asked(path, max_pixels))
            opened = self._receive()
            assert isinstance(opened, _Opened)
        except BaseException:
            self.close()
            raise
        self.fps = opened.fps

    def frames(self, wanted: Wanted) -> Iterator[RGBFrame]:
        """The frames that are `wanted`. Raises the errors of iterating over a FrameSequence, after the last frame."""
        self._process.send(wanted)
        while True:
            message = self._receive()
            if isinstance(message, _Frame):
                yield RGBFrame(message.number, message.seconds, self._process.receive_array(message.shape))
            elif isinstance(message, _State):
                self.num_frames, self.end_seconds = message.num_frames, message.end_seconds
                if message.is_over:
                    return

    def close(self) -> None:
        """End the process, or give it back where its work is over."""
        if self._is_open:
            self._is_open = False
            self._process.close(is_idle=self._is_over)

    def __enter__(self) -> DistantFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> _Opened | _Frame | _State:
        """The next message. Raises the VideoError that it is, or one that says how the process ended."""
        message = self._process.receive()
        if isinstance(message, tuple) and isinstance(message[0], VideoError):
            error, state = message
            self.num_frames, self.end_seconds, self._is_over = state.num_frames, state.end_seconds, True
            raise error
        if isinstance(message, _State):
            self._is_over = message.is_over
        found: _Opened | _Frame | _State = message
        return found


def main(descriptor: int) -> None:
    """Decode the video that the parent names, at the other end of the socket `descriptor`."""
    with Connection(descriptor) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        give_up_rights()
        connection.send(Ready())
        asked: _Asked = connection.recv()
        try:
            with FrameSequence(asked.path, max_pixels=asked.max_pixels) as video:
                connection.send(_Opened(video.fps))
                wanted: Wanted = connection.recv()
                try:
                    _send_frames(video, wanted, connection)
                except VideoError as error:
                    connection.send((error, _State(video.num_frames, video.clock.end)))
        except VideoError as error:
            connection.send((error, _State(0, 0.0)))
        connection.recv()  # nothing more: the parent closes its end


def _send_frames(video: FrameSequence, wanted: Wanted, connection: Connection) -> None:
    told = monotonic()
    for shown in video:
        if wanted.end is not None and shown.number >= wanted.end:
            break
        if shown.number % wanted.stride == wanted.offset:
            pixels = video.pixels(shown.frame)
            connection.send(_Frame(shown.number, shown.seconds, pixels.shape))
            send_array(connection, pixels)
            told = monotonic()
        elif monotonic() - told > _ALIVE_SECONDS:
            connection.send(_State(video.num_frames, video.clock.end))
            told = monotonic()
    connection.send(_State(video.num_frames, video.clock.end, is_over=True))
