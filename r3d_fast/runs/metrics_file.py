"""The metrics of a run, in metrics.jsonl and metrics.csv in its folder."""

from __future__ import annotations

import errno
import json
import math
import os
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from pipelines.input.regular_files import open_regular
from pipelines.output.csv_table import csv_text
from pipelines.output.files import write_file
from pipelines.output.places import keep_aside, write_errors
from r3d_fast.console import tell
from r3d_fast.runs.fold_results import start_hint

Record = dict[str, Any]
_COLUMNS = (
    "kind", "epoch", "step", "loss", "top1", "top5", "clip_loss", "lr", "clips_per_second", "wait_share", "count",
    "seconds",
)  # fmt: skip
_ASIDE = ".damaged"
LONGEST_LINE = 64 << 20  # bytes of a record: one of a step that moved nothing names the videos of its batch


def as_object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in `text`; None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def as_record(line: bytes) -> Record | None:
    """The record in a line of metrics.jsonl, which has at least a kind and a step; None where it is damaged."""
    record = as_object(line)
    if record is None or not isinstance(record.get("kind"), str):
        return None
    step = record.get("step")
    return record if isinstance(step, int) and not isinstance(step, bool) else None


class AppendedFile:
    """A text file that grows by whole lines. Lines that a full disk refuses wait until there is room for them."""

    def __init__(self, path: Path, content: str) -> None:
        """Replace the content of `path`, in the folder of a run, by `content`.

        Raises UsageError where it can't be written.
        """
        hint = start_hint(path.parent)
        write_file(path, content.encode(), hint, follow=False)
        with write_errors(path, hint):
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC), "ab", 0)
        self._size = len(content.encode())  # bytes of whole lines
        self._pending = b""

    def append(self, line: str) -> None:
        """Add `line`, which ends with its line break. Raises OSError where the disk refuses it; then it waits."""
        self._pending += line.encode()
        try:
            written = self._file.write(self._pending)
            if written != len(self._pending):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(self._pending)
        self._pending = b""

    @property
    def whole(self) -> bool:
        """Whether every line is written: none waits."""
        return not self._pending

    def sync(self) -> None:
        """Flush the file to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the lines that wait, if the disk takes them, and close the file."""
        with suppress(OSError):
            self.append("")
        self._file.close()


class MetricsFile:
    """Writes records to metrics.jsonl, one JSON object a line, and to metrics.csv.

    A run that goes on from a checkpoint first cuts both files back to the records of that checkpoint. Where some of
    these are damaged the others are kept, and the files as they were get another name.
    """

    def __init__(self, run: Path, keep: int, step: float = math.inf) -> None:
        """Open the files of `run`, keep the first `keep` records, the last of which is of `step`, drop the later ones.

        Raises UsageError where the files can't be written.
        """
        self.path = run / "metrics.jsonl"
        self.records = self._read(keep, step)
        self._count, self._waiting, self._refused = len(self.records), 0, False
        rows = "".join((csv_text([_COLUMNS], "\r\n"), *map(_as_row, self.records)))
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        with ExitStack() as opened:
            self._csv = opened.enter_context(closing(AppendedFile(run / "metrics.csv", rows)))
            self._json = AppendedFile(self.path, lines)
            opened.pop_all()

    def _read(self, keep: int, step: float) -> list[Record]:
        """The first `keep` records without those that are damaged, which is said."""
        found: list[Record] = []
        damaged, missing = 0, ""
        try:
            with open_regular(self.path) as file:
                while len(found) + damaged < keep and (line := file.readline(LONGEST_LINE)):
                    record = as_record(line)
                    if record is None:
                        damaged += 1
                    else:
                        found.append(record)
        except OSError as error:
            missing = error.strerror or str(error)
        if damaged:  # where a line break is damaged too, the lines reach beyond the checkpoint
            found = [record for record in found if record["step"] <= step]
        if len(found) < keep:
            what = missing or (f"{damaged} damaged {'line' if damaged == 1 else 'lines'}" if damaged else "cut short")
            kept = f"of the {keep} records that the checkpoint counts {len(found)} are kept"
            tell(f"warning: {self.path}: {what}; {kept}{self._set_aside()}; training goes on without the others")
        return found

    def _set_aside(self) -> str:
        """Keep both files as they are under other names; returns these as a part of a sentence."""
        names = []
        for path in (self.path, self.path.with_suffix(".csv")):
            if os.path.lexists(path):
                with write_errors(path, start_hint(path.parent)):
                    names.append(keep_aside(path, _ASIDE).name)
        return f", and all that was there is in {' and '.join(names)}" if names else ""

    @property
    def count(self) -> int:
        """The number of records in metrics.jsonl, without those that still wait for the disk."""
        return self._count

    def write(self, record: Record) -> None:
        """Append `record`. Where the disk is full it waits, and the run goes on."""
        # JSON has no NaN and no infinity, so null is written for them.
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._waiting += 1
        refused: OSError | None = None
        for file, line in ((self._json, json.dumps(record) + "\n"), (self._csv, _as_row(record))):
            try:
                file.append(line)
            except OSError as error:
                refused = refused or error
        if self._json.whole:
            self._count, self._waiting = self._count + self._waiting, 0
        if refused is not None and not self._refused:
            tell(f"warning: {self.path}: {refused.strerror}; metrics wait until the disk takes them")
        self._refused = refused is not None

    def sync(self) -> None:
        """Flush metrics.jsonl to the disk, so that the records that a checkpoint counts are there before it is."""
        with suppress(OSError):  # a log must not stop training
            self._json.sync()

    def close(self) -> None:
        """Close both files."""
        self._json.close()
        self._csv.close()
        if self._waiting and not self._json.whole:
            tell(f"warning: {self.path}: the last {self._waiting} records could not be written")


def _as_row(record: Record) -> str:
    """The record's columns as a line of CSV."""
    return csv_text([[record.get(key) for key in _COLUMNS]], "\r\n")
