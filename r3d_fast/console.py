"""What a command says on stderr while it works: lines, and a progress bar on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any


def as_time(seconds: float) -> str:
    """`seconds` as 1:02:03 or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def tell(line: str) -> None:
    """Print `line` on stderr; where nobody reads that any more, or it is full, a run goes on without."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


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
            tell(f"{say}  ETA {as_time(left)}")

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            tell(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
