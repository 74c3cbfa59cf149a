"""Says whether the pictures of a file are encrypted, by its headers: decoders make garbage of them without a word.

Sources: ISO/IEC 23001-7 (CENC) 4 and ISO/IEC 14496-12 8.12 (`encv`, `sinf`, `schm`); RFC 9559 5.1.4.1.31
(ContentEncodings); Microsoft, "ASF Specification" 3.14 and 3.15 (Content Encryption); ISO/IEC 13818-1 2.4.3.3
(transport_scrambling_control).
"""

from __future__ import annotations

from pipelines.containers.formats.asf import header_objects
from pipelines.containers.formats.ebml import (
    CONTENT_ENCODING,
    CONTENT_ENCODING_TYPE,
    CONTENT_ENCODINGS,
    TRACKS,
    elements,
    segment,
    unsigned,
    video_track,
)
from pipelines.containers.formats.header_bytes import EndlessHeadersError, HeaderBytes
from pipelines.containers.formats.isobmff import Box, boxes, find_box, track_number, video_tracks
from pipelines.containers.formats.sized_frames import transport_packets

_VISUAL_ENTRY = 78  # bytes of fields before the boxes of a VisualSampleEntry (ISO/IEC 14496-12 12.1.3)
_ENCRYPTED_ENTRIES = (b"encv", b"drmi")  # the latter is Apple's FairPlay
_MATROSKA_ENCRYPTION = 1  # ContentEncodingType
_ASF_ENCRYPTION = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),  # Content Encryption Object
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),  # Extended Content Encryption Object
)
_TS_LOOKED_AT = 4000  # packets at the start of a transport stream


def encryption_scheme(path: str, container_format: str, stream_id: int) -> str:
    """How the video of the file at `path` is encrypted, such as "cbcs"; "" if it is not, as far as headers tell.

    `container_format` is FFmpeg's short name of the container. `stream_id` is the number of the stream in the container
    (PyAV: `stream.id`), which MP4 and the transport stream need. Raises OSError if the file can't be read.
    """
    with HeaderBytes(path) as file:
        try:
            if container_format == "mov":
                return _mov_scheme(file, stream_id)
            if container_format == "matroska":
                return _matroska_scheme(file)
            if container_format == "asf":
                return "Windows Media DRM" if any(o.guid in _ASF_ENCRYPTION for o in header_objects(file)) else ""
            if container_format == "mpegts":
                return "scrambled" if _is_scrambled(file, stream_id) else ""
        except EndlessHeadersError:
            pass
        return ""


def _mov_scheme(file: HeaderBytes, stream_id: int) -> str:
    """The scheme_type of the track `stream_id`, or the name of its sample entry if it has none."""
    moov = next((box for box in boxes(file, 0, file.size) if box.kind == b"moov"), None)
    for track in video_tracks(file, moov) if moov is not None else ():
        descriptions = find_box(file, track, b"mdia", b"minf", b"stbl", b"stsd")
        if descriptions is None or track_number(file, track) != stream_id:
            continue
        for entry in boxes(file, descriptions.content + 8, descriptions.end):
            if entry.kind in _ENCRYPTED_ENTRIES:
                inner = Box(entry.kind, entry.start, entry.content + _VISUAL_ENTRY, entry.end)
                scheme = find_box(file, inner, b"sinf", b"schm")
                name = file.at(scheme.content + 4, 4) if scheme is not None else entry.kind
                return name.decode("ascii", "replace")
    return ""


def _matroska_scheme(file: HeaderBytes) -> str:
    top = segment(file)
    tracks = next((child for child in elements(file, top) if child.id == TRACKS), None) if top is not None else None
    track = video_track(file, tracks) if tracks is not None else None
    for encodings in elements(file, track) if track is not None else ():
        for encoding in elements(file, encodings) if encodings.id == CONTENT_ENCODINGS else ():
            for field in elements(file, encoding) if encoding.id == CONTENT_ENCODING else ():
                if field.id == CONTENT_ENCODING_TYPE and unsigned(file, field) == _MATROSKA_ENCRYPTION:
                    return "WebM encryption"
    return ""


def _is_scrambled(file: HeaderBytes, pid: int) -> bool:
    """Whether most packets of `pid` among the first of a transport stream are marked as scrambled."""
    size, at = transport_packets(file)
    packets = file.at(at, size * _TS_LOOKED_AT)
    marks = [
        packets[place + 3] >> 6
        for place in range(0, len(packets) - 3, size or _TS_LOOKED_AT)
        if int.from_bytes(packets[place + 1 : place + 3], "big") & 0x1FFF == pid
    ]
    return sum(mark > 0 for mark in marks) > len(marks) // 2
