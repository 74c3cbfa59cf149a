"""Measured figures: what they are made of, their ratios, and the JSON file they are kept in."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.measuring.gpu_use import GpuUse
from bench.measuring.machine import STRICT, Machine
from pipelines.errors import UsageError

BASE = "r3d-fast"
FORMAT = 1
KIND = "loader throughput"
TRAIN_KIND = "train throughput"
SYNTHETIC, LOADER, TRAINING = "synthetic", "loader", "training"  # the contenders of TRAIN_KIND
_KINDS = f"{KIND!r} or {TRAIN_KIND!r}"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest. Raises UsageError where there are no values."""
    if not values:
        raise UsageError("no values; expected at least one")
    return statistics.median(values), min(values), max(values)


@dataclass(frozen=True)
class Routing:
    """Who decodes: `decoder` (pyav, dali or hybrid), `share` of the clips that DALI could take (0 to 1), and why."""

    decoder: str
    share: float
    reason: str
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError for a share that is none."""
        _check_shares("routing: share", [self.share])


@dataclass(frozen=True)
class Figures:
    """What one contender did in one run: one value a round, in the order measured."""

    name: str
    clips_per_second: tuple[float, ...]
    frames_per_clip: int
    cpu_seconds_per_clip: tuple[float, ...] = ()  # empty where unknown
    bytes_per_clip: float | None = None  # of file read
    stages_ms: dict[str, float] | None = None  # mean wall time a clip
    frames: str = ""  # how the frames compare with the exact ones
    waited: tuple[float, ...] = ()  # share of each round spent waiting for data, 0 to 1
    step_ms: tuple[float, ...] = ()  # mean of each round: a batch fed and a training step, without the wait for data
    loss: tuple[float, ...] = ()  # the first and the last of training
    gpu: GpuUse | None = None
    routing: Routing | None = None
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError for figures that nothing can have measured."""
        if not self.name.strip():
            raise UsageError("a contender without a name")
        if not self.clips_per_second:
            raise UsageError(f"{self.name}: no rounds; expected clips_per_second of at least one")
        _check(f"{self.name}: clips_per_second", self.clips_per_second, zero=False)
        _check(f"{self.name}: frames_per_clip", [self.frames_per_clip], zero=False)
        _check(f"{self.name}: cpu_seconds_per_clip", self.cpu_seconds_per_clip)
        _check(f"{self.name}: stages_ms", (self.stages_ms or {}).values())
        if self.bytes_per_clip is not None:
            _check(f"{self.name}: bytes_per_clip", [self.bytes_per_clip])
        _check_shares(f"{self.name}: waited", self.waited)
        _check(f"{self.name}: step_ms", self.step_ms, zero=False)
        _check(f"{self.name}: loss", self.loss)
        for what, values in (("waited", self.waited), ("step_ms", self.step_ms)):
            if values and len(values) != len(self.clips_per_second):
                raise UsageError(f"{self.name}: {what} of {len(values)} rounds; expected {len(self.clips_per_second)}")

    @property
    def median(self) -> float:
        """Median clips per second."""
        return statistics.median(self.clips_per_second)

    @property
    def low(self) -> float:
        """Lowest clips per second."""
        return min(self.clips_per_second)

    @property
    def high(self) -> float:
        """Highest clips per second."""
        return max(self.clips_per_second)

    @property
    def frames_per_second(self) -> float:
        """Median frames per second."""
        return self.median * self.frames_per_clip

    @property
    def cpu_ms(self) -> float | None:
        """Median CPU time of a clip in milliseconds, None where unknown."""
        return 1000 * statistics.median(self.cpu_seconds_per_clip) if self.cpu_seconds_per_clip else None


@dataclass(frozen=True)
class Run:
    """Contenders measured in turns (A B C A B C) at one sampling, number of workers, precision and layout."""

    sampling: str
    workers: int
    figures: tuple[Figures, ...]
    precision: str | None = None  # of training
    layout: str | None = None  # of training
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError where contenders can't be told apart or their rounds can't be paired."""
        if not self.figures:
            raise UsageError(f"{self.title}, {self.workers} workers: no contender")
        _check_once(self.names)
        rounds = {len(figures.clips_per_second) for figures in self.figures}
        if len(rounds) > 1:
            raise UsageError(f"contenders with {sorted(rounds)} rounds in one run; expected the same number for all")
        _check("workers", [self.workers])

    @property
    def title(self) -> str:
        """What sets it apart from other runs but for its workers."""
        return ", ".join(part for part in (self.sampling, self.precision, self.layout) if part)

    @property
    def base(self) -> str | None:
        """The contender that the others are compared with, None where it wasn't measured."""
        return next((name for name in (BASE, TRAINING) if name in self.names), None)

    @property
    def names(self) -> list[str]:
        """The contenders, in order."""
        return [figures.name for figures in self.figures]

    @property
    def rounds(self) -> int:
        """How often each contender was measured."""
        return len(self.figures[0].clips_per_second)

    def __getitem__(self, name: str) -> Figures:
        """The figures of one contender. Raises UsageError, naming those there are, where it wasn't measured."""
        for figures in self.figures:
            if figures.name == name:
                return figures
        raise UsageError(f"no contender {name!r} in this run; there are {', '.join(self.names)}")

    def ratio(self, name: str, base: str = BASE) -> tuple[float, float, float]:
        """Median, lowest and highest of base's clips/s over name's, of each round by itself.

        What slows the machine down for a while slows both of a round and leaves their ratio alone. Raises UsageError
        for a contender that wasn't measured.
        """
        pairs = zip(self[base].clips_per_second, self[name].clips_per_second, strict=True)
        return spread([ours / theirs for ours, theirs in pairs])

    def of_ceiling(self) -> tuple[float, float, float]:
        """Median, lowest and highest of training's clips/s over the lower of its two ceilings, round by round.

        Raises UsageError where training or a ceiling wasn't measured.
        """
        rounds = zip(*(self[name].clips_per_second for name in (TRAINING, SYNTHETIC, LOADER)), strict=True)
        return spread([training / min(synthetic, loader) for training, synthetic, loader in rounds])


