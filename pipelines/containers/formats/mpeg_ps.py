"""Says whether the last packet of an MPEG program stream (MPG, VOB) is whole.

Sources: ISO/IEC 13818-1 (MPEG-2 systems) 2.5.3 pack header, 2.4.3.6 PES packet, and ISO/IEC 11172-1 (MPEG-1 systems).
"""

from __future__ import annotations

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_within

_PACK, _END = b"\0\0\1\xba", 0xB9
_LARGEST_PACKET = 6 + 0xFFFF
_TAIL = 4 * _LARGEST_PACKET  # bytes at the end in which a pack starts; packs are rarely larger than 64 KB


def mpeg_ps_completeness(file: HeaderBytes) -> Completeness:
    """Whether the file ends where a packet ends, going from a pack header shortly before the end.

    What follows is not known: a program stream states no length.
    """
    begin = max(0, file.size - _TAIL)
    tail = file.at(begin, _TAIL)
    at = tail.find(_PACK)
    while at >= 0:
        end = _packets_end(tail, at)
        if end is not None:
            return ends_within("a packet") if end > len(tail) else WHOLE
        at = tail.find(_PACK, at + 1)
    return WHOLE


def _packets_end(data: bytes, at: int) -> int | None:
    """Where the last packet of `data` ends, going from `at`, which may be beyond; None if packets don't follow up."""
    while at < len(data):
        head = data[at : at + 14]
        if not head.strip(b"\0"):
            return None if data[at:].strip(b"\0") else at  # zeros may fill up the file
        if head[:3] != b"\0\0\1"[: len(head)]:
            return None
        if len(head) < 6:
            return len(data) + (head[3:4] != bytes([_END]))
        if head[3] == _END:
            at += 4
        elif head[:4] == _PACK:
            is_mpeg2 = head[4] >> 6 == 1
            at += 14 + (head[13] & 7 if len(head) > 13 else 0) if is_mpeg2 else 12
        elif head[3] > _END:
            at += 6 + int.from_bytes(head[4:6], "big")
        else:
            return None
    return at
