"""Says of each packet whether decoding may begin there, whether it can be left out, and how many frames it gives.

Only headers are read. Sources: ITU-T H.264 7.3.1 and D.1.8, ITU-T H.265 7.4.2.2, ISO/IEC 13818-2 (MPEG-2) 6.2.
"""

from __future__ import annotations

from pipelines.bitstreams.bits import Bits
from pipelines.bitstreams.nal_units import is_slice, length_size, nal_units, unit_type
from pipelines.bitstreams.shown_frames import begins_with_key_frame, shown_frames

START = 1  # decoding may begin at this packet: its frame and all frames shown after it are then exact
DROPPABLE = 2  # no other picture needs this one to be decoded
SILENT = 4  # MPEG-4: a VOP (picture) that is not coded; it sets the clock but gives no frame
KEY = 8  # the container marks this packet as a key frame; some decoders go by this mark


def packet_flags(codec: str, packet: bytes, extradata: bytes, intra_only: bool) -> int:
    """The flags START and DROPPABLE of one packet of `codec`, set only where the standard guarantees them."""
    if intra_only:
        return START
    if codec == "h264":
        return _h264_flags(packet, extradata)
    if codec == "hevc":
        kinds = [unit_type(codec, unit) for unit in nal_units(packet, length_size(codec, extradata))]
        return START if any(16 <= kind <= 21 for kind in kinds) else 0
    if codec in ("mpeg1video", "mpeg2video"):
        return _mpeg2_flags(packet)
    return START if begins_with_key_frame(codec, packet, extradata) else 0


def _h264_flags(packet: bytes, extradata: bytes) -> int:
    flags, used = 0, False
    for unit in nal_units(packet, length_size("h264", extradata)):
        kind = unit_type("h264", unit)
        if kind == 5 or (kind == 6 and _exact_recovery_point(unit[1:])):
            flags |= START
        if is_slice("h264", kind):
            used = used or bool(unit[0] & 0x60)
    return flags or (0 if used else DROPPABLE)


def _exact_recovery_point(sei: bytes) -> bool:
    """Whether a recovery point message says that this picture and all after it are exact (H.264 D.2.8)."""
    sei = sei.replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(sei):
        kind, at = _sei_number(sei, at)
        length, at = _sei_number(sei, at)
        if kind == 6:
            bits = Bits(sei[at : at + length])
            try:
                return bits.exp_golomb() == 0 and bits.take(1) == 1 and bits.take(1) == 0
            except EOFError:
                return False
        at += length
    return False


def _sei_number(sei: bytes, at: int) -> tuple[int, int]:
    """The type or the size of a message that is written at offset `at`, and the offset behind it (H.264 7.3.2.3.1)."""
    end = at
    while sei[end : end + 1] == b"\xff":
        end += 1
    return 255 * (end - at) + int.from_bytes(sei[end : end + 1]), end + 1


def _mpeg2_flags(packet: bytes) -> int:
    kinds = []
    at = packet.find(b"\0\0\1\0")
    while 0 <= at < len(packet) - 5:
        kinds.append((packet[at + 5] >> 3) & 7)
        at = packet.find(b"\0\0\1\0", at + 4)
    if kinds and kinds[0] == 1 and b"\0\0\1\xb3" in packet:
        return START
    return DROPPABLE if kinds and all(kind == 3 for kind in kinds) else 0


def frames_given(codec: str, packet: bytes, extradata: bytes) -> int | None:
    """How many frames a packet certainly gives; None if its headers do not say it.

    H.264 and HEVC: 1 if it has exactly one first slice and is neither a leading picture that a decoder may skip nor BLA
    or CRA. VP8, VP9 and AV1: as `shown_frames`.
    """
    if codec not in ("h264", "hevc"):
        return shown_frames(codec, packet, extradata)
    first_slice_at = 2 if codec == "hevc" else 1  # the byte whose first bit is set in a picture's first slice
    firsts = 0
    for unit in nal_units(packet, length_size(codec, extradata)):
        kind = unit_type(codec, unit)
        if codec == "hevc" and (kind in (8, 9) or 16 <= kind <= 18 or kind == 21):
            return None
        firsts += is_slice(codec, kind) and len(unit) > first_slice_at and unit[first_slice_at] >> 7
    return 1 if firsts == 1 else None
