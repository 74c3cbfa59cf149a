"""Shows the page of a run again and again until the run is over: in place on a terminal, as new lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipelines.plain_text import plain
from r3d_fast.console import print_line, tell
from r3d_fast.watching.braille_chart import Line, plain_text
from r3d_fast.watching.overview import Overview, Watch
from r3d_fast.watching.screen import screen

if TYPE_CHECKING:
    from rich.text import Text

_SECONDS = 1.0  # from one look to the next
_SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal
_FILE_SIZE = 80, 24  # columns and lines of a page that goes into a file


def show_once(run: Path) -> None:
    """Print the page of the run as it is now. Raises UsageError where there is no run."""
    from r3d_fast.runs.history import check_run

    check_run(run)
    overview = Watch(run).look()
    _warn(overview)
    if sys.stdout.isatty():
        _print_in_colour(screen(overview, *_size(), is_ascii=_is_ascii(sys.stdout)))
    else:
        for line in screen(overview, *_FILE_SIZE, is_ascii=_is_ascii(sys.stdout)):
            print_line(plain_text(line))
    if overview.is_over:
        print_line(overview.last_word())


def follow(run: Path) -> None:
    """Show the run until it is over. Raises UsageError where `run` is something else than a run or its future place."""
    watch = Watch(run)
    _warn(watch.look())
    overview = _follow_on_terminal(watch) if sys.stdout.isatty() else _follow_in_lines(watch)
    print_line(overview.last_word())


def _warn(overview: Overview) -> None:
    """Say on stderr what the metrics of the run lack."""
    if overview.history.lost:
        tell(f"warning: {overview.path}: {overview.history.lost}")


def _follow_on_terminal(watch: Watch) -> Overview:
    from rich.live import Live

    overview = watch.look()
    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(_rich(screen(overview, *_size(), is_ascii=_is_ascii(sys.stdout))), refresh=True)
            if overview.is_over:
                return overview
            time.sleep(_SECONDS)
            overview = watch.look()


def _follow_in_lines(watch: Watch) -> Overview:
    """Print a line for each evaluation, and every ten seconds where the run is; returns the run when it is over."""
    told, evaluated, told_at = "", (watch.path, 0), 0.0
    while True:
        overview = watch.look()
        first, second, third = overview.headlines()
        now = time.monotonic()
        now_evaluated = overview.path, len(overview.history.evaluations)
        if now_evaluated != evaluated or (f"{first}{second}" != told and now - told_at >= _SECONDS_BETWEEN_LINES):
            print_line(f"{first}  {second}" + (f"  {third}" if third and now_evaluated != evaluated else ""))
            told, evaluated, told_at = f"{first}{second}", now_evaluated, now
        if overview.is_over:
            return overview
        time.sleep(_SECONDS)


def _size() -> tuple[int, int]:
    """(columns, lines) that a page may have: a line less than the terminal, for the cursor."""
    columns, lines = shutil.get_terminal_size()
    return columns, lines - 1


def _is_ascii(stream: TextIO) -> bool:
    """Whether the stream lacks the letters of the charts."""
    try:
        "●⠤".encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _print_in_colour(lines: list[Line]) -> None:
    from rich.console import Console

    Console().print(_rich(lines))


def _rich(lines: list[Line]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        for part, style in line:
            text.append(plain(part), style)
    return text
