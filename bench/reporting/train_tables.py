"""The results of `bench train throughput` as text."""

from __future__ import annotations

from statistics import median

from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING, Figures, MeasuredRun
from bench.reporting.gpu_tables import gpu_table
from bench.reporting.results import ThroughputReport
from bench.reporting.text import as_rate, count, known, markdown

# The reference's own log and README: Paddle 2.2, float32, jpg frames. Not measured by us.
REFERENCE = (
    "Somebody else's figure, not measured here: justld/3D-ResNets_paddle trains the reference recipe at 65 clips/s on "
    "a V100 (float32, batch 64, frames extracted to jpg beforehand; compute alone 156 clips/s)."
)


def training_lines(report: ThroughputReport) -> str:
    """A line a run for the terminal: its share of the lower ceiling, its waits for data, its steps and losses."""
    return "\n".join(
        f"{run.title}, {count(run.rounds, 'round')}: training gives {percent(run.of_ceiling())} of its lower "
        f"ceiling, waits for data {percent(_waited(run))} of the time, {_ms(run[TRAINING])} ms a step "
        f"({SYNTHETIC} {_ms(run[SYNTHETIC])} ms); loss {_loss(run[TRAINING])}, on one batch {_loss(run[SYNTHETIC])}"
        for run in report.runs
    )


def training_tables(report: ThroughputReport, *, brief: bool) -> list[str]:
    """Markdown: a table with a row a run; in full what it costs and how busy the GPU was."""
    parts = [_rates(report)]
    if not brief:
        parts += [_costs(report), gpu_table(report.runs)]
    if report.settings.get("device") == "gpu":
        parts.append(REFERENCE)
    return parts


def subject(report: ThroughputReport) -> str:
    """What was trained, such as `r3d18_reference of width 64, clips of 16x112x112`."""
    model, width, frames, side = (
        report.settings.get(name, "?") for name in ("model", "width", "num_frames", "size_px")
    )
    return f"{model} of width {width}, clips of {frames}x{side}x{side}"


def percent(values: tuple[float, float, float]) -> str:
    """Median, lowest and highest share as `98 % (97 to 99)`."""
    middle, low, high = (f"{100 * value:.0f}" for value in values)
    return f"{middle} %" if low == high else f"{middle} % ({low} to {high})"


def _rates(report: ThroughputReport) -> str:
    rows = [
        [
            "precision", "layout", f"{TRAINING}: clips/s (low to high)", f"{SYNTHETIC} (compute alone)",
            f"{LOADER} (data alone)", "of the lower of the two", "waited for data",
        ]
    ]  # fmt: skip
    for run in report.runs:
        rates = [
            f"{as_rate(run[name].median)} ({as_rate(run[name].low)} to {as_rate(run[name].high)})"
            for name in (TRAINING, SYNTHETIC, LOADER)
        ]
        rows.append([run.precision or "", run.layout or "", *rates, percent(run.of_ceiling()), percent(_waited(run))])
    return markdown(rows, right=range(2, len(rows[0])))


def _costs(report: ThroughputReport) -> str:
    rows = [
        [
            "precision", "layout", f"{TRAINING}: ms a step", f"{SYNTHETIC}: ms a step",
            *(f"{name}: CPU ms a clip" for name in (TRAINING, SYNTHETIC, LOADER)), f"{LOADER}: kB read a clip",
            f"{SYNTHETIC}: loss, first to last", f"{TRAINING}: loss, first to last",
        ]
    ]  # fmt: skip
    for run in report.runs:
        steps = [_ms(run[name]) for name in (TRAINING, SYNTHETIC)]
        cpu = [known(run[name].cpu_ms, 1, 1) for name in (TRAINING, SYNTHETIC, LOADER)]
        losses = [_loss(run[name]) for name in (SYNTHETIC, TRAINING)]
        read = known(run[LOADER].bytes_per_clip, 1e-3, 0)
        rows.append([run.precision or "", run.layout or "", *steps, *cpu, read, *losses])
    return markdown(rows, right=range(2, len(rows[0])))


def _waited(run: MeasuredRun) -> tuple[float, float, float]:
    waited = run[TRAINING].waited
    return median(waited), min(waited), max(waited)


def _ms(figures: Figures) -> str:
    return as_rate(median(figures.step_ms)) if figures.step_ms else known(None, 1, 0)


def _loss(figures: Figures) -> str:
    return f"{figures.loss[0]:.2f} to {figures.loss[1]:.2f}" if figures.loss else known(None, 1, 0)
