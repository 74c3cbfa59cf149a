"""The picture of the README: clips per second of all contenders."""

from __future__ import annotations

import textwrap
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.reporting.figures import BASE, TRAINING, Figures, MeasuredRun
from bench.reporting.results import TRAIN_KIND, ThroughputReport
from bench.reporting.text import as_rate
from pipelines.errors import UsageError
from pipelines.output.files import write_file

_WIDTH = 9.0  # inches
_DPI = 200  # twice the 900 pixels it is shown at, for sharp screens
_OWN, _VARIANT, _PEER, INK, FAINT = "#12805c", "#7fb8a4", "#c4c8cc", "#22262a", "#6b7278"
_TITLES = ("Clips per second, from video file to batch", "Clips per second in training, and its two ceilings")


def draw(report: ThroughputReport, path: str | Path) -> None:
    """Write a bar chart, one panel a run, of the report's first number of workers.

    Raises UsageError for a name that doesn't end in .png or .svg, a report without runs, or a file that can't be
    written, and EnvironmentProblem where matplotlib is missing.
    """
    path = Path(path)
    make = figure_class(path)
    if not report.runs:
        raise UsageError("a report without runs; expected at least one to draw")
    write_figure(_figure(report, make), path)


def write_figure(figure: Any, path: Path) -> None:
    """Write a matplotlib figure as the name of `path` says. Raises UsageError where that can't be written."""
    kind = path.suffix.lower().removeprefix(".")
    picture = BytesIO()  # pipes can't be sought in
    # Without the date, a chart that is drawn again doesn't look changed.
    figure.savefig(picture, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else None)
    write_file(path, picture.getvalue())


def figure_class(path: Path) -> Any:
    """The Figure class of matplotlib, if `path` can become a chart. Raises what `draw` raises."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{path}: expected a name that ends in .png or .svg")
    from matplotlib.figure import Figure  # takes half a second to import

    return Figure


def _figure(report: ThroughputReport, make: Any) -> Any:
    """The matplotlib figure; `make` is its class."""
    runs = [run for run in report.runs if run.workers == report.runs[0].workers]
    footer = _footer(report, runs[0])
    bars = [len(run.figures) for run in runs]
    height = 0.55 + sum(0.3 * number + 0.75 for number in bars) + 0.2 * footer.count("\n") + 0.35
    figure = make(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, hspace=0.04)
    figure.suptitle(_TITLES[report.kind == TRAIN_KIND], x=0.013, ha="left", size=13, weight="bold", color=INK)
    # supxlabel is placed under the panels by the layout.
    figure.supxlabel(footer, x=0.013, ha="left", size=8, color=FAINT, parse_math=False)
    panels = figure.subplots(len(runs), 1, squeeze=False, height_ratios=[number + 0.5 for number in bars])
    for axes, run in zip(panels[:, 0], runs, strict=True):
        _panel(axes, run)
    return figure


def _panel(axes: Any, run: MeasuredRun) -> None:
    """Draw one run, the fastest contender on top."""
    ranked = sorted(run.figures, key=lambda figures: figures.median, reverse=True)
    for row, figures in enumerate(ranked):
        axes.barh(row, figures.median, height=0.68, **_look(figures, run.base))
        whisker = [[figures.median - figures.low], [figures.high - figures.median]]
        axes.errorbar(figures.median, row, xerr=whisker, color=INK, capsize=3, elinewidth=1, capthick=1)
        is_base = figures.name == run.base
        axes.annotate(
            as_rate(figures.median), (figures.high, row), (6, 0), textcoords="offset points",
            va="center", size=9, color=INK, weight="bold" if is_base else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        if run.base is not None and not is_base:
            _aside(axes, f"{run.ratio(figures.name, run.base)[0]:.2f} x", row)
    if run.base is not None:
        _aside(axes, f"{run.base} is", -0.8, size=8, color=FAINT)
    axes.set_yticks(range(len(ranked)), [figures.name for figures in ranked], size=9, color=INK, parse_math=False)
    for label, figures in zip(axes.get_yticklabels(), ranked, strict=True):
        label.set_weight("bold" if figures.name == run.base else "normal")
    axes.set_ylim(len(ranked) - 0.45, -0.55)
    axes.set_xlim(0, 1.12 * max(figures.high for figures in ranked))
    frames = " or ".join(str(number) for number in sorted({figures.frames_per_clip for figures in ranked}))
    axes.set_title(f"{run.title}, {frames} frames a clip", loc="left", size=10, color=INK, parse_math=False)
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT, axis="x")
    axes.tick_params(length=0, axis="y")
    axes.grid(axis="x", color="#e6e8ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(side == "left")
    axes.spines["left"].set_color(FAINT)


def _aside(axes: Any, text: str, row: float, size: int = 9, color: str = INK) -> None:
    """Write in the column right of the bars."""
    axes.annotate(
        text, (1, row), (40, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha="right", va="center", size=size, color=color, annotation_clip=False,
    )  # fmt: skip


def _look(figures: Figures, base: str | None) -> dict[str, Any]:
    """How a bar is drawn: the base strong, its variants light, a ceiling only outlined, the others grey."""
    if "ceiling" in figures.name or (base == TRAINING and figures.name != base):
        return {"facecolor": "white", "edgecolor": FAINT, "hatch": "////", "linewidth": 0.8, "alpha": 0.7}
    if figures.name == base:
        return {"color": _OWN}
    return {"color": _VARIANT if figures.name.startswith(BASE) else _PEER}


def _footer(report: ThroughputReport, run: MeasuredRun) -> str:
    """What it was measured on and how, in lines that fit."""
    workers = "1 worker" if run.workers == 1 else f"{run.workers} workers"
    batch = report.settings.get("batch_size", report.settings.get("batch"))
    parts = [
        workers if batch is None else f"{workers}, batch {batch}",
        f"median of {run.rounds} rounds in turns, whiskers from lowest to highest" if run.rounds > 1 else "one round",
        *([f"commit {report.commit}"] if report.commit else []),
    ]
    return "\n".join(textwrap.fill(line, 145) for line in (report.machine.in_words(), "; ".join(parts)))
