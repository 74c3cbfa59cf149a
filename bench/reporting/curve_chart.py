"""The picture of `bench studies accuracy`: learning curves, a thin line a seed and a thick one for their mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.reporting.chart import FAINT, INK, figure_class, write_figure
from pipelines.errors import UsageError

_COLOURS = ("#12805c", "#c2571a", "#3c5fa8", "#8a4b9b", "#6b7278", "#a38a00")
_PANELS = {"top1": ("top1 of the test videos, %", 100.0), "test loss": ("loss of the test videos", 1.0)}


def draw_curves(values: Mapping[str, Any], path: Path) -> None:
    """Write the learning curves of a report of accuracy: against the seconds of training where these ended the runs.

    Else against epochs. Raises what `bench.reporting.chart.draw` raises.
    """
    make, contenders = figure_class(path), values.get("contenders", {})
    if not contenders:
        raise UsageError("a report without curves; expected at least one to draw")
    axis = "epoch" if values["minutes"] is None else "seconds"
    figure = make(figsize=(9.0, 4.2), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    settings = values["settings"]
    title = f"{settings['model']['name']} on {values['data']}: a thin line a seed, a thick one for their mean"
    figure.suptitle(title, x=0.013, ha="left", size=11, weight="bold", color=INK, parse_math=False)
    figure.supxlabel(f"{values['machine']}", x=0.013, ha="left", size=8, color=FAINT, parse_math=False)
    for axes, (key, (label, scale)) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for number, (name, contender) in enumerate(contenders.items()):
            _lines(axes, list(contender["curves"].values()), axis, key, scale, _COLOURS[number % len(_COLOURS)], name)
        _frame(axes, label, "seconds of training" if axis == "seconds" else "epoch")
    figure.axes[0].legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    write_figure(figure, path)


def _lines(axes: Any, curves: list[Any], axis: str, key: str, scale: float, colour: str, name: str) -> None:
    """A thin line a curve, and their mean as far as all of them go."""
    lines = [
        (
            np.array([p[axis] for p in curve], float),
            np.array([np.nan if p[key] is None else scale * p[key] for p in curve]),
        )
        for curve in curves
    ]
    for x, y in lines:
        axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45, marker=".", markersize=4 if len(x) > 1 else 8)
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.unique(np.concatenate([x for x, _ in lines]))
    grid = grid[(grid >= first) & (grid <= last)]
    mean = np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)
    axes.plot(grid, mean, color=colour, linewidth=2.2, label=name, marker="o", markersize=0 if len(grid) > 1 else 7)


def _frame(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, loc="left", size=10, color=INK)
    axes.set_xlabel(below, size=8, color=FAINT)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    axes.grid(color="#e6e8ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
