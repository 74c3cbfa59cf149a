"""The reports of measurements, and the JSON files that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.measuring.machine import STRICT, Machine, commit, describe
from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING, MeasuredRun, check_once
from pipelines.errors import UsageError
from pipelines.output.files import write_file

FORMAT = 1
LOADER_KIND = "loader throughput"
TRAIN_KIND = "train throughput"
_KINDS = f"{LOADER_KIND!r} or {TRAIN_KIND!r}"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ThroughputReport:
    """Everything that a throughput command measured, and on what."""

    format: int
    kind: str
    command: str
    commit: str
    machine: Machine
    settings: dict[str, Any]  # JSON values
    runs: tuple[MeasuredRun, ...]
    missing: dict[str, str] = field(default_factory=dict)  # peer: the line that installs it
    excluded: tuple[dict[str, str], ...] = ()  # path and reason of the clips that were not read
    extra: dict[str, Any] = field(default_factory=dict)  # further measurements by name; JSON values
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError for another kind of report, or two runs of the same settings."""
        if self.format != FORMAT or self.kind not in (LOADER_KIND, TRAIN_KIND):
            raise UsageError(f"kind {self.kind!r}, format {self.format}; expected {_KINDS}, format {FORMAT}")
        check_once([f"{run.title}, {run.workers} workers" for run in self.runs])
        for run in self.runs:
            _check_kind(self.kind, run)
        for clip in self.excluded:
            if set(clip) != {"path", "reason"}:
                raise UsageError(f"an excluded clip with {sorted(clip)}; expected path and reason")


@dataclass(frozen=True)
class StudyReport:
    """The results of any other measurement: its JSON values as they are, `kind` among them."""

    kind: str
    values: dict[str, Any]


Report = ThroughputReport | StudyReport


def throughput_report(
    kind: str, command: str, settings: dict[str, Any], runs: tuple[MeasuredRun, ...], **parts: Any
) -> ThroughputReport:
    """A report of this commit on this machine; `parts` are its fields from `missing` on."""
    return ThroughputReport(FORMAT, kind, command, commit(_HERE), describe(), settings, runs, **parts)


def study_report(kind: str, command: str, figures: Mapping[str, Any]) -> StudyReport:
    """A report of `figures` (JSON values by name) of this commit on this machine."""
    machine = describe()
    about = {"kind": kind, "command": command, "commit": commit(_HERE), "machine": machine.in_words()}
    return StudyReport(kind, {**about, "versions": machine.versions, **figures})


def save(report: Report, path: str | Path) -> None:
    """Write the report as JSON to a file, whole or not at all, to a device or pipe, or to stdout (`-`).

    Raises UsageError where it can't be written or wouldn't load.
    """
    path = Path(path)
    values = report.values if isinstance(report, StudyReport) else asdict(report)
    try:
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON values in settings or extra: {error}") from error
    _parse(text, path)
    write_file(path, text.encode())


def load(path: str | Path) -> ThroughputReport:
    """The report that `save` wrote. Raises UsageError for a missing, damaged or other file."""
    report = load_any(path)
    if isinstance(report, StudyReport):
        raise UsageError(f"{path}: results of {report.kind!r}; expected {_KINDS}")
    return report


def load_any(path: str | Path) -> Report:
    """A report of any kind; only those that `ThroughputReport` holds are checked. Raises UsageError like `load`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}; expected a results file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file; expected JSON results") from error
    return _parse(text, Path(path))


def _parse(text: str, path: Path) -> Report:
    try:
        values = json.loads(text)
        json.dumps(values, allow_nan=False)  # Refuses NaN, and numbers that overflow to infinity.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON results: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise UsageError(f"{path}: not a results file: no kind; expected an object with kind {_KINDS}")
    if values["kind"] not in (LOADER_KIND, TRAIN_KIND):
        return StudyReport(values["kind"], values)
    if values.get("format") != FORMAT or isinstance(values["format"], bool):
        raise UsageError(f"{path}: format {values.get('format')!r}; this version reads format {FORMAT}")
    try:
        return TypeAdapter(ThroughputReport).validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{path}: damaged results: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Where the first thing wrong is, and what was expected there, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "results"
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{where}: {message}"


def _check_kind(kind: str, run: MeasuredRun) -> None:
    """Raise UsageError where a run lacks what its kind of report has, or has what it lacks."""
    if kind == LOADER_KIND:
        if run.precision is not None or run.layout is not None:
            raise UsageError(f"{run.title}: a precision or layout in {LOADER_KIND!r}; expected them in {TRAIN_KIND!r}")
        return
    if not run.precision or not run.layout:
        raise UsageError(f"{run.title}: no precision or layout; {TRAIN_KIND!r} has both")
    if run.names != [SYNTHETIC, LOADER, TRAINING]:
        raise UsageError(f"{run.title}: contenders {run.names}; expected {[SYNTHETIC, LOADER, TRAINING]}")
    for name, what in ((TRAINING, "waited"), (TRAINING, "step_ms"), (SYNTHETIC, "step_ms")):
        if not getattr(run[name], what):
            raise UsageError(f"{run.title}: {name}: no {what}")
