"""Results as text: one run for the terminal, and the tables of the README from the results files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.reporting import train_tables as train_report
from bench.reporting.gpu_tables import gpu_table, notes, routed
from bench.reporting.results import BASE, TRAIN_KIND, Figures, OtherReport, Report, Run, load_any
from bench.reporting.text import UNKNOWN, aligned, as_rate, count, flat, known, markdown
from pipelines.errors import UsageError

_STAGES = ("read", "decode", "convert", "ship", "augment", "hand-over")


def load_folder(path: str | Path) -> list[Report | OtherReport]:
    """The results files (*.json) of a folder, by name. Raises UsageError where there are none or one is damaged."""
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one with results (*.json)")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UsageError(f"{folder}: no results (*.json) in it; bench loader throughput --json FILE writes one")
    return [load_any(file) for file in files]


def terminal(run: Run) -> str:
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
            _times(run, figures.name),
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
            stages = ", ".join(f"{name} {figures.stages_ms[name]:.2f}" for name in _stages([figures]))
            lines.append(f"{figures.name}, wall ms/clip: {stages}")
    lines += [f"{figures.name}: {line}" for figures in run.figures for line in notes(figures)]
    return "\n".join(lines)


def tables(reports: Sequence[Report | OtherReport], *, brief: bool = False) -> str:
    """Markdown: for each report one table a number of workers, then what else it says; `brief`: the clips/s alone."""
    blocks: list[str] = []
    for report in reports:
        if brief:
            if isinstance(report, Report) and report.runs and report.kind == TRAIN_KIND:
                blocks += [conditions(report, report.runs), *train_report.blocks(report, brief=True)]
            elif isinstance(report, Report):
                for workers in dict.fromkeys(run.workers for run in report.runs):
                    runs = [run for run in report.runs if run.workers == workers]
                    blocks += [conditions(report, runs), _rates(runs, brief=True)]
            continue
        if isinstance(report, OtherReport):
            rows = [[key, value] for key, value in flat(report.values) if key != "kind"]
            blocks += [report.kind, markdown([["what", "value"], *rows], right=())]
            continue
        if report.runs and report.kind == TRAIN_KIND:
            blocks += [conditions(report, report.runs), *train_report.blocks(report, brief=False), *remarks(report)]
            continue
        for workers in dict.fromkeys(run.workers for run in report.runs):
            runs = [run for run in report.runs if run.workers == workers]
            blocks += [conditions(report, runs), _rates(runs), _costs(runs), _stage_table(runs), gpu_table(runs)]
        blocks += remarks(report)
    return "\n\n".join(block for block in blocks if block) + "\n"


def conditions(report: Report, runs: Sequence[Run]) -> str:
    """One line: what the table was measured on, and how."""
    batch = report.settings.get("batch_size", report.settings.get("batch"))
    rounds = " or ".join(count(number, "round") for number in dict.fromkeys(run.rounds for run in runs))
    parts = [
        report.machine.in_words(),
        count(runs[0].workers, "worker"),
        *([train_report.subject(report)] if report.kind == TRAIN_KIND else []),
        *([] if batch is None else [f"batch {batch}"]),
        rounds,
        *([f"commit {report.commit}"] if report.commit else []),
        f"`{report.command}`",
    ]
    return "; ".join(parts) + ":"


def _rates(runs: Sequence[Run], *, brief: bool = False) -> str:
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
            row.append("" if name == BASE or BASE not in run.names else f"{_times(run, name)} x")
        rows.append(row)
    checks = [_frames(runs, name, brief) for name in _contenders(runs)]
    if any(checks):
        rows[0].append("frames")
        for row, check in zip(rows[1:], checks, strict=True):
            row.append(check)
    return markdown(rows, right=range(1, 1 + 2 * len(runs)))


def _costs(runs: Sequence[Run]) -> str:
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


def _stage_table(runs: Sequence[Run]) -> str:
    """A row a contender and sampling that knows its stages; empty where none does."""
    staged = [(run.sampling, figures) for run in runs for figures in run.figures if figures.stages_ms]
    if not staged:
        return ""
    stages = _stages([figures for _, figures in staged])
    rows = [["wall ms a clip", "sampling", *stages]]
    for sampling, figures in staged:
        times = figures.stages_ms or {}
        rows.append([figures.name, sampling, *(known(times.get(stage), 1, 2) for stage in stages)])
    return markdown(rows, right=range(2, len(rows[0])))


def remarks(report: Report) -> list[str]:
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


def _contenders(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.names))


def _stages(known: Sequence[Figures]) -> list[str]:
    """The stages of some contenders, in the order a clip goes through them."""
    names = dict.fromkeys(name for figures in known for name in figures.stages_ms or {})
    return [name for name in _STAGES if name in names] + [name for name in names if name not in _STAGES]


def _frames(runs: Sequence[Run], name: str, brief: bool) -> str:
    """What the check of a contender's frames said: once where it said the same of each sampling."""
    said = {run.sampling: run[name].frames for run in runs if name in run.names}
    if brief:  # the worst of it
        said = {sampling: text.split(", else ")[0] for sampling, text in said.items()}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{sampling}: {text}" for sampling, text in said.items() if text)


def _times(run: Run, name: str) -> str:
    return UNKNOWN if run.base is None else f"{run.ratio(name, run.base)[0]:.2f}"
