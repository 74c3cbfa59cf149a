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
from pipelines.containers.formats.taken import ONE_FILE
from pipelines.containers.live_source import LiveSource
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


@contextmanager
def open_live(source: LiveSource, *, open_seconds: float, read_seconds: float, max_pixels: int) -> Iterator[OpenVideo]:
    """The open live source, with its first video stream, as `open_video` gives it for a file.

    Opening takes at most `open_seconds`, and waiting for data `read_seconds`: after that av.error.ExitError is raised.
    Stdin is waited for without an end.
    Raises VideoError if there is no video stream, none that FFmpeg can decode, or one of larger frames than
    `max_pixels`; av.error.FFmpegError if the source can't be opened.
    """
    with av.open(
        source.address, format=source.form, options={"fflags": "discardcorrupt", **source.options},
        metadata_errors="ignore", timeout=None if source.waits else (open_seconds, read_seconds),
    ) as container:  # fmt: skip
        streams = video_streams(container)
        if not streams:
            raise VideoError(source.name, "no video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(source.name, "unknown codec", "FFmpeg has no decoder for it")
        check_size(source.name, stream.codec_context.width, stream.codec_context.height, max_pixels)
        # Threads that share a frame, not threads that each decode another one: these would be frames late.
        stream.thread_type = "SLICE"
        yield OpenVideo(container, stream)


def _opened(path: str, form: str | None) -> InputContainer:
    # A name such as rec:1.avi would be taken for a protocol.
    try:
        return av.open("file:" + path, format=form, options=dict(ONE_FILE), metadata_errors="ignore")
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError) as error:
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
