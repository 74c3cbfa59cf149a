"""Checks whether a file can be used: it must be a regular file, complete, of a usable size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipelines.errors import VideoError

MAX_PIXELS = 4096 * 2304  # of a frame, 28 MB as RGB; videos with larger frames are refused before decoding
AVI_HEAD = 12  # bytes at the start of an AVI: "RIFF", the little-endian size of the rest, "AVI "


def check_regular(path: str) -> os.stat_result:
    """The status of the file, which is not opened. Raises VideoError if it is missing, empty or not a regular file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise VideoError(path, "can't be read", error.strerror or str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "FIFO" if stat.S_ISFIFO(status.st_mode) else "folder" if stat.S_ISDIR(status.st_mode) else "device"
        raise VideoError(path, f"not a regular file ({kind})")
    if status.st_size == 0:
        raise VideoError(path, "empty", "0 bytes")
    return status


def is_avi(head: bytes) -> bool:
    """Whether a file is an AVI; `head` are its first AVI_HEAD bytes."""
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def is_cut_short(head: bytes, size: int) -> bool:
    """Whether an AVI of `size` bytes is shorter than its header says; `head` are its first AVI_HEAD bytes."""
    return int.from_bytes(head[4:8], "little") + 8 > size


def check_size(path: str, width: int, height: int) -> None:
    """Raise VideoError if a frame of `width` x `height` px has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise VideoError(path, "too large", f"{width}x{height} px, the limit is {MAX_PIXELS} px a frame")
