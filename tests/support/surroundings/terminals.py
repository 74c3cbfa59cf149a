"""A terminal of any size in which a program runs; what its screen shows is kept by pyte."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType

import pyte
from waiting import PATIENCE


class Terminal:
    """Runs `command` in a terminal of `columns` x `lines` characters. Use it in a `with` block, which ends it."""

    def __init__(
        self, command: Sequence[str | Path], columns: int = 80, lines: int = 24, cwd: Path | None = None
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = Lock()
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd,
            env={**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self._reader = Thread(target=self._read)
        self._reader.start()

    @property
    def display(self) -> list[str]:
        """The lines that the screen shows now, without the spaces at their ends."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    def wait_for(self, text: str) -> list[str]:
        """The lines of the screen once `text` is in one of them, and the screen has not changed for a moment."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            shown = self.display
            time.sleep(0.2)
            if any(text in line for line in shown) and shown == self.display:
                return shown
        raise AssertionError(f"{text!r} did not appear: " + "\n".join(self.display))

    def wait(self) -> int:
        """The exit code of the program, after all that it wrote was read."""
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        try:
            while part := os.read(self._controller, 65536):
                with self._lock:
                    self._stream.feed(part)
        except OSError:  # Linux gives EIO once nobody holds the terminal open
            pass
        os.close(self._controller)
