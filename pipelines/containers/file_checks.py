"""Checks whether a file can be used: it must be a regular file of a usable size."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import VideoError
from pipelines.input.regular_files import kind_of

# The pixels that a frame may have where the user sets no other limit: the largest picture of the levels 6 to 6.2 of
# H.264 and HEVC and of level 6 of AV1, so that all of 8K is taken. As RGB it is 107 MB, which a process can hold a few
# times; a damaged header may ask for a hundred times as much.
MAX_PIXELS = 8192 * 4352
MOST_CORRUPT = 0.5  # the largest share of damaged frames with which a video is used, where the user sets no other
TRUNCATED, DOES_NOT_DECODE, TOO_LARGE = "truncated", "does not decode", "too large"  # reasons of VideoErrors
TOO_DAMAGED = "too many damaged frames"
NEEDS_MEMORY = "needs more memory than there is"
BACK = "put the video back, or index the data set again"  # what to do where something lies in its place
AVI_HEAD = 12  # bytes at the start of an AVI: "RIFF", the little-endian size of the rest, "AVI "


class Acceptance(NamedTuple):
    """Which videos are taken: those whose frames have at most `max_pixels`.

    With `partial` also what is left of truncated and damaged ones. Of a file that is decoded to index it, at most the
    share `max_corrupt` of the frames may be damaged. With `full`, and with a `max_corrupt` below the usual
    one, all files are decoded, also where headers tell all.
    """

    partial: bool = False
    max_pixels: int = MAX_PIXELS
    max_corrupt: float = 1.0
    full: bool = False

    @property
    def decodes(self) -> bool:
        """Whether all files are decoded: a stricter limit than the usual one would else hold for some of them alone."""
        return self.full or self.max_corrupt < MOST_CORRUPT


ACCEPT_WHOLE = Acceptance()


def check_regular(path: str) -> os.stat_result:
    """The status of the file, which is not opened. Raises VideoError if it is missing, empty or not a regular file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise VideoError(path, "can't be read", error.strerror or str(error)) from error
    require_regular(path, status)
    if status.st_size == 0:
        raise VideoError(path, "empty", "0 bytes")
    return status


def require_regular(path: str, status: os.stat_result, remedy: str = "") -> None:
    """Raise VideoError, with `remedy`, where the `status` of what lies at `path` is not that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, f"not a regular file ({kind_of(status.st_mode)})", remedy)


# What lies in folders of videos in their stead: how it begins, and what it is.
_OTHERS = (
    (b"version https://git-lfs", "a pointer of git-lfs; fetch the video with: git lfs pull"),
    (b"<!doctype html", "a web page, as a download that failed leaves it"),
    (b"<html", "a web page, as a download that failed leaves it"),
    (b"ffconcat", "a list of files for FFmpeg, and no video; join them to one file first"),
    (b"#extm3u", "a playlist, and no video; give the videos that it names"),
    (b"<?xml", "XML, such as a playlist, and no video; give the videos that it names"),
    (b"v=0", "a description of a stream (SDP), and no video"),
)


def other_content(path: str) -> str:
    """What the file at `path` is if it is one of those that often stand in for a video, with the remedy; else ""."""
    with Path(path).open("rb") as file:
        head = file.read(64).lstrip().lower()
    return next((what for mark, what in _OTHERS if head.startswith(mark)), "")


def is_avi(head: bytes) -> bool:
    """Whether a file is an AVI; `head` are its first AVI_HEAD bytes."""
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def check_damage(path: str, corrupt: int, frames: int, max_corrupt: float) -> None:
    """Raise VideoError if more than the share `max_corrupt` of a video's `frames` is damaged; `corrupt` are."""
    if corrupt > max_corrupt * frames:
        raise VideoError(path, TOO_DAMAGED, f"{corrupt} of {frames}; {option_for_damage(corrupt, frames)} takes it")


def option_for_damage(corrupt: int, frames: int) -> str:
    """The option of `data index` that takes a video of whose `frames` so many are `corrupt`."""
    return f"--max-corrupt-fraction {math.ceil(100 * corrupt / frames) / 100:g}"


def check_size(path: str, width: int, height: int, max_pixels: int) -> None:
    """Raise VideoError if a frame of `width` x `height` px has more than `max_pixels`."""
    if width * height > max_pixels:
        limit = f"{width}x{height} px, the limit is {max_pixels} px a frame"
        raise VideoError(path, TOO_LARGE, f"{limit}; --max-pixels {width * height} allows it")
