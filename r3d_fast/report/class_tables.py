"""What a run's best evaluation says of each class: a table, the confusion matrix, and which classes are confused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_CLASSES = 120  # in the confusion matrix; of more, those that have a part in the most mistakes
_MOST_PAIRS = 12
_Z = 1.959964  # standard normal quantile of 97.5 %, for an interval that holds 95 %


@dataclass(frozen=True)
class ClassRow:
    """A class: its videos to train on (None: not known) and in the evaluation, and its figures, fractions or None."""

    name: str
    training: int | None
    videos: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ConfusionRow:
    """A row of the confusion matrix: videos of the class `name` by what was predicted; `place` in the data set.

    `shades` say how dark each cell is, 0 to 100. `recall` is None without videos. `errors` counts videos of the class
    that were taken for another, and videos of others that were taken for it.
    """

    name: str
    place: int
    videos: int
    counts: tuple[int, ...]
    shades: tuple[int, ...]
    recall: float | None
    errors: int


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix; its columns are in the order of `rows`. `left_out`: classes that are not in it."""

    rows: tuple[ConfusionRow, ...]
    left_out: int

    @property
    def is_small(self) -> bool:
        """Whether there is room for numbers in the cells."""
        return len(self.rows) <= 20


@dataclass(frozen=True)
class ConfusedPair:
    """`count` videos of the class `label`, a fraction `share` of them, were taken for the class `predicted`."""

    label: str
    predicted: str
    count: int
    share: float


def class_rows(figures: Mapping[str, Any], training: Mapping[str, int]) -> list[ClassRow]:
    """The classes of `figures`, the content of figures.json; `training` has the videos to train on of each class."""
    video = _mapping(figures.get("video"))
    shares = {key: _mapping(video.get(key)) for key in ("precision", "per_class", "f1")}
    counts = _mapping(video.get("counts")) or _row_sums(video)
    return [
        ClassRow(
            name, training.get(name), _count(counts.get(name)),
            fraction(shares["precision"].get(name)), fraction(recall), fraction(shares["f1"].get(name)),
        )
        for name, recall in shares["per_class"].items()
    ]  # fmt: skip


def confusion(figures: Mapping[str, Any]) -> Confusion | None:
    """The confusion matrix of `figures`; None where it is missing, or has not a row and a column a class."""
    video = _mapping(figures.get("video"))
    names, cells_of = list(_mapping(video.get("per_class"))), _cells(video)
    if not names or cells_of is None:
        return None
    counts = _mapping(video.get("counts")) or _row_sums(video)
    columns = Counter[int]()
    for (_, column), cell in cells_of.items():
        columns[column] += cell
    errors = [
        _count(counts.get(name)) + columns[place] - 2 * cells_of.get((place, place), 0)
        for place, name in enumerate(names)
    ]
    worst = sorted(range(len(names)), key=lambda place: -errors[place])[:MOST_CLASSES]
    shown = sorted(worst)
    rows = []
    for place in shown:
        videos = _count(counts.get(names[place]))
        cells = tuple(cells_of.get((place, column), 0) for column in shown)
        # By the root of the share, so that one mistake among many videos can be seen too.
        shades = tuple(round(100 * math.sqrt(cell / videos)) if videos else 0 for cell in cells)
        recall = cells_of.get((place, place), 0) / videos if videos else None
        rows.append(ConfusionRow(names[place], place, videos, cells, shades, recall, errors[place]))
    return Confusion(tuple(rows), len(names) - len(shown))


def confused_pairs(figures: Mapping[str, Any]) -> list[ConfusedPair]:
    """The pairs of classes that are confused most often, at most twelve; of equal counts the larger share first."""
    video = _mapping(figures.get("video"))
    names, cells = list(_mapping(video.get("per_class"))), _cells(video) or {}
    counts = _mapping(video.get("counts")) or _row_sums(video)
    pairs = [
        ConfusedPair(names[row], names[column], cell, cell / max(1, _count(counts.get(names[row]))))
        for (row, column), cell in cells.items()
        if row != column
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.label))[:_MOST_PAIRS]


def interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of `count` samples (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209)."""
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    middle, scale = share + _Z**2 / (2 * count), 1 + _Z**2 / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def fraction(value: Any) -> float | None:
    """`value` where it is a number from 0 to 1, else None."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _cells(video: Mapping[str, Any]) -> dict[tuple[int, int], int] | None:
    """The counts of the confusion matrix of `video` that are not 0, by (label, prediction).

    None where there is none, or not for the classes of `video`.
    """
    size = len(_mapping(video.get("per_class")))
    rows, listed = video.get("confusion"), video.get("confusion_cells")
    if isinstance(rows, list):
        if len(rows) != size or not all(isinstance(row, list) and len(row) == size for row in rows):
            return None
        listed = [[row, column, cell] for row, cells in enumerate(rows) for column, cell in enumerate(cells) if cell]
    if not isinstance(listed, list):
        return None
    found: dict[tuple[int, int], int] = {}
    for cell in listed:
        if not isinstance(cell, list) or len(cell) != 3 or not all(isinstance(place, int) for place in cell[:2]):
            return None
        if not (0 <= cell[0] < size and 0 <= cell[1] < size):
            return None
        if _count(cell[2]):
            found[cell[0], cell[1]] = cell[2]
    return found


def _row_sums(video: Mapping[str, Any]) -> dict[str, int]:
    """The videos of each class by the confusion matrix, for figures that were written before they had `counts`."""
    sums = dict.fromkeys(range(len(_mapping(video.get("per_class")))), 0)
    for (row, _), cell in (_cells(video) or {}).items():
        sums[row] += cell
    return dict(zip(_mapping(video.get("per_class")), sums.values(), strict=True))
