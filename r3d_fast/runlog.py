"""What a run says: metrics.jsonl and metrics.csv in its folder, a progress bar or plain lines on stderr."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

_COLUMNS = ("kind", "epoch", "step", "loss", "top1", "top5", "lr", "clips_per_second", "wait_share", "count", "seconds")


def as_time(seconds: float) -> str:
    """`seconds` as 1:02:03 or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class MetricsFile:
    """Records, one JSON object a line and the same as CSV. A continued run cuts both back to its checkpoint."""

    def __init__(self, run: Path, keep: int) -> None:
        """Open the files of `run`; the first `keep` records stay, later ones are dropped."""
        self.path = run / "metrics.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines()[:keep] if keep and self.path.exists() else []
        records = [json.loads(line) for line in lines]
        self.count = len(records)
        self._json = self._rewrite(self.path, "".join(line + "\n" for line in lines))
        self._csv = self._rewrite(run / "metrics.csv", "")
        self._writer = csv.DictWriter(self._csv, _COLUMNS, extrasaction="ignore")
        self._writer.writeheader()
        self._writer.writerows(records)
        self._csv.flush()

    @staticmethod
    def _rewrite(path: Path, content: str) -> TextIO:
        building = path.with_name(path.name + ".tmp")
        building.write_text(content, encoding="utf-8")
        building.replace(path)
        return path.open("a", encoding="utf-8", newline="")

    def write(self, record: dict[str, Any]) -> None:
        """Append `record`; a full disk loses the record, not the run."""
        self.count += 1
        # JSON has no NaN and no infinity: what is not a number is null.
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        try:
            self._json.write(json.dumps(record) + "\n")
            self._json.flush()
            self._writer.writerow({key: record.get(key) for key in _COLUMNS})
            self._csv.flush()
        except OSError as error:
            print(f"warning: {self.path}: {error.strerror}; metrics of this step are lost", file=sys.stderr)

    def sync(self) -> None:
        """Force what was written to the disk: a checkpoint that counts records must not outlive them."""
        os.fsync(self._json.fileno())

    def close(self) -> None:
        """Close both files."""
        self._json.close()
        self._csv.close()


class Progress:
    """A bar where stderr is a terminal, plain lines where it is not, for `total` steps of which some may be done."""

    def __init__(self, title: str, total: int, done: int = 0, every: int = 1) -> None:
        self._title, self._total, self._every = title, total, every
        self._first, self._start, self._done = done, time.monotonic(), done
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar, self._task = self._new_bar()

    def _new_bar(self) -> tuple[Any, Any]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )
        bar = Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True))
        bar.start()
        return bar, bar.add_task(self._title, total=self._total, completed=self._done, text="")

    def step(self, text: str = "", done: int | None = None) -> None:
        """One more step is done (or `done` in all); `text` says how it goes."""
        self._done = self._done + 1 if done is None else done
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, text=text)
        elif self._done % self._every == 0 or self._done == self._total:
            spent = time.monotonic() - self._start
            left = spent / max(1, self._done - self._first) * (self._total - self._done)
            say = f"{self._title} {self._done}/{self._total}  {text}".rstrip()
            print(f"{say}  ETA {as_time(left)}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
