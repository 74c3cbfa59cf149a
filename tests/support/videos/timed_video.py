"""Writes videos whose frames have given times, and long ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np

FORMATS = {"ts": "mpegts", "wmv": "asf", "mpg": "mpeg"}  # FFmpeg's name of a container, if it can't tell by the suffix


def write_with_times(
    path: Path,
    times: Sequence[int],
    *,
    codec: str = "mjpeg",
    b_frames: int = 0,
    tick: Fraction = Fraction(1, 1000),
    options: Mapping[str, str] | None = None,
    sound_at: int | None = None,
) -> Path:
    """Write a stamped video whose frame k is shown at `times[k]` ms. Its usual rate is 25 frames a second.

    `codec` is an encoder of FFmpeg, `tick` the unit in seconds of the times that it is given, `options` are for the
    container, whose format follows from the suffix. With `sound_at` there is also half a second of sound from that
    many ms on. Returns `path`.
    """
    container = FORMATS.get(path.suffix.removeprefix("."))
    with av.open(str(path), "w", format=container, container_options=dict(options or {})) as target:
        stream = target.add_stream(codec, rate=25, options={"bf": str(b_frames), "sc_threshold": "1000000000"})
        stream.width, stream.height = 128, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1  # so that the bytes are the same each time
        if sound_at is not None:
            sound = target.add_stream("pcm_s16le", rate=48000, layout="mono")
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 24000), np.int16), format="s16", layout="mono")
            tone.sample_rate, tone.pts, tone.time_base = 48000, 48 * sound_at, Fraction(1, 48000)
            target.mux([*sound.encode(tone), *sound.encode(None)])
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(clips.stamped_frame(number), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time, 1000) / tick), tick
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def write_long(path: Path, num_frames: int) -> Path:
    """A video of a few pictures that come again and again: made fast, however long."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pictures = [
            av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * k, np.uint8), format="rgb24").reformat(format="yuv420p")
            for k in range(25)
        ]
        for number in range(num_frames):
            picture = pictures[number % len(pictures)]
            picture.pts = number
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path
