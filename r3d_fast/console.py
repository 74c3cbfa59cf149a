"""What a command prints on stderr while it works: lines of text, and a progress bar if stderr is a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any


def as_time(seconds: float) -> str:
    """`seconds` as hours, minutes and seconds: 1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def tell(line: str) -> None:
    """Print `line` on stderr. If stderr is closed or its disk is full, the line is dropped and the run goes on."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class Progress:
    """Shows progress on stderr: a bar on a terminal, plain lines elsewhere. Use it as a context manager."""

    def __init__(self, title: str, total: int, done: int = 0, every: int = 1) -> None:
        """Show progress over `total` steps of which `done` are done; plain lines come every `every` steps."""
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
        """Count one more step (or set the number of finished steps to `done`); `text` is shown beside it."""
        self._done = self._done + 1 if done is None else done
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, text=text)
        elif self._done % self._every == 0 or self._done == self._total:
            spent = time.monotonic() - self._start
            left = spent / max(1, self._done - self._first) * (self._total - self._done)
            say = f"{self._title} {self._done}/{self._total}  {text}".rstrip()
            tell(f"{say}  ETA {as_time(left)}")

    @property
    def is_drawn(self) -> bool:
        """Whether a bar is drawn, which can change as often as one likes."""
        return self._bar is not None

    def note(self, text: str) -> None:
        """Show `text` beside the bar until the next step; where there is no bar, as a line of its own."""
        if self._bar is not None:
            self._bar.update(self._task, text=text)
        else:
            tell(f"{self._title} {self._done}/{self._total}  {text}")

    def say(self, line: str) -> None:
        """Print `line` above the bar, or as it is where there is no bar."""
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
