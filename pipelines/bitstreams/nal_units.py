"""Splits packets and headers of H.264 and HEVC into their NAL units (ITU-T H.264 7.3.1, H.265 7.3.1)."""

from __future__ import annotations

from collections.abc import Iterator

_START_CODE = b"\0\0\1"
# For each codec: the offset in its avcC or hvcC box of the field that says how many bytes a length has, and the least
# size of a box that has this field (ISO/IEC 14496-15, 5.3.3.1.2 and 8.3.3.1.2).
_LENGTH_FIELD = {"h264": (4, 5), "hevc": (21, 23)}


def length_size(codec: str, extradata: bytes) -> int:
    """How many bytes the length before each NAL unit has in packets of `codec`; 0 if start codes separate the units.

    `extradata` is the header of the stream.
    """
    field, least = _LENGTH_FIELD[codec]
    return (extradata[field] & 3) + 1 if len(extradata) >= least and extradata[0] == 1 else 0


def nal_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The NAL units in `data`, without empty ones. `length_size` is that of the function `length_size`."""
    at = 0
    if not length_size:
        at = data.find(_START_CODE)
        while at >= 0:
            following = data.find(_START_CODE, at + 3)
            unit = data[at + 3 : following if following >= 0 else len(data)]
            if unit:
                yield unit
            at = following
        return
    while at + length_size < len(data):
        length = int.from_bytes(data[at : at + length_size], "big")
        at += length_size
        if length:
            yield data[at : at + length]
        at += length


def unit_type(codec: str, unit: bytes) -> int:
    """`nal_unit_type` of a NAL unit of `codec`."""
    return (unit[0] >> 1) & 63 if codec == "hevc" else unit[0] & 31


def is_slice(codec: str, kind: int) -> bool:
    """Whether a unit of type `kind` is a slice, a part of a picture."""
    return kind < 32 if codec == "hevc" else 1 <= kind <= 5
