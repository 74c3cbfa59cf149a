"""Changes boxes of MP4 files whose index is at the end (ISO/IEC 14496-12), as other tools write them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

# The bytes of a box before its first child.
_HEAD = {b"stsd": 16, b"moov": 8, b"trak": 8, b"edts": 8, b"mdia": 8, b"minf": 8, b"stbl": 8, b"file": 0}
_VISUAL_ENTRY = 86  # bytes of a sample entry of video before its first child
TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def children(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, end) of the boxes between two places, the heads of the boxes included."""
    while begin + 8 <= end:
        size = int.from_bytes(data[begin : begin + 4], "big")
        if size == 1:
            size = int.from_bytes(data[begin + 8 : begin + 16], "big")
        size = size or end - begin
        if size < 8 or begin + size > end:
            return
        yield data[begin + 4 : begin + 8], begin, begin + size
        begin += size


def find(data: bytes, path: Sequence[bytes]) -> list[tuple[int, int]]:
    """(begin, end) of each box on the way to the first one at `path`. Raises ValueError if there is none."""
    way, inner, end = [], 0, len(data)
    for kind in path:
        found = next(((a, b) for name, a, b in children(data, inner, end) if name == kind), None)
        if found is None:
            raise ValueError(f"no box {kind!r} of {path}")
        way.append(found)
        inner, end = found[0] + _HEAD.get(kind, 8), found[1]
    return way


def read(data: bytes, path: Sequence[bytes]) -> bytes:
    """The content of a box, without its head."""
    begin, end = find(data, path)[-1]
    return data[begin + 8 : end]


def spliced(data: bytes, way: Sequence[tuple[int, int]], begin: int, end: int, new: bytes) -> bytes:
    """`data` with `new` in place of the bytes from `begin` to `end`; the sizes of the boxes of `way` grow with it."""
    changed = bytearray(data)
    for at, _ in way:
        size = int.from_bytes(changed[at : at + 4], "big")
        changed[at : at + 4] = (size + len(new) - (end - begin)).to_bytes(4, "big")
    changed[begin:end] = new
    return bytes(changed)


def with_colours(data: bytes, *, matrix: int, full_range: bool, transfer: int = 1) -> bytes:
    """The file with a `colr` box in the first sample entry, which states bt709 primaries."""
    way = find(data, (*TABLE, b"stsd"))
    entry, end = next((a, b) for _, a, b in children(data, way[-1][0] + 16, way[-1][1]))
    for kind, begin, stop in list(children(data, entry + _VISUAL_ENTRY, end)):
        if kind == b"colr":
            data = spliced(data, [*way, (entry, end)], begin, stop, b"")
            return with_colours(data, matrix=matrix, full_range=full_range, transfer=transfer)
    content = b"nclx" + struct.pack(">HHHB", 1, transfer, matrix, full_range << 7)
    return spliced(data, [*way, (entry, end)], end, end, box(b"colr", content))


def with_extension(data: bytes, kind: bytes, content: bytes) -> bytes:
    """The file with one more box at the end of the first sample entry."""
    way = find(data, (*TABLE, b"stsd"))
    entry, end = next((a, b) for _, a, b in children(data, way[-1][0] + 16, way[-1][1]))
    return spliced(data, [*way, (entry, end)], end, end, box(kind, content))


def with_edit_list(data: bytes, *, hide_first: int, hide_last: int, frames: int) -> bytes:
    """The file with an edit list that hides the first and the last of its `frames` frames, of even length."""
    movie_scale = struct.unpack_from(">I", read(data, (b"moov", b"mvhd")), 12)[0]
    head = read(data, (b"moov", b"trak", b"mdia", b"mdhd"))
    if head[0] or read(data, (b"moov", b"mvhd"))[0]:
        raise ValueError("expected boxes of version 0")
    scale, duration = struct.unpack_from(">II", head, 12)
    start, track = 0, find(data, (b"moov", b"trak"))
    try:
        old = find(data, (b"moov", b"trak", b"edts"))
        start = max(0, struct.unpack_from(">i", read(data, (b"moov", b"trak", b"edts", b"elst")), 12)[0])
        data = spliced(data, track, *old[-1], b"")
    except ValueError:
        pass
    track = find(data, (b"moov", b"trak"))
    shown = duration * (frames - hide_first - hide_last) // frames * movie_scale // scale
    entry = struct.pack(">Iii", shown, start + duration * hide_first // frames, 1 << 16)
    edits = box(b"edts", box(b"elst", struct.pack(">II", 0, 1) + entry))
    after = find(data, (b"moov", b"trak", b"tkhd"))[-1][1]
    return spliced(data, track, after, after, edits)


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content
