"""Which charts a report has: accuracy, loss, learning rate, speed and waiting, of one run or of several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r3d_fast.report.charts import Chart, Curve, Drawn, draw_chart
from r3d_fast.report.standing import evaluated_split
from r3d_fast.runs.history import RunHistory, of_kind, series

# Title, key in metrics.jsonl, how it is drawn, whether it is a fraction.
_PACE: tuple[tuple[str, str, Drawn, bool], ...] = (
    ("Learning rate", "lr", "exact", False),
    ("Speed in clips/s", "clips_per_second", "noisy", False),
    ("Share of the time spent waiting for clips", "wait_share", "noisy", True),
)


@dataclass(frozen=True)
class DrawnChart:
    """A chart and its SVG."""

    chart: Chart
    svg: str


def run_charts(history: RunHistory, majority: float | None) -> list[Chart]:
    """The charts of one run; `majority` is the top1 of always saying the largest class."""
    steps, evaluations = history.steps, history.evaluations
    legend = evaluated_split(history).legend
    level = () if majority is None else (_level(majority),)
    top1 = (
        Curve("training, moving mean", *series(steps, "top1"), 0, "mean"),
        Curve(legend, *series(evaluations, "top1"), 1, "points"),
    )
    loss = (
        Curve("training", *series(steps, "loss"), 0, "noisy"),
        Curve(legend, *series(evaluations, "loss"), 1, "points"),
    )
    return [
        _chart("Accuracy (top1)", (*top1, *level), percent=True),
        _chart("Loss", loss),
        *(_chart(title, (Curve("", *series(steps, key), 0, drawn),), percent) for title, key, drawn, percent in _PACE),
    ]


def charts_together(runs: Sequence[tuple[str, RunHistory]]) -> list[Chart]:
    """The charts of several runs, given as (name, history), a colour a run."""
    named = [(name, _evaluated(name, history), history) for name, history in runs]

    def of_all(kind: str, key: str, drawn: Drawn) -> tuple[Curve, ...]:
        return tuple(
            Curve(title if kind == "eval" else name, *series(of_kind(history.records, kind), key), colour, drawn)
            for colour, (name, title, history) in enumerate(named)
        )

    return [
        _chart("Accuracy (top1) in evaluations", of_all("eval", "top1", "points"), percent=True),
        _chart("Loss in evaluations", of_all("eval", "loss", "points")),
        _chart("Accuracy (top1) in training, moving mean", of_all("train", "top1", "mean"), percent=True),
        _chart("Loss in training, moving mean", of_all("train", "loss", "mean")),
        *(
            _chart(title, of_all("train", key, "exact" if drawn == "exact" else "mean"), percent)
            for title, key, drawn, percent in _PACE
        ),
    ]


def _evaluated(name: str, history: RunHistory) -> str:
    """The name of a run beside its evaluations: said is where they are of videos that it was trained on."""
    split = evaluated_split(history)
    return f"{name} ({split.legend})" if split.is_trained_on else name


def _level(share: float) -> Curve:
    return Curve("always the largest class", np.zeros(1), np.array([share]), 0, "level")


def _chart(title: str, curves: tuple[Curve, ...], percent: bool = False) -> Chart:
    """The chart with a description in words, for those who can't see it."""

    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if percent else f"{value:.4g}"

    about = [
        f"{curve.name or title}: at first {shown(curve.y[0])}, at last {shown(curve.y[-1])}, "
        f"lowest {shown(curve.y.min())}, highest {shown(curve.y.max())}, up to step {curve.x.max():.0f}."
        for curve in curves
        if len(curve.y) and curve.drawn != "level"
    ]
    return Chart(title, " ".join(about), curves, percent)


def drawn_charts(charts: Sequence[Chart], key: str) -> list[DrawnChart]:
    """Those of `charts` that have something to show, drawn; their ids begin with `key`."""
    return [
        DrawnChart(chart, draw_chart(chart, f"{key}-chart{number}"))
        for number, chart in enumerate(charts)
        if not chart.is_empty
    ]
