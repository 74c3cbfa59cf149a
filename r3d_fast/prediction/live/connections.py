"""The frames of a live source over as many connections as it takes: a cut is followed by another try, later and later.

All connections share one clock, which starts with the first frame. The time from a cut to the first frame after it
counts, also what FFmpeg waits while it connects: a server may accept a connection long before it sends anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.containers.live_source import LiveSource
from pipelines.errors import UsageError, VideoError
from pipelines.live.distant_live import DistantLive
from r3d_fast.console import tell

RECONNECT_SECONDS = 60.0  # the default
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds between two tries; each wait is twice as long as the one before
_OPEN_SECONDS = 20.0  # a stream whose key frames are far apart takes long to open
_READ_SECONDS = 10.0  # without data for that long a connection counts as cut


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a live source, shown `seconds` after its first one.

    `pixels` gives it as uint8 [H, W, 3], RGB, until the next frame is asked for; where it raises VideoError, the
    connection has ended, which shows next. `fps` is the usual frame rate of its connection.
    """

    seconds: float
    pixels: Callable[[], NDArray[np.uint8]]
    fps: float


def check_reconnect(seconds: float) -> None:
    """Raise UsageError for seconds to connect again in that are no number, or below 0."""
    if not seconds >= 0:
        raise UsageError(f"reconnect {seconds}: expected a number of seconds, at least 0")


class Connections:
    """The frames of `source`; iterate over it once.

    `waits` says, once there is a frame, whether the sender waits while nobody reads: a file, or stdin. `began_at` is
    when the first frame came, in seconds since 1970.
    """

    def __init__(
        self,
        source: LiveSource,
        *,
        reconnect_seconds: float = RECONNECT_SECONDS,
        max_pixels: int = MAX_PIXELS,
        say: Callable[[str], object] = tell,
    ) -> None:
        """After a cut, connect again, and try to for `reconnect_seconds`; `say` gets a line about each cut.

        Raises UsageError for a number of seconds below 0.
        """
        check_reconnect(reconnect_seconds)
        self.source, self.waits = source, source.waits
        self.began_at = time.time_ns() / 1e9
        self._opened = self._began = time.monotonic()
        self._again = reconnect_seconds
        self._max_pixels, self._say = max_pixels, say
        self._video: DistantLive | None = None  # the connection that there is now
        self._closed = Event()

    def now(self) -> float:
        """The seconds since the source was first opened."""
        return time.monotonic() - self._opened

    def close(self) -> None:
        """End the connection, from any thread. The frames end soon."""
        self._closed.set()
        if (video := self._video) is not None:
            video.end()

    def __iter__(self) -> Iterator[LiveFrame | None]:
        """The frames, and None where the source was cut.

        Raises VideoError if the source can't be opened, or not again after a cut.
        """
        self._opened = time.monotonic()
        wait, end, cut_at, tried_from, told = _FIRST_WAIT, 0.0, 0.0, 0.0, ""
        had_frames = False
        while not self._closed.is_set():
            try:
                for frame in self._connection(end if had_frames else None):
                    if told:
                        self._say(f"{self.source.name}: connected again after {self.now() - cut_at:.0f} s")
                    wait, end, told, had_frames = _FIRST_WAIT, frame.seconds, "", True
                    yield frame
                return
            except VideoError as error:
                if self._closed.is_set():
                    return
                if self.waits or not had_frames:
                    raise
                if not told:
                    cut_at = self.now()
                    yield None
                    tried_from = self.now()  # what the caller does at a cut may take long
                if self.now() - tried_from + wait > self._again:
                    raise
                if told != str(error):
                    told = str(error)
                    self._say(f"{told}; connecting again, for up to {self._again:g} s")
            self._closed.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _connection(self, end: float | None) -> Iterator[LiveFrame]:
        """The frames of one connection.

        `end` is the time of the last frame before it, and None for the first connection, whose first frame starts the
        clock.
        """
        with DistantLive(
            self.source, open_seconds=_OPEN_SECONDS, read_seconds=_READ_SECONDS, max_pixels=self._max_pixels
        ) as video:
            self._video = video
            self.waits, fps = video.is_file, float(video.fps)
            offset: float | None = None
            try:
                for shown in video:
                    if offset is None:
                        offset = self._start(end) - shown.seconds
                    yield LiveFrame(offset + shown.seconds, shown.pixels, fps)
            finally:
                self._video = None

    def _start(self, end: float | None) -> float:
        """The time of a frame that has just come, the first one of its connection."""
        if end is None:
            self.began_at, self._began = time.time_ns() / 1e9, time.monotonic()
            return 0.0
        return max(time.monotonic() - self._began, end)
