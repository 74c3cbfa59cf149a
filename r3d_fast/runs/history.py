"""Reads what the files of a run say, also while it is running, after it was killed, and where files are damaged.

Nothing here writes to the run, and no content of a file raises an error: what can't be read is left out and named.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError
from pipelines.input.regular_files import open_regular, read_regular, what_lies_at
from r3d_fast.config.yaml_files import read_sections
from r3d_fast.errors import ConfigError
from r3d_fast.runs.metrics_file import LONGEST_LINE, Record, as_object, as_record
from r3d_fast.weights.checkpoint import counted_records

EVALUATION = "evaluation"  # the folder in a run with the files of its best evaluation
_MOST_BYTES = 256 << 20  # of the files of a run, but for metrics.jsonl; what is larger is no run's
_MOST_METRICS = 2 << 30  # bytes of metrics.jsonl: 7 million steps
_TAIL = 256  # bytes before the place read up to, by which a file that was written anew is noticed
_MARKS = ("metrics.jsonl", "config.yaml", "env.json", "checkpoints")  # a run has at least one of these


class MetricsReader:
    """The records of a metrics.jsonl that may still grow: `update` reads what was added since the last time.

    `records` are those of whole lines. `skipped` counts lines that are no record, such as those that a full disk cut.
    `refused` says why the file could not be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.records: list[Record] = []
        self.skipped, self.refused = 0, ""
        self._end, self._tail = 0, b""
        self._inode: int | None = None

    def update(self, *, is_final: bool = False) -> bool:
        """Read the new lines; returns whether `records` changed.

        A file that was cut back or replaced, as a run does that goes on from a checkpoint, is read from its beginning.
        A line without its line break is left for the next time, unless the file `is_final`. A file that isn't there
        has no records.
        """
        before = len(self.records)
        try:
            with open_regular(self.path) as file:
                inode = os.fstat(file.fileno()).st_ino
                replaced = self._inode is not None and (inode != self._inode or not self._is_as_read(file))
                if replaced:
                    self._forget()
                self._inode = inode
                file.seek(self._end)
                added = file.read(_MOST_METRICS)
        except OSError as error:
            gone = before > 0
            self._forget()
            if not isinstance(error, FileNotFoundError):
                self.refused = error.strerror or str(error)
            return gone
        whole = added if is_final else added[: added.rfind(b"\n") + 1]
        self._end += len(whole)
        self._tail = (self._tail + whole)[-_TAIL:]
        for line in whole.splitlines():
            record = as_record(line)
            if record is not None:
                self.records.append(record)
            elif line.strip():
                self.skipped += 1
        return replaced or len(self.records) != before

    def _is_as_read(self, file: BinaryIO) -> bool:
        """Whether the file still has the bytes that were read last, at their place."""
        file.seek(self._end - len(self._tail))
        return file.read(len(self._tail)) == self._tail