@dataclass(frozen=True)
class Report:
    """Everything one command measured, and on what."""

    format: int
    kind: str
    command: str
    commit: str
    machine: Machine
    settings: dict[str, Any]  # JSON values
    runs: tuple[Run, ...]
    missing: dict[str, str] = field(default_factory=dict)  # peer: the line that installs it
    excluded: tuple[dict[str, str], ...] = ()  # path and reason of the clips that were not read
    extra: dict[str, Any] = field(default_factory=dict)  # further measurements by name; JSON values
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError for another kind of report, or two runs of the same settings."""
        if self.format != FORMAT or self.kind not in (KIND, TRAIN_KIND):
            raise UsageError(f"kind {self.kind!r}, format {self.format}; expected {_KINDS}, format {FORMAT}")
        _check_once([f"{run.title}, {run.workers} workers" for run in self.runs])
        for run in self.runs:
            _check_kind(self.kind, run)
        for clip in self.excluded:
            if set(clip) != {"path", "reason"}:
                raise UsageError(f"an excluded clip with {sorted(clip)}; expected path and reason")


@dataclass(frozen=True)
class OtherReport:
    """A results file of another kind: its JSON values as they are."""

    kind: str
    values: dict[str, Any]


def save(report: Report, path: str | Path) -> None:
    """Write the report as JSON, all or nothing. Raises UsageError where it can't be written or wouldn't load."""
    path = Path(path)
    try:
        text = json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON values in settings or extra: {error}") from error
    _parse(text, path)
    with building(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it becomes `path` at the end and is gone after an error.

    Raises UsageError where the file can't be written.
    """
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: can't be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def load(path: str | Path) -> Report:
    """The report that `save` wrote. Raises UsageError for a missing, damaged or other file."""
    report = load_any(path)
    if isinstance(report, OtherReport):
        raise UsageError(f"{path}: results of {report.kind!r}; expected {_KINDS}")
    return report


def load_any(path: str | Path) -> Report | OtherReport:
    """A report of any kind; only those that `Report` holds are checked. Raises UsageError like `load`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}; expected a results file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file; expected JSON results") from error
    return _parse(text, Path(path))


def _parse(text: str, path: Path) -> Report | OtherReport:
    try:
        values = json.loads(text)
        json.dumps(values, allow_nan=False)  # Refuses NaN, and numbers that overflow to infinity.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON results: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise UsageError(f"{path}: not a results file: no kind; expected an object with kind {_KINDS}")
    if values["kind"] not in (KIND, TRAIN_KIND):
        return OtherReport(values["kind"], values)
    if values.get("format") != FORMAT or isinstance(values["format"], bool):
        raise UsageError(f"{path}: format {values.get('format')!r}; this version reads format {FORMAT}")
    try:
        return TypeAdapter(Report).validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{path}: damaged results: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Where the first thing wrong is, and what was expected there, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "results"
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{where}: {message}"


def _check(what: str, values: Iterable[float], *, zero: bool = True) -> None:
    for value in values:
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise UsageError(f"{what} {value}; expected {'0 or more' if zero else 'more than 0'}")


def _check_shares(what: str, values: Iterable[float]) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise UsageError(f"{what} {value}; expected 0 to 1")


def _check_kind(kind: str, run: Run) -> None:
    """Raise UsageError where a run lacks what its kind of report has, or has what it lacks."""
    if kind == KIND:
        if run.precision is not None or run.layout is not None:
            raise UsageError(f"{run.title}: a precision or layout in {KIND!r}; expected them in {TRAIN_KIND!r}")
        return
    if not run.precision or not run.layout:
        raise UsageError(f"{run.title}: no precision or layout; {TRAIN_KIND!r} has both")
    if run.names != [SYNTHETIC, LOADER, TRAINING]:
        raise UsageError(f"{run.title}: contenders {run.names}; expected {[SYNTHETIC, LOADER, TRAINING]}")
    for name, what in ((TRAINING, "waited"), (TRAINING, "step_ms"), (SYNTHETIC, "step_ms")):
        if not getattr(run[name], what):
            raise UsageError(f"{run.title}: {name}: no {what}")


def _check_once(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is there twice; expected it once")
