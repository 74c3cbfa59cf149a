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
from pipelines.containers.formats.verdict import WHOLE, Completeness

__all__ = ["Completeness", "completeness", "lost_headers"]

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


def lost_headers(path: str) -> str:
    """What is missing of the file at `path`, which FFmpeg can't open, in words; "" if that does not show.

    Raises OSError if the file can't be read.
    """
    with HeaderBytes(path) as file:
        try:
            lost = lacks_sample_tables(file)
        except EndlessHeadersError:
            lost = False
    return "its end is missing, and with it the list of all its frames: none can be read" if lost else ""


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