@dataclass(frozen=True)
class RunHistory:
    """What the files in the folder `path` of a run say.

    `records` are the lines of metrics.jsonl. `config` has the sections of config.yaml, `environment` the content of
    env.json, `plan` that of plan.json, `figures` that of evaluation/figures.json; each is empty where there is no such
    file. `predictions` has a line for each video of evaluation/predictions.jsonl. `problems` has a line for each file
    that is missing or damaged; `lost` is the one about metrics.jsonl that lacks records ("": it lacks none).
    """

    path: Path
    records: tuple[Record, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    predictions: tuple[Record, ...] = ()
    problems: tuple[str, ...] = ()
    lost: str = ""

    @property
    def steps(self) -> list[Record]:
        """The records of training steps."""
        return of_kind(self.records, "train")

    @property
    def evaluations(self) -> list[Record]:
        """The records of evaluations."""
        return of_kind(self.records, "eval")

    @property
    def best(self) -> Record | None:
        """The evaluation with the highest top1, of several such the one with the lowest loss; None without any.

        Training chooses in the same way; runs of older versions kept the first of several with the highest top1.
        """
        return max(self._with_top1, key=lambda record: (number(record, "top1"), -_loss(record)), default=None)

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations came after the first one with the highest top1, as early stopping counts them."""
        first = max(self._with_top1, key=lambda record: number(record, "top1"), default=None)
        return 0 if first is None else len(self.evaluations) - 1 - self.evaluations.index(first)

    @property
    def _with_top1(self) -> list[Record]:
        return [record for record in self.evaluations if not math.isnan(number(record, "top1"))]

    def setting(self, section: str, key: str) -> Any:
        """The value of `section.key` in config.yaml; None where it is not there."""
        values = self.config.get(section)
        return values.get(key) if isinstance(values, dict) else None


def read_history(run: str | Path) -> RunHistory:
    """The history of the run in the folder `run`. Raises UsageError where that is no folder of a run."""
    run = Path(run)
    check_run(run)
    problems: list[str] = []
    reader = MetricsReader(run / "metrics.jsonl")
    reader.update(is_final=not is_running(run))
    if lost := _lost(reader, counted_records(run)):
        problems.append(lost)
    elif not reader.records:
        problems.append("metrics.jsonl: no step has been recorded yet")
    folder = run / EVALUATION
    return RunHistory(
        run, tuple(reader.records), _read_config(run / "config.yaml", problems),
        _read_object(run / "env.json", problems, is_expected=True), _read_object(run / "plan.json", problems),
        _read_object(folder / "figures.json", problems), _read_lines(folder / "predictions.jsonl", problems),
        tuple(problems), lost,
    )  # fmt: skip


def check_run(run: Path) -> None:
    """Raise UsageError where `run` is no folder, or a folder in which no run has been."""
    if not run.is_dir():
        what = what_lies_at(run).replace("nothing", "not there")
        raise UsageError(f"{run}: {what}; expected the folder of a run, such as runs/NAME")
    if not any((run / name).exists() for name in _MARKS):
        raise UsageError(f"{run}: no run (none of {', '.join(_MARKS)} is there); expected a folder that training wrote")


def _lost(reader: MetricsReader, counted: int) -> str:
    """What the file of `reader` lacks, of whose records a checkpoint has `counted` so many; "" if it lacks nothing."""
    what = f"{_lines(reader.skipped)} left out, which can't be read" if reader.skipped else reader.refused
    known = len(reader.records)
    if known + reader.skipped < counted and not reader.refused:
        missing = "cut short" if reader.path.exists() else "missing"
        what += f"{'; ' if what else ''}{missing}: the newest checkpoint counts {counted} records"
    if not what:
        return ""
    used = f"{known} {'whole record is' if known == 1 else 'whole records are'} used"
    return f"metrics.jsonl: {what}; {used}; if you have a copy of the file, put it back"


def has_steps(run: Path) -> bool:
    """Whether a step or an evaluation of the run in the folder `run` has been recorded, or can't be told.

    Where a start fails before the first step, its metrics.jsonl is empty.
    """
    try:
        with open_regular(run / "metrics.jsonl") as file:
            while line := file.readline(LONGEST_LINE):
                record = as_object(line)
                if record is None or record.get("kind") in ("train", "eval"):
                    return True
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def is_running(run: Path) -> bool:
    """Whether a process on this machine writes the run now. Of a run on another machine this may say False."""
    try:
        with (run / ".lock").open("rb") as lock:
            # A shared lock, held for an instant: only the lock of the process that trains is in its way.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system without locks
        return False
    return False


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    """Those of `records` whose kind is `kind`: "train" for steps, "eval" for evaluations."""
    return [record for record in records if record["kind"] == kind]


def number(record: Record, key: str) -> float:
    """The number `key` of a record; NaN where it is missing, null, infinite or no number."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    with suppress(OverflowError):
        if math.isfinite(value):
            return float(value)
    return math.nan


def _loss(record: Record) -> float:
    """The loss of an evaluation; infinite where it is no number."""
    loss = number(record, "loss")
    return math.inf if math.isnan(loss) else loss


def series(records: Sequence[Record], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(steps, values) float64 [N] of the number `key` in those N of `records` that have it and a step."""
    pairs = np.array([(number(record, "step"), number(record, key)) for record in records], np.float64).reshape(-1, 2)
    known = pairs[~np.isnan(pairs).any(axis=1)]
    return known[:, 0], known[:, 1]


def _read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """The sections of config.yaml; whatever is wrong with it becomes a line of `problems`."""
    try:
        return read_sections(path)
    except ConfigError as error:
        problems.append(str(error).replace(str(path), path.name) if path.exists() else f"{path.name}: no such file")
    return {}


def _read_object(path: Path, problems: list[str], *, is_expected: bool = False) -> dict[str, Any]:
    """The JSON object in the file `path`; empty where it is missing or damaged, which becomes a line of `problems`."""
    try:
        content = read_regular(path, _MOST_BYTES)
    except OSError as error:
        if is_expected or path.exists():
            problems.append(f"{path.name}: {error.strerror}")
        return {}
    found = as_object(content)
    if found is None:
        problems.append(f"{path.name}: no JSON object, or cut short")
    return found or {}


def _read_lines(path: Path, problems: list[str]) -> tuple[Record, ...]:
    """The JSON objects in the lines of the file `path`; lines that are none are counted in `problems`."""
    try:
        lines = read_regular(path, _MOST_BYTES).splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror}")
        return ()
    found = [as_object(line) for line in lines]
    if bad := found.count(None):
        problems.append(f"{path.name}: {_lines(bad)} left out, which can't be read")
    return tuple(line for line in found if line is not None)


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"
