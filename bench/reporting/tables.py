"""The reports of a folder as Markdown: the tables of docs/speed.md and of bench/results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.reporting.accuracy_tables import ACCURACY_KIND, accuracy_tables
from bench.reporting.figures import BASE, MeasuredRun, stages_of
from bench.reporting.gpu_tables import gpu_table, routed
from bench.reporting.results import TRAIN_KIND, Report, StudyReport, ThroughputReport, load_any
from bench.reporting.text import UNKNOWN, as_rate, count, flat, known, markdown
from bench.reporting.train_tables import subject, training_tables
from pipelines.errors import UsageError


def load_folder(path: str | Path) -> list[Report]:
    """The results files (*.json) of a folder, by name. Raises UsageError where there are none or one is damaged."""
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one with results (*.json)")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UsageError(f"{folder}: no results (*.json) in it; bench loader throughput --json FILE writes one")
    return [load_any(file) for file in files]


def tables(reports: Sequence[Report], *, brief: bool = False) -> str:
    """Markdown: the tables of each report, then what else it says; `brief`: only clips/s, and no studies."""
    blocks: list[str] = []
    for report in reports:
        if isinstance(report, ThroughputReport):
            blocks += _throughput_tables(report, brief=brief)
        elif not brief:
            blocks += _study_table(report)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _study_table(report: StudyReport) -> list[str]:
    """The kind of the study, and a row a figure; those of accuracy have tables of their own."""
    if report.kind == ACCURACY_KIND:
        return [report.kind, *accuracy_tables(report.values)]
    rows = [[key, value] for key, value in flat(report.values) if key != "kind"]
    return [report.kind, markdown([["what", "value"], *rows], right=())]


def _throughput_tables(report: ThroughputReport, *, brief: bool) -> list[str]:
    """What it was measured on, and its tables: of the loader a set a number of workers, of training one for all."""
    blocks: list[str] = []
    if report.runs and report.kind == TRAIN_KIND:
        blocks += [conditions(report, report.runs), *training_tables(report, brief=brief)]
    else:
        for workers in dict.fromkeys(run.workers for run in report.runs):
            runs = [run for run in report.runs if run.workers == workers]
            blocks += [conditions(report, runs), _rates(runs, brief=brief)]
            if not brief:
                blocks += [_costs(runs), _stage_table(runs), gpu_table(runs)]
    return blocks if brief else [*blocks, *remarks(report)]


def conditions(report: ThroughputReport, runs: Sequence[MeasuredRun]) -> str:
    """One line: what the table was measured on, and how."""
    batch = report.settings.get("batch_size", report.settings.get("batch"))
    rounds = " or ".join(count(number, "round") for number in dict.fromkeys(run.rounds for run in runs))
    parts = [
        report.machine.in_words(),
        count(runs[0].workers, "worker"),
        *([subject(report)] if report.kind == TRAIN_KIND else []),
        *([] if batch is None else [f"batch {batch}"]),
        rounds,
        *([f"commit {report.commit}"] if report.commit else []),
        f"`{report.command}`",
    ]
    return "; ".join(parts) + ":"


def _rates(runs: Sequence[MeasuredRun], *, brief: bool = False) -> str:
    """A row a contender: of each sampling, clips/s and the ratio; last what the check of the frames said."""
    rows = [["contender"]]
    for run in runs:
        rows[0] += [f"{run.sampling}: clips/s (low to high)", f"{run.sampling}: {BASE} is"]
    for name in _contenders(runs):
        row = [name]
        for run in runs:
            if name not in run.names:
                row += [UNKNOWN, UNKNOWN]
                continue
            figures = run[name]
            row.append(f"{as_rate(figures.median)} ({as_rate(figures.low)} to {as_rate(figures.high)})")
            row.append("" if name == BASE or BASE not in run.names else f"{known(run.median_ratio(name), 1, 2)} x")
        rows.append(row)
    checks = [_frames(runs, name, brief) for name in _contenders(runs)]
    if any(checks):
        rows[0].append("frames")
        for row, check in zip(rows[1:], checks, strict=True):
            row.append(check)
    return markdown(rows, right=range(1, 1 + 2 * len(runs)))


def _costs(runs: Sequence[MeasuredRun]) -> str:
    """A row a contender: of each sampling, CPU time and bytes read; empty where nothing is known."""
    rows = [["contender"]]
    for run in runs:
        rows[0] += [f"{run.sampling}: CPU ms a clip", f"{run.sampling}: kB read a clip"]
    for name in _contenders(runs):
        row = [name]
        for run in runs:
            figures = run[name] if name in run.names else None
            row.append(known(figures.cpu_ms if figures else None, 1, 1))
            row.append(known(figures.bytes_per_clip if figures else None, 1e-3, 0))
        if set(row[1:]) != {UNKNOWN}:
            rows.append(row)
    return markdown(rows, right=range(1, len(rows[0]))) if len(rows) > 1 else ""


def _stage_table(runs: Sequence[MeasuredRun]) -> str:
    """A row a contender and sampling that knows its stages; empty where none does."""
    staged = [(run.sampling, figures) for run in runs for figures in run.figures if figures.stages_ms]
    if not staged:
        return ""
    stages = stages_of([figures for _, figures in staged])
    rows = [["wall ms a clip", "sampling", *stages]]
    for sampling, figures in staged:
        times = figures.stages_ms or {}
        rows.append([figures.name, sampling, *(known(times.get(stage), 1, 2) for stage in stages)])
    return markdown(rows, right=range(2, len(rows[0])))


def remarks(report: ThroughputReport) -> list[str]:
    """Who decoded, what was not measured, and the further figures."""
    remarks = []
    routes = [
        f"- {run.title}, {count(run.workers, 'worker')}: {figures.name}: {routed(figures.routing)}"
        for run in report.runs
        for figures in run.figures
        if figures.routing
    ]
    if routes:
        remarks.append("\n".join(routes))
    if report.missing:
        listed = ", ".join(f"{peer} (`{line}`)" for peer, line in report.missing.items())
        remarks.append(f"Not installed there: {listed}.")
    if report.excluded:
        reasons = Counter(clip["reason"] for clip in report.excluded).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        remarks.append(f"{count(len(report.excluded), 'clip')} left out as not readable: {listed}.")
    if report.extra:
        remarks.append("\n".join(f"- {key}: {value}" for key, value in flat(report.extra)))
    return remarks


def _contenders(runs: Sequence[MeasuredRun]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.names))


def _frames(runs: Sequence[MeasuredRun], name: str, brief: bool) -> str:
    """What the check of a contender's frames said: once where it said the same of each sampling."""
    said = {run.sampling: run[name].frames for run in runs if name in run.names}
    if brief:  # the worst of it
        said = {sampling: text.split(", else ")[0] for sampling, text in said.items()}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{sampling}: {text}" for sampling, text in said.items() if text)
