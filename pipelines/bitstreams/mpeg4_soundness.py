"""Says whether the headers of MPEG-4 pictures (VOPs) are sound, so that FFmpeg's decoder gives a frame for each.

The decoder conceals damage inside a picture and still gives it. It gives none where a header is damaged, and none for a
B-VOP whose time does not lie between those of its references. So sound headers count the frames of a damaged file too.
Source of the fields: ISO/IEC 14496-2 6.2.5; of what the decoder refuses: libavcodec/mpeg4videodec.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.bitstreams.bits import Bits

HEAD_BYTES = 8  # of a VOP after its start code; they hold all fields that are looked at
_START = b"\0\0\1"
_GROUP, _LAYERS = 0xB3, range(0x20, 0x30)  # start codes of a group of VOPs and of a video object layer
_MOST_SECONDS = 20  # that may pass between two pictures; so many fit into HEAD_BYTES
_P, _B = 1, 2


class VopRules(NamedTuple):
    """What a video object layer says of the headers of its VOPs.

    `resolution` are the ticks of a second, `increment_bits` the bits of a time in ticks, `quant_bits` those of the
    quantiser.
    """

    resolution: int
    increment_bits: int
    quant_bits: int


class _Fields(NamedTuple):
    """Fields of VOP headers, each int64 [P]: whole seconds and ticks of the time, and whether the header is sound."""

    seconds: NDArray[np.int64]
    ticks: NDArray[np.int64]
    sound: NDArray[np.bool_]


def are_sound(
    heads: NDArray[np.uint8],
    kinds: NDArray[np.int64],
    silent: NDArray[np.bool_],
    rules: VopRules,
    group_seconds: dict[int, int],
) -> bool:
    """Whether the decoder takes the headers of all VOPs, which are in decoding order.

    `heads` uint8 [P, HEAD_BYTES] are the bytes after the start codes, `kinds` int64 [P] the coding types (0 I, 1 P,
    2 B). `silent` bool [P] are those that are known to give no frame. `group_seconds` has the time in seconds of the
    group header before a VOP, by the number of the VOP.
    """
    fields = _fields(heads, kinds, silent, rules)
    return bool(fields.sound.all()) and (
        not np.any(kinds == _B) or _are_ordered(fields, kinds, rules.resolution, group_seconds)
    )


def group_seconds_of(header: bytes, known: bytes) -> int | None:
    """The time in seconds of the group header in `header`, the bytes before a VOP; -1 if they hold no such header.

    None: they hold something that is not in `known`, the headers of the stream, or the layer twice.
    """
    seconds, layers = -1, 0
    parts = header.split(_START)
    if parts[0].strip(b"\0"):
        return None
    for part in parts[1:]:
        code = part[0] if part else -1
        layers += code in _LAYERS
        if code == _GROUP:
            try:
                bits = Bits(part[1:])
                hours, minutes, _, seconds = (bits.take(count) for count in (5, 6, 1, 6))
                seconds += 3600 * hours + 60 * minutes
            except EOFError:
                return None
        elif _START + part.rstrip(b"\0") not in known:
            return None
    return None if layers > 1 else seconds


def _fields(heads: NDArray[np.uint8], kinds: NDArray[np.int64], silent: NDArray[np.bool_], rules: VopRules) -> _Fields:
    value = np.ascontiguousarray(heads).view(">u8")[:, 0].astype(np.uint64)
    seconds = np.zeros(len(kinds), np.int64)
    ongoing = np.ones(len(kinds), bool)
    for bit in range(_MOST_SECONDS + 1):  # modulo_time_base: a one for each second that has begun
        ongoing &= _bits(value, 2 + bit, 1) == 1
        if not ongoing.any():
            break
        seconds += ongoing
    at = 3 + seconds
    before, ticks = _bits(value, at, 1), _bits(value, at + 1, rules.increment_bits)
    after, coded = (_bits(value, at + 1 + rules.increment_bits + k, 1) for k in range(2))
    # vop_rounding_type of P-VOPs and intra_dc_vlc_thr lie before the quantiser, the ranges of motion vectors behind it.
    at = at + 3 + rules.increment_bits + (kinds == _P) + 3
    quantiser = _bits(value, at, rules.quant_bits)
    forward, backward = _bits(value, at + rules.quant_bits, 3), _bits(value, at + rules.quant_bits + 3, 3)
    whole = (quantiser > 0) & ((kinds == 0) | (forward > 0)) & ((kinds != _B) | (backward > 0))
    sound = ~ongoing & (before == 1) & (after == 1) & (ticks < rules.resolution)
    sound &= np.where(silent, coded == 0, (coded == 1) & whole & (kinds <= _B))
    return _Fields(seconds, ticks, sound)


def _bits(value: NDArray[np.uint64], at: int | NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The `count` bits from bit `at` on of 64-bit values, the most significant bit first, int64 [P]."""
    shift = np.maximum(64 - count - np.asarray(at), 0).astype(np.uint64)
    field: NDArray[np.int64] = (value >> shift & np.uint64((1 << count) - 1)).astype(np.int64)
    return field


def _are_ordered(fields: _Fields, kinds: NDArray[np.int64], resolution: int, group_seconds: dict[int, int]) -> bool:
    """Whether the time of each B-VOP lies between those of its references, as the decoder reckons them."""
    base = last_base = latest = distance = 0
    for number, (kind, seconds, ticks) in enumerate(_rows(fields, kinds)):
        base = group_seconds.get(number, base)
        if kind != _B:
            last_base, base = base, base + seconds
            time = base * resolution + ticks
            distance, latest = time - latest, time
        else:
            before = latest - (last_base + seconds) * resolution - ticks  # from the B-VOP to the reference behind it
            if not 0 < before < distance:
                return False
    return True


def _rows(fields: _Fields, kinds: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    yield from zip(kinds.tolist(), fields.seconds.tolist(), fields.ticks.tolist(), strict=True)
