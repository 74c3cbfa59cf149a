"""The frames of a live source, read by another process: one that the stream crashes or blocks is ended.

Each side of the two waits for the other, so that a sender which waits is made to wait, and only the pixels that are
asked for are converted and sent. How far the other process is stands in memory that both have.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from fractions import Fraction
from multiprocessing.connection import Connection
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.containers.live_source import LiveSource
from pipelines.errors import VideoError
from pipelines.isolation.jobs import STALL_SECONDS
from pipelines.isolation.process import Ready
from pipelines.isolation.reading_process import ReadingProcess, send_array
from pipelines.isolation.rights import give_up_rights
from pipelines.live.live_sequence import LiveSequence
from pipelines.machine.processes import bytes_read, is_at_work

_MAIN = "pipelines.live.distant_live.main"
_STEP = struct.Struct("q")  # in the memory that both have: 1 more when the decoder gets a packet, and when it is done


class ArrivedFrame(NamedTuple):
    """A frame of a live source, shown at `seconds` of its connection.

    `pixels` gives it as it is shown, uint8 [H, W, 3], RGB, until the next frame is asked for. Where it raises
    VideoError, so do the frames next.
    """

    seconds: float
    pixels: Callable[[], NDArray[np.uint8]]


class _Asked(NamedTuple):
    source: LiveSource
    limits: dict[str, Any]  # further arguments of LiveSequence


class _Opened(NamedTuple):
    fps: Fraction
    is_file: bool


class _Shown(NamedTuple):
    """A frame. The process keeps it until it is told to go on; asked for its pixels, it sends their shape and bytes."""

    seconds: float


class _Over(NamedTuple):
    """The connection has ended, with an error where it should not have."""

    error: VideoError | None = None


class DistantLive:
    """Gives the frames of one connection to `source` as LiveSequence does, once, in a `with` block.

    `fps` is the usual frame rate. `is_file`: whether the source is a file at an address, which has an end.
    """

    def __init__(
        self, source: LiveSource, *, open_seconds: float, read_seconds: float, max_pixels: int = MAX_PIXELS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:  # fmt: skip
        """Connect. Raises the errors of LiveSequence, VideoError if the stream crashes or blocks the process.

        That blocks if it does not get on for `stall_seconds`, except where it waits for data on stdin.
        """
        self._source, self._is_over = source, False
        self._failed: VideoError | None = None  # when pixels were asked for
        self._seen = self._read = 0
        files: list[int] = []
        try:
            files.append(os.memfd_create("live"))
            os.truncate(files[0], _STEP.size)
            if source.waits:
                files.append(os.dup(0))
            self._steps = mmap.mmap(files[0], _STEP.size)
            self._process = ReadingProcess(source.name, _MAIN, *files, stall_seconds=stall_seconds)
        except OSError as error:
            raise VideoError(source.name, "can't be opened", reason_of(error)) from error
        finally:
            for file in files:
                os.close(file)
        self._is_open = True
        self._opens_until = monotonic() + open_seconds + stall_seconds
        limits = {"open_seconds": open_seconds, "read_seconds": read_seconds, "max_pixels": max_pixels}
        try:
            self._process.send(_Asked(source, limits))
            self.fps, self.is_file = self._receive()
            self._opens_until = 0.0
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[ArrivedFrame]:
        """The frames. Raises the errors of LiveSequence, VideoError if the stream crashes or blocks the process."""
        while shown := self._receive():
            yield ArrivedFrame(shown.seconds, self._pixels)
            if self._failed is not None:
                raise self._failed
            self._process.send(False)

    def end(self) -> None:
        """End the process, from any thread: who waits for a frame gets an error."""
        self._process.kill()

    def close(self) -> None:
        """End the connection, and its process with it if the source has not ended."""
        if self._is_open:
            self._is_open = False
            self._process.close(is_idle=self._is_over)
            self._steps.close()

    def __enter__(self) -> DistantLive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pixels(self) -> NDArray[np.uint8]:
        try:
            self._process.send(True)
            return self._process.receive_array(self._receive())
        except VideoError as error:
            self._failed = error
            raise

    def _receive(self) -> Any:
        """The next message; None at the end. Raises the VideoError that it is, or that the process ended with."""
        message = self._process.receive(self._goes_on)
        if isinstance(message, _Over):
            self._is_over = True
            if message.error is not None:
                raise message.error
            return None
        return message

    def _goes_on(self) -> bool:
        """Whether the process, which sends nothing, decodes, still connects or waits for data on stdin."""
        before, (self._seen,) = self._seen, _STEP.unpack_from(self._steps)
        if self._seen != before or monotonic() < self._opens_until:
            return True
        return self._source.waits and self._seen % 2 == 0 and self._waits_for_data()

    def _waits_for_data(self) -> bool:
        before, self._read = self._read, bytes_read(self._process.pid)
        return self._read > before or not is_at_work(self._process.pid)


def main(descriptor: int, shared: int, *stdin: int) -> None:
    """Read the live source that the parent names, at the other end of the socket `descriptor`.

    `shared` is the memory for _STEP, and `stdin` that of the parent, if the source is that.
    """
    with ExitStack() as stack, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        for file in (shared, *stdin):
            stack.callback(os.close, file)
        connection = stack.enter_context(Connection(descriptor))
        steps, count = stack.enter_context(closing(mmap.mmap(shared, _STEP.size))), 0

        def step() -> None:
            nonlocal count
            count += 1
            _STEP.pack_into(steps, 0, count)

        give_up_rights()
        connection.send(Ready())
        asked: _Asked = connection.recv()
        source = replace(asked.source, address=f"pipe:{stdin[0]}") if stdin else asked.source
        try:
            with LiveSequence(source, **asked.limits, on_step=step) as video:
                connection.send(_Opened(video.fps, video.is_file))
                for shown in video:
                    connection.send(_Shown(shown.seconds))
                    while connection.recv():
                        pixels = video.pixels(shown.frame)
                        connection.send(pixels.shape)
                        send_array(connection, pixels)
            connection.send(_Over())
        except VideoError as error:
            connection.send(_Over(error))
