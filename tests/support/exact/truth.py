"""What the frames of a video are: those of PyAV's `container.decode`, one thread, turned upright."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

_ATTACHED_PICTURE = 0x400


@dataclass
class Truth:
    """The frames of a video, uint8 [H, W, 3] each, RGB, upright, and how decoding went."""

    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    error: str = ""  # of the decoder or demuxer, which ended the frames
    damaged: bool = False  # a packet is flagged as damaged
    turned: bool = False  # a frame is to be turned or mirrored
    too_large: bool = False  # decoding was ended, since the frames take too much memory

    @property
    def sizes(self) -> set[tuple[int, ...]]:
        """The shapes that frames have."""
        return {frame.shape for frame in self.frames}

    def same(self, other: Truth) -> bool:
        """Whether both are the same frames."""
        return len(self.frames) == len(other.frames) and all(map(np.array_equal, self.frames, other.frames))


def truth_of(path: Path, most: int = 1000, most_bytes: int = 1 << 30) -> Truth:
    """The frames of the first video stream that is no attached picture, until decoding ends or fails.

    Of a long video the first `most` frames, or those that take `most_bytes`.
    """
    truth = Truth()
    try:
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            stream = next((s for s in container.streams.video if not s.disposition & _ATTACHED_PICTURE), None)
            if stream is None:
                truth.error = "no video stream"
                return truth
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                truth.damaged = truth.damaged or packet.is_corrupt
                for frame in packet.decode():
                    matrix = frame.side_data.get("DISPLAYMATRIX")
                    pixels = frame.to_ndarray(format="rgb24", threads=1)
                    truth.turned = truth.turned or (matrix is not None and _turns(bytes(matrix)))
                    truth.frames.append(pixels if matrix is None else upright(pixels, bytes(matrix)))
                    truth.too_large = sum(frame.nbytes for frame in truth.frames) > most_bytes
                    if truth.too_large or len(truth.frames) >= most:
                        return truth
    except (av.FFmpegError, ValueError, AttributeError) as error:
        truth.error = str(error) or type(error).__name__
    return truth


def upright(pixels: NDArray[np.uint8], matrix: bytes) -> NDArray[np.uint8]:
    """A picture as it is to be shown; `matrix` is that of libavutil/display.h: nine numbers of 32 bits.

    The point (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    """
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    if abs(b) > abs(a):
        pixels = pixels.transpose(1, 0, 2)  # (x, y) is shown at (y, x)
        a, d = c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _turns(matrix: bytes) -> bool:
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    return bool(b or c or a < 0 or d < 0)
