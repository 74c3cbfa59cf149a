"""Writes mp4 files of RGB frames, without sound, that every player shows."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

# A multiple of the usual frame rates, 30000/1001 among them, and small enough for MPEG-4 part 2.
_TIME_BASE = Fraction(1, 60000)
_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "veryfast", "crf": "20"}),
    ("mpeg4", {"qscale": "3", "flags": "+qscale"}),
)
_SMPTE170M = 6  # AVCOL_SPC_SMPTE170M: the matrix with which FFmpeg converts RGB to YUV by default


class Mp4Writer:
    """An mp4 in the making. `write` adds a frame, and `close` ends the file."""

    def __init__(self, file: BinaryIO, height: int, width: int, fps: Fraction) -> None:
        """Begin an mp4 in `file` for frames of `height` x `width` px, both even; `fps` is their usual rate."""
        self._container = av.open(file, "w", format="mp4")
        name, options = next((n, o) for n, o in _ENCODERS if _has_encoder(n))
        stream = self._container.add_stream(name, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.colorspace = _SMPTE170M
        self._stream = stream
        self._last = -1

    def write(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame, uint8 [H, W, 3], RGB, shown from `seconds` on."""
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(self._last + 1, round(seconds / _TIME_BASE))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write the frames that the encoder still holds, and the end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def even_sides(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of `pixels` uint8 [H, W, 3] whose sides are even, as this mp4 needs them: an odd side loses a pixel."""
    height, width = (max(2, side // 2 * 2) for side in pixels.shape[:2])
    even: NDArray[np.uint8] = pixels[:height, :width].copy()
    return even


def _has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except (av.error.FFmpegError, ValueError):
        return False
    return True
