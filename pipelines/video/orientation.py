"""Orientation: how a stored picture is turned or mirrored to be shown upright, as phones ask for in their files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipelines.video.scaler import Box

_MATRIX = struct.Struct("=9i")
_SLANT = 0.02  # a matrix that is off a right angle by less than about 1 degree counts as one


@dataclass(frozen=True)
class Orientation:
    """One of the eight turns and mirrorings of a picture by right angles.

    To show the stored picture, first exchange rows and columns if it `transposes`; then reverse each row if it
    `flips_x`, and the order of the rows if it `flips_y`.
    """

    transposes: bool = False
    flips_x: bool = False
    flips_y: bool = False

    @property
    def code(self) -> int:
        """The orientation as a number, 0 (upright as stored) to 7."""
        return self.transposes | self.flips_x << 1 | self.flips_y << 2

    @classmethod
    def of_code(cls, code: int) -> Orientation:
        """The orientation whose `code` is given."""
        return cls(bool(code & 1), bool(code & 2), bool(code & 4))

    def turned(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stored pictures uint8 [..., H, W, 3] as they are shown, as a view; H and W change places if it transposes."""
        if self.transposes:
            pixels = pixels.swapaxes(-3, -2)
        return pixels[..., :: -1 if self.flips_y else 1, :: -1 if self.flips_x else 1, :]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in px of the shown picture by those of the stored one; and the other way round."""
        return (width, height) if self.transposes else (height, width)

    def stored_box(self, box: Box, height: int, width: int) -> Box:
        """Where a box of the shown picture, which is `height` x `width` px, lies in the stored picture."""
        y, x, rows, columns = box
        x = width - x - columns if self.flips_x else x
        y = height - y - rows if self.flips_y else y
        return (x, y, columns, rows) if self.transposes else (y, x, rows, columns)


UPRIGHT = Orientation()


def _unknown(kind: type[Type], value: object) -> Type:
    """A member for a kind of side data that PyAV does not know."""
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return cast("Type", member)


# Where a frame has side data of a kind that is newer than PyAV's list, such as the EXIF of a JPEG, PyAV 18 raises
# ValueError whatever is asked for (av/sidedata/sidedata.py). This hook of Enum gives such kinds a name instead.
Type._missing_ = classmethod(_unknown)  # type: ignore[assignment]


def orientation_of(frame: VideoFrame) -> Orientation:
    """The orientation that the container, or the stream itself, states for a decoded frame; UPRIGHT if none does.

    It comes from the display matrix, whose turns that are not by right angles are left out, as OpenCV does. Source:
    libavutil/display.h, ISO/IEC 14496-12, 8.3.2.
    """
    try:
        data = frame.side_data[Type.DISPLAYMATRIX]  # type: ignore[typeddict-item]  # PyAV's stub is too narrow
    except KeyError:
        return UPRIGHT
    return _by_matrix(_MATRIX.unpack_from(bytes(data))) if data.buffer_size >= _MATRIX.size else UPRIGHT


def _by_matrix(matrix: tuple[int, ...]) -> Orientation:
    """The orientation of a display matrix: point (x, y) is shown at (a x + c y, b x + d y), y downwards."""
    a, b, _, c, d = matrix[:5]
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) <= _SLANT * straight:
        return Orientation(False, a < 0, d < 0)
    if max(abs(a), abs(d)) <= _SLANT * crossed:
        return Orientation(True, c < 0, b < 0)
    return UPRIGHT
