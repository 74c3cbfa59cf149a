"""What a throughput command prints: its report as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from bench.reporting.figures import MeasuredRun, stages_of
from bench.reporting.gpu_tables import notes
from bench.reporting.results import TRAIN_KIND, ThroughputReport
from bench.reporting.text import aligned, as_rate, count, known
from bench.reporting.train_tables import subject, training_lines


def as_text(report: ThroughputReport) -> str:
    """The whole report: what was measured, a table a run, and what else there is to say."""
    trains = report.kind == TRAIN_KIND
    batch, frames = (report.settings.get(name, "?") for name in ("batch_size", "num_frames"))
    what = f"{subject(report)}; batch {batch}" if trains else f"batch {batch}, {frames} frames"
    blocks = [f"{report.machine.in_words()}; {what}", *map(run_table, report.runs)]
    blocks += [training_lines(report)] if trains else []
    return "\n\n".join(blocks) + "\n" + "".join(f"\n{line}" for line in _closing_lines(report))


def run_table(run: MeasuredRun) -> str:
    """The run as an aligned table, its stages below."""
    header = ["contender", "clips/s", "low - high", "frames/s", "CPU ms/clip", "kB/clip", "x", "frames"]
    rows = [
        [
            figures.name,
            as_rate(figures.median),
            f"{as_rate(figures.low)} - {as_rate(figures.high)}",
            as_rate(figures.frames_per_second),
            known(figures.cpu_ms, 1, 1),
            known(figures.bytes_per_clip, 1e-3, 0),
            known(run.median_ratio(figures.name), 1, 2),
            figures.frames,
        ]
        for figures in run.figures
    ]
    title = f"{run.title}, {count(run.workers, 'worker')}, {count(run.rounds, 'round')}"
    lines = [f"{title}; x: how many times its clips/s {run.base} gives, median of the rounds"]
    if not any(figures.frames for figures in run.figures):
        header, *rows = [row[:-1] for row in (header, *rows)]
    lines += aligned([header, *rows])
    for figures in run.figures:
        if figures.stages_ms:
            stages = ", ".join(f"{name} {figures.stages_ms[name]:.2f}" for name in stages_of([figures]))
            lines.append(f"{figures.name}, wall ms/clip: {stages}")
    lines += [f"{figures.name}: {line}" for figures in run.figures for line in notes(figures)]
    return "\n".join(lines)


def _closing_lines(report: ThroughputReport) -> Iterator[str]:
    """What is said below the tables: the videos left out, peers that are not installed, further figures."""
    for clip in report.excluded:
        yield f"left out: {clip['path']}: {clip['reason']}"
    if report.excluded:
        yield f"left out in all: {len(report.excluded)} videos"
    for name, line in report.missing.items():
        yield f"not installed: {name}: {line}"
    for name, value in report.extra.items():
        if isinstance(value, dict) and set(value) == {"median", "low", "high"}:
            yield f"{name}: {value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
        elif isinstance(value, dict):
            yield from (f"{name}: {key}: {what}" for key, what in value.items())
        else:
            yield f"{name}: {value}"
