"""Writes videos whose frames have given times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import clips


def write_with_times(path: Path, times: list[int]) -> Path:
    """Write a video whose frame k is shown at `times[k]` ms."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(clips.stamped_frame(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path
