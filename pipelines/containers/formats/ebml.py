"""Says whether the clusters of a Matroska or WebM file are whole, and finds elements of it.

Sources: RFC 8794 (EBML) 4 to 6: element IDs, data sizes, unknown sizes; RFC 9559 (Matroska) 5.1: Segment, SeekHead,
Cluster, Tracks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import INDEX_CUT, INDEX_MISSING, WHOLE, Completeness, ends_before, ends_within

SEGMENT, SEEK_HEAD, TRACKS, CLUSTER = 0x18538067, 0x114D9B74, 0x1654AE6B, 0x1F43B675
_CUES, _INFO, _CHAPTERS, _ATTACHMENTS, _TAGS = 0x1C53BB6B, 0x1549A966, 0x1043A770, 0x1941A469, 0x1254C367
_TOP = (SEGMENT, SEEK_HEAD, TRACKS, CLUSTER, _CUES, _INFO, _CHAPTERS, _ATTACHMENTS, _TAGS)
_SEEK, _SEEK_POSITION = 0x4DBB, 0x53AC
_TRACK_ENTRY, _TRACK_TYPE, _VIDEO = 0xAE, 0x83, 1
CONTENT_ENCODINGS, CONTENT_ENCODING, CONTENT_ENCODING_TYPE = 0x6D80, 0x6240, 0x5033


class Element(NamedTuple):
    """An element: its ID, and in bytes of the file where it starts, its data start, and end (None: not known)."""

    id: int
    start: int
    data: int
    end: int | None


def element_at(file: HeaderBytes, at: int) -> Element | None:
    """The element that starts at `at`; None if the file ends within its head, or no element starts there."""
    head = file.at(at, 12)
    if not head or head[0] < 0x10:
        return None
    id_length = 9 - head[0].bit_length()
    if len(head) <= id_length or not head[id_length]:
        return None
    length = 9 - head[id_length].bit_length()
    if len(head) < id_length + length:
        return None
    mask = (1 << 7 * length) - 1
    size = int.from_bytes(head[id_length : id_length + length], "big") & mask
    data = at + id_length + length
    return Element(int.from_bytes(head[:id_length], "big"), at, data, None if size == mask else data + size)


def elements(file: HeaderBytes, parent: Element) -> Iterator[Element]:
    """The elements in `parent`; the last one may reach beyond the end of the file, or have no known end."""
    at = parent.data
    while parent.end is None or at < parent.end:
        element = element_at(file, at)
        if element is None:
            return
        yield element
        if element.end is None:
            return
        at = element.end


def unsigned(file: HeaderBytes, element: Element) -> int:
    """The value of an unsigned integer element; 0 if it has no valid size."""
    return file.big(element.data, min(element.end - element.data, 8)) if element.end is not None else 0


def segment(file: HeaderBytes) -> Element | None:
    """The first Segment of the file; None if there is none near its start."""
    at = 0
    for _ in range(16):
        element = element_at(file, at)
        if element is None or element.id == SEGMENT:
            return element
        if element.end is None:
            return None
        at = element.end
    return None


def video_track(file: HeaderBytes, top: Element) -> Element | None:
    """The first TrackEntry of a video in the Tracks element `top`."""
    for entry in elements(file, top):
        if entry.id == _TRACK_ENTRY and any(
            field.id == _TRACK_TYPE and unsigned(file, field) == _VIDEO for field in elements(file, entry)
        ):
            return entry
    return None


def matroska_completeness(file: HeaderBytes) -> Completeness:
    """Whether the file holds all blocks that its Segment and its clusters announce.

    A Segment or Cluster whose size is not known, as of a live recording, is followed block by block.
    """
    top = segment(file)
    if top is None:
        return WHOLE
    end = None if top.end == top.data else top.end
    at, indexes, clusters, cut = top.data, set[int](), 0, False
    while at < file.size and (end is None or at < end):
        element = element_at(file, at)
        if element is None or element.id == SEGMENT:
            break
        if element.id == CLUSTER:
            clusters += 1
            at, cut = _cluster_end(file, element)
            continue
        if element.id == SEEK_HEAD:
            indexes |= {top.data + position for position in _positions(file, element)}
        if element.end is None:
            break
        if element.end > file.size and clusters:
            return Completeness(remarks=(INDEX_CUT,))
        at = element.end
    if end is not None and end > file.size:
        # An index that begins where the file ends is all that is missing.
        whole = clusters and not cut and at in indexes
        return Completeness(remarks=(INDEX_MISSING,)) if whole else ends_before(file.size, end)
    return ends_within("a cluster") if cut else WHOLE


def _cluster_end(file: HeaderBytes, cluster: Element) -> tuple[int, bool]:
    """Where `cluster` ends, or the file if that is before, and whether the file ends within the cluster."""
    if cluster.end is not None:
        return min(cluster.end, file.size), cluster.end > file.size
    at = cluster.data
    for child in elements(file, cluster):
        if child.id in _TOP:
            return at, False
        if child.end is None or child.end > file.size:
            return file.size, True
        at = child.end
    return file.size, at < file.size


def _positions(file: HeaderBytes, seek_head: Element) -> Iterator[int]:
    """Where a SeekHead says that elements start, in bytes from the start of the data of the Segment."""
    for seek in elements(file, seek_head):
        if seek.id == _SEEK:
            yield from (unsigned(file, field) for field in elements(file, seek) if field.id == _SEEK_POSITION)
