"""Annotated videos: an mp4 of a video that shows on every frame the most likely class of that moment. No sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.errors import VideoError
from pipelines.video.sequence import FrameSequence
from r3d_fast.files import new_file
from r3d_fast.prediction.timeline import Moment
from r3d_fast.prediction.writers.captions import Captions, load_font
from r3d_fast.prediction.writers.video_names import FileNames

# A multiple of the usual frame rates, 30000/1001 among them, and small enough for MPEG-4 part 2.
_TIME_BASE = Fraction(1, 60000)
_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "veryfast", "crf": "20"}),
    ("mpeg4", {"qscale": "3", "flags": "+qscale"}),
)
_SMPTE170M = 6  # AVCOL_SPC_SMPTE170M: the matrix with which FFmpeg converts RGB to YUV by default


def annotate(
    video: str,
    moments: Sequence[Moment],
    target: Path,
    classes: Sequence[str],
    font: Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write `target`, an mp4 of `video` with the moments of its timeline drawn on its frames.

    It has the size and frame times of the video and is upright. An odd side loses one pixel, as this mp4 needs even
    sides. Where the video can't be read to its end, the part that can be read is written. `font`: a file, see
    load_font. Raises UsageError where `target` can't be written, VideoError where nothing of the video can be read, and
    what load_font raises.
    """
    with FrameSequence(video, max_pixels=max_pixels) as source, new_file(target) as file:
        output: _Output | None = None
        try:
            for shown in source:
                pixels = _even(source.pixels(shown.frame))
                if output is None:
                    output = _Output(file, pixels, source.fps)
                    captions = Captions(pixels.shape[0], pixels.shape[1], classes, font)
                moment = _at(moments, shown.seconds)
                if moment is not None:
                    label, probability = moment.classes[0] if moment.classes else ("can't be read", None)
                    captions.put(pixels, label, probability)
                output.write(pixels, shown.seconds)
        except VideoError:
            if output is None:
                raise
        assert output is not None
        output.close()


class Annotator:
    """Collects the moments of each video, and writes the annotated video once its timeline is complete.

    Use it in a `with` block: leaving the block writes the last video.
    """

    def __init__(
        self, folder: Path, classes: Sequence[str], font: Path | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Create the folder. Raises UsageError where it can't be written, and what load_font raises."""
        load_font(12, font)  # a font that can't be used fails here, not after the first video
        self._names, self._classes, self._font = FileNames(folder, ".mp4"), classes, font
        self._max_pixels = max_pixels
        self._moments: list[Moment] = []

    def add(self, moment: Moment) -> None:
        """Add the next moment. All moments of a video come in a row."""
        if self._moments and self._moments[0].video != moment.video:
            self._write()
        self._moments.append(moment)

    def __enter__(self) -> Annotator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._moments:
            self._write()

    def _write(self) -> None:
        moments, self._moments = self._moments, []
        video = moments[0].video
        if any(moment.classes for moment in moments):
            annotate(video, moments, self._names.of(video), self._classes, self._font, self._max_pixels)


class _Output:
    """An mp4 in the making, for frames of the size of the first one."""

    def __init__(self, file: BinaryIO, pixels: NDArray[np.uint8], fps: Fraction) -> None:
        self._container = av.open(file, "w", format="mp4")
        name, options = next((n, o) for n, o in _ENCODERS if _has_encoder(n))
        stream = self._container.add_stream(name, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.colorspace = _SMPTE170M
        self._stream = stream
        self._last = -1

    def write(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame, uint8 [H, W, 3], RGB, shown from `seconds` on."""
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(self._last + 1, round(seconds / _TIME_BASE))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write the frames that the encoder still holds, and the end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _at(moments: Sequence[Moment], seconds: float) -> Moment | None:
    """The moment at `seconds` of the video; the last one where the timeline is shorter; None where it is empty."""
    if not moments:
        return None
    hop = moments[0].end - moments[0].start
    return moments[min(int(seconds / hop + 1e-9), len(moments) - 1)]


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of `pixels` uint8 [H, W, 3] whose sides are even."""
    height, width = (max(2, side // 2 * 2) for side in pixels.shape[:2])
    even: NDArray[np.uint8] = pixels[:height, :width].copy()
    return even
