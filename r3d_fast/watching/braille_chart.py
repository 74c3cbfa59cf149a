"""Charts made of letters: curves in braille dots, 2x4 of them a character, or in ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Span = tuple[str, str]  # a text, and its style as rich names it; "" for none
Line = list[Span]

_BRAILLE = 0x2800  # the first of Unicode's braille patterns: a bit for each dot
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of the dots of a character, [row, column]
_LABEL = 8  # characters beside the chart, for the numbers of its y axis


@dataclass(frozen=True)
class Curve:
    """A curve through `steps` and `values`, both float64 [N], in `style`; `is_marked` draws its points big."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    style: str
    is_marked: bool = False


def chart(title: str, curves: Sequence[Curve], width: int, height: int, *, is_ascii: bool = False) -> list[Line]:
    """A chart of `width` x `height` characters: a line with `title` and the names of the curves, then the curves.

    Beside it stand the largest and the smallest value, below it the first and the last step. Of a curve with more
    points than there are columns of dots, the mean of those of each column is drawn.
    """
    columns, rows = max(2, width - _LABEL - 1), max(1, height - 2)
    shown = [curve for curve in curves if len(curve.steps)]
    head: Line = [(title, "bold")]
    for curve in shown if len(shown) > 1 else ():
        mark = ("o" if is_ascii else "●") if curve.is_marked else ("." if is_ascii else "⠤")
        head += [("  ", ""), (f"{mark} {curve.name}", curve.style)]
    if not shown:
        empty: list[Line] = [[("", "")] for _ in range(rows - 1)]
        return [_cut(head, width), [(" " * _LABEL + " no numbers yet", "dim")], *empty, [("", "")]]
    first = min(curve.steps.min() for curve in shown)
    last = max(curve.steps.max() for curve in shown)
    binned = [_binned(curve, first, last, 2 * columns) for curve in shown]
    low, high = min(values.min() for _, values in binned), max(values.max() for _, values in binned)
    cells = np.zeros((rows, columns), int)
    styles = np.full((rows, columns), "", object)
    for curve, (xs, values) in zip(shown, binned, strict=True):
        ys = np.rint((high - values) / ((high - low) or 1.0) * (4 * rows - 1)).astype(int)
        if high == low:
            ys[:] = 2 * rows
        _draw(cells, styles, xs, ys, curve.style, is_marked=curve.is_marked)
    labels = {0: as_figure(high), rows - 1: as_figure(low)} if rows > 1 else {0: as_figure(high)}
    lines = [
        [(f"{labels.get(row, ''):>{_LABEL}} ", "dim"), *_spans(cells[row], styles[row], is_ascii)]
        for row in range(rows)
    ]  # fmt: skip
    begin, end = f"{first:.0f}", f"{last:.0f}"
    if len(begin) + 1 + len(end) > columns:
        begin = ""
    below = " " * (_LABEL + 1) + begin + end.rjust(columns - len(begin))
    return [_cut(head, width), *lines, [(below[:width], "dim")]]


def as_figure(value: float) -> str:
    """`value` in at most 8 characters: four digits, as 0.001234, 12.34, 1234 or 1.2e+06."""
    text = f"{value:.4g}"
    return text if len(text) <= _LABEL else f"{value:.1e}"


def plain_text(line: Line) -> str:
    """The line without its styles."""
    return "".join(text for text, _ in line).rstrip()


def beside(charts: Sequence[list[Line]], width: int) -> list[Line]:
    """Charts of equally many lines beside each other, each `width` characters wide."""
    rows: list[Line] = []
    for parts in zip(*charts, strict=True):
        row: Line = []
        for part in parts:
            row += [*part, (" " * max(0, width - len("".join(text for text, _ in part))), "")]
        rows.append(row)
    return rows


def _binned(curve: Curve, first: float, last: float, columns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(columns of dots, values) of a curve, with the mean of those values that are in the same column."""
    share = (curve.steps - first) / ((last - first) or 1.0)
    places = np.rint(share * (columns - 1)).astype(np.int64)
    xs, inverse = np.unique(places, return_inverse=True)
    return xs, np.bincount(inverse, curve.values) / np.bincount(inverse)


def _draw(
    cells: NDArray[np.int64], styles: NDArray[np.object_], xs: NDArray[np.int64], ys: NDArray[np.int64], style: str, *,
    is_marked: bool,
) -> None:  # fmt: skip
    """Draw lines through the dots (x, y): sets their bits in `cells`, int [rows, columns], and the cells' `styles`."""
    for k in range(len(xs)):
        x0, y0, x1, y1 = xs[max(0, k - 1)], ys[max(0, k - 1)], xs[k], ys[k]
        count = max(abs(x1 - x0), abs(y1 - y0)) + 1
        x = np.rint(np.linspace(x0, x1, count)).astype(int)
        y = np.rint(np.linspace(y0, y1, count)).astype(int)
        np.bitwise_or.at(cells, (y // 4, x // 2), _BITS[y % 4, x % 2])
        styles[y // 4, x // 2] = style
    if is_marked:
        cells[ys // 4, xs // 2] = -1  # a big dot in place of small ones
        styles[ys // 4, xs // 2] = style


def _spans(cells: NDArray[np.int64], styles: NDArray[np.object_], is_ascii: bool) -> Line:
    """A row of cells as text, with neighbours of the same style together."""
    spans: Line = []
    for cell, style in zip(cells.tolist(), styles.tolist(), strict=True):
        if cell < 0:
            letter = "o" if is_ascii else "●"
        elif is_ascii:
            letter = "." if cell else " "
        else:
            letter = chr(_BRAILLE + cell) if cell else " "
        if spans and spans[-1][1] == style:
            spans[-1] = spans[-1][0] + letter, style
        else:
            spans.append((letter, style))
    return spans


def _cut(line: Line, width: int) -> Line:
    """The line without what is beyond `width` characters."""
    cut: Line = []
    for text, style in line:
        cut.append((text[: max(0, width)], style))
        width -= len(text)
    return cut
