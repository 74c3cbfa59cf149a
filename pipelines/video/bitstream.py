"""Reads the headers of compressed pictures: at which packets decoding may start, and which pictures can be left out.

Nothing is decoded. Sources: ISO/IEC 14496-2 (MPEG-4 Visual) 6.2.3 and 6.2.5, ITU-T H.264 7.3.1 and D.1.8, ITU-T H.265
7.4.2.2, ISO/IEC 13818-2 (MPEG-2) 6.2. Packed bitstreams are treated as FFmpeg's decoder treats them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.video.nal_units import is_slice, length_size, nal_units, unit_type

START = 1  # decoding may begin at this packet: its frame and all frames shown after it are then exact
DROPPABLE = 2  # no other picture needs this one to be decoded
SILENT = 4  # MPEG-4: a VOP (picture) that is not coded; it sets the clock but gives no frame

VOP = b"\0\0\1\xb6"  # the start code of an MPEG-4 picture

# FFmpeg treats a packet of at most this size as the filler after two packed pictures (libavcodec: MAX_NVOP_SIZE).
_MAX_FILLER_SIZE = 19
_I, _B = 0, 2


class _Bits:
    """Reads bit fields of `data`, most significant bit first. Raises EOFError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def take(self, count: int) -> int:
        """The next `count` bits as an unsigned integer."""
        if count > self._left:
            raise EOFError("bit field runs past the end of the header")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """The next unsigned Exp-Golomb code, ue(v) of H.264 9.1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


@dataclass(frozen=True)
class VideoObjectLayer:
    """The fields of an MPEG-4 video object layer that decide timing, order, size, and which decoder can decode it."""

    width: int
    height: int
    time_increment_bits: int
    low_delay: bool | None  # None: the stream does not say
    interlaced: bool
    object_type: int  # 1 simple, 17 advanced simple; others are rare
    sprites: bool  # global motion compensation, or static sprites


def parse_video_object_layer(header: bytes) -> VideoObjectLayer | None:
    """The first MPEG-4 video object layer in `header`; None if there is none or its shape is not rectangular."""
    at = _layer_start(header)
    if at < 0:
        return None
    try:
        return _layer_fields(_Bits(header[at + 4 : at + 68]))
    except EOFError:
        return None


def has_video_object_layer(packet: bytes) -> bool:
    """Whether an MPEG-4 packet holds a video object layer before its picture."""
    return _layer_start(packet.split(VOP, 1)[0]) >= 0


def _layer_start(header: bytes) -> int:
    """The offset of the start code of the first video object layer; -1 if there is none."""
    at = header.find(b"\0\0\1")
    while 0 <= at < len(header) - 4 and not 0x20 <= header[at + 3] <= 0x2F:
        at = header.find(b"\0\0\1", at + 3)
    return at if at < len(header) - 4 else -1


def _layer_fields(bits: _Bits) -> VideoObjectLayer | None:
    bits.take(1)  # random_accessible_vol
    object_type, version = bits.take(8), 1
    if bits.take(1):  # is_object_layer_identifier
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == 15:  # extended pixel aspect ratio
        bits.take(16)
    low_delay = None
    if bits.take(1):  # vol_control_parameters
        bits.take(2)
        low_delay = bool(bits.take(1))
        if bits.take(1):  # vbv_parameters
            bits.take(79)
    shape = bits.take(2)
    bits.take(1)
    resolution = bits.take(16)
    bits.take(1)
    if bits.take(1):  # fixed_vop_rate
        bits.take(max(1, (resolution - 1).bit_length()))
    if shape != 0 or resolution == 0:
        return None
    bits.take(1)
    width = bits.take(13)
    bits.take(1)
    height = bits.take(13)
    bits.take(1)
    interlaced = bool(bits.take(1))
    bits.take(1)  # obmc_disable
    sprites = bool(bits.take(1 if version == 1 else 2))
    increment = max(1, (resolution - 1).bit_length())
    return VideoObjectLayer(width, height, increment, low_delay, interlaced, object_type, sprites)


def _is_coded(vop: bytes, time_increment_bits: int) -> bool:
    """Whether a VOP, given without its start code, holds a picture (`vop_coded`)."""
    bits = _Bits(vop)
    bits.take(2)
    while bits.take(1):  # modulo_time_base
        pass
    bits.take(1 + time_increment_bits + 1)
    return bool(bits.take(1))


@dataclass(frozen=True)
class Mpeg4Pictures:
    """The VOPs (pictures) that FFmpeg's decoder decodes, in decoding order, each as a range of bytes in the file.

    Packed bitstreams are unpacked: the second VOP in a packet has its own entry, and the filler packet has none.
    """

    offset: NDArray[np.int64]  # [P]
    size: NDArray[np.int64]  # [P] bytes
    flags: NDArray[np.uint8]  # [P]
    frame_packet: NDArray[np.int64] | None  # [F] entry of each frame in display order; None: known only by decoding


def mpeg4_pictures(
    data: NDArray[np.uint8], offset: NDArray[np.int64], size: NDArray[np.int64], header: bytes, *, packed: bool
) -> Mpeg4Pictures | None:
    """The pictures of an MPEG-4 part 2 stream; None if its headers do not say enough, so that it must be decoded.

    `data` is the file, uint8 [bytes]; `offset` and `size` are those of the demuxer's packets; `header` is the extradata
    of the stream; `packed` says whether the stream declares itself a packed bitstream.
    """
    layer = parse_video_object_layer(header)
    if layer is None or layer.interlaced or len(offset) == 0:
        # Interlaced B-VOPs need a frame period that FFmpeg learns from the first one in the stream, so the stream must
        # be decoded from its start.
        return None
    codes = _vop_starts(data, offset, size)
    if codes is None:
        return None
    rows = _decoded(data, offset, size, codes, packed=packed)
    return _order(data, rows, layer)


def _decoded(
    data: NDArray[np.uint8],
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
    codes: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    *,
    packed: bool,
) -> NDArray[np.int64]:
    """The VOPs that the decoder decodes, int64 [P, 3]: offset, size, coding type (0 I, 1 P, 2 B, 3 S)."""
    hits, first, last = codes
    if np.all(last - first == 1):  # a VOP a packet: nothing is packed
        return np.stack([offset, size, data[hits[first] + 4].astype(np.int64) >> 6], axis=1)
    kinds = (data[np.minimum(hits + 4, len(data) - 1)] >> 6).tolist()
    places = hits.tolist()
    rows: list[tuple[int, int, int]] = []
    stored: tuple[int, int, int] | None = None
    for begin, length, a, b in zip(offset.tolist(), size.tolist(), first.tolist(), last.tolist(), strict=True):
        end = begin + length
        head = (begin, (places[a + 1] if a + 1 < b else end) - begin, kinds[a])
        follows: tuple[int, int, int] | None = None
        if stored is not None and (packed or length <= _MAX_FILLER_SIZE):
            rows.append(stored)
            follows = head
        else:
            rows.append(head)
            if a + 1 < b:
                at = places[a + 1]
                follows = (at, (places[a + 2] if a + 2 < b else end) - at, kinds[a + 1])
        # If an I- or B-VOP follows the picture that was just decoded, the decoder keeps it for the next packet.
        keeps = packed and follows is not None and follows[2] in (_I, _B) and end - follows[0] > 7
        stored = follows if keeps else None
    return np.array(rows, np.int64).reshape(-1, 3)


def _vop_starts(
    data: NDArray[np.uint8], offset: NDArray[np.int64], size: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """(positions of all VOP start codes, first and last index of them for each packet); None if a packet has none."""
    tail = np.flatnonzero(data[3:] == 0xB6)
    hits = tail[(data[tail] == 0) & (data[tail + 1] == 0) & (data[tail + 2] == 1)]
    first = np.searchsorted(hits, offset)
    last = np.searchsorted(hits, offset + size - 4)
    return None if np.any(last <= first) else (hits, first, last)


def _order(data: NDArray[np.uint8], table: NDArray[np.int64], layer: VideoObjectLayer) -> Mpeg4Pictures | None:
    """The pictures of `table`, int64 [P, 3] as `_decoded` gives it, with their flags and their display order."""
    kinds = table[:, 2]
    if kinds[0] != _I:
        return None
    silent = np.zeros(len(table), bool)
    for i in np.flatnonzero(table[:, 1] < 64).tolist():  # a VOP that is not coded has 6 or 7 bytes without headers
        at, length, _ = table[i].tolist()
        chunk = data[at : at + length].tobytes()
        code = chunk.find(VOP)
        try:
            silent[i] = not _is_coded(chunk[code + 4 :], layer.time_increment_bits)
        except EOFError:
            return None
    bidirectional = kinds == _B
    flags = np.where(kinds == _I, START, 0) | np.where(bidirectional, DROPPABLE, 0) | np.where(silent, SILENT, 0)
    shown = np.flatnonzero(~silent)
    result = Mpeg4Pictures(table[:, 0].copy(), table[:, 1].copy(), flags.astype(np.uint8), shown)
    if not bidirectional.any():
        return result
    references = np.flatnonzero(~bidirectional & ~silent)
    orphan = len(references) < 2 or bool(np.any(np.flatnonzero(bidirectional) < references[1]))
    if layer.low_delay is not False or orphan:
        return Mpeg4Pictures(result.offset, result.size, result.flags, None)
    # A B-VOP is shown at once; a reference VOP is shown when the next reference VOP is decoded.
    following = np.searchsorted(references, shown, side="right")
    key = np.where(bidirectional[shown], following - 1, following)
    order = np.lexsort((shown, bidirectional[shown], key))
    return Mpeg4Pictures(result.offset, result.size, result.flags, shown[order])


def packet_flags(codec: str, packet: bytes, is_key: bool, extradata: bytes, intra_only: bool) -> int:
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
    if codec in ("vp8", "vp9", "libvpx-vp8", "libvpx-vp9", "av1", "libdav1d"):
        return START if is_key else 0
    return 0


def _h264_flags(packet: bytes, extradata: bytes) -> int:
    flags, used = 0, False
    for unit in nal_units(packet, length_size("h264", extradata)):
        kind = unit_type("h264", unit)
        if kind == 5 or (kind == 6 and _exact_recovery_point(unit[1:])):
            flags |= START
        if is_slice("h264", kind):
            used = used or bool(unit[0] & 0x60)
    return flags if used or flags else flags | DROPPABLE


def _exact_recovery_point(sei: bytes) -> bool:
    """Whether a recovery point message says that this picture and all after it are exact (H.264 D.2.8)."""
    sei = sei.replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(sei):
        kind = length = 0
        while at < len(sei) and sei[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + sei[at], at + 1
        while at < len(sei) and sei[at] == 255:
            length, at = length + 255, at + 1
        if at >= len(sei):
            return False
        length, at = length + sei[at], at + 1
        if kind == 6:
            bits = _Bits(sei[at : at + length])
            try:
                return bits.exp_golomb() == 0 and bits.take(1) == 1 and bits.take(1) == 0
            except EOFError:
                return False
        at += length
    return False


def _mpeg2_flags(packet: bytes) -> int:
    kinds = []
    at = packet.find(b"\0\0\1\0")
    while 0 <= at < len(packet) - 5:
        kinds.append((packet[at + 5] >> 3) & 7)
        at = packet.find(b"\0\0\1\0", at + 4)
    if kinds and kinds[0] == 1 and b"\0\0\1\xb3" in packet:
        return START
    return DROPPABLE if kinds and all(kind == 3 for kind in kinds) else 0


def single_picture(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Whether an H.264 or HEVC packet certainly gives one frame.

    It does if it has exactly one first slice and is neither a leading picture that a decoder may skip nor BLA or CRA.
    """
    if codec not in ("h264", "hevc"):
        return False
    first_slice_at = 2 if codec == "hevc" else 1  # the byte whose first bit is set in a picture's first slice
    firsts = 0
    for unit in nal_units(packet, length_size(codec, extradata)):
        kind = unit_type(codec, unit)
        if codec == "hevc" and (kind in (8, 9) or 16 <= kind <= 18 or kind == 21):
            return False
        firsts += is_slice(codec, kind) and len(unit) > first_slice_at and unit[first_slice_at] >> 7
    return firsts == 1
