"""The clock of a video file: when each frame is shown, in seconds from the start of the file, as players count.

The start of the file is that of its earliest stream: where the sound begins before the picture, so does the time.
Times are those that the file states. Where it states none, or impossible ones, they follow from the usual step:

- A frame without a time stamp is shown one step after the frame before it.
- A stamp goes back by more than frames are ever reordered, or forward by half a day: recordings were joined, or the
  counter of the clock began anew. The frame is shown one step after the one before it, and the clock goes on.
  Every smaller gap is a gap, however long.
- A stamp goes back by less, or repeats: the frame is shown at the time of the frame before it.

AVI stores no stamps, but a chunk for each tick of its clock; a chunk without content stands for a frame that was
dropped. A frame is shown at the tick of the chunk at which a decoder gives it, less the number of packets by which the
decoder is late with the first frame.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

Times = NDArray[np.float64]

_USUAL_RATE = Fraction(25)  # frames a second if the file does not say
_ENTRIES = 1000  # entries of a container's index that tell its usual step
_RATES_DIFFER = 0.1  # an average rate that is off by more is that of a video with stills or dropped frames
# 33 bits at 90 kHz, the counter of MPEG streams, last 26.5 hours. A longer way forward than half of that is a way back.
_LONGEST_STEP_SECONDS = 12 * 3600
_REORDERED = 16  # frames, at most, by which H.264 and HEVC reorder (ISO/IEC 14496-10, max_dec_frame_buffering)
_ROUNDING_SECONDS = Fraction(2, av.time_base)  # the start of a file comes in microseconds


class TimeBase(NamedTuple):
    """How a file counts time, in exact seconds: `tick` is one tick, `start` what its clock shows when the file starts.

    A `start` of None is not known. `step` is the usual time from one frame to the next. With `by_chunk` a stamp is the
    number of a chunk of an AVI, else it is the time at which a frame is shown.
    """

    tick: Fraction
    start: Fraction | None
    step: Fraction
    by_chunk: bool

    @classmethod
    def of(cls, stream: VideoStream) -> TimeBase:
        """The time base of `stream`."""
        container = stream.container
        assert isinstance(container, InputContainer)
        start = None if container.start_time is None else Fraction(container.start_time, av.time_base)
        tick, step = stream.time_base or Fraction(0), 1 / usual_rate(stream)
        by_chunk = bool(container.format.name == "avi" and tick)
        return cls(tick, start, max(1, round(step / tick)) * tick if by_chunk else step, by_chunk)


class TimeStamps(NamedTuple):
    """The stamps of the packets of a file in its order: `ticks` int64 [P], None if a packet has none.

    The stamp of a packet is the time at which its frame is shown; in an AVI it is the number of its chunk.
    `durations` int64 [P] is for how many ticks each frame is shown, 0 where the file does not say; None: nowhere.
    """

    base: TimeBase
    ticks: NDArray[np.int64] | None
    durations: NDArray[np.int64] | None

    @classmethod
    def of(
        cls, stream: VideoStream, ticks: NDArray[np.int64] | None, durations: NDArray[np.int64] | None = None
    ) -> TimeStamps:
        """The stamps of `stream`, whose packets have the given ones."""
        return cls(TimeBase.of(stream), ticks, durations)


def usual_rate(stream: VideoStream) -> Fraction:
    """How many frames a second a video usually has: the average, unless stills or dropped frames distort it."""
    average = stream.average_rate or stream.guessed_rate or _USUAL_RATE
    formats = stream.container.format.name.split(",")
    entries = getattr(stream, "index_entries", ())
    # The index of other containers has key frames only. An AVI with an entry for each tick has dropped no frame.
    if not ("mov" in formats or ("avi" in formats and len(entries) != stream.frames)) or stream.time_base is None:
        return average
    steps = np.diff(np.sort([entry.timestamp for entry in islice(entries, _ENTRIES)]))
    if len(steps) == 0 or np.median(steps) <= 0:
        return average
    rate = 1 / (int(np.median(steps)) * stream.time_base)
    return average if abs(rate / average - 1) <= _RATES_DIFFER else rate


class FrameClock:
    """Tells when frames are shown. They are given one after the other, in display order."""

    def __init__(self, base: TimeBase) -> None:
        self.end = 0.0  # when the latest frame ends, in seconds
        self._base = base
        self._now = -base.step  # when the latest frame is shown
        self._zero: Fraction | None = None  # what the clock of the file shows at time 0
        self._step = base.step  # from the latest frame to the next one, if that has no stamp
        self._standing = 0  # frames in a row whose stamps did not go on
        self._begun: list[int | None] | None = [] if base.by_chunk else None  # stamps of packets before the first frame
        self._delay = 0  # ticks after its chunk at which a decoder gives a frame
        self._jump = _REORDERED * base.step

    def prepare(self, packet: av.Packet[VideoStream]) -> None:
        """Prepare a packet, before it is decoded, so that `read` can read the stamp of its frame."""
        if self._base.by_chunk:
            packet.pts = packet.dts  # FFmpeg's guess of when it is shown is wrong for streams with reordered frames
            if self._begun is not None and packet.size:
                self._begun.append(packet.dts)

    def read(self, frame: av.VideoFrame) -> float:
        """When the decoded `frame` is shown, in seconds from the start of the file."""
        if self._base.by_chunk:
            return self.seconds(self._turn(frame), frame.duration)
        return self.seconds(frame.dts if frame.pts is None else frame.pts, frame.duration)

    def _turn(self, frame: av.VideoFrame) -> int | None:
        """The tick at which the decoder gives the frame of an AVI, less its delay; None for the frames at the end."""
        if self._begun is not None:
            if frame.pts in self._begun:
                late = len(self._begun) - 1 - self._begun.index(frame.pts)
                self._delay = late * round(self._base.step / self._base.tick)
            self._begun = None
            if frame.dts is None:
                return frame.pts
        return None if frame.dts is None else frame.dts - self._delay

    def seconds(self, stamp: int | None, duration: int = 0) -> float:
        """When the frame with `stamp` is shown, in seconds from the start of the file.

        `duration` is for how many ticks, if the file says so. Both are in ticks.
        """
        before = self._now
        even = before + self._step
        self._now = even if stamp is None else self._by_stamp(stamp * self._base.tick, even)
        if self._base.by_chunk and self._now > before:
            self._step = min(self._base.step, self._now - before)  # the latest frames say how many are dropped now
        lasts = duration * self._base.tick
        self.end = float(self._now + (lasts if 0 < lasts <= _LONGEST_STEP_SECONDS else self._base.step))
        return float(self._now)

    def _by_stamp(self, stamp: Fraction, even: Fraction) -> Fraction:
        """When a frame is shown whose stamp is `stamp` seconds; `even` is when it is by the usual step."""
        if self._zero is None:
            start = self._base.start
            first = start is None or not _ROUNDING_SECONDS < stamp - start <= _LONGEST_STEP_SECONDS
            self._zero = stamp - even if first or start is None else start
        ahead = stamp - self._zero - self._now
        if not -self._jump <= ahead <= _LONGEST_STEP_SECONDS:
            self._zero = stamp - even
            return even
        if ahead > 0:
            self._standing = 0
            return self._now + ahead
        self._standing += 1
        return even if self._standing * self._base.step > self._jump else self._now
