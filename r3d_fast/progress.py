"""Progress on stderr: a bar that fits into the terminal, and plain lines from time to time where there is none."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from pipelines.output.undoing import undone
from pipelines.plain_text import plain
from r3d_fast.console import as_time, tell

_BARS = (10, 40)  # characters of a bar, at least and at most
_SILENT_SECONDS = 5.0  # a step that takes longer is told how long it has taken so far
_REFRESHES = 4  # a second


class Progress:
    """Shows how far a task is, and when it will be done. Use it as a context manager.

    The count and the time that is left are always shown. Of the text beside them, whose fields are two spaces apart, a
    bar shows as many fields as fit, the first ones first.
    """

    def __init__(
        self, title: str, total: int, done: int = 0, every: int = 1, *, seconds: float = 10.0,
        left: Callable[[], float | None] | None = None,
    ) -> None:  # fmt: skip
        """Show progress over `total` steps of which `done` are done.

        Where there is no terminal, a line comes every `every` steps, and every `seconds`, also within a long step.
        `left` gives the seconds that are left, or None as long as that is not known (default: by the steps so far).
        """
        self._title, self._total, self._every, self._seconds = plain(title), total, every, seconds
        self._first, self._done, self._text, self._left_by = done, done, "", left
        self._start = self._event = self._told = time.monotonic()
        self._left: float | None = left() if left is not None else None
        self._live: Any = None
        self._stack = ExitStack()
        self._over = threading.Event()
        self._lock = threading.RLock()
        if sys.stderr.isatty():
            self._live = self._new_bar()
        else:
            threading.Thread(target=self._tell_from_time_to_time, name="progress", daemon=True).start()

    def _new_bar(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        bar = Live(self, console=Console(stderr=True), refresh_per_second=_REFRESHES)
        bar.start()
        if not bar.console.is_dumb_terminal:  # rich has hidden the cursor
            self._stack.enter_context(undone(_show_cursor))
        return bar

    def step(self, text: str = "", done: int | None = None) -> None:
        """Count one more step (or set the number of finished steps to `done`); `text` is shown beside it."""
        with self._lock:
            self._note(text, self._done + 1 if done is None else done)
            is_due = self._done % self._every == 0 or self._done == self._total or self._is_late()
            if self._live is None and is_due:
                self._tell()

    def note(self, text: str) -> None:
        """Show `text` until the next step; where there is no bar, once in a while."""
        with self._lock:
            self._note(text, self._done)
            if self._live is None and self._is_late():
                self._tell()

    def say(self, line: str) -> None:
        """Print `line` above the bar, or as it is where there is no bar."""
        with self._lock:
            if self._live is not None:
                self._live.console.print(plain(line), markup=False, highlight=False)
            else:
                tell(line)
                self._told = time.monotonic()

    def _note(self, text: str, done: int) -> None:
        self._text, self._done, self._event = plain(text), done, time.monotonic()
        if self._left_by is not None:
            self._left = self._left_by()
        elif done > self._first:
            self._left = (self._event - self._start) / (done - self._first) * max(0, self._total - done)

    def _is_late(self) -> bool:
        return time.monotonic() - self._told >= self._seconds

    def _tell(self) -> None:
        head, fields, tail = self._parts()
        tell("  ".join([head, *fields, tail]))
        self._told = time.monotonic()

    def _tell_from_time_to_time(self) -> None:
        while not self._over.wait(max(0.1, self._told + self._seconds - time.monotonic())):
            with self._lock:
                if self._is_late() and not self._over.is_set():
                    self._tell()

    def _parts(self) -> tuple[str, list[str], str]:
        """(title and count, fields of the text, time that is left)."""
        silent = time.monotonic() - self._event
        fields = self._text.split("  ") if self._text else []
        if silent >= _SILENT_SECONDS and self._done < self._total:
            fields = [*fields[:1], f"busy for {silent:.0f} s", *fields[1:]]
        left = "-:--" if self._left is None else as_time(max(0.0, self._left - silent))
        return f"{self._title} {self._done}/{self._total}", fields, f"ETA {left}"

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """The bar as one line of the console's width, as rich draws it."""
        from rich.cells import cell_len
        from rich.text import Text

        head, fields, tail = self._parts()
        room = max(options.max_width, 1) - cell_len(head) - cell_len(tail) - 2
        if room < 0:
            head = _shortened(self._title, cell_len(self._title) + room) + head[len(self._title) :]
        shown = ""
        for field in fields:
            if cell_len(shown) + 2 + cell_len(field) + 2 + _BARS[0] > room:
                break
            shown += f"  {field}"
        line = Text(head, no_wrap=True, overflow="crop", end="")
        if (width := min(_BARS[1], room - 2 - cell_len(shown))) >= _BARS[0]:
            share = min(1.0, self._done / self._total) if self._total else 1.0
            full, mark = round(share * width), "-" if options.ascii_only else "\u2501"
            line.append("  ")
            line.append(mark * full, "bar.finished" if full == width else "bar.complete")
            line.append((" " if options.ascii_only else mark) * (width - full), "bar.back")
        yield line.append(shown).append(f"  {tail}", "progress.remaining")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over.set()
        if self._live is not None:
            self._live.stop()
        self._stack.close()


def _show_cursor() -> None:
    """Show the cursor again, on a line of its own, where the process ends at once.

    This takes no lock: the signal that ends it may have come while rich held one.
    """
    with suppress(OSError):
        os.write(sys.stderr.fileno(), b"\x1b[?25h\r\n")


def _shortened(text: str, width: int) -> str:
    """The beginning and the end of `text`, in `width` characters of a terminal."""
    from rich.cells import set_cell_size

    if width < 4:
        return set_cell_size(text, max(0, width))
    half = (width - 1) // 2
    return f"{set_cell_size(text, width - 1 - half)}\u2026{text[-half:]}"
