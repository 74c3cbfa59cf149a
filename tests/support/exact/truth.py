"""What the frames of a video are: those of PyAV's `container.decode`, one thread, turned upright."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

_ATTACHED_PICTURE = 0x400
# What PyAV raises where decoding fails; the last one where there is no decoder.
_ERRORS = (av.FFmpegError, ValueError, AttributeError)


@dataclass
class Truth:
    """The frames of a video, uint8 [H, W, 3] each, RGB, upright, and how decoding went."""

    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    error: str = ""  # of the decoder or demuxer, which ended the frames
    damaged: bool = False  # a packet is flagged as damaged
    turned: bool = False  # a frame is to be turned or mirrored
    slanted: bool = False  # a frame is to be turned by something else than right angles
    too_large: bool = False  # decoding was ended, since the frames take too much memory

    @property
    def sizes(self) -> set[tuple[int, ...]]:
        """The shapes that frames have."""
        return {frame.shape for frame in self.frames}

    def same(self, other: Truth) -> bool:
        """Whether both are the same frames."""
        return len(self.frames) == len(other.frames) and all(map(np.array_equal, self.frames, other.frames))


def truth_of(path: Path, most: int = 1000, most_bytes: int = 1 << 30, *, hold: int = 0) -> Truth:
    """The frames of the first video stream that is no attached picture, until decoding ends or fails.

    Of a long video the first `most` frames, or those that take `most_bytes`. The latest `hold` frames are not given
    back to the decoder yet.
    """
    truth = Truth()
    held: deque[av.VideoFrame] = deque(maxlen=hold)
    try:
        for packet in _packets(path):
            truth.damaged = truth.damaged or packet.is_corrupt
            for frame in packet.decode():
                held.append(frame)
                truth.frames.append(frame.to_ndarray(format="rgb24", threads=1).copy())  # a view holds the frame
                truth.too_large = sum(one.nbytes for one in truth.frames) > most_bytes
                if truth.too_large or len(truth.frames) >= most:
                    return _turned(path, truth)
    except _ERRORS as error:
        truth.error = str(error) or type(error).__name__
    return _turned(path, truth)


def truth_past_errors(path: Path, packet_of: NDArray[np.int64]) -> Truth:
    """The frames that come out of the packets `packet_of` int64 [F] when decoding goes on after each error.

    Black where a packet gives none. A decode that ends with its first error says nothing of the frames after it.
    """
    given: dict[int | None, NDArray[np.uint8]] = {}
    try:
        for number, packet in enumerate(_packets(path)):
            packet.pts = number if packet.size else None
            with suppress(*_ERRORS):
                given.update(
                    (frame.pts, frame.to_ndarray(format="rgb24", threads=1).copy()) for frame in packet.decode()
                )
    except _ERRORS:
        pass
    black = np.zeros_like(next(iter(given.values()), np.zeros((1, 1, 3), np.uint8)))
    return _turned(path, Truth([given.get(int(number), black) for number in packet_of]))


def uncut_frames(path: Path) -> int:
    """The number of frames before the first one whose packet the demuxer flags as damaged: a picture cut in two.

    An index may leave these out of a truncated file, though the decoder makes something of them.
    """
    flagged: set[int] = set()
    count = 0
    try:
        for number, packet in enumerate(_packets(path)):
            flagged |= {number} if packet.is_corrupt else set()
            packet.pts = number if packet.size else None
            for frame in packet.decode():
                if frame.pts in flagged:
                    return count
                count += 1
    except _ERRORS:
        pass
    return count


def steady_truth_of(path: Path, most: int = 1000, most_bytes: int = 1 << 30) -> Truth | None:
    """The truth; None if it is not one: see `is_steady`."""
    truth = truth_of(path, most, most_bytes)
    return truth if is_steady(path, truth, most, most_bytes) else None


def is_steady(path: Path, truth: Truth, most: int = 1000, most_bytes: int = 1 << 30) -> bool:
    """Whether the truth does not depend on when the caller lets go of frames, or on how one shows a slanted picture.

    From damaged pictures some decoders give what they did not write: the memory of a frame that was given back before.
    """
    held = (truth_of(path, most, most_bytes, hold=hold) for hold in (2, most))
    return not truth.slanted and all(map(truth.same, held))


def _packets(path: Path) -> Iterator[av.Packet]:
    with av.open(f"file:{path}", metadata_errors="ignore") as container:
        stream = next((s for s in container.streams.video if not s.disposition & _ATTACHED_PICTURE), None)
        if stream is None:
            raise ValueError("no video stream")
        stream.codec_context.thread_count = 1
        yield from container.demux(stream)


def _turned(path: Path, truth: Truth) -> Truth:
    """The truth with its frames turned upright, as the first frame says.

    That comes from another decode, as a frame that was asked for its side data is given back late.
    """
    try:
        first = next((frame for packet in _packets(path) for frame in packet.decode()), None)
        data = None if first is None else first.side_data.get("DISPLAYMATRIX")
    except _ERRORS:
        data = None
    if data is None:
        return truth
    matrix = struct.unpack("=9i", bytes(data))
    a, b, _, c, d = matrix[:5]
    truth.turned = bool(b or c or a < 0 or d < 0)
    truth.slanted = bool((a or d) and (b or c)) or not ((a and d) or (b and c))
    truth.frames = [upright(pixels, matrix) for pixels in truth.frames]
    return truth


def upright(pixels: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture as it is to be shown; `matrix` has the nine numbers of libavutil/display.h.

    The point (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    """
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):
        pixels = pixels.transpose(1, 0, 2)  # (x, y) is shown at (y, x)
        a, d = c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
