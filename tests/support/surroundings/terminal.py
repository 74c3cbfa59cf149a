"""Runs a command in a terminal of a given size, and gives what is on its screen, also while the command runs."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte
import tiny
from waiting import PATIENCE


class Terminal:
    """A command that runs in a terminal of `columns` x `lines` characters."""

    def __init__(self, command: Sequence[str], columns: int, lines: int = 40, cwd: Path | None = None) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "PYTHONPATH": str(tiny.REPO), "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=cwd, start_new_session=True
        )
        os.close(terminal)

    def read(self, seconds: float = 0.0) -> bool:
        """Take what the command writes in the next `seconds`; returns whether it may write more."""
        end = time.monotonic() + seconds
        while select.select([self._controller], [], [], max(0.0, end - time.monotonic()))[0]:
            try:
                part = os.read(self._controller, 65536)
            except OSError:  # Linux gives EIO once nobody holds the terminal open
                return False
            if not part:
                return False
            self._stream.feed(part)
        return True

    def shown(self) -> list[str]:
        """All lines so far, those that were scrolled out of the screen too; empty ones left out."""
        past = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return [line.rstrip() for line in [*past, *self.screen.display] if line.strip()]

    def until(self, text: str, limit: float = PATIENCE) -> str:
        """The first line with `text`, as soon as one is shown."""
        end = time.monotonic() + limit
        while True:
            open_still = self.read(0.05)
            found = [line for line in self.shown() if text in line]
            if found:
                return found[0]
            if not open_still or time.monotonic() > end:
                raise AssertionError(f"no {text!r} in\n" + "\n".join(self.shown()))

    def frames(self, limit: float = PATIENCE) -> Iterator[list[str]]:
        """The lines that are shown, again and again until the command ends."""
        end = time.monotonic() + limit
        while self.read(0.05):
            assert time.monotonic() < end, "\n".join(self.shown())
            yield self.shown()
        yield self.shown()

    def close(self) -> int:
        """End the command where it still runs; returns its exit code."""
        if self.process.poll() is None:
            while self.read(0.2) and self.process.poll() is None:
                pass
        code = self.process.wait(PATIENCE)
        os.close(self._controller)
        return code


@contextmanager
def in_terminal(command: Sequence[str], columns: int, lines: int = 40, cwd: Path | None = None) -> Iterator[Terminal]:
    """A command in a terminal; it is killed at the end of the block where it still runs."""
    terminal = Terminal(command, columns, lines, cwd)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.process.wait()
