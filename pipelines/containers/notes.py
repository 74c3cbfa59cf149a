"""Notes: what is odd about a video file, in a few words each, as `data index` counts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.containers.completeness import Completeness
from pipelines.containers.demuxer import PacketList
from pipelines.containers.opening import OpenVideo, video_streams

# Transfer characteristics of high dynamic range: PQ and HLG (ITU-T H.273, table 3).
_HDR = (16, 18)
_STILL_FORMATS = ("image2", "_pipe", "gif")


def notes_of(path: str, video: OpenVideo, packets: PacketList, whole: Completeness) -> list[str]:
    """What the container of `video` shows to be odd; the notes of frames are added when one is decoded."""
    context, formats = video.stream.codec_context, video.container.format.name
    aspect = context.sample_aspect_ratio
    notes = {
        f"{video.format} content under an .avi name": Path(path).suffix.lower() == ".avi" and "avi" not in formats,
        "a picture, not a video": len(packets.offset) == 1 and any(name in formats for name in _STILL_FORMATS),
        "truncated": bool(whole.missing),
        "damaged packets": bool(packets.corrupt) and not whole.missing,
        "frames hidden by an edit list": bool(packets.hidden),
        "uneven frame times": _is_uneven(video, packets),
        "several video streams": len(video_streams(video.container)) > 1,
        "HDR": context.color_trc in _HDR,
        "pixels that are not square": aspect is not None and aspect > 0 and aspect != 1,
    }
    return [note for note, holds in notes.items() if holds] + list(whole.remarks)


def _is_uneven(video: OpenVideo, packets: PacketList) -> bool:
    """Whether the times between frames differ by a factor of two or more."""
    if packets.pts is None or video.format == "avi" or len(packets.pts) <= 2:
        return False
    steps = np.diff(np.sort(packets.pts))
    usual = int(np.median(steps))
    return bool(steps.max() > 2 * max(1, usual) or steps.min() * 2 < usual)
