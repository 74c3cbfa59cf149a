"""Gives the frames of a live source one after the other, as they come, until the connection ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from urllib.parse import urlsplit

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipelines.containers.clock import FrameClock, TimeBase, usual_rate
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import MAX_PIXELS, check_size
from pipelines.containers.live_source import LiveSource
from pipelines.containers.opening import open_live
from pipelines.errors import VideoError
from pipelines.video.orientation import orientation_of
from pipelines.video.scaler import rgb_frame, rgb_pixels
from pipelines.video.sequence import ShownFrame

_NO_STAMPS = 0x80  # AVFMT_NOTIMESTAMPS: the container says nothing of when frames are shown
CUT = "cut"  # the reason of a connection that ended although it need not have


class LiveSequence:
    """The frames of one connection to `source`. Iterate over it once, in a `with` block.

    `fps` is the usual frame rate. `is_file`: whether the source is a file at an address, which has an end. Frames may
    differ in size from each other. Times are those of the stream; where it states none they are those of arrival.
    """

    def __init__(
        self, source: LiveSource, *, open_seconds: float, read_seconds: float, max_pixels: int = MAX_PIXELS,
        on_step: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Connect, for at most `open_seconds`; where nothing comes for `read_seconds`, the connection counts as cut.

        `on_step` is called before and after a packet is decoded. Raises VideoError if there is no video that can be
        decoded and is of that size.
        """
        self.name = source.name
        self._max_pixels, self._on_step = max_pixels, on_step
        self._reformatter = VideoReformatter()
        self._open = ExitStack()
        try:
            video = self._open.enter_context(
                open_live(source, open_seconds=open_seconds, read_seconds=read_seconds, max_pixels=max_pixels)
            )
        except (av.error.FFmpegError, OSError) as error:
            why = _unknown_host(source.address) or _why(error, open_seconds)
            raise VideoError(self.name, "can't be opened", why) from error
        self._read_seconds = read_seconds
        self._container, self._stream = video
        self.fps = usual_rate(self._stream)
        self.is_file = source.waits or self._container.duration is not None
        self._by_arrival = not source.waits and bool(int(self._container.format.flags) & _NO_STAMPS)
        self._clock = FrameClock(TimeBase.of(self._stream))

    def __iter__(self) -> Iterator[ShownFrame]:
        """The frames. What does not decode is left out. Raises VideoError where the connection is cut."""
        number, begin = 0, time.monotonic()
        try:
            for packet in self._container.demux(self._stream):
                self._clock.prepare(packet)
                for frame in self._decoded(packet):
                    check_size(self.name, frame.width, frame.height, self._max_pixels)
                    stamp = self._clock.read(frame)
                    yield ShownFrame(number, time.monotonic() - begin if self._by_arrival else stamp, frame)
                    number += 1
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(self.name, CUT, _why(error, self._read_seconds)) from error
        if not self.is_file:
            raise VideoError(self.name, CUT, "the sender ended the connection")
        if not number:
            raise VideoError(self.name, "no frame decodes")

    def _decoded(self, packet: av.Packet[av.VideoStream]) -> list[av.VideoFrame]:
        """The whole frames of a packet: none where packets were lost, as a stream goes on after that."""
        self._on_step()
        try:
            return [frame for frame in packet.decode() if not frame.is_corrupt]
        except (av.error.InvalidDataError, ValueError):  # PyAV raises ValueError for some damage
            return []
        finally:
            self._on_step()

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The pixels of a frame as they are shown, uint8 [H, W, 3], RGB. Raises VideoError as FrameSequence does."""
        return orientation_of(frame).turned(rgb_pixels(rgb_frame(self.name, frame, self._reformatter)))

    def close(self) -> None:
        """End the connection."""
        self._open.close()

    def __enter__(self) -> LiveSequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unknown_host(address: str) -> str:
    """What to say where `address` names a host that there is not, for which FFmpeg has no error of its own; else ""."""
    try:
        host = urlsplit(address).hostname
        if host:
            socket.getaddrinfo(host, None)
    except ValueError:
        return "not an address"
    except OSError:
        return f"there is no host {host}, or no network"
    return ""


def _why(error: av.error.FFmpegError | OSError, seconds: float) -> str:
    """The reason in words, without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):  # PyAV interrupts what takes too long
        return f"nothing came for {seconds:g} s"
    return reason_of(error)
