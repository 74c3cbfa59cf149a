"""A first signal is noted, a second one ends the process at once and leaves the terminal as it was."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from terminal import in_terminal

_PROGRAM = """
import time
from r3d_fast.progress import Progress
from r3d_fast.training.stop_signals import stop_signals
with stop_signals(said_at_once="go on with: this"), Progress("train", 9):
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_with_cursor_and_one_line(number: signal.Signals, tmp_path: Path) -> None:
    with in_terminal([sys.executable, "-c", _PROGRAM], 80, cwd=tmp_path) as terminal:
        terminal.until("train 0/9")
        assert terminal.screen.cursor.hidden
        os.kill(terminal.process.pid, number)
        terminal.until("stopping after this batch; a second signal stops at once")
        os.kill(terminal.process.pid, number)
        last = terminal.until("go on with: this")
        assert terminal.close() == 130
    assert last == "go on with: this"
    assert not terminal.screen.cursor.hidden
    assert terminal.screen.cursor.x == 0
