"""Says whether the pages of an Ogg file are whole.

Source: RFC 3533 (Ogg) section 6: a page has a head of 27 bytes, a table of up to 255 sizes, and the segments.
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_within

_SYNC, _HEAD = b"OggS\0", 27
_FIRST, _LAST = 2, 4  # header types
_LARGEST_PAGE = 27 + 255 + 255 * 255
_STEP = 4 * _LARGEST_PAGE
# How the first packet of a video begins: Theora, Dirac, VP8, OGM (Ogg Media, as of DirectShow filters).
_VIDEOS = (b"\x80theora", b"BBCD", b"OVP80", b"\1video")


class _Page(NamedTuple):
    stream: bytes  # the serial number
    kind: int
    start: int
    end: int


def ogg_completeness(file: HeaderBytes) -> Completeness:
    """Whether the last page is whole, or the video ends before it, as its last page says.

    Where pages are whole but none is marked as the last of the video, the file counts as whole: the recording of a
    broadcast has no such page, and nothing says that one existed.
    """
    videos = _videos(file)
    end, marked = file.size, False
    last: _Page | None = None
    while videos and end > 0 and not marked:
        begin = max(0, end - _STEP)
        pages = _pages(file, begin, min(file.size, end + _HEAD + 255))
        last = last or (pages[-1] if pages else None)
        own = [page for page in pages if page.stream in videos]
        if own:
            marked = bool(own[-1].kind & _LAST) and own[-1].end <= file.size
            break
        end = begin
    if last is None or marked:
        return WHOLE
    rest = file.at(last.end, _HEAD)
    if last.end > file.size or (rest and rest[:5] == _SYNC[: len(rest)]):
        return ends_within("a page")
    return Completeness(remarks=("no last page of the video",)) if last.stream in videos else WHOLE


def _videos(file: HeaderBytes) -> set[bytes]:
    """The serial numbers of the videos, whose first pages are at the start of the file."""
    at, videos = 0, set[bytes]()
    while True:
        page = _page(file, at)
        if page is None or not page.kind & _FIRST:
            return videos
        packet = file.at(at + _HEAD + file.big(at + 26, 1), 8)
        if packet.startswith(_VIDEOS):
            videos.add(page.stream)
        at = page.end


def _pages(file: HeaderBytes, begin: int, end: int) -> list[_Page]:
    """The pages that start from `begin` on and before `end`, each of which is followed by another or the end."""
    window, pages = file.at(begin, end - begin), list[_Page]()
    at = window.find(_SYNC)
    while at >= 0:
        page = _page(file, begin + at)
        follows = file.at(page.end, len(_SYNC)) if page is not None else b""
        if page is not None and _SYNC.startswith(follows[: len(_SYNC)]):
            pages.append(page)
            at = window.find(_SYNC, max(at + 1, page.end - begin))
        else:
            at = window.find(_SYNC, at + 1)
    return pages


def _page(file: HeaderBytes, at: int) -> _Page | None:
    head = file.at(at, _HEAD + 255)
    if len(head) < _HEAD or head[:5] != _SYNC:
        return None
    sizes = head[_HEAD : _HEAD + head[26]]
    # Where the file ends within the table, the page ends later.
    end = at + _HEAD + head[26] + sum(sizes) if len(sizes) == head[26] else file.size + 1
    return _Page(head[14:18], head[5], at, end)
