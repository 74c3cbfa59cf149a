"""All that a report says of one run, gathered from the files of the run and, for frames, from its data set."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.checks.check import Check
from pipelines.checks.findings import Finding, findings_of
from pipelines.checks.index_check import check_index
from pipelines.index.video_index import VideoIndex
from r3d_fast.report.class_tables import ClassRow, ConfusedPair, Confusion, class_rows, confused_pairs, confusion
from r3d_fast.report.clip_pictures import Picture, clip_pictures
from r3d_fast.report.facts import (
    Fact,
    data_facts,
    differences,
    environment_facts,
    progress_of,
    run_facts,
    training_counts,
)
from r3d_fast.report.mistakes import Judged, judged_videos, opened_index, with_strips, worst_videos
from r3d_fast.report.run_charts import DrawnChart, drawn_charts, run_charts
from r3d_fast.report.standing import Standing, misfit, standing
from r3d_fast.runs.history import RunHistory
from r3d_fast.runs.metrics_file import Record

_MOST_CHECKED = 50_000  # videos of a data set that is checked: a check asks for the size of each file
_STRIPS = 24  # videos with frames on a page, so that it stays small: 10 kB each


@dataclass(frozen=True)
class RunReport:
    """All that the page says of one run. `key` begins the ids of its parts, `colour` is that of its curves.

    `findings` are those of the data check, None where the data set was not checked.
    """

    name: str
    key: str
    colour: int
    history: RunHistory
    standing: Standing
    progress: str
    facts: list[tuple[str, list[Fact]]]
    differences: list[tuple[str, str, str]]
    classes: list[ClassRow]
    confusion: Confusion | None
    pairs: list[ConfusedPair]
    mistakes: list[Judged]
    hardest: list[Judged]
    unreadable: list[Record]
    findings: tuple[Finding, ...] | None
    problems: list[str]
    pictures: list[Picture]
    charts: list[DrawnChart]


def run_report(history: RunHistory, name: str, number: int, of: int, *, running: bool) -> RunReport:
    """All that the page says of run `number` (from 0) of `of` runs; `running`: whether it is being trained now."""
    figures, data = history.figures, history.config.get("data")
    index = opened_index(figures, data if isinstance(data, dict) else {})
    mistakes, hardest = worst_videos(judged_videos(history.predictions), max(2, _STRIPS // 2 // of))
    shown = with_strips([*mistakes, *hardest], index)
    bad = figures.get("bad")
    check = _checked(index)
    state = standing(history)
    key = f"r{number}"
    return RunReport(
        name, key, number, history, state, progress_of(history, running),
        [
            ("Training", run_facts(history, running)),
            ("Data", data_facts(history, index, check)),
            ("Machine and versions", environment_facts(history.environment)),
        ],
        differences(history.config), class_rows(figures, training_counts(history, index)), confusion(figures),
        confused_pairs(figures), shown[: len(mistakes)], shown[len(mistakes) :],
        [one for one in bad if isinstance(one, dict)] if isinstance(bad, list) else [],
        None if check is None else findings_of(check),
        [*history.problems, *([problem] if (problem := misfit(history)) else [])],
        clip_pictures(history.path) if of == 1 else [],
        drawn_charts(run_charts(history, state.majority), key) if of == 1 else [],
    )  # fmt: skip


def _checked(index: VideoIndex | None) -> Check | None:
    """What `data check` says of the data set as it is now; None where it is gone or very large."""
    if index is None or not index.root.is_dir() or len(index) > _MOST_CHECKED:
        return None
    return check_index(index)
