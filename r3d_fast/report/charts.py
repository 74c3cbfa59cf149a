"""Curves of a run as SVG for an HTML page, drawn by matplotlib.

The colours are CSS variables of the page (`--muted`, `--line`, `--c0` to `--c7`), so that a chart is right on a light
and on a dark page. Texts stay texts, in the font of the page. Names of runs are not drawn: the page has them in a
legend of its own.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Drawn = Literal["noisy", "mean", "exact", "points", "level"]
COLOURS = 8  # curves with a colour of their own; further ones begin again
_MOST_POINTS = 300  # of a curve: about one for each pixel of its width
_SMOOTHED = 30  # a smoothed curve averages over this part of its points
_SIZE = (4.4, 2.5)  # inches of 72 units: on a phone one unit is about one px
_FONT_SIZE = 9.0
# matplotlib takes colours, but no names of variables: these stand for them in what it draws.
_STAND_INS = {"muted": "#010204", "line": "#010205"} | {
    f"c{number}": f"#0102{number + 16:02x}" for number in range(COLOURS)
}


@dataclass(frozen=True)
class Curve:
    """One curve: `x` and `y` float64 [N], drawn in the colour `colour`.

    `drawn` says how: "noisy" for a value a step (faint, with its moving mean), "mean" for that mean alone, "exact" for
    the values alone, "points" for evaluations, "level" for a horizontal line at the one value of `y`. `name` is for the
    legend; "" is not in it.
    """

    name: str
    x: Values
    y: Values
    colour: int
    drawn: Drawn


@dataclass(frozen=True)
class Chart:
    """A chart of `curves` over the steps of training, from 0 up; with `percent` the values are fractions 0 to 1."""

    title: str
    about: str
    curves: tuple[Curve, ...]
    percent: bool = False

    @property
    def legend(self) -> list[tuple[str, int, str]]:
        """(name, colour, how it is drawn) of each curve that has a name, each once."""
        return list(dict.fromkeys((curve.name, curve.colour, curve.drawn) for curve in self.curves if curve.name))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(len(curve.y) == 0 for curve in self.curves if curve.drawn != "level")


def draw_chart(chart: Chart, key: str) -> str:
    """The chart as an SVG element with title and description. `key` begins its ids, so that those of others differ."""
    import matplotlib as mpl  # takes half a second
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": key, "path.simplify": False, "font.family": "DejaVu Sans"}
    with mpl.rc_context({**settings, "font.size": _FONT_SIZE}):
        figure = Figure(figsize=_SIZE, layout="constrained", facecolor="none")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _style(axes, chart.percent)
        for number, curve in enumerate(chart.curves):
            _draw(axes, curve, number)
        low, high = axes.get_ylim()
        axes.set_ylim(0.0, 1.02 if chart.percent and high > 0.5 else max(high, 1e-9) if low >= 0.0 else high)
        file = io.StringIO()
        canvas.print_svg(file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _for_page(file.getvalue(), chart, key)


def thinned(x: Values, y: Values) -> tuple[Values, Values]:
    """(x, y) float64 [M] with at most 300 points: the means of as many neighbours as it takes."""
    size = -(-len(y) // _MOST_POINTS)
    if size <= 1:
        return x, y
    starts = np.arange(0, len(y), size)
    lengths = np.diff([*starts, len(y)])
    return np.add.reduceat(x, starts) / lengths, np.add.reduceat(y, starts) / lengths


def smoothed(y: Values) -> Values:
    """The moving mean float64 [N] over a thirtieth of the points; at the ends over those that are there."""
    width = max(1, len(y) // _SMOOTHED) | 1  # odd, so that its middle is a point
    window = np.ones(width)
    mean: Values = np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")
    return mean


def _style(axes: Any, percent: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_STAND_INS["line"])
    axes.tick_params(colors=_STAND_INS["muted"], length=0)
    axes.grid(axis="y", color=_STAND_INS["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("step", color=_STAND_INS["muted"])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _draw(axes: Any, curve: Curve, number: int) -> None:
    """Draw `curve`, the chart's `number`; ids end in that number."""
    if len(curve.y) == 0:
        return
    colour = _STAND_INS[f"c{curve.colour % COLOURS}"]
    dashes = "-" if curve.colour < COLOURS else "--"
    if curve.drawn == "level":
        axes.axhline(float(curve.y[0]), color=_STAND_INS["muted"], linewidth=1.2, linestyle=(0, (2, 3)))
        return
    if curve.drawn == "points":
        name = f"points{number}"
        axes.plot(curve.x, curve.y, dashes, color=colour, linewidth=1.4, marker="o", markersize=2.6, gid=name)
        return
    x, y = thinned(curve.x, curve.y)
    if curve.drawn == "noisy":
        axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.35, gid=f"values{number}")
    shown = y if curve.drawn == "exact" else smoothed(y)
    axes.plot(x, shown, dashes, color=colour, linewidth=1.4, gid=f"{curve.drawn}{number}")


def _for_page(svg: str, chart: Chart, key: str) -> str:
    """The `svg` element of matplotlib's file, with ids of its own, variables for colours, a title and a description."""
    from html import escape

    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", body, flags=re.S)  # the style would be that of the whole page
    body = re.sub(r"font: ([\d.]+px) [^;\"]*|font-family: [^;\"]*; ", _font, body)
    body = re.sub(r'(id=")|(href="#)|(url\(#)', lambda found: f"{found[0]}{key}-", body)
    for name, colour in _STAND_INS.items():
        body = body.replace(colour, f"var(--{name})")
    width, height = (72 * side for side in _SIZE)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{key}-title {key}-about">'
        f'<title id="{key}-title">{escape(chart.title)}</title><desc id="{key}-about">{escape(chart.about)}</desc>'
        f"{body.strip()}"
    )


def _font(declaration: re.Match[str]) -> str:
    """The size of the text alone: its family is that of the page. matplotlib writes both as one or as two."""
    return f"font-size: {declaration[1]}" if declaration[1] else ""
