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

from pipelines.containers.file_checks import check_size
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
    stream; with more than one, what comes of damaged pictures depends on chance. Raises VideoError if
    there is no video stream, none that FFmpeg can decode, or one whose frames have more than `max_pixels` (None: not
    checked, for a video that was looked at before); av.error.FFmpegError if the file is no video.
    """
    # A name such as rec:1.avi would be taken for a protocol.
    with av.open("file:" + path, format=form, metadata_errors="ignore") as container:
        stream = find_video_stream(path, container, max_pixels)
        # PyAV's default is a thread for each CPU and slice; frames of damaged files must not depend on it.
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        stream.codec_context.thread_count = threads
        yield OpenVideo(container, stream)


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of `container`, without cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def find_video_stream(path: str, container: InputContainer, max_pixels: int | None = None) -> VideoStream:
    """The first video stream of `container`, cover pictures aside. Raises the VideoErrors of `open_video`."""
    streams = video_streams(container)
    if not streams:
        raise VideoError(path, "no video stream")
    context = streams[0].codec_context
    if context is None:
        raise VideoError(path, "unknown codec", "FFmpeg has no decoder for it")
    # For MPEG-4 the container may give a wrong size, so the size in the frame headers is checked later.
    if max_pixels is not None and context.codec.canonical_name != "mpeg4":
        check_size(path, context.width, context.height, max_pixels)
    return streams[0]
