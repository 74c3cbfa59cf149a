"""The clock of a video file: when each frame is shown, in seconds from the start of the file."""

from __future__ import annotations

from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

USUAL_RATE = 25  # frames a second if the file does not say
Times = NDArray[np.float64]


class TimeStamps(NamedTuple):
    """The time stamps of a file.

    `pts` has those of its packets in ticks, int64 [P], and is None if they can't be used. `tick` is the length of a
    tick, `start` the time at which the file starts and `step` the usual time from one frame to the next, in seconds.
    """

    pts: NDArray[np.int64] | None
    tick: float
    start: float
    step: float

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, pts: NDArray[np.int64] | None) -> TimeStamps:
        """The stamps of `stream`, whose packets have the given `pts`."""
        rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
        usable = None if container.format.name == "avi" else pts
        return cls(usable, float(stream.time_base or 0), (container.start_time or 0) / av.time_base, float(1 / rate))


def frame_times(stamps: TimeStamps, packets: int, frame_packet: NDArray[np.int64] | None, frames: int) -> Times:
    """When each frame of the file is shown, float64 [F], in seconds from the start of the file.

    `packets` and `frames` are their numbers, `frame_packet` int64 [F] is the packet of each frame in display order,
    None if that is not known. The times are those of the packets. If these are missing, repeat, belong to other packets
    or are not in display order, or if packets do not tell which frame they give, frame k is shown at k times the usual
    step. The same holds for AVI, which stores no time stamps.
    """
    even: Times = np.arange(frames, dtype=np.float64) * stamps.step
    if stamps.pts is None or len(stamps.pts) != packets or frame_packet is None:
        return even
    times: Times = np.asarray(stamps.pts[frame_packet], np.float64) * stamps.tick - stamps.start
    return even if np.any(np.diff(times) < 0) else times
