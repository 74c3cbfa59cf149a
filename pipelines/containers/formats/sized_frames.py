"""Says whether the last frame or packet is whole in formats that are a row of these.

These are IVF, Y4M, GXF, raw DV, RealMedia and the MPEG transport stream.

Sources: FFmpeg's libavformat/ivfdec.c and libavformat/yuv4mpegdec.c, and MJPEG Tools' yuv4mpeg(5); SMPTE 360M 7.1 (GXF
packet header); IEC 61834-2 and SMPTE ST 370 (DIF sequences of DV); ISO/IEC 13818-1 2.4.3.2 (transport
packet); RealNetworks, "RealMedia File Format" (DATA chunk header).
"""

from __future__ import annotations

import re

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_before, ends_within

_IVF_FRAME_HEAD = 12
_DV_HEADER, _DV_SEQUENCE = b"\x1f\x07", 12_000
_TS_SYNC = b"G"
_GXF_HEAD, _GXF_START, _GXF_END = 16, b"\0\0\0\0\1", b"\xe1\xe2"
# The chroma of Y4M: how many times fewer columns and rows it has than luma, and how many planes.
_Y4M_CHROMA = {"420": (2, 2, 2), "411": (4, 1, 2), "422": (2, 1, 2), "444": (1, 1, 2), "mono": (1, 1, 0)}


def ivf_completeness(file: HeaderBytes) -> Completeness:
    """Whether the last frame of an IVF file is whole."""
    at = file.little(6, 2) if file.at(0, 4) == b"DKIF" else file.size
    while 0 < at < file.size:
        at += _IVF_FRAME_HEAD + file.little(at, 4)
    return ends_within("a frame") if at > file.size else WHOLE


def y4m_completeness(file: HeaderBytes) -> Completeness:
    """Whether the last frame of a YUV4MPEG2 file is whole."""
    header = _line(file, 0)
    size = _y4m_frame_size(header.decode("ascii", "replace")) if header.startswith(b"YUV4MPEG2 ") else 0
    at = len(header)
    while size and at < file.size:
        line = _line(file, at)
        if not line.startswith(b"FRAME"[: len(line)]):
            return WHOLE
        at += max(len(line), len(b"FRAME\n")) + size
    return ends_within("a frame") if size and at > file.size else WHOLE


def gxf_completeness(file: HeaderBytes) -> Completeness:
    """Whether the last packet of a GXF file is whole."""
    at = 0 if file.at(0, 5) == _GXF_START else file.size
    while at < file.size:
        head = file.at(at, _GXF_HEAD)
        if head[:5] != _GXF_START[: len(head)] or (len(head) == _GXF_HEAD and head[14:] != _GXF_END):
            return WHOLE
        at += max(_GXF_HEAD, int.from_bytes(head[6:10], "big"))
    return ends_within("a packet") if at > file.size else WHOLE


def dv_completeness(file: HeaderBytes) -> Completeness:
    """Whether the last frame of a raw DV file is whole: a frame has 10 sequences of 12,000 bytes, 12 with 625 lines."""
    head = file.at(0, 4)
    if head[:2] != _DV_HEADER:
        return WHOLE
    return ends_within("a frame") if file.size % (_DV_SEQUENCE * (12 if head[3:] >= b"\x80" else 10)) else WHOLE


def rm_completeness(file: HeaderBytes) -> Completeness:
    """Whether the data chunk of a RealMedia file is whole; a recorder that was stopped leaves its size 0.

    FFmpeg counts the head of the chunk twice in its size, but for its last 8 bytes.
    """
    at = 0
    while at < file.size and file.at(at, 4).isascii():
        name, size = file.at(at, 4), file.big(at + 4, 4)
        if name == b"DATA" and at + size > file.size + 10:
            return ends_before(file.size, at + size)
        if size < 10:
            break
        at += size
    return WHOLE


def mpegts_completeness(file: HeaderBytes) -> Completeness:
    """Whole: a transport stream states no length, and lost or joined packets are usual. A cut packet is a remark."""
    size, _ = transport_packets(file)
    return Completeness(remarks=("last packet cut short",)) if size and file.size % size else WHOLE


def transport_packets(file: HeaderBytes) -> tuple[int, int]:
    """How many bytes it is from one transport packet to the next, and where the first starts; (0, 0) if not clear.

    Packets have 188 bytes, with a time stamp before them 192, with a checksum after them 204.
    """
    for size, at in ((188, 0), (192, 4), (204, 0)):
        if all(file.at(at + number * size, 1) == _TS_SYNC for number in range(3)):
            return size, at
    return 0, 0


def _line(file: HeaderBytes, at: int) -> bytes:
    """The line at `at` with its end; what is there of it, at most 256 bytes, if it has none."""
    line = file.at(at, 256)
    return line[: line.find(b"\n") + 1] or line


def _y4m_frame_size(header: str) -> int:
    """The bytes of a frame; 0 if the header does not state a size, or has an unknown sampling of colour."""
    fields = {word[:1]: word[1:] for word in header.split()[1:]}
    found = re.match(r"(420|411|422|444|mono)(jpeg|mpeg2|paldv|alpha)?(p?\d+)?$", fields.get("C", "420"))
    width, height = fields.get("W", ""), fields.get("H", "")
    if found is None or not width.isdecimal() or not height.isdecimal():
        return 0
    columns, rows, planes = _Y4M_CHROMA[found[1]]
    luma = int(width) * int(height)
    chroma = -(-int(width) // columns) * -(-int(height) // rows)
    return (luma * (1 + (found[2] == "alpha")) + planes * chroma) * (2 if found[3] else 1)
