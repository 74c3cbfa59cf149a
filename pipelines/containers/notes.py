"""Notes: what is odd about a video file, in a few words each, as `data index` counts them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipelines.containers.completeness import Completeness
from pipelines.containers.demuxer import PacketList
from pipelines.containers.file_checks import TRUNCATED
from pipelines.containers.opening import OpenVideo, video_streams

# Of these, `notes_of` finds what the container shows; the others are found when frames are decoded.
PICTURE = "a picture, not a video"
DAMAGED = "damaged"  # taken up to where decoding fails
DAMAGED_PACKETS = "damaged packets"  # marked by the container; all frames decode
CONCEALED_ERRORS = "concealed errors"  # marked by the decoder; all frames decode
HIDDEN_FRAMES = "frames hidden by an edit list"
UNEVEN_TIMES = "uneven frame times"
FEWER_FRAMES = "fewer frames than it states"
SEVERAL_STREAMS = "several video streams"
HDR = "HDR"
NOT_SQUARE = "pixels that are not square"
ROTATED = "rotated"
INTERLACED = "interlaced"
FROM_START = "read from its start"
ENDS_EARLY = "ends before its range"  # a part of a file

# Transfer characteristics of high dynamic range: PQ and HLG (ITU-T H.273, table 3).
_HDR_TRANSFERS = (16, 18)
_INTERLACED_ORDERS = (2, 3, 4, 5)  # AVFieldOrder, libavcodec/defs.h; 0 is unknown, 1 progressive
_STILL_FORMATS = ("image2", "_pipe", "gif")
_STILL_BRANDS = ("avif", "heic", "heix", "mif1")  # major brands of ISO/IEC 23008-12
_ROUNDED = 0.01  # an AVI states the aspect of the whole picture, rounded, as 4:3 of 720x544 px
_WITH_LENGTH = ("matroska", "asf")  # containers whose header states how long the video is
_STATED = 0.9  # headers of UCF-101 state up to 8 frames too many
_UNEVEN = 1.75  # from so many times the usual step between two frames on, and down to its inverse


def notes_of(path: str, video: OpenVideo, packets: PacketList, whole: Completeness) -> list[str]:
    """What the container of `video` shows to be odd."""
    stream, context, formats = video.stream, video.stream.codec_context, video.container.format.name
    aspect = stream.sample_aspect_ratio
    is_picture = len(packets.offset) == 1 and _holds_pictures(video)
    is_misnamed = Path(path).suffix.lower() == ".avi" and "avi" not in formats
    notes = {
        f"{video.format} content under an .avi name": is_misnamed and not is_picture,
        PICTURE: is_picture,
        TRUNCATED: bool(whole.missing),
        DAMAGED_PACKETS: bool(packets.corrupt) and not whole.missing,
        HIDDEN_FRAMES: bool(packets.hidden),
        # Of a cut file, pictures that are shown before the last ones may be missing.
        UNEVEN_TIMES: not whole.missing
        and packets.stamps.ticks is not None
        and _is_uneven(packets, packets.stamps.ticks),
        SEVERAL_STREAMS: len(video_streams(video.container)) > 1,
        HDR: context.color_trc in _HDR_TRANSFERS,
        NOT_SQUARE: aspect is not None and aspect > 0 and abs(aspect - 1) > _ROUNDED,
        INTERLACED: context.field_order in _INTERLACED_ORDERS,
    }
    if not notes[TRUNCATED] and not notes[HIDDEN_FRAMES] and not notes[UNEVEN_TIMES]:
        notes[FEWER_FRAMES] = _counted_frames(packets) < _STATED * _stated_frames(video) - 1
    return [note for note, holds in notes.items() if holds] + list(whole.remarks)


def _counted_frames(packets: PacketList) -> int:
    """How many frames the packets are; in an AVI with the dropped ones, which its header counts too."""
    ticks = packets.stamps.ticks
    if packets.stamps.base.by_chunk and ticks is not None:
        return int(ticks.max() - ticks.min()) + 1
    return len(packets.offset)


def _stated_frames(video: OpenVideo) -> float:
    """How many frames the header of the file states, by their number or by the length of the video; 0 if neither."""
    if video.stream.frames:
        return video.stream.frames
    if video.format not in _WITH_LENGTH or len(video.container.streams) > 1:  # the length may be that of the sound
        return 0.0
    container = video.container
    length = (container.duration or 0) - max(0, container.start_time or 0)
    return length / av.time_base * float(video.stream.average_rate or 0)


def _holds_pictures(video: OpenVideo) -> bool:
    brand = video.container.metadata.get("major_brand", "").strip()
    return brand in _STILL_BRANDS or any(name in video.container.format.name for name in _STILL_FORMATS)


def _is_uneven(packets: PacketList, ticks: NDArray[np.int64]) -> bool:
    """Whether some frames are shown twice as long as most, or half as long, as far as time stamps in ticks tell."""
    if packets.sound:
        ticks = ticks[packets.giving]
    steps = np.sort(np.diff(np.sort(ticks)))
    if len(steps) < 2:
        return False
    usual = int(steps[len(steps) // 2])
    return bool(steps[-1] >= _UNEVEN * max(1, usual) or steps[0] * _UNEVEN <= usual)
