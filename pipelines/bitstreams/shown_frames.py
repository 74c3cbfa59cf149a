"""Says how many frames a packet of VP8, VP9 or AV1 gives when it is decoded, and whether it begins with a key frame.

Only headers are read. A packet may hold pictures that are never shown but only referred to (alternate reference
frames), several pictures, or the order to show an earlier one. Sources: RFC 6386 (VP8) 9.1; "VP9 Bitstream & Decoding
Process Specification" 0.6, 6.2 and annex B (superframes); "AV1 Bitstream & Decoding Process Specification" with Errata
1, 5.3 to 5.5 and 5.9.2; "AV1 Codec ISO Media File Format Binding" 1.2, 2.3 (`av1C`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.bitstreams.bits import Bits

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _TILE_LIST = 1, 3, 6, 8  # obu_type (AV1 6.2.2)
_VP9_MARKER, _HEADER_BYTES = 2, 4  # frame_marker; the header fields that are read lie in the first bytes of a frame
_KEY_FRAME = 0  # frame_type of VP9 and AV1
_AV1C_HEAD = 4  # bytes of an `av1C` box before its OBUs; the first is 0x81


class _Picture(NamedTuple):
    key: bool  # a new key frame, not an earlier one that is shown again
    shown: bool


class _Unit(NamedTuple):
    """An OBU (open bitstream unit) of AV1."""

    kind: int
    layer: int  # spatial_id
    content: bytes


def shown_frames(codec: str, packet: bytes, extradata: bytes) -> int | None:
    """How many frames a packet of `codec` (vp8, vp9, av1) gives; None if its headers do not say it for certain.

    `extradata` is the header of the stream. The count is that of FFmpeg's vp8 and vp9 and of libdav1d. It is None for
    other codecs, for damaged headers, and for AV1 with several layers or operating points, of which decoders choose.
    """
    pictures = _pictures(codec, packet, extradata)
    return None if pictures is None else sum(picture.shown for picture in pictures)


def begins_with_key_frame(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Whether decoding may begin at a packet of `codec` (vp8, vp9, av1), by its bitstream: it begins with a key frame.

    An AV1 key frame has to be shown as well. One that is hidden and shown later (a forward key frame) has frames
    after it that are shown before it and need earlier ones (AV1 7.6.3).
    """
    pictures = _pictures(codec, packet, extradata)
    if not pictures:
        return False
    return pictures[0].key and (pictures[0].shown or codec != "av1")


def _pictures(codec: str, packet: bytes, extradata: bytes) -> list[_Picture] | None:
    """The pictures of a packet; None if they are not known for certain."""
    try:
        if codec == "vp8":
            return [_vp8_picture(packet)]
        if codec == "vp9":
            return [_vp9_picture(frame) for frame in _vp9_frames(packet)]
        if codec == "av1":
            return _av1_pictures(packet, extradata)
    except (EOFError, ValueError):
        pass
    return None


def _vp8_picture(packet: bytes) -> _Picture:
    """The frame tag of VP8 (RFC 6386, 9.1)."""
    if len(packet) < 3:
        raise EOFError("no frame tag")
    return _Picture(key=not packet[0] & 1, shown=bool(packet[0] & 0x10))


def _vp9_frames(packet: bytes) -> Iterator[bytes]:
    """The first bytes of the frames in a VP9 packet, as its superframe index lists them. Raises ValueError."""
    marker = packet[-1] if packet else 0
    width, count = (marker >> 3 & 3) + 1, (marker & 7) + 1
    index = len(packet) - 2 - width * count
    if marker & 0xE0 != 0xC0 or index < 0 or packet[index] != marker:
        yield packet[:_HEADER_BYTES]
        return
    at = 0
    for place in range(index + 1, len(packet) - 1, width):
        size = int.from_bytes(packet[place : place + width], "little")
        if not size or at + size > index:
            raise ValueError("a size in the superframe index is wrong")
        yield packet[at : at + min(size, _HEADER_BYTES)]
        at += size


def _vp9_picture(frame: bytes) -> _Picture:
    """The start of uncompressed_header() of VP9."""
    bits = Bits(frame)
    if bits.take(2) != _VP9_MARKER:
        raise ValueError("no VP9 frame")
    if bits.take(1) + 2 * bits.take(1) == 3 and bits.take(1):
        raise ValueError("profile 4 and above do not exist")
    if bits.take(1):  # show_existing_frame
        return _Picture(key=False, shown=True)
    return _Picture(key=bits.take(1) == _KEY_FRAME, shown=bool(bits.take(1)))


def _av1_pictures(packet: bytes, extradata: bytes) -> list[_Picture] | None:
    """The frame headers of an AV1 temporal unit."""
    has_box = len(extradata) >= _AV1C_HEAD and extradata[0] == 0x81
    units = list(_units(extradata[_AV1C_HEAD:] if has_box else extradata))
    start = len(units)
    units += _units(packet)
    # A stream whose extradata have no sequence header has it in its key frames. Only streams of a single picture, which
    # is a key frame, have reduced headers.
    reduced = False
    pictures = []
    for number, unit in enumerate(units):
        if unit.kind == _SEQUENCE_HEADER:
            several, reduced = _several_and_reduced(unit.content)
            if several:
                return None
        elif number >= start and unit.kind in (_FRAME_HEADER, _FRAME, _TILE_LIST):
            if unit.layer or unit.kind == _TILE_LIST:
                return None
            pictures.append(_av1_picture(unit.content, reduced=reduced))
    return pictures


def _units(data: bytes) -> Iterator[_Unit]:
    """The OBUs of `data` (AV1 5.3). Raises ValueError if their sizes do not fit."""
    at = 0
    while at < len(data):
        head, layer, size = data[at], 0, 0
        at += 1
        if head & 4:
            layer, at = data[at : at + 1].ljust(1)[0] >> 3 & 3, at + 1
        if head & 2:  # a size in the form leb128 (4.10.5)
            for place in range(8):
                if at >= len(data):
                    raise ValueError("the packet ends within an OBU")
                byte, at = data[at], at + 1
                size |= (byte & 127) << 7 * place
                if not byte & 128:
                    break
        else:
            size = len(data) - at
        if head & 0x80 or at + size > len(data):
            raise ValueError("the packet ends within an OBU, or holds something else")
        yield _Unit(head >> 3 & 15, layer, data[at : at + size])
        at += size


def _several_and_reduced(sequence: bytes) -> tuple[bool, bool]:
    """Whether a sequence header (AV1 5.5.1) has several operating points, and its reduced_still_picture_header."""
    bits = Bits(sequence[:64])
    bits.take(4)  # seq_profile, still_picture
    if bits.take(1):
        return False, True
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval
            bits.exp_golomb()  # uvlc() of AV1 has the same form
        if bits.take(1):  # decoder_model_info_present_flag
            bits.take(47)
    bits.take(1)  # initial_display_delay_present_flag
    return bits.take(5) > 0, False  # operating_points_cnt_minus_1


def _av1_picture(header: bytes, *, reduced: bool) -> _Picture:
    """The start of uncompressed_header() of AV1 (5.9.2)."""
    if reduced:
        return _Picture(key=True, shown=True)
    bits = Bits(header[:1])
    if bits.take(1):  # show_existing_frame
        return _Picture(key=False, shown=True)
    return _Picture(key=bits.take(2) == _KEY_FRAME, shown=bool(bits.take(1)))
