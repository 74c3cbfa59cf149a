"""Writes the report of one run, or of several side by side, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.output.files import check_writable, write_file
from pipelines.plain_text import valid
from r3d_fast.report.facts import differences
from r3d_fast.report.html_page import render
from r3d_fast.report.run_charts import charts_together, drawn_charts
from r3d_fast.report.run_report import RunReport, run_report
from r3d_fast.runs.fold_results import Folds, read_folds
from r3d_fast.runs.history import RunHistory, is_running, read_history

REPORT = "report.html"  # in the folder of a run


def write_report(runs: Sequence[Path], target: Path, *, ended: bool = False) -> list[str]:
    """Write the report of `runs` to `target`; returns a line for each thing that is missing or damaged in a run.

    `ended`: this process has trained the run, which is over.

    In place of a folder of folds, the page has the folds that have begun, and a line of their mean and spread. What is
    missing or damaged in a run is said on the page. Raises UsageError where one of `runs` is no folder of a run, or one
    of folds of which none has begun or whose folds.json is damaged, or `target` can't be written.
    """
    folds = {run: found for run in runs if (found := read_folds(run)) is not None}
    runs = [single for run in runs for single in (_begun(folds[run]) if run in folds else [run])]
    histories = [read_history(run) for run in runs]
    check_writable(target, "choose another --out")
    names = _names(runs)
    reports = [
        run_report(history, name, number, len(runs), running=not ended and is_running(history.path))
        for number, (history, name) in enumerate(zip(histories, names, strict=True))
    ]
    together = (
        drawn_charts(charts_together(list(zip(names, histories, strict=True))), "all") if len(reports) > 1 else []
    )
    recalls = _recalls(reports) if len(reports) > 1 else []
    notes = [f"{run}: {found.outcome()}" for run, found in folds.items()]
    page = render(reports, together, _unequal_settings(histories), recalls, notes)
    # Names of files may hold bytes that are no UTF-8.
    write_file(target, valid(page).encode(), "choose another --out")
    return [f"{report.history.path}: {problem}" for report in reports for problem in report.problems]


def _begun(folds: Folds) -> list[Path]:
    """The folders of the folds that have begun. Raises UsageError where none has."""
    if not folds.begun:
        raise UsageError(f"{folds.run}: none of its {folds.count} folds has begun; expected one that training wrote")
    return list(folds.begun.values())


def _names(runs: Sequence[Path]) -> list[str]:
    """Folder and parent of a single run; of several the name of each folder, or its path where two have the same."""
    if len(runs) == 1:
        return ["/".join(runs[0].resolve().parts[-2:])]
    names = [run.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def _recalls(reports: Sequence[RunReport]) -> list[tuple[str, list[float | None]]]:
    """(class, its recall in each run) of each class that one of the runs has; None where a run lacks it."""
    tables = [{row.name: row.recall for row in report.classes} for report in reports]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, [table.get(name) for table in tables]) for name in names]


def _unequal_settings(histories: Sequence[RunHistory]) -> list[tuple[str, list[str]]]:
    """(key, its value in each run) of each setting in which the runs differ."""
    tables = [{key: value for key, _, value in differences(history.config)} for history in histories]
    keys = dict.fromkeys(key for table in tables for key in table)
    default = {key: default for history in histories for key, default, _ in differences(history.config)}
    rows = [(key, [table.get(key, default[key]) for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
