"""Says whether the file of a video holds all its pictures, by the sizes that its container states.

Only headers are read: a few bytes for each chunk, box, cluster or page where these can't be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipelines.containers.formats.asf import asf_completeness
from pipelines.containers.formats.ebml import matroska_completeness
from pipelines.containers.formats.flv import flv_completeness
from pipelines.containers.formats.header_bytes import EndlessHeadersError, HeaderBytes
from pipelines.containers.formats.isobmff import lacks_sample_tables, mov_completeness
from pipelines.containers.formats.mpeg_ps import mpeg_ps_completeness
from pipelines.containers.formats.mxf import mxf_completeness
from pipelines.containers.formats.ogg import ogg_completeness
from pipelines.containers.formats.riff import avi_completeness
from pipelines.containers.formats.sized_frames import (
    dv_completeness,
    gxf_completeness,
    ivf_completeness,
    mpegts_completeness,
    rm_completeness,
    y4m_completeness,
)
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_before

__all__ = ["Completeness", "completeness", "lost_frames"]

_FORMATS: dict[str, Callable[[HeaderBytes], Completeness]] = {
    "asf": asf_completeness,
    "avi": avi_completeness,
    "dv": dv_completeness,
    "flv": flv_completeness,
    "gxf": gxf_completeness,
    "ivf": ivf_completeness,
    "live_flv": flv_completeness,
    "matroska": matroska_completeness,
    "mpeg": mpeg_ps_completeness,
    "mpegts": mpegts_completeness,
    "mxf": mxf_completeness,
    "ogg": ogg_completeness,
    "rm": rm_completeness,
    "yuv4mpegpipe": y4m_completeness,
}


# How files begin: offset, bytes, FFmpeg's name of the container.
_HEADS = (
    (8, b"AVI ", "avi"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"FLV\1", "flv"),
    (0, b"OggS", "ogg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
)


def lost_frames(path: str) -> str:
    """What is missing of the file at `path`, in which FFmpeg finds no video, in words; "" if that does not show.

    Raises OSError if the file can't be read.
    """
    with HeaderBytes(path) as file:
        head = file.at(0, 16)
        try:
            lost = lacks_sample_tables(file)
        except EndlessHeadersError:
            lost = False
        riff_end = int.from_bytes(head[4:8], "little") + 8
        size = file.size
    if lost:
        return "its end is missing, and with it the list of all its frames: none can be read"
    form = next((form for at, mark, form in _HEADS if head[at : at + len(mark)] == mark), "")
    missing = completeness(path, form).missing
    if form == "avi" and riff_end > size:
        missing = ends_before(size, riff_end).missing
    return f"{missing}; no frame can be read" if missing else ""


def completeness(path: str, container_format: str, index_entries: Iterable[tuple[int, int]] = ()) -> Completeness:
    """What of the pictures of the video at `path` is missing, as far as its container can tell.

    `container_format` is FFmpeg's short name of the container, such as "avi" or "mov". A file of a format that is not
    known here counts as whole, and so does one whose headers are a tangle. `index_entries` are offset and size in bytes
    of the samples of the video that FFmpeg's index of a MOV or MP4 lists. Raises OSError if the file can't be read.
    """
    with HeaderBytes(path) as file:
        try:
            if container_format == "mov":
                return mov_completeness(file, index_entries)
            judge = _FORMATS.get(container_format)
            return judge(file) if judge is not None else WHOLE
        except EndlessHeadersError:
            return WHOLE
