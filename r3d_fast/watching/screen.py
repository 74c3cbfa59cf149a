"""The page that `watch` shows: a few lines of figures, and as many charts as there is room for."""

from __future__ import annotations

from collections.abc import Sequence

from r3d_fast.runs.history import RunHistory, series
from r3d_fast.runs.metrics_file import Record
from r3d_fast.watching.braille_chart import Curve, Line, beside, chart
from r3d_fast.watching.overview import Overview

_CHART_WIDTH, _CHART_HEIGHT = 40, 9  # characters; at least so large a chart is of use
_TRAIN, _TEST, _OTHER = "cyan", "magenta", "green"
_MOST_POINTS = 20_000  # of a curve; of a longer one every second, third ... is taken


def screen(overview: Overview, width: int, height: int, *, is_ascii: bool = False) -> list[Line]:
    """The page for a run, at most `height` lines of `width` characters."""
    lines: list[Line] = [[(line[:width], "bold" if not k else "")] for k, line in enumerate(overview.headlines())]
    charts = _charts(overview.history)
    across = max(1, min(3, width // _CHART_WIDTH))
    down = min(-(-len(charts) // across), (height - len(lines)) // _CHART_HEIGHT)
    if not overview.history.steps or down < 1:
        return lines[:height]
    tall, wide = (height - len(lines)) // down, width // across
    for row in range(down):
        drawn = [
            chart(title, curves, wide - 1, tall, is_ascii=is_ascii)
            for title, curves in charts[row * across : (row + 1) * across]
        ]
        lines += beside(drawn, wide)
    return lines


def _charts(history: RunHistory) -> list[tuple[str, list[Curve]]]:
    """The charts, each with its title; the most important ones first."""
    steps, tests = _thinned(history.steps), _thinned(history.evaluations)

    def of_both(key: str, factor: float = 1.0) -> list[Curve]:
        return [_curve("train", steps, key, _TRAIN, factor), _curve("test", tests, key, _TEST, factor, is_marked=True)]

    return [
        ("loss", of_both("loss")),
        ("top1 %", of_both("top1", 100.0)),
        ("learning rate", [_curve("", steps, "lr", _OTHER)]),
        ("clips/s", [_curve("", steps, "clips_per_second", _OTHER)]),
        ("waits for data %", [_curve("", steps, "wait_share", _OTHER, 100.0)]),
    ]


def _curve(
    name: str, records: Sequence[Record], key: str, style: str, factor: float = 1.0, *, is_marked: bool = False
) -> Curve:
    steps, values = series(records, key)
    return Curve(name, steps, factor * values, style, is_marked)


def _thinned(records: Sequence[Record]) -> Sequence[Record]:
    return records[:: max(1, len(records) // _MOST_POINTS)]
