"""The NAL units of H.264 and HEVC: what packets and headers are made of (ITU-T H.264 7.3.1, H.265 7.3.1)."""

from __future__ import annotations

from collections.abc import Iterator

_START_CODE = b"\0\0\1"
# Where avcC and hvcC boxes say how long lengths are, and from how many bytes on they do (ISO/IEC 14496-15, 5.3.3.1.2
# and 8.3.3.1.2).
_LENGTH_FIELD = {"h264": (4, 5), "hevc": (21, 23)}


def length_size(codec: str, extradata: bytes) -> int:
    """Bytes of length before each NAL unit in packets of `codec`, as its header says; 0: start codes part them."""
    field, least = _LENGTH_FIELD[codec]
    return (extradata[field] & 3) + 1 if len(extradata) >= least and extradata[0] == 1 else 0


def nal_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The NAL units in `data`, none empty; `length_size` bytes of length before each, or 0 for start codes."""
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
    """Whether a unit of type `kind` is a part of a picture."""
    return kind < 32 if codec == "hevc" else 1 <= kind <= 5
