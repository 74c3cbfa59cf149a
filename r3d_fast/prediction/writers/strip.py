"""A strip: a picture of a timeline, with frames of the video and the probability of each class over time.

It has a limited number of columns and frames: where a video is longer, neighbouring columns become one, and every other
frame is left out. So memory does not grow with the length of a video or of a live source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.output.files import new_file
from r3d_fast.console import as_time
from r3d_fast.pictures.letters import drawable, fitting, fitting_end, wide_font
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.writers.video_names import FileNames

_MOST_COLUMNS, _MOST_FRAMES = 1024, 24
_MOST_LANES = 12
_SHOWN_FROM = 0.1  # a class is left out if it is never that likely, unless it is among the first three
# px
_WIDTH, _MARGIN, _LABELS, _FRAME_HEIGHT, _LANE, _BAR = 1600, 24, 240, 96, 56, 6
_TEXT, _SMALL = 18, 14
# Okabe and Ito's colours, which colour-blind people tell apart, without black and yellow.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK, _PALE, _GAP, _GRID = "#222222", "#666666", "#eeeeee", "#dddddd"
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # seconds


class StripWriter:
    """Writes the strip of each video once its timeline is complete.

    Use it in a `with` block: leaving the block writes the last strip. `add` takes the moments, `add_frame` the frames,
    which another thread may bring.
    """

    def __init__(self, place: Path, classes: Sequence[str], threshold: float) -> None:
        """`place`: a .png file for one video, or a folder that gets NAME.png for each.

        A bar marks where a class has at least the probability `threshold`. Raises UsageError where the folder can't be
        written.
        """
        self._names = None if is_picture(place) else FileNames(place, ".png")
        self._place, self._classes, self._threshold = place, classes, threshold
        self._columns: _Columns | None = None
        self._video = ""
        self._frames: dict[str, _Frames] = {}

    def add(self, moment: Moment) -> None:
        """Add the next moment. All moments of a video come in a row."""
        if self._columns is None or moment.video != self._video:
            self._write()
            self._video, self._columns = moment.video, _Columns(moment.end - moment.start)
        if moment.probabilities is not None:
            self._columns.add(moment)

    def add_frame(self, video: str, seconds: float, pixels: Callable[[], NDArray[np.uint8]]) -> None:
        """Keep a frame of `video`, if there is none yet of its time; `pixels` gives it."""
        self._frames.setdefault(video, _Frames()).add(seconds, pixels)

    def __enter__(self) -> StripWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write()

    def _write(self) -> None:
        columns, self._columns = self._columns, None
        frames = self._frames.pop(self._video, _Frames())
        if columns is None or not columns.values:
            return
        picture = _draw(self._video, columns, frames.kept(), self._classes, self._threshold)
        with new_file(self._names.of(self._video) if self._names is not None else self._place) as file:
            picture.save(file, "PNG")


def is_picture(place: Path) -> bool:
    """Whether a strip goes to the file `place`, and not to a folder of that name."""
    return place.suffix.lower() == ".png" or place == Path("-")


class _Columns:
    """The mean probabilities of the classes in columns of equal length: `values` by their number, float64 [C] each."""

    def __init__(self, hop_seconds: float) -> None:
        self.seconds = hop_seconds  # that a column lasts
        self.values: dict[int, NDArray[np.float64]] = {}
        self._counts: dict[int, int] = {}
        self.end = 0.0

    def add(self, moment: Moment) -> None:
        assert moment.probabilities is not None
        self.end = moment.end
        while (number := int(moment.start / self.seconds + 1e-6)) >= _MOST_COLUMNS:
            self._halve()
        self._put(number, moment.probabilities, 1)

    def _halve(self) -> None:
        """Make one column of every two."""
        before = [(number // 2, self.values[number], self._counts[number]) for number in sorted(self.values)]
        self.seconds *= 2
        self.values, self._counts = {}, {}
        for column in before:
            self._put(*column)

    def _put(self, number: int, mean: NDArray[np.float64], count: int) -> None:
        total = self._counts.get(number, 0) + count
        old = self.values.get(number, np.zeros_like(mean))
        self.values[number] = old + (mean - old) * (count / total)
        self._counts[number] = total


class _Frames:
    """Small pictures of a video, about equally far apart."""

    def __init__(self) -> None:
        self._every = 0.25  # seconds
        self._pictures: dict[int, tuple[float, Any]] = {}

    def add(self, seconds: float, pixels: Callable[[], NDArray[np.uint8]]) -> None:
        """Keep this frame if it is the first one of its stretch of time."""
        while int(seconds / self._every) >= _MOST_FRAMES:
            self._every *= 2
            halved: dict[int, tuple[float, Any]] = {}
            for number in sorted(self._pictures):
                halved.setdefault(number // 2, self._pictures[number])
            self._pictures = halved
        if int(seconds / self._every) not in self._pictures:
            from PIL import Image

            picture = Image.fromarray(np.ascontiguousarray(pixels()))
            width = max(1, round(picture.width * _FRAME_HEIGHT / picture.height))
            small = picture.resize((width, _FRAME_HEIGHT), Image.Resampling.LANCZOS)
            self._pictures[int(seconds / self._every)] = seconds, small

    def kept(self) -> list[tuple[float, Any]]:
        """(seconds, picture) of the frames, in order."""
        pictures = dict(self._pictures)
        return [pictures[number] for number in sorted(pictures)]


def _draw(
    video: str, columns: _Columns, frames: list[tuple[float, Any]], classes: Sequence[str], threshold: float
) -> Any:
    """The picture, a PIL image: the name of the video, frames, a lane for each class, and the time."""
    from PIL import Image, ImageDraw

    table = np.stack([columns.values[number] for number in sorted(columns.values)])
    shown = _lanes(table)
    top = _MARGIN + _TEXT + 14
    lanes_top = top + (_FRAME_HEIGHT + 10 if frames else 0)
    bottom = lanes_top + len(shown) * _LANE
    image = Image.new("RGB", (_WIDTH, bottom + 8 + _SMALL + _MARGIN), "white")
    draw = ImageDraw.Draw(image)
    bold = wide_font(_TEXT, bold=True)
    title = fitting_end(drawable(video, bold), bold, _WIDTH - 2 * _MARGIN - 130)
    draw.text((_MARGIN, _MARGIN), title, _INK, font=bold)
    length = as_time(columns.end)
    draw.text((_WIDTH - _MARGIN, _MARGIN), length, _PALE, font=wide_font(_TEXT), anchor="ra")
    scale = _Scale(max(columns.end, columns.seconds))
    _draw_frames(image, frames, scale, top)
    _draw_time(draw, scale, lanes_top, bottom)
    for place, number in enumerate(shown):
        of_class = {column: float(values[number]) for column, values in columns.values.items()}
        lane = lanes_top + place * _LANE
        _draw_lane(draw, classes[number], of_class, columns.seconds, scale, lane, _COLOURS[place % 6], threshold)
    return image


class _Scale:
    """Where the times of a video lie on the picture, in px."""

    left, right = _MARGIN + _LABELS, _WIDTH - _MARGIN

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def x(self, seconds: float) -> float:
        return self.left + (self.right - self.left) * min(1.0, seconds / self.seconds)


def _lanes(table: NDArray[np.float64]) -> list[int]:
    """The numbers of the classes to show, those first that are seen most; `table` float64 [columns, C]."""
    order = np.argsort(-table.mean(axis=0), kind="stable").tolist()
    peaks = table.max(axis=0)
    return [number for place, number in enumerate(order) if place < 3 or peaks[number] >= _SHOWN_FROM][:_MOST_LANES]


def _draw_frames(image: Any, frames: list[tuple[float, Any]], scale: _Scale, top: int) -> None:
    """Put as many frames as have room at their times."""
    free = float(scale.left)
    for seconds, picture in frames:
        x = scale.x(seconds)
        if x >= free - 1 and x + picture.width <= scale.right:
            image.paste(picture, (round(x), top))
            free = x + picture.width + 6


def _draw_time(draw: Any, scale: _Scale, top: int, bottom: int) -> None:
    """Lines at round times, with the times below them."""
    font = wide_font(_SMALL)
    step = next((step for step in _TICKS if scale.seconds / step <= 12), _TICKS[-1])
    while scale.seconds / step > 12:
        step *= 2
    draw.rectangle((scale.left, top, scale.right, bottom), fill=_GAP)
    for tick in range(int(scale.seconds // step) + 1):
        x = scale.x(tick * step)
        draw.line((x, top, x, bottom + 4), fill=_GRID)
        draw.text(
            (x, bottom + 8), as_time(tick * step), _PALE, font=font, anchor="ra" if x > scale.right - 20 else "ma"
        )


def _draw_lane(
    draw: Any, label: str, values: dict[int, float], seconds: float, scale: _Scale, top: int, colour: str,
    threshold: float,
) -> None:  # fmt: skip
    """The probability of a class over time, as a filled curve of steps, with a bar where it reaches the threshold."""
    font, small = wide_font(_TEXT), wide_font(_SMALL)
    name = fitting(drawable(label, font), font, _LABELS - 16)
    draw.text((_MARGIN, top + 8), name, _INK, font=font)
    draw.text((_MARGIN, top + 8 + _TEXT + 4), f"up to {100 * max(values.values()):.0f} %", _PALE, font=small)
    bottom, height = top + _LANE - 4 - _BAR, _LANE - 12 - _BAR
    for column, value in values.items():
        x0, x1 = scale.x(column * seconds), scale.x((column + 1) * seconds)
        draw.rectangle((x0, top, max(x0, x1 - 1), top + _LANE - 2), fill="white")
        draw.rectangle((x0, bottom - height * value, max(x0, x1 - 1), bottom), fill=colour)
        if value >= threshold:
            draw.rectangle((x0, bottom + 2, max(x0, x1 - 1), bottom + _BAR), fill=_INK)
    draw.line((_MARGIN, top + _LANE - 1, scale.right, top + _LANE - 1), fill=_GRID)
