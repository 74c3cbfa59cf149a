"""Annotated videos: an mp4 of a video that shows on every frame the most likely class of that moment. No sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.errors import VideoError
from pipelines.isolation.frames import DistantFrames, Wanted
from pipelines.output.files import new_file
from r3d_fast.pictures.letters import load_font
from r3d_fast.pictures.mp4 import Mp4Writer, even_sides
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.writers.captions import Captions
from r3d_fast.prediction.writers.video_names import FileNames


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
    with DistantFrames(video, max_pixels=max_pixels) as source, new_file(target) as file:
        output: Mp4Writer | None = None
        try:
            for shown in source.frames(Wanted()):
                pixels = even_sides(shown.pixels)
                if output is None:
                    height, width, _ = pixels.shape
                    output = Mp4Writer(file, height, width, source.fps)
                    captions = Captions(height, width, classes, font)
                moment = _at(moments, shown.seconds)
                if moment is not None and moment.error is not None:
                    captions.put(pixels, "can't be read", None)
                elif moment is not None and moment.classes:
                    captions.put(pixels, *moment.classes[0])
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
        self._moments.append(replace(moment, probabilities=None))  # those of all classes would take much memory

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
        if any(moment.error is None for moment in moments):
            annotate(video, moments, self._names.of(video), self._classes, self._font, self._max_pixels)


def _at(moments: Sequence[Moment], seconds: float) -> Moment | None:
    """The moment at `seconds` of the video; the last one where the timeline is shorter; None where it is empty."""
    if not moments:
        return None
    hop = moments[0].end - moments[0].start
    return moments[min(int(seconds / hop + 1e-9), len(moments) - 1)]
