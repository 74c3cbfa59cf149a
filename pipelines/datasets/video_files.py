"""Tells from the name of a file whether it is a video, and from which scene of UCF it is cut."""

from __future__ import annotations

import re

# The endings of files that FFmpeg reads as videos. Left out are those of pictures, also if they move (.gif), those that
# mostly hold sound (.ogg), and those that are used for much else (.dat, .mod).
VIDEO_EXTENSIONS = frozenset(
    [
        *("avi", "divx", "mkv", "webm", "flv", "nut", "ogv", "ogm", "rm", "rmvb", "ivf", "y4m"),
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "f4v"),
        *("mpg", "mpeg", "mpe", "m1v", "m2v", "vob", "ts", "mts", "m2ts", "m2t"),
        *("wmv", "asf", "wtv"),
        *("mxf", "gxf", "dv"),  # of broadcasting and of camcorders
        *("dav", "h264", "264", "h265", "265", "hevc", "mjpg", "mjpeg"),  # of recorders and of network cameras
    ]
)
EXTENSIONS_SHOWN = " ".join(f".{extension}" for extension in sorted(VIDEO_EXTENSIONS))

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
