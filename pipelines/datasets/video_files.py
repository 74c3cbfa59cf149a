"""Tells from the name of a file whether it is a video, and from which scene of UCF it is cut."""

from __future__ import annotations

import re

# The endings of files that FFmpeg reads as videos. Left out are those of still pictures, those that mostly hold sound
# (.ogg), and those that are used for much else (.dat, .mod): `data index` counts all files that it ignores.
VIDEO_EXTENSIONS = frozenset(
    [
        *("avi", "divx", "mkv", "mk3d", "webm", "flv", "nut", "ogv", "ogm", "rm", "rmvb", "ivf", "obu", "y4m"),
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "f4v", "mj2", "ismv"),
        *("mpg", "mpeg", "mpe", "mpv", "m1v", "m2v", "m2p", "vob", "ts", "mts", "m2ts", "m2t", "tp", "trp"),
        *("wmv", "asf", "wtv"),
        *("mxf", "gxf", "dv", "dif", "tod", "vro"),  # of broadcasting and of camcorders
        *("dav", "h264", "264", "avc", "h265", "265", "hevc"),  # of recorders and of network cameras
        *("mjpg", "mjpeg", "h263", "h261", "gif", "apng"),  # of older cameras, and pictures that move
    ]
)
EXTENSIONS_SHOWN = f".avi .mkv .mov .mp4 .webm and {len(VIDEO_EXTENSIONS) - 5} others"  # all are in docs/data.md

_UCF_NAME = re.compile(r"v_(.+)_(g[0-9]+)_c[0-9]+\.[^.]+", re.DOTALL)


def is_video_name(path: str) -> bool:
    """Whether the name ends in one of `VIDEO_EXTENSIONS`, in upper or lower case."""
    _, dot, extension = path.rpartition(".")
    return bool(dot) and extension.lower() in VIDEO_EXTENSIONS


def ucf_group(path: str) -> tuple[str, str] | None:
    """(class, group) of a file that is named as in UCF, such as ("Lunges", "g08") of ``v_Lunges_g08_c01.avi``, or None.

    Clips of one group are cut from the same video.
    """
    match = _UCF_NAME.fullmatch(path.rpartition("/")[2])
    return (match[1], match[2]) if match else None
