"""Says whether the samples of the video of a MOV or MP4 are whole, and finds boxes in it.

Sources: ISO/IEC 14496-12 (ISO base media file format) 4.2 boxes, 8.3.2 `tkhd`, 8.4.3 `hdlr`, 8.8 movie fragments,
8.16.3 `sidx`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_before, ends_within

_BOX_HEAD = 8
_FIRST = (b"ftyp", b"wide", b"mdat")  # boxes with which files begin
_ANNOUNCES = (b"moof", b"styp", b"sidx", b"prft", b"emsg")  # a fragment follows these, or is this


class Box(NamedTuple):
    """A box of the file: its four characters, and in bytes of the file where it starts, its content starts, it ends."""

    kind: bytes
    start: int
    content: int
    end: int


def boxes(file: HeaderBytes, at: int, end: int) -> Iterator[Box]:
    """The boxes from `at` on that start before `end`; the last one may reach beyond."""
    while at + _BOX_HEAD <= end:
        head = file.at(at, 16)
        if len(head) < _BOX_HEAD:
            return
        size, length = int.from_bytes(head[:4], "big"), _BOX_HEAD
        if size == 1:
            size, length = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:  # it reaches to the end
            size = end - at
        if size < length:
            return
        yield Box(head[4:8], at, at + length, at + size)
        at += size


def find_box(file: HeaderBytes, parent: Box, *kinds: bytes) -> Box | None:
    """The first box of `kinds[0]` in `parent`, in it the first of `kinds[1]`, and so on; None if there is none."""
    for kind in kinds:
        found = next((box for box in boxes(file, parent.content, parent.end) if box.kind == kind), None)
        if found is None:
            return None
        parent = found
    return parent


def video_tracks(file: HeaderBytes, moov: Box) -> Iterator[Box]:
    """The `trak` boxes of video in `moov`."""
    for box in boxes(file, moov.content, moov.end):
        handler = find_box(file, box, b"mdia", b"hdlr") if box.kind == b"trak" else None
        if handler is not None and file.at(handler.content + 8, 4) == b"vide":
            yield box


def track_number(file: HeaderBytes, track: Box) -> int:
    """The track_ID of a `trak` box (8.3.2); 0 if it has none."""
    header = find_box(file, track, b"tkhd")
    return file.big(header.content + (20 if file.at(header.content, 1) == b"\1" else 12), 4) if header else 0


def mov_completeness(file: HeaderBytes, index_entries: Iterable[tuple[int, int]]) -> Completeness:
    """Whether the file holds all samples of the video: those of `index_entries` (offset, size), and of the fragments.

    Samples that an edit list hides are not in FFmpeg's index, and so are not missed.
    """
    expected = max((at + size for at, size in index_entries), default=0)
    fragmented, last, announced = False, None, 0
    for box in boxes(file, 0, file.size):
        fragmented = fragmented or box.kind == b"moof"
        announced = max(announced, _announced(file, box)) if box.kind == b"sidx" else announced
        last = box
    if last is None:
        return WHOLE
    cut = last.end > file.size
    if fragmented:
        expected = max(expected, announced, last.end if last.kind in (b"moof", b"mdat") else 0)
    if expected > file.size:
        return ends_before(file.size, expected)
    if last.kind in _ANNOUNCES or (cut and last.kind == b"moov"):
        return ends_within("its headers")
    if cut and last.kind != b"mdat":
        return Completeness(remarks=("something cut short behind the frames",))
    return WHOLE


def lacks_sample_tables(file: HeaderBytes) -> bool:
    """Whether this begins like a MOV or MP4 but lacks the `moov` box, which lists the samples, often at the end."""
    kinds = [box.kind for box in boxes(file, 0, file.size)]
    return bool(kinds) and kinds[0] in _FIRST and b"mdat" in kinds and b"moov" not in kinds


def _announced(file: HeaderBytes, sidx: Box) -> int:
    """The end, in bytes of the file, of the last segment that a segment index lists."""
    wide = 8 if file.at(sidx.content, 1) == b"\1" else 4
    at = sidx.content + 12 + wide
    end = sidx.end + file.big(at, wide)
    at += wide + 2
    table = file.at(at + 2, min(12 * file.big(at, 2), max(0, sidx.end - at - 2)))
    return end + sum(int.from_bytes(table[i : i + 4], "big") & 0x7FFFFFFF for i in range(0, len(table) - 11, 12))
