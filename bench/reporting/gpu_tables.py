"""How busy the GPU was, as text: lines for the terminal, a table for the pages."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measuring.gpu_use import FIGURES
from bench.reporting.figures import DecoderUse, Figures, MeasuredRun
from bench.reporting.text import UNKNOWN, known, markdown


def notes(figures: Figures) -> list[str]:
    """What else is known of a contender, in lines: who decodes, how busy the GPU was, what the driver didn't tell."""
    lines = []
    if figures.routing:
        lines.append(routed(figures.routing))
    if figures.gpu:
        seen = [
            f"{what} {_figure(figures.gpu.figures[name][0])} (highest {_figure(figures.gpu.figures[name][1])})"
            for name, what in FIGURES.items()
            if name in figures.gpu.figures
        ]
        lines += [f"median of {figures.gpu.samples} samples: {'; '.join(seen)}"] if seen else []
        lines += [f"no figure of {FIGURES[name]}: {reason}" for name, reason in figures.gpu.absent.items()]
    return lines


def gpu_table(runs: Sequence[MeasuredRun]) -> str:
    """A row a contender and run of which GPU figures were taken, then why others are absent; empty where none were."""
    taken = [(run, figures, figures.gpu) for run in runs for figures in run.figures if figures.gpu]
    if not taken:
        return ""
    rows = [["median (highest)", "run", "decoded by DALI", *FIGURES.values(), "PCIe to the GPU, MB a clip"]]
    reasons: dict[str, list[str]] = {}
    for run, figures, use in taken:
        cells = []
        for name, what in FIGURES.items():
            middle, high = use.median(name), use.high(name)
            cells.append(UNKNOWN if middle is None or high is None else f"{_figure(middle)} ({_figure(high)})")
            if name in use.absent:
                reasons.setdefault(f"{what}: {use.absent[name]}", []).append(figures.name)
        moved = use.median("pcie_to_gpu_mb_per_second")
        per_clip = None if moved is None else moved / figures.median
        rows.append([figures.name, run.title, _share(figures), *cells, known(per_clip, 1, 2)])
    lines = [f"- no figure of {reason} ({', '.join(dict.fromkeys(names))})" for reason, names in reasons.items()]
    return "\n\n".join([markdown(rows, right=range(3, len(rows[0]))), *(["\n".join(lines)] if lines else [])])


def _figure(value: float) -> str:
    """`value` with one decimal where it is small, else a whole number."""
    return f"{value:.{0 if value >= 99.95 else 1}f}"


def routed(routing: DecoderUse) -> str:
    """Who decodes, in a line."""
    return f"decoder {routing.decoder}, {100 * routing.share:.0f} % by DALI: {routing.reason}"


def _share(figures: Figures) -> str:
    """The share of clips that DALI decodes, on a GPU by NVDEC."""
    return UNKNOWN if figures.routing is None else f"{100 * figures.routing.share:.0f} %"
