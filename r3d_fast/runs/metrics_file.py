"""What a run says: metrics.jsonl and metrics.csv in its folder, a progress bar or plain lines on stderr."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from r3d_fast.console import tell
from r3d_fast.files import write_errors, write_file

_COLUMNS = ("kind", "epoch", "step", "loss", "top1", "top5", "lr", "clips_per_second", "wait_share", "count", "seconds")
_HINT = "choose another --run"


class AppendedFile:
    """A text file that grows by whole lines; what a full disk refuses is kept and written once it takes it."""

    def __init__(self, path: Path, content: str) -> None:
        """Make `path` hold `content`, whatever it held before. Raises UsageError where it can't be written."""
        write_file(path, content.encode(), _HINT)
        with write_errors(path, _HINT):
            self._file = path.open("ab", buffering=0)
        self._size = len(content.encode())  # up to here the lines are whole
        self._pending = b""

    def append(self, line: str) -> None:
        """Add `line`, with its line break. Raises OSError where it has to wait."""
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
        """Whether nothing waits."""
        return not self._pending

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what waits, if it goes, and close."""
        with suppress(OSError):
            self.append("")
        self._file.close()


class MetricsFile:
    """Records, one JSON object a line and the same as CSV. A continued run cuts both back to its checkpoint."""

    def __init__(self, run: Path, keep: int) -> None:
        """Open the files of `run`; the first `keep` records stay, later ones are dropped.

        Raises UsageError where they can't be written.
        """
        self.path = run / "metrics.jsonl"
        self.records = self._read(keep)
        self._count, self._waiting, self._refused = len(self.records), 0, False
        rows = "".join(f"{row}\r\n" for row in (",".join(_COLUMNS), *map(_as_row, self.records)))
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        with ExitStack() as opened:
            self._csv = opened.enter_context(closing(AppendedFile(run / "metrics.csv", rows)))
            self._json = AppendedFile(self.path, lines)
            opened.pop_all()

    def _read(self, keep: int) -> list[dict[str, Any]]:
        """The first `keep` records; fewer where the file ends before, or in the middle of one."""
        records: list[dict[str, Any]] = []
        lines = self.path.read_bytes().split(b"\n")[:keep] if keep and self.path.exists() else []
        with suppress(ValueError):
            for line in lines:
                records += [json.loads(line)]
        if len(records) < keep:
            tell(f"warning: {self.path}: {len(records)} of {keep} records are left")
        return records

    @property
    def count(self) -> int:
        """Records in the file; those that a full disk has not taken yet are not among them."""
        return self._count

    def write(self, record: dict[str, Any]) -> None:
        """Append `record`; a full disk holds it back, not the run."""
        # JSON has no NaN and no infinity: what is not a number is null.
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._waiting += 1
        refused: OSError | None = None
        for file, line in ((self._json, json.dumps(record) + "\n"), (self._csv, _as_row(record) + "\r\n")):
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
        """Force what was written to the disk: a checkpoint that counts records must not outlive them."""
        with suppress(OSError):  # logs never stop training
            self._json.sync()

    def close(self) -> None:
        """Close both files."""
        self._json.close()
        self._csv.close()
        if self._waiting and not self._json.whole:
            tell(f"warning: {self.path}: the last {self._waiting} records could not be written")


def _as_row(record: dict[str, Any]) -> str:
    """The record's columns as a line of CSV, without its line break."""
    line = io.StringIO()
    csv.DictWriter(line, _COLUMNS, extrasaction="ignore", lineterminator="").writerow(
        {key: record.get(key) for key in _COLUMNS}
    )
    return line.getvalue()
