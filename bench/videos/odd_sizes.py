"""Small videos of each codec that this machine can encode, in sizes that decoders treat differently.

Pictures move, so that a frame that comes in the place of another is told apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

_FRAMES = 40
_GOP = 12
# For each codec: the encoder of FFmpeg, the container, the pixel format, options that make it quick.
_ENCODERS = {
    "mpeg4": ("mpeg4", "avi", "yuv420p", {"sc_threshold": "1000000000"}),
    "h264": ("libx264", "mp4", "yuv420p", {"preset": "ultrafast"}),
    "hevc": ("libx265", "mp4", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "vp8": ("libvpx", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", "mp4", "yuv420p", {"preset": "8"}),
    "mjpeg": ("mjpeg", "avi", "yuvj420p", {}),
}
_REORDER = ("mpeg4", "h264", "hevc")
# UCF-101's; HMDB-51's and Kinetics', which are no multiples of 16; both sides odd, which some decoders round.
SIZES = ((320, 240), (424, 240), (340, 256), (176, 162))


@dataclass(frozen=True)
class OddVideo:
    """A video to make: its codec, width and height in px, and the most B-frames in a row."""

    codec: str
    width: int
    height: int
    b_frames: int = 0

    @property
    def name(self) -> str:
        """What it is, such as `mpeg4 320x240, B-frames`."""
        return f"{self.codec} {self.width}x{self.height}" + ", B-frames" * bool(self.b_frames)

    @property
    def is_whole(self) -> bool:
        """Whether both sides are multiples of 16, so that coded and shown pictures have the same size."""
        return self.width % 16 == 0 and self.height % 16 == 0


def odd_videos() -> Iterator[OddVideo]:
    """The videos that can be made here: each codec of which there is an encoder, in each size, some with B-frames."""
    for codec in _ENCODERS:
        if has_encoder(codec):
            yield from (OddVideo(codec, width, height) for width, height in SIZES)
            if codec in _REORDER:
                yield OddVideo(codec, *SIZES[0], b_frames=2)


def has_encoder(codec: str) -> bool:
    """Whether this PyAV can write `codec`."""
    with suppress(av.FFmpegError, ValueError):
        av.Codec(_ENCODERS[codec][0], "w")
        return True
    return False


def write_odd_video(folder: Path, video: OddVideo) -> Path:
    """Write the video into `folder`, and return its path. Raises av.FFmpegError where its encoder fails."""
    os.environ.setdefault("SVT_LOG", "1")  # the encoder of AV1 prints a page otherwise
    priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        return _write(folder, video)
    finally:
        os.sched_setscheduler(0, *priority)  # that encoder leaves a superuser's thread real-time


def _write(folder: Path, video: OddVideo) -> Path:
    encoder, suffix, pix_fmt, options = _ENCODERS[video.codec]
    path = folder / f"{video.codec}_{video.width}x{video.height}_{video.b_frames}b.{suffix}"
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(encoder, rate=25, options=options))
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, pix_fmt
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = _GOP, video.b_frames, 1
        context.bit_rate = 8 * video.width * video.height
        for number in range(_FRAMES):
            frame = av.VideoFrame.from_ndarray(_picture(number, video.width, video.height), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Frame `number`, uint8 [H, W, 3], RGB: waves that move, and a bar that stands elsewhere in each frame."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin((x + 3 * number) / 11 + channel) * np.cos((y - 2 * number) / 9 - channel) for channel in range(3)]
    picture = (128 + 80 * np.stack(waves, axis=2)).astype(np.uint8)
    left = number * 16 % (width - 16)
    picture[:, left : left + 16] = 235 if number % 2 else 20
    return picture
