"""Says whether the `movi` lists of an AVI are whole.

Sources: Microsoft, "AVI RIFF File Reference" (RIFF, LIST, `strh`, `movi`, `idx1`) and "OpenDML AVI File Format
Extensions" 1.02 (files of several RIFFs, `indx`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import INDEX_CUT, INDEX_MISSING, WHOLE, Completeness, ends_before, ends_within

_RIFF = (b"RIFF", b"ON2 ")
_UNKNOWN = (0, 0xFFFFFFFF)  # the sizes that a recorder writes before it knows the size
_LIST_HEAD, _CHUNK_HEAD = 12, 8
_NO_PICTURE = (b"wb", b"tx", b"pc", b"ix")  # the ends of the names of chunks: sound, text, palette, index
_INDEX_OF_INDEXES = 0
_MOST_HEADER = 1 << 20  # bytes; a header list of streams is not longer


class _Chunk(NamedTuple):
    name: bytes
    kind: bytes  # of a RIFF or LIST, b"" for others
    start: int
    end: int  # without padding
    open: bool  # the size was never written

    def is_whole(self, file: HeaderBytes) -> bool:
        return not self.open and self.end <= file.size


class _Video(NamedTuple):
    """What the header says of the first video stream."""

    number: bytes = b""  # two digits, as in the names of its chunks
    length: int = 0  # frames; 0 if not known
    indexed_to: int = 0  # where its last index of an OpenDML file ends, in bytes; 0 if it has none


def avi_completeness(file: HeaderBytes) -> Completeness:
    """Whether the file holds all chunks of the first video stream that its `movi` lists announce.

    The sizes of the RIFFs decide nothing: they are wrong in whole files whose index was cut or never written.
    """
    if file.at(0, 4) not in _RIFF:
        return WHOLE
    header, riff_end, indexed, cut, index_cut = b"", 0, False, False, False
    movi: _Chunk | None = None
    for chunk in _chunks(file, enter_whole=False):
        if chunk.name in _RIFF:
            riff_end = 0 if chunk.open else chunk.end
        elif chunk.kind == b"hdrl":
            header = file.at(chunk.start, min(chunk.end - chunk.start, _MOST_HEADER))
        elif chunk.kind == b"movi":
            movi, indexed = (chunk if movi is None or movi.is_whole(file) else movi), False
        elif chunk.name == b"idx1":
            indexed, index_cut = True, chunk.end > file.size
        elif chunk.name[:2].isdigit() and chunk.end > file.size:
            cut = True
    if movi is None or (movi.is_whole(file) and indexed and not index_cut and b"indx" not in header):
        return WHOLE
    video = _video(header)
    remarks = (INDEX_CUT,) if index_cut else () if indexed or video.indexed_to else (INDEX_MISSING,)
    expected = video.indexed_to if movi.is_whole(file) else 0 if movi.open else max(movi.end, riff_end)
    # A list that is followed by the index is whole, whatever its size says. Where there are as many pictures as the
    # header announces, what is missing is sound.
    lacks = cut or (expected > file.size and (movi.is_whole(file) or not indexed))
    if lacks and not _has_all(file, video):
        return ends_before(file.size, expected) if expected > file.size else ends_within("a chunk")
    return Completeness(remarks=remarks)


def _chunks(file: HeaderBytes, *, enter_whole: bool) -> Iterator[_Chunk]:
    """The chunks of the file; those of `movi` lists only where the list is not whole, or with `enter_whole`."""
    padded = file.at(8, 4) != b"AMV "
    at = 0
    while True:
        head = file.at(at, _LIST_HEAD)
        name, size = head[:4], int.from_bytes(head[4:8], "little")
        if len(head) < _CHUNK_HEAD and head[:2].isdigit():
            yield _Chunk(name, b"", at, file.size + 1, False)
        if len(head) < _CHUNK_HEAD or not name.isascii() or not name.decode("ascii").isprintable():
            return
        is_list = name in (*_RIFF, b"LIST")
        chunk = _Chunk(name, head[8:] if is_list else b"", at, at + _CHUNK_HEAD + size, is_list and size in _UNKNOWN)
        yield chunk
        enter = chunk.kind == b"rec " or (chunk.kind == b"movi" and (enter_whole or not chunk.is_whole(file)))
        at = at + _LIST_HEAD if enter or name in _RIFF else chunk.end + (size & padded)


def _is_picture(chunk: _Chunk, video: _Video) -> bool:
    return bool(video.number) and chunk.name[:2] == video.number and chunk.name[2:] not in _NO_PICTURE


def _has_all(file: HeaderBytes, video: _Video) -> bool:
    """Whether the file holds as many whole chunks of the video as its header announces; False if it does not say."""
    if not video.length:
        return False
    count = 0
    for chunk in _chunks(file, enter_whole=True):
        count += _is_picture(chunk, video) and chunk.end <= file.size
    return count >= video.length


def _video(header: bytes) -> _Video:
    """The first video stream of a header list `hdrl`."""
    number = -1
    for name, kind, at, end in _header_chunks(header, _LIST_HEAD, len(header)):
        if name != b"LIST" or kind != b"strl":
            continue
        number += 1
        length, indexed_to, is_video = 0, 0, False
        for inner, inner_kind, start, inner_end in _header_chunks(header, at + _LIST_HEAD, min(end, len(header))):
            if inner == b"strh":
                is_video, length = inner_kind == b"vids", int.from_bytes(header[start + 40 : start + 44], "little")
            elif inner == b"indx":
                indexed_to = _indexed_to(header[start + _CHUNK_HEAD : inner_end])
        if is_video:
            return _Video(b"%02d" % number, length, indexed_to)
    return _Video()


def _header_chunks(header: bytes, at: int, limit: int) -> Iterator[tuple[bytes, bytes, int, int]]:
    """The chunks of `header` from `at` on that start before `limit`: name, first four bytes, start, end."""
    while at + _CHUNK_HEAD <= limit:
        end = at + _CHUNK_HEAD + int.from_bytes(header[at + 4 : at + 8], "little")
        yield header[at : at + 4], header[at + 8 : at + 12], at, end
        at = end + (end & 1)


def _indexed_to(index: bytes) -> int:
    """The end, in bytes of the file, of the last index that an `indx` chunk (given without its head) lists."""
    if len(index) < 24 or index[3] != _INDEX_OF_INDEXES:
        return 0
    ends = [0]
    for at in range(24, 24 + 16 * min(int.from_bytes(index[4:8], "little"), len(index) // 16), 16):
        entry = index[at : at + 16]
        ends.append(int.from_bytes(entry[:8], "little") + int.from_bytes(entry[8:12], "little"))
    return max(ends)
