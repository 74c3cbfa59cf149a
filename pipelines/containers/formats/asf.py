"""Says whether the data packets of an ASF (WMV) file are whole, and finds objects in its header.

Source: Microsoft, "Advanced Systems Format (ASF) Specification" 01.20.03, 3.1 (Header), 3.2 (File Properties), 5.1
(Data Object), 6.1 (Simple Index). Objects are a GUID of 16 bytes, a size of 8 that includes both, and content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_before, ends_within

_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_INDEX = bytes.fromhex("90080033b1e5cf1189f400a0c90349cb")
_MOST_INDEX = 1 << 20  # bytes; six a second of the video
_HEAD, _HEADER_HEAD, _DATA_HEAD = 24, 30, 50  # bytes before the content of an object, of the header, of the data
_BROADCAST = 1  # the sizes and counts are not valid


class AsfObject(NamedTuple):
    """An object of the file: its GUID, and where it starts and ends in bytes of the file."""

    guid: bytes
    start: int
    end: int


def header_objects(file: HeaderBytes) -> Iterator[AsfObject]:
    """The objects in the header; nothing if the file has none."""
    if file.at(0, 16) == _HEADER:
        yield from _objects(file, _HEADER_HEAD, file.little(16, 8))


def _objects(file: HeaderBytes, at: int, end: int) -> Iterator[AsfObject]:
    while at + _HEAD <= min(end, file.size):
        size = file.little(at + 16, 8)
        if size < _HEAD:
            return
        yield AsfObject(file.at(at, 16), at, at + size)
        at += size


def asf_completeness(file: HeaderBytes) -> Completeness:
    """Whether the file holds all data packets that its header announces; of a broadcast, whether the last is whole."""
    properties = next((found.start for found in header_objects(file) if found.guid == _FILE_PROPERTIES), None)
    data = next((found for found in _objects(file, file.little(16, 8), file.size) if found.guid == _DATA), None)
    if properties is None or data is None:
        return WHOLE
    count, flags = file.little(properties + 56, 8), file.little(properties + 88, 4)
    least, size = file.little(properties + 92, 4), file.little(properties + 96, 4)
    if least != size or not size:
        return WHOLE
    begin = data.start + _DATA_HEAD
    if flags & _BROADCAST or not count:
        end = max(begin, file.size - _MOST_INDEX)
        found = file.at(end, _MOST_INDEX).find(_INDEX)
        end = end + found if found >= 0 else file.size
        return ends_within("a packet") if (end - begin) % size else WHOLE
    expected = begin + count * size
    return ends_before(file.size, expected) if expected > file.size else WHOLE
