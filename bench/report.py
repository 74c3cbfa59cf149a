"""Results as text: one run for the terminal, and the tables of the README from the results files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.results import BASE, Figures, OtherReport, Report, Run, load_any
from pipelines.errors import UsageError

_STAGES = ("read", "decode", "convert", "ship", "augment", "hand-over")
_UNKNOWN = "-"


def as_rate(value: float) -> str:
    """Clips or frames per second with the digits that mean something."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


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
            _known(figures.cpu_ms, 1, 1),
            _known(figures.bytes_per_clip, 1e-3, 0),
            _times(run, figures.name),
            figures.frames,
        ]
        for figures in run.figures
    ]
    title = f"{run.sampling}, {_count(run.workers, 'worker')}, {_count(run.rounds, 'round')}"
    lines = [f"{title}; x: how many times its clips/s {BASE} gives, median of the rounds", *_aligned([header, *rows])]
    for figures in run.figures:
        if figures.stages_ms:
            stages = ", ".join(f"{name} {figures.stages_ms[name]:.2f}" for name in _stages([figures]))
            lines.append(f"{figures.name}, wall ms/clip: {stages}")
    return "\n".join(lines)


def tables(reports: Sequence[Report | OtherReport], *, brief: bool = False) -> str:
    """Markdown: for each report one table a number of workers, then what else it says; `brief`: the clips/s alone."""
    blocks: list[str] = []
    for report in reports:
        if brief:
            if isinstance(report, Report):
                for workers in dict.fromkeys(run.workers for run in report.runs):
                    runs = [run for run in report.runs if run.workers == workers]
                    blocks += [_conditions(report, runs), _rates(runs, brief=True)]
            continue
        if isinstance(report, OtherReport):
            rows = [[key, value] for key, value in _flat(report.values) if key != "kind"]
            blocks += [report.kind, _markdown([["what", "value"], *rows], right=())]
            continue
        for workers in dict.fromkeys(run.workers for run in report.runs):
            runs = [run for run in report.runs if run.workers == workers]
            blocks += [_conditions(report, runs), _rates(runs), _costs(runs), _stage_table(runs)]
        blocks += _remarks(report)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _conditions(report: Report, runs: Sequence[Run]) -> str:
    """One line: what the table was measured on, and how."""
    batch = report.settings.get("batch_size", report.settings.get("batch"))
    rounds = " or ".join(_count(number, "round") for number in dict.fromkeys(run.rounds for run in runs))
    parts = [
        report.machine.in_words(),
        _count(runs[0].workers, "worker"),
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
                row += [_UNKNOWN, _UNKNOWN]
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
    return _markdown(rows, right=range(1, 1 + 2 * len(runs)))


def _costs(runs: Sequence[Run]) -> str:
    """A row a contender: of each sampling, CPU time and bytes read; empty where nothing is known."""
    rows = [["contender"]]
    for run in runs:
        rows[0] += [f"{run.sampling}: CPU ms a clip", f"{run.sampling}: kB read a clip"]
    for name in _contenders(runs):
        row = [name]
        for run in runs:
            figures = run[name] if name in run.names else None
            row.append(_known(figures.cpu_ms if figures else None, 1, 1))
            row.append(_known(figures.bytes_per_clip if figures else None, 1e-3, 0))
        if set(row[1:]) != {_UNKNOWN}:
            rows.append(row)
    return _markdown(rows, right=range(1, len(rows[0]))) if len(rows) > 1 else ""


def _stage_table(runs: Sequence[Run]) -> str:
    """A row a contender and sampling that knows its stages; empty where none does."""
    known = [(run.sampling, figures) for run in runs for figures in run.figures if figures.stages_ms]
    if not known:
        return ""
    stages = _stages([figures for _, figures in known])
    rows = [["wall ms a clip", "sampling", *stages]]
    for sampling, figures in known:
        times = figures.stages_ms or {}
        rows.append([figures.name, sampling, *(_known(times.get(stage), 1, 2) for stage in stages)])
    return _markdown(rows, right=range(2, len(rows[0])))


def _remarks(report: Report) -> list[str]:
    """What was not measured, and the further figures."""
    remarks = []
    if report.missing:
        listed = ", ".join(f"{peer} (`{line}`)" for peer, line in report.missing.items())
        remarks.append(f"Not installed there: {listed}.")
    if report.excluded:
        reasons = Counter(clip["reason"] for clip in report.excluded).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        remarks.append(f"{_count(len(report.excluded), 'clip')} left out as not readable: {listed}.")
    if report.extra:
        remarks.append("\n".join(f"- {key}: {value}" for key, value in _flat(report.extra)))
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
    return f"{run.ratio(name)[0]:.2f}" if BASE in run.names else _UNKNOWN


def _known(value: float | None, scale: float, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value * scale:.{digits}f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each value, however deep; lists of plain values stay in one piece."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}, {key}" if prefix else str(key))
    elif isinstance(values, list) and any(isinstance(value, dict | list) for value in values):
        for number, value in enumerate(values, 1):
            yield from _flat(value, f"{prefix} {number}".strip())
    elif isinstance(values, list):
        yield prefix, ", ".join(_plain(value) for value in values)
    else:
        yield prefix, _plain(values)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return value if isinstance(value, str) else json.dumps(value)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns of equal width: the first and the last to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if number in (0, last) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _markdown(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """A Markdown table; the columns in `right` hold figures."""
    rule = ["---:" if number in right else "---" for number in range(len(rows[0]))]
    clean = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [clean[0], rule, *clean[1:]])
