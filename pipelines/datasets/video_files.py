"""Tells from the name of a file whether it is a video, and from which scene of UCF it is cut."""

from __future__ import annotations

import re

VIDEO_EXTENSIONS = frozenset(
    ["avi", "mp4", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "wmv", "flv", "ogv", "ts", "m2ts", "3gp"]
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
