"""JSON and CSV files of predictions: written item by item, and put in place once they are complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.output.csv_table import csv_rows
from pipelines.output.files import new_file
from r3d_fast.prediction.predictor import Prediction
from r3d_fast.prediction.top_classes import TopClasses

if TYPE_CHECKING:
    from r3d_fast.prediction.timelines.events import Event
    from r3d_fast.prediction.timelines.moments import Moment


@contextmanager
def predictions_json(path: Path) -> Iterator[Callable[[Prediction], object]]:
    """A function that adds a prediction to the JSON list in `path`. Raises UsageError where `path` can't be written."""
    with new_file(path) as file:
        items = _List(file, 0)
        yield lambda prediction: items.add(prediction.as_json())
        items.end()


@contextmanager
def predictions_csv(path: Path, top: int) -> Iterator[Callable[[Prediction], object]]:
    """A function that adds a prediction to the CSV table in `path`.

    The columns are video, error, then `top` classes and probabilities. Raises UsageError where `path` can't be written.
    """
    with new_file(path) as file, csv_rows(file, ["video", "error", *_class_columns(top)]) as write:
        yield lambda item: write([item.video, item.error or "", *_class_cells(item.classes, top)])


@contextmanager
def timeline_json(path: Path) -> Iterator[Callable[[Moment], object]]:
    """A function that adds a moment to the JSON list in `path`.

    The list has an item for each video, with its moments under "timeline". Raises UsageError where `path` can't be
    written.
    """
    with new_file(path) as file:
        items = _List(file, 0)
        video: str | None = None
        error: str | None = None
        moments = _List(file, 2)

        def end() -> None:
            if video is not None:
                moments.end()
                file.write(f',\n  "error": {json.dumps(error)}\n }}'.encode())

        def add(moment: Moment) -> None:
            nonlocal video, error, moments
            if moment.video != video:
                end()
                video, error = moment.video, None
                items.next()
                file.write(f'{{\n  "video": {json.dumps(video)},\n  "timeline": '.encode())
                moments = _List(file, 2)
            error = error or moment.error
            if moment.error is None:
                moments.add(moment.as_json())

        yield add
        end()
        items.end()


@contextmanager
def timeline_csv(path: Path, top: int) -> Iterator[Callable[[Moment], object]]:
    """A function that adds a moment to the CSV table in `path`.

    The columns are video, start and end in seconds, error, then `top` classes and probabilities. Raises UsageError
    where `path` can't be written.
    """
    with new_file(path) as file, csv_rows(file, ["video", "start", "end", "error", *_class_columns(top)]) as write:

        def add(moment: Moment) -> None:
            times = [f"{moment.start:g}", f"{moment.end:g}"]
            write([moment.video, *times, moment.error or "", *_class_cells(moment.classes, top)])

        yield add


@contextmanager
def events_json(path: Path) -> Iterator[Callable[[Event], object]]:
    """A function that adds an event to the JSON list in `path`. Raises UsageError where `path` can't be written."""
    with new_file(path) as file:
        items = _List(file, 0)
        yield lambda event: items.add(event.as_json())
        items.end()


@contextmanager
def events_csv(path: Path) -> Iterator[Callable[[Event], object]]:
    """A function that adds an event to the CSV table in `path`.

    The columns are video, start and end in seconds, label, mean and peak probability, error, and the time of day at the
    start, for a live source. Raises UsageError where `path` can't be written.
    """
    columns = ["video", "start", "end", "label", "mean", "peak", "error", "at"]
    with new_file(path) as file, csv_rows(file, columns) as write:

        def add(event: Event) -> None:
            known = ["", "", ""] if event.error is not None else [event.label, f"{event.mean:.6f}", f"{event.peak:.6f}"]
            at = "" if event.at is None else event.at.isoformat(timespec="milliseconds")
            times = [f"{event.start:g}", f"{event.end:g}"]
            write([event.video, *times, *known, event.error or "", at])
            file.flush()

        yield add


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[Event | Moment], object]]:
    """A function that writes an event or a moment to `path` as a line of JSON, which a reader gets at once.

    Raises UsageError where `path` can't be written.
    """
    with new_file(path) as file:

        def add(item: Event | Moment) -> None:
            file.write(json.dumps({"video": item.video, **item.as_json()}).encode() + b"\n")
            file.flush()

        yield add


class _List:
    """A JSON list that is written item by item."""

    def __init__(self, file: BinaryIO, indent: int) -> None:
        self._file, self._indent = file, " " * indent
        self._any = False

    def next(self) -> None:
        """Write the bracket or comma that comes before an item."""
        self._file.write(f"{',' if self._any else '['}\n{self._indent} ".encode())
        self._any = True

    def add(self, value: Any) -> None:
        """Write an item, a JSON value."""
        self.next()
        text = json.dumps(value, indent=1)
        self._file.write(text.replace("\n", f"\n{self._indent} ").encode())

    def end(self) -> None:
        """Write the end of the list."""
        self._file.write(f"\n{self._indent}]".encode() if self._any else b"[]")
        if not self._indent:
            self._file.write(b"\n")


def _class_columns(top: int) -> list[str]:
    return [f"{name}{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]


def _class_cells(classes: TopClasses, top: int) -> list[str]:
    cells = [cell for name, probability in classes for cell in (name, f"{probability:.6f}")]
    return cells + [""] * (2 * top - len(cells))
