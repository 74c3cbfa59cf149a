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
    while 0 <= at < len(tail):
        at, follows = _packets_end(tail, at)
        if follows:
            return ends_within("a packet") if at > len(tail) else WHOLE
        at = tail.find(_PACK, at + 1)
    return WHOLE


def _packets_end(data: bytes, at: int) -> tuple[int, bool]:
    """Where the row of packets at `at` ends, which may be beyond `data`, and whether nothing else follows."""
    while at < len(data):
        head = data[at : at + 14]
        if head[:4] == bytes(4):  # zeros may fill up a sector, or the file
            begin = data.find(b"\0\0\1", at)
            if data[at : begin if begin >= 0 else len(data)].strip(b"\0"):
                return at, False
            at = begin if begin >= 0 else len(data)
            continue
        if head[:3] != b"\0\0\1"[: len(head)]:
            return at, False
        if len(head) < 6:
            return len(data) + (head[3:4] != bytes([_END])), True
        if head[3] == _END:
            at += 4
        elif head[:4] == _PACK:
            is_mpeg2 = head[4] >> 6 == 1
            at += 14 + (head[13] & 7 if len(head) > 13 else 0) if is_mpeg2 else 12
        elif head[3] > _END:
            at += 6 + int.from_bytes(head[4:6], "big")
        else:
            return at, False
    return at, True
