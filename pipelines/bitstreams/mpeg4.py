"""Reads the headers of MPEG-4 part 2: the size of the video, its pictures and their display order.

Nothing is decoded. Source: ISO/IEC 14496-2 (MPEG-4 Visual) 6.2.3 and 6.2.5. Packed bitstreams are treated as FFmpeg's
decoder treats them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.bitstreams.bits import Bits
from pipelines.bitstreams.mpeg4_soundness import HEAD_BYTES, VopRules, are_sound, group_seconds_of
from pipelines.bitstreams.packet_flags import DROPPABLE, SILENT, START
from pipelines.file_bytes import FileBytes

VOP = b"\0\0\1\xb6"  # the start code of an MPEG-4 picture
USER_DATA = b"\0\0\1\xb2"  # the start code of the user data of MPEG-4, in which encoders name themselves

# FFmpeg treats a packet of at most this size as the filler after two packed pictures (libavcodec: MAX_NVOP_SIZE).
_MAX_FILLER_SIZE = 19
_I, _B = 0, 2
_LAYER_BYTES = 256  # of a video object layer; most of them are two matrices of 64 bytes


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
    resolution: int  # ticks of a second
    quant_bits: int  # of the quantiser of a VOP; 0: it is not known where in the header of a VOP it is


def parse_video_object_layer(header: bytes) -> VideoObjectLayer | None:
    """The first MPEG-4 video object layer in `header`; None if there is none or its shape is not rectangular."""
    at = _layer_start(header)
    if at < 0:
        return None
    try:
        return _layer_fields(Bits(header[at + 4 : at + 4 + _LAYER_BYTES]))
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


def _layer_fields(bits: Bits) -> VideoObjectLayer | None:
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
    quant_bits = 0 if sprites else _quant_bits(bits, version)
    return VideoObjectLayer(
        width, height, increment, low_delay, interlaced, object_type, sprites, resolution, quant_bits
    )


def _quant_bits(bits: Bits, version: int) -> int:
    """The bits of the quantiser of a VOP, read behind the flag of sprites; 0 if fields of unknown length precede it."""
    try:
        count = 5
        if bits.take(1):  # not_8_bit
            count = bits.take(4)
            bits.take(4)
        if bits.take(1):  # quant_type: by matrices, each of which may be given, up to a zero
            for _ in range(2):
                if bits.take(1):
                    next((True for _ in range(64) if bits.take(8) == 0), False)
        if version != 1:
            bits.take(1)  # quarter_sample
        is_plain = bool(bits.take(1))  # complexity_estimation_disable
        bits.take(1)
        if bits.take(1):  # data_partitioned
            bits.take(1)
        is_plain = is_plain and not (version != 1 and bits.take(1))  # newpred_enable
    except EOFError:
        return 0
    return count if is_plain else 0


def _is_coded(vop: bytes, time_increment_bits: int) -> bool:
    """Whether a VOP, given without its start code, holds a picture (`vop_coded`)."""
    bits = Bits(vop)
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
    sound: bool = False  # the decoder takes all headers
    counted: bool = False  # so it gives these frames, whatever is damaged beside the headers


def mpeg4_pictures(
    file: FileBytes, offset: NDArray[np.int64], size: NDArray[np.int64], header: bytes, *, packed: bool
) -> Mpeg4Pictures | None:
    """The pictures of an MPEG-4 part 2 stream; None if its headers do not say enough, so that it must be decoded.

    `offset` and `size` are those of the demuxer's packets in `file`; `header` is the extradata of the stream; `packed`
    says whether the stream declares itself a packed bitstream.
    """
    layer = parse_video_object_layer(header)
    if layer is None or layer.interlaced or len(offset) == 0:
        # Interlaced B-VOPs need a frame period that FFmpeg learns from the first one in the stream, so the stream must
        # be decoded from its start.
        return None
    codes = _vop_codes(file, offset, size)
    if codes is None:
        return None
    rows = _decoded(offset, size, codes, packed=packed)
    found = _order(file, rows, layer)
    if found is None or found.frame_packet is None:
        return found
    sound = _is_sound(file, offset, header, codes, found, layer, packed=packed)
    # Behind a damaged picture the decoder may miss the second one of a packet.
    is_paired = bool(np.any(codes.last - codes.first > 1))
    return replace(found, sound=sound, counted=sound and not is_paired)


class _VopCodes(NamedTuple):
    """The VOP start codes in a file: `place` int64 [V] and coding type `kind` int64 [V] (0 I, 1 P, 2 B, 3 S).

    `head` uint8 [V, HEAD_BYTES] are the bytes after each; behind the end of the file they are 0.
    `first` and `last`, int64 [P], are the range of these that lies in each packet.
    """

    place: NDArray[np.int64]
    kind: NDArray[np.int64]
    head: NDArray[np.uint8]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def _decoded(
    offset: NDArray[np.int64], size: NDArray[np.int64], codes: _VopCodes, *, packed: bool
) -> NDArray[np.int64]:
    """The VOPs that the decoder decodes, int64 [P, 3]: offset, size, coding type."""
    first, last = codes.first, codes.last
    if np.all(last - first == 1):  # a VOP a packet: nothing is packed
        return np.stack([offset, size, codes.kind[first]], axis=1)
    kinds, places = codes.kind.tolist(), codes.place.tolist()
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


def _vop_codes(file: FileBytes, offset: NDArray[np.int64], size: NDArray[np.int64]) -> _VopCodes | None:
    """The VOP start codes of the packets; None if a packet has none."""
    places, heads = [], []
    for start, data in file.windows(overlap=len(VOP) + HEAD_BYTES):
        tail = np.flatnonzero(data[3:-1] == VOP[3])
        hits = tail[(data[tail] == 0) & (data[tail + 1] == 0) & (data[tail + 2] == 1)]
        places.append(hits + start)
        behind = hits[:, None] + len(VOP) + np.arange(HEAD_BYTES)
        is_near_end = behind >= len(data)
        head = data[np.where(is_near_end, 0, behind)]
        head[is_near_end] = 0
        heads.append(head)
    place, once = np.unique(np.concatenate(places), return_index=True)  # windows overlap
    head = np.concatenate(heads)[once]
    first = np.searchsorted(place, offset)
    last = np.searchsorted(place, offset + size - 4)
    if np.any(last <= first):
        return None
    return _VopCodes(place, head[:, 0].astype(np.int64) >> 6, head, first, last)


def _is_sound(
    file: FileBytes,
    offset: NDArray[np.int64],
    header: bytes,
    codes: _VopCodes,
    found: Mpeg4Pictures,
    layer: VideoObjectLayer,
    *,
    packed: bool,
) -> bool:
    """Whether the decoder gives a frame for each of the pictures that have one by their headers."""
    if not layer.quant_bits or np.any(codes.last - codes.first > 1 + packed):
        return False
    vops = np.searchsorted(codes.place, found.offset)
    silent = (found.flags & SILENT).astype(bool)
    group_seconds: dict[int, int] = {}
    headed = np.flatnonzero(codes.place[codes.first] > offset)
    for packet in headed.tolist():
        begin, vop = int(offset[packet]), int(codes.first[packet])
        seconds = group_seconds_of(bytes(file.read(begin, int(codes.place[vop]) - begin)), header)
        number = int(np.searchsorted(vops, vop))
        if seconds is None or number == len(vops) or vops[number] != vop:
            return False
        if seconds >= 0:
            group_seconds[number] = seconds
    rules = VopRules(layer.resolution, layer.time_increment_bits, layer.quant_bits)
    return are_sound(codes.head[vops], codes.kind[vops], silent, rules, group_seconds)


def _order(file: FileBytes, table: NDArray[np.int64], layer: VideoObjectLayer) -> Mpeg4Pictures | None:
    """The pictures of `table`, int64 [P, 3] as `_decoded` gives it, with their flags and their display order."""
    kinds = table[:, 2]
    if kinds[0] != _I:
        return None
    silent = np.zeros(len(table), bool)
    for i in np.flatnonzero(table[:, 1] < 64).tolist():  # a VOP that is not coded has 6 or 7 bytes without headers
        at, length, _ = table[i].tolist()
        chunk = bytes(file.read(at, length))
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
