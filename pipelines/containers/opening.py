"""Opens a video file and finds its video stream: the one place where files of users are given to FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from pipelines.containers.completeness import lost_frames
from pipelines.containers.encryption import encryption_scheme
from pipelines.containers.file_checks import TRUNCATED, check_size, other_content
from pipelines.errors import VideoError


class OpenVideo(NamedTuple):
    """An open file, and the stream of it that is the video."""

    container: InputContainer
    stream: VideoStream

    @property
    def format(self) -> str:
        """FFmpeg's short name of the container, such as avi, mov or matroska."""
        return self.container.format.name.split(",")[0]


@contextmanager
def open_video(
    path: str, *, form: str | None = None, threads: int = 1, max_pixels: int | None = None
) -> Iterator[OpenVideo]:
    """The open file at `path`, with the first video stream that is no cover picture.

    `form` is FFmpeg's name of the container if it is known: opening then takes a third less time. `threads` decode the
    stream; with more than one, what comes of damaged pictures depends on chance. `max_pixels` is given where the file
    is opened for the first time. Raises VideoError if there is no video stream or none that FFmpeg can decode; with
    `max_pixels` also if it is encrypted, or if its frames have more than so many pixels. Raises av.error.FFmpegError if
    the file is no video.
    """
    with _opened(path, form) as container:
        streams = video_streams(container)
        if not streams:
            missing = lost_frames(path)
            raise VideoError(path, TRUNCATED if missing else "no video stream", missing)
        video = OpenVideo(container, streams[0])
        if max_pixels is not None:
            _check(path, video, max_pixels)
        if video.stream.codec_context is None:
            raise VideoError(path, "unknown codec", "FFmpeg has no decoder for it")
        # PyAV's default is a thread for each CPU and slice; frames of damaged files must not depend on it.
        video.stream.thread_type = "NONE" if threads == 1 else "AUTO"
        video.stream.codec_context.thread_count = threads
        yield video


def _opened(path: str, form: str | None) -> InputContainer:
    # A name such as rec:1.avi would be taken for a protocol.
    try:
        return av.open("file:" + path, format=form, metadata_errors="ignore")
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        missing = lost_frames(path)
        if missing:
            raise VideoError(path, TRUNCATED, missing) from error
        what = other_content(path)
        if what:
            raise VideoError(path, "not a video", what) from error
        raise


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of `container`, without cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def _check(path: str, video: OpenVideo, max_pixels: int) -> None:
    """Raise VideoError if the video is encrypted, or if its frames have more than `max_pixels`."""
    scheme = encryption_scheme(path, video.format, video.stream.id)
    if scheme:
        raise VideoError(path, "encrypted", f"{scheme}; make a decrypted copy of it")
    context = video.stream.codec_context
    # For MPEG-4 the container may give a wrong size, so the size in the frame headers is checked later.
    if context is not None and context.codec.canonical_name != "mpeg4":
        check_size(path, context.width, context.height, max_pixels)
