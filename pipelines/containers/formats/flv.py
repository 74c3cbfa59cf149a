"""Says whether the tags of an FLV are whole.

Source: Adobe, "Video File Format Specification" version 10, annex E (FLV header, FLVTAG, `onMetaData`) and "Action
Message Format - AMF 0" 2.2 (numbers).
"""

from __future__ import annotations

import struct

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_before, ends_within

_TAG_HEAD, _BACK_POINTER = 11, 4  # bytes before the data of a tag, and after it
_SOUND, _VIDEO, _SCRIPT = 8, 9, 18
_SLACK_SECONDS = 0.5  # the last tag starts before the video ends


def flv_completeness(file: HeaderBytes) -> Completeness:
    """Whether the last tag of the file is whole, and the last that its metadata announces."""
    if file.at(0, 3) != b"FLV":
        return WHOLE
    at = file.big(5, 4) + _BACK_POINTER
    facts = _metadata(file, at)
    length, duration = facts.get(b"filesize", 0), facts.get(b"duration", 0)
    last = _last_tag(file)
    if last is None:
        cut, last = _walk(file, at)
        if cut:
            return ends_before(file.size, int(length)) if length > file.size else ends_within("a tag")
    # A server that rewrites tags leaves a wrong size in the metadata; that the duration is not reached is proof.
    if last is not None and length > file.size and _seconds(file, last) + _SLACK_SECONDS < duration:
        return ends_before(file.size, int(length))
    return WHOLE


def _last_tag(file: HeaderBytes) -> int | None:
    """Where the last tag starts, if its size is repeated at the end of the file as it should be."""
    size = file.big(file.size - _BACK_POINTER, _BACK_POINTER)
    at = file.size - _BACK_POINTER - size
    is_tag = size >= _TAG_HEAD and _is_tag(file.at(at, _TAG_HEAD)) and file.big(at + 1, 3) == size - _TAG_HEAD
    return at if is_tag else None


def _walk(file: HeaderBytes, at: int) -> tuple[bool, int | None]:
    """Whether the file ends within a tag, and where the last tag starts, going from the first one at `at`."""
    last = None
    while at < file.size:
        head = file.at(at, _TAG_HEAD)
        if not _is_tag(head):
            return len(head) < _TAG_HEAD, last
        last, end = at, at + _TAG_HEAD + int.from_bytes(head[1:4], "big")
        if end > file.size:
            return True, last
        at = end + _BACK_POINTER
    return False, last


def _is_tag(head: bytes) -> bool:
    return len(head) == _TAG_HEAD and head[0] & 0x1F in (_SOUND, _VIDEO, _SCRIPT) and head[8:] == b"\0\0\0"


def _seconds(file: HeaderBytes, tag: int) -> float:
    """The time of the tag that starts at `tag`."""
    return (file.big(tag + 4, 3) | file.big(tag + 7, 1) << 24) / 1000


def _metadata(file: HeaderBytes, at: int) -> dict[bytes, float]:
    """The numbers `filesize`, in bytes, and `duration`, in seconds, of the script tag at `at`, where it has them."""
    if file.big(at, 1) != _SCRIPT:
        return {}
    data, facts = file.at(at + _TAG_HEAD, file.big(at + 1, 3)), {}
    for name in (b"filesize", b"duration"):
        found = data.find(len(name).to_bytes(2, "big") + name + b"\0")
        number = data[found + 3 + len(name) : found + 11 + len(name)]
        if found >= 0 and len(number) == 8:
            (value,) = struct.unpack(">d", number)
            facts[name] = value if 0 <= value < 1 << 60 else 0.0
    return facts
